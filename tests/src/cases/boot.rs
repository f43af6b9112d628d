//! A machine boots: address, discovery at every address of the router, being found by MAC.

use std::net::Ipv6Addr;

use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure, fail};
use crate::http::Request;
use crate::lab::{CONVERGENCE, Lab, Socket};
use crate::leaf::{CONFIG_DB, STATE_DB};
use crate::machine::{Machine, NIC};
use crate::wait;
use crate::wire::{self, Injector, RsFrame};

pub(crate) fn cases() -> Vec<Case> {
    cases!("boot",
        180 s: the_lab_settles;
        30 s: every_machine_has_one_address_of_its_own_ports_prefix,
            boot_document_at_the_default_router,
            boot_document_at_the_router_address_of_the_prefix,
            boot_document_at_the_service_address,
            boot_document_at_fe80_1,
            boot_script_is_ipxe,
            every_machine_is_found_by_mac,
            mac_lookup_takes_any_spelling_and_knows_unknown,
            port_table_tells_what_is_where,
            timeline_tells_the_boot_in_order,
            sonic_rows_are_as_the_command_line_writes_them,
            state_db_tells_the_phase;
        60 s: a_new_machine_is_found_within_two_seconds,
    )
}

fn the_lab_settles(lab: &Lab) -> Result<()> {
    lab.settle(CONVERGENCE * 2)
}

fn every_machine_has_one_address_of_its_own_ports_prefix(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        machine.check_address_in(&machine.home)?;
    }
    Ok(())
}

/// Every fact of the boot document that names the place.
pub(crate) fn check_boot_document(document: &Value, machine: &Machine, at: &Socket) -> Result<()> {
    let expected = [
        ("/partition", at.partition.to_owned()),
        ("/switch/id", format!("leaf{}", at.leaf)),
        ("/switch/chassis_mac", format!("52:54:00:0f:00:0{}", at.leaf)),
        ("/port/name", at.port.to_owned()),
        ("/port/alias", at.alias.to_owned()),
        ("/machine/mac", machine.mac.to_owned()),
        ("/prefix", at.prefix().to_string()),
        ("/router", at.router().to_string()),
        ("/vrf", at.vrf()),
    ];
    for (pointer, value) in expected {
        let actual = document.pointer(pointer).context(|| format!("no {pointer} in {document}"))?;
        ensure!(*actual == value, "{} is told {pointer} = {actual} instead of {value:?}", machine.ns.0);
    }
    ensure!(document["port"]["index"] == at.index, "{} is told port {}", machine.ns.0, document["port"]);
    // The one it asked from at least; which one that is depends on the address it asked.
    let told = document["machine"]["addresses"].as_array().cloned().unwrap_or_default();
    let known = [machine.address()?, machine.link_local()?].map(|address| address.to_string());
    ensure!(
        told.iter().any(|entry| known.iter().any(|address| entry == address)),
        "{} has {known:?}, told {told:?}",
        machine.ns.0
    );
    ensure!(document["config_age_s"].is_u64(), "no config_age_s in {document}");
    Ok(())
}

fn boot_documents_at(lab: &Lab, address: impl Fn(&Machine) -> Result<Ipv6Addr>) -> Result<()> {
    for machine in &lab.machines {
        let document = machine.get_at(address(machine)?, "/v1/boot")?.expect(200)?.json()?;
        check_boot_document(&document, machine, &machine.home)?;
    }
    Ok(())
}

fn boot_document_at_the_default_router(lab: &Lab) -> Result<()> {
    boot_documents_at(lab, Machine::router)
}

/// What a machine can compute from its own address, as the boot script would.
fn boot_document_at_the_router_address_of_the_prefix(lab: &Lab) -> Result<()> {
    boot_documents_at(lab, |machine| {
        let mut segments = machine.address()?.segments();
        segments[4..].copy_from_slice(&[0, 0, 0, 1]);
        Ok(Ipv6Addr::from(segments))
    })
}

fn boot_document_at_the_service_address(lab: &Lab) -> Result<()> {
    boot_documents_at(lab, |machine| Ok(machine.home.service_address()))
}

fn boot_document_at_fe80_1(lab: &Lab) -> Result<()> {
    boot_documents_at(lab, |_| Ok(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)))
}

fn boot_script_is_ipxe(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    for path in ["/boot.ipxe", "/p1/boot.ipxe"] {
        let reply = machine.get(path)?.expect(200)?;
        ensure!(reply.body.starts_with("#!ipxe\n"), "{path} is no iPXE script: {}", reply.excerpt());
        let kind = reply.header("content-type").unwrap_or_default();
        ensure!(kind.starts_with("text/plain"), "{path} is {kind}");
    }
    let other = machine.get("/p2/boot.ipxe")?;
    ensure!(other.status == 404, "the script of another partition is served: {}", other.status);
    Ok(())
}

/// The leaf names exactly this port for the MAC.
pub(crate) fn expect_mac_at(lab: &Lab, mac: &str, at: &Socket) -> Result<()> {
    let entry = lab.leaf_of(at).admin_json(&format!("/v1/macs/{mac}"))?;
    let ports = entry["ports"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = ports.iter().filter_map(port_name).collect();
    ensure!(names == [at.port], "leaf{} finds {mac} at {names:?} instead of {}", at.leaf, at.port);
    Ok(())
}

/// Port entries are objects of `/v1/ports`, or plain names.
fn port_name(entry: &Value) -> Option<&str> {
    entry.as_str().or_else(|| entry["port"].as_str())
}

fn every_machine_is_found_by_mac(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        expect_mac_at(lab, machine.mac, &machine.home)?;
    }
    Ok(())
}

fn mac_lookup_takes_any_spelling_and_knows_unknown(lab: &Lab) -> Result<()> {
    for spelling in ["52:54:00:00:00:01", "52-54-00-00-00-01", "5254.0000.0001", "525400000001"] {
        expect_mac_at(lab, spelling, &lab.machines[0].home)?;
    }
    let unknown = lab.leaves[0].admin("/v1/macs/02:00:00:00:00:99")?;
    ensure!(unknown.status == 404, "an unknown MAC is answered with {}", unknown.status);
    let nonsense = lab.leaves[0].admin("/v1/macs/nonsense")?;
    ensure!(
        nonsense.status == 400 || nonsense.status == 404,
        "nonsense is answered with {}",
        nonsense.status
    );
    Ok(())
}

fn port_table_tells_what_is_where(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let at = &machine.home;
        let entry = lab.leaf_of(at).port(at.port)?;
        let expected = [
            ("port", at.port.to_owned()),
            ("alias", at.alias.to_owned()),
            ("partition", at.partition.to_owned()),
            ("vrf", at.vrf()),
            ("phase", "ready".to_owned()),
            ("oper_status", "up".to_owned()),
            ("prefix", at.prefix().to_string()),
        ];
        for (field, value) in expected {
            ensure!(entry[field] == value, "{field} of leaf{} {} is {}", at.leaf, at.port, entry[field]);
        }
        let machines = entry["machines"].as_array().cloned().unwrap_or_default();
        let [seen] = &machines[..] else { fail!("leaf{} {} has machines {machines:?}", at.leaf, at.port) };
        ensure!(seen["mac"] == machine.mac, "leaf{} {} has {seen}", at.leaf, at.port);
        ensure!(seen["first_seen"].is_string() && seen["last_seen"].is_string(), "no times in {seen}");
    }
    Ok(())
}

/// A machine walks through the stages; the timeline has each one once it happened, in order.
fn timeline_tells_the_boot_in_order(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    // A machine that had come as far as a token: losing carrier is a restart, not firmware's hand-over.
    machine.token()?;
    machine.reboot()?;
    wait::until(wait::seconds(15), || machine.address())?;
    solicit(machine)?;
    machine.boot_document()?;
    let token = machine.token()?;
    machine.send(&Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}")))?;
    machine.send(&Request::post("/v1/events", r#"{"stage":"Phoned Home","message":"done"}"#))?.expect(202)?;

    let path = format!("/v1/ports/{}/timeline", machine.home.port);
    let timeline = lab.leaf_of(&machine.home).admin_json(&path)?;
    let entries = timeline["boots"][0]["entries"].as_array().context(|| format!("no boot in {timeline}"))?;
    let stages: Vec<&str> = entries.iter().filter_map(|entry| entry["stage"].as_str()).collect();
    let at = |stage: &str| {
        stages.iter().position(|seen| *seen == stage).context(|| format!("no {stage} in {stages:?}"))
    };
    // Whether the advertisement or the solicitation comes first depends on who sees the link first.
    let order = [at("carrier")?, at("config")?, at("token")?, at("api")?, at("event:Phoned Home")?];
    ensure!(order.is_sorted(), "stages out of order: {stages:?}");
    for early in ["first-rs", "ra", "neighbor"] {
        ensure!(at(early)? < at("token")?, "{early} comes late: {stages:?}");
    }
    let times: Option<Vec<u64>> = entries.iter().map(|entry| entry["since_start_ms"].as_u64()).collect();
    ensure!(times.is_some_and(|times| times.is_sorted()), "durations are missing or go back: {timeline}");
    Ok(())
}

/// Linux does not ask for a router that has told of itself already; firmware may.
fn solicit(machine: &Machine) -> Result<()> {
    let bytes: Vec<u8> =
        machine.mac.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let mac: [u8; 6] = bytes.try_into().ok().context(|| machine.mac.to_owned())?;
    Injector::open(machine.ns)?.send(wire::ifindex(machine.ns, NIC)?, &RsFrame::link_local(mac).bytes())
}

fn sonic_rows_are_as_the_command_line_writes_them(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let at = &machine.home;
        let leaf = lab.leaf_of(at);
        let vrf = leaf.row(CONFIG_DB, &format!("VRF|{}", at.vrf()))?;
        ensure!(
            vrf.len() == 1 && vrf.get("NULL").is_some_and(|v| v == "NULL"),
            "VRF|{} is {vrf:?}",
            at.vrf()
        );
        let base = leaf.row(CONFIG_DB, &format!("INTERFACE|{}", at.port))?;
        ensure!(base.get("vrf_name") == Some(&at.vrf()), "INTERFACE|{} is {base:?}", at.port);
        let key = format!("INTERFACE|{}|{}/64", at.port, at.router());
        ensure!(!leaf.row(CONFIG_DB, &key)?.is_empty(), "{key} is missing");
    }
    Ok(())
}

fn state_db_tells_the_phase(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        let at = &machine.home;
        let row = lab.leaf_of(at).row(STATE_DB, &format!("BOOT_NETWORK_PORT_TABLE|{}", at.port))?;
        let expected = [
            ("phase", "ready".to_owned()),
            ("partition", at.partition.to_owned()),
            ("vrf_name", at.vrf()),
            ("prefix", at.prefix().to_string()),
            ("mac", machine.mac.to_owned()),
        ];
        for (field, value) in expected {
            ensure!(row.get(field) == Some(&value), "{field} of leaf{} {} in {row:?}", at.leaf, at.port);
        }
    }
    for leaf in &lab.leaves {
        let state = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
        ensure!(state.contains_key("version") && state.contains_key("status"), "global state is {state:?}");
    }
    Ok(())
}

fn a_new_machine_is_found_within_two_seconds(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[2];
    let result = {
        machine.reboot_as([0x52, 0x54, 0, 0, 0x99, 3])?;
        wait::until(wait::seconds(2), || expect_mac_at(lab, "52:54:00:00:99:03", &machine.home))
    };
    machine.reboot_as([0x52, 0x54, 0, 0, 0, 3])?;
    wait::until(wait::seconds(15), || machine.check_address_in(&machine.home))?;
    wait::until(wait::seconds(5), || expect_mac_at(lab, machine.mac, &machine.home))?;
    result
}
