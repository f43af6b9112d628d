//! The leak by every method, judged by FRR's routing tables and by what machines reach.

use std::time::Duration;

use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::{API, API_PORT, Lab, SPINE_LOOPBACK, TENANT, WITNESS_PORT};
use crate::leaf::{CONFIG_DB, Leaf, Rows};
use crate::machine::{Machine, Reach};
use crate::ns::Ns;
use crate::wait;

pub(crate) fn cases() -> Vec<Case> {
    cases!("leak",
        600 s: static_routes_of_config_db_leak_and_nothing_else;
        600 s: announcements_outlive_a_partition_that_goes;
        900 s: the_management_framework_leaks_and_nothing_else;
        600 s: a_foreign_route_is_yielded_to;
        600 s: metal_core_and_the_agent_run_side_by_side;
    )
}

/// A change of the method is two of FRR's configuration, one after the other.
/// FRR up to 10.3 loses a route while another vtysh comes and goes; its row is then written anew, 10 s and more
/// after it was written first.
const CHANGE: Duration = Duration::from_secs(240);
const PREFIX: &str = "2001:db8:a91::/64";
/// What stands for it among static routes.
const HALVES: [&str; 2] = ["2001:db8:a91::/65", "2001:db8:a91:0:8000::/65"];

/// Runs `check` with `daemon` in charge of FRR, then puts everything back.
fn with(
    lab: &Lab,
    daemon: &str,
    rows: &[(&str, &[(&str, &str)])],
    check: impl FnOnce(&Leaf, &Rows) -> Result<()>,
) -> Result<()> {
    let leaf = &lab.leaves[0];
    let before = leaf.rows(CONFIG_DB)?;
    leaf.service(daemon, "start")?;
    let result = (|| {
        for (key, fields) in rows {
            leaf.configure(key, fields)?;
        }
        check(leaf, &before)
    })();
    leaf.restore(&before, &["BOOT_NETWORK", "DEVICE_METADATA", "BOOT_NETWORK_PORT"])?;
    let back = wait::until(CHANGE, || {
        expect_method(leaf, "vtysh")?;
        leaf.converged()
    });
    leaf.service(daemon, "stop")?;
    // The fabric's BGP must not go with its row.
    leaf.restore(&before, &["BGP_GLOBALS"])?;
    result?;
    back?;
    let after = leaf.rows(CONFIG_DB)?;
    let left: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
    ensure!(left.is_empty(), "rows left behind: {left:?}");
    reaches_the_api_and_nothing_else(&lab.machines[..2])
}

fn expect_method(leaf: &Leaf, method: &str) -> Result<()> {
    let status = leaf.admin_json("/v1/status")?;
    let choice = &status["leak_method"];
    ensure!(choice["method"] == method, "the method is not {method}: {choice}");
    ensure!(choice["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "no reason: {choice}");
    Ok(())
}

/// The agent says that FRR shows the whole leak, of every partition.
fn expect_applied(leaf: &Leaf, method: &str) -> Result<()> {
    expect_method(leaf, method)?;
    for partition in leaf.list("/v1/partitions", "partitions")? {
        ensure!(partition["leak"]["state"] == "applied", "not applied: {partition}");
    }
    leaf.converged()
}

fn json(leaf: &Leaf, command: &str) -> Result<Value> {
    let text = leaf.vtysh(&[command])?;
    serde_json::from_str(&text).context(|| format!("{command}: {text}"))
}

/// The one route of `table` to `prefix`, with all that makes it one.
fn route(leaf: &Leaf, vrf: &str, prefix: &str, protocol: &str) -> Result<Value> {
    let table = json(leaf, &format!("show ipv6 route vrf {vrf} {prefix} json"))?;
    let routes = table[prefix].as_array().cloned().unwrap_or_default();
    let route = routes.into_iter().find(|route| route["protocol"] == protocol);
    let route = route.context(|| format!("no {protocol} route to {prefix} in VRF {vrf}: {table}"))?;
    ensure!(route["selected"] == true && route["installed"] == true, "not installed: {route}");
    Ok(route)
}

/// In, out and deny as FRR's tables have them: `protocol` carries the prefix in.
fn check_rib(leaf: &Leaf, protocol: &str) -> Result<()> {
    for (port, partition) in [("Ethernet0", 0x101), ("Ethernet4", 0x202)] {
        let vrf = if port == "Ethernet0" { "VrfBoot-p1" } else { "VrfBoot-p2" };
        let prefixes: &[&str] = if protocol == "static" { &HALVES } else { &[PREFIX] };
        for prefix in prefixes {
            let inwards = route(leaf, vrf, prefix, protocol)?;
            let hops = inwards["nexthops"].as_array().cloned().unwrap_or_default();
            let leads = |hop: &Value| {
                hop["fib"] == true && hop["interfaceName"] == "Ethernet48" && hop["vrf"] == "default"
            };
            ensure!(hops.iter().any(leads), "does not lead into the fabric: {inwards}");
        }
        let outwards = route(leaf, "default", &format!("2001:db8:1:{partition:x}::/64"), "static")?;
        let hop = &outwards["nexthops"][0];
        ensure!(hop["interfaceName"] == port && hop["vrf"] == vrf, "does not lead to {port}: {outwards}");
        route(leaf, "default", &format!("2001:db8:1:{partition:x}::1/128"), "static")?;
        let deny = route(leaf, vrf, "::/0", "static")?;
        ensure!(deny["nexthops"][0]["blackhole"] == true && deny["distance"] == 254, "no deny: {deny}");
        // Nothing else leads out of the VRF.
        let all = json(leaf, &format!("show ipv6 route vrf {vrf} json"))?;
        let leaked = all.as_object().into_iter().flatten().filter(|(_, routes)| {
            let mut hops = routes.as_array().into_iter().flatten().flat_map(|r| r["nexthops"].as_array());
            let leads = |hop: &Value| hop["vrf"] == "default" && hop["unreachable"] != true;
            hops.any(|hops| hops.iter().any(leads))
        });
        let leaked: Vec<_> = leaked.map(|(prefix, _)| prefix).collect();
        ensure!(leaked == prefixes, "VRF {vrf} leads to {leaked:?}");
    }
    Ok(())
}

/// What the fabric learnt: the /64s of ports, not the routers' own addresses.
fn check_spine(lab: &Lab) -> Result<()> {
    let spine = Leaf::new(Ns("spine"), &lab.root, &lab.bin);
    let table = json(&spine, "show ipv6 route bgp json")?;
    for prefix in ["2001:db8:1:101::/64", "2001:db8:1:202::/64"] {
        ensure!(table[prefix][0]["installed"] == true, "the spine has no route to {prefix}: {table}");
    }
    let own = table.as_object().into_iter().flatten().find(|(prefix, _)| prefix.ends_with("::1/128"));
    ensure!(own.is_none_or(|(prefix, _)| prefix.starts_with("2001:db8:f:")), "announced: {own:?}");
    Ok(())
}

fn reaches_the_api_and_nothing_else(machines: &[Machine]) -> Result<()> {
    for machine in machines {
        wait::until(wait::seconds(20), || {
            let outcome = machine.reach(API, API_PORT)?;
            ensure!(outcome == Reach::Connected, "{} and the control API: {outcome:?}", machine.ns.0);
            Ok(())
        })?;
        for (address, port) in [(TENANT, WITNESS_PORT), (SPINE_LOOPBACK, 179)] {
            let outcome = machine.reach(address, port)?;
            let unreached = matches!(outcome, Reach::Unreachable | Reach::TimedOut);
            ensure!(unreached, "{} and [{address}]:{port}: {outcome:?}", machine.ns.0);
        }
    }
    Ok(())
}

fn report(leaf: &Leaf, method: &str) -> Result<()> {
    let running = leaf.vtysh(&["show running-config"])?;
    let version = running.lines().find_map(|line| line.strip_prefix("frr version ")).unwrap_or("?");
    println!("# {method} on FRR {version}: in, out, deny and announcement are in the routing tables");
    Ok(())
}

fn static_routes_of_config_db_leak_and_nothing_else(lab: &Lab) -> Result<()> {
    let rows: [(&str, &[(&str, &str)]); 1] = [("BOOT_NETWORK|global", &[("leak_method", "static-route")])];
    with(lab, "bgpcfgd", &rows, |leaf, _| {
        wait::until(CHANGE, || expect_applied(leaf, "static-route"))?;
        wait::until(wait::seconds(20), || check_rib(leaf, "static"))?;
        wait::until(wait::seconds(10), || check_spine(lab))?;
        let running = leaf.vtysh(&["show running-config"])?;
        ensure!(!running.contains("BOOTNET-"), "lines of vtysh are left:\n{running}");
        ensure!(!running.contains("import vrf"), "BGP still imports:\n{running}");
        reaches_the_api_and_nothing_else(&lab.machines[..2])?;
        // A port that leaves takes its routes along, and they come back with it.
        let gone = || -> Result<()> {
            let rows = leaf.rows(CONFIG_DB)?;
            let left = rows.keys().find(|key| key.starts_with("STATIC_ROUTE|default|2001:db8:1:202:"));
            ensure!(left.is_none(), "{left:?} is still in CONFIG_DB");
            ensure!(!rows.contains_key("INTERFACE|Ethernet4"), "INTERFACE|Ethernet4 is still in CONFIG_DB");
            ensure!(rows.contains_key("STATIC_ROUTE|VrfBoot-p2|::/0"), "the deny of the VRF went along");
            Ok(())
        };
        leaf.unconfigure(&["BOOT_NETWORK_PORT|Ethernet4"])?;
        let went = wait::until(CHANGE, gone);
        leaf.configure("BOOT_NETWORK_PORT|Ethernet4", &[("partition", "p2")])?;
        went?;
        wait::until(CHANGE, || expect_applied(leaf, "static-route"))?;
        lab.machines[1].reboot()?;
        wait::until(wait::seconds(20), || lab.machines[1].get("/healthz")?.expect(200))?;
        reaches_the_api_and_nothing_else(&lab.machines[..2])?;
        report(leaf, "static-route")
    })
}

/// bgpcfgd takes its one route-map away with the last static route of a VRF.
fn announcements_outlive_a_partition_that_goes(lab: &Lab) -> Result<()> {
    let rows: [(&str, &[(&str, &str)]); 1] = [("BOOT_NETWORK|global", &[("leak_method", "static-route")])];
    let spine = Leaf::new(Ns("spine"), &lab.root, &lab.bin);
    with(lab, "bgpcfgd", &rows, |leaf, before| {
        wait::until(CHANGE, || expect_applied(leaf, "static-route"))?;
        wait::until(wait::seconds(10), || check_spine(lab))?;
        leaf.unconfigure(&["BOOT_NETWORK_PORT|Ethernet4", "BOOT_NETWORK_PARTITION|p2"])?;
        let went = wait::until(CHANGE, || {
            let rows = leaf.rows(CONFIG_DB)?;
            let left = rows.keys().find(|key| key.ends_with("|VrfBoot-p2") || key.contains("|VrfBoot-p2|"));
            ensure!(left.is_none(), "{left:?} is still in CONFIG_DB");
            Ok(())
        });
        let announced = went.and_then(|()| {
            // The route-map may come back 10 s after it went.
            wait::until(CHANGE, || {
                let table = json(&spine, "show ipv6 route bgp json")?;
                ensure!(table["2001:db8:1:202::/64"].is_null(), "the other partition's is left: {table}");
                ensure!(table["2001:db8:1:101::/64"][0]["installed"] == true, "it went along: {table}");
                let running = leaf.vtysh(&["show running-config"])?;
                ensure!(
                    running.contains("route-map STATIC_ROUTE_FILTER permit 10"),
                    "no route-map:\n{running}"
                );
                expect_applied(leaf, "static-route")
            })
        });
        leaf.restore(before, &["BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT"])?;
        announced?;
        wait::until(CHANGE, || expect_applied(leaf, "static-route"))?;
        wait::until(wait::seconds(20), || check_spine(lab))
    })
}

fn the_management_framework_leaks_and_nothing_else(lab: &Lab) -> Result<()> {
    let rows: [(&str, &[(&str, &str)]); 3] = [
        ("BGP_GLOBALS|default", &[("local_asn", "4200000011"), ("router_id", "10.0.0.11")]),
        ("DEVICE_METADATA|localhost", &[("frr_mgmt_framework_config", "true")]),
        // The method follows from who configures FRR.
        ("BOOT_NETWORK|global", &[("leak_method", "auto")]),
    ];
    with(lab, "frrcfgd", &rows, |leaf, _| {
        // FRR 10 refuses the first route after `vrf default`: its row is written anew after a while.
        wait::until(2 * CHANGE, || expect_applied(leaf, "frr-mgmt"))?;
        wait::until(wait::seconds(20), || check_rib(leaf, "bgp"))?;
        wait::until(wait::seconds(10), || check_spine(lab))?;
        reaches_the_api_and_nothing_else(&lab.machines[..2])?;
        report(leaf, "frr-mgmt")
    })
}

fn a_foreign_route_is_yielded_to(lab: &Lab) -> Result<()> {
    let key = "STATIC_ROUTE|default|2001:db8:1:101::/64";
    let foreign: &[(&str, &str)] = &[("nexthop", "2001:db8:f::1"), ("advertise", "false")];
    let rows: [(&str, &[(&str, &str)]); 2] =
        [(key, foreign), ("BOOT_NETWORK|global", &[("leak_method", "static-route")])];
    with(lab, "bgpcfgd", &rows, |leaf, _| {
        wait::until(CHANGE, || {
            expect_method(leaf, "static-route")?;
            let status = leaf.admin_json("/v1/status")?;
            let conflicts = status["conflicts"].as_array().cloned().unwrap_or_default();
            ensure!(conflicts.iter().any(|c| c["object"] == key), "no conflict about {key}: {status}");
            Ok(())
        })
        .inspect_err(|_| drop(leaf.unconfigure(&[key])))?;
        let row = leaf.row(CONFIG_DB, key)?;
        leaf.unconfigure(&[key])?;
        ensure!(row.get("nexthop").is_some_and(|hop| hop == "2001:db8:f::1"), "overwritten: {row:?}");
        ensure!(!row.contains_key("ifname"), "mixed: {row:?}");
        wait::until(CHANGE, || expect_applied(leaf, "static-route"))
    })
}

/// What metal-core renders next, and how it fared.
struct MetalCore<'a> {
    leaf: &'a Leaf,
}

impl MetalCore<'_> {
    fn desire(&self, unprovisioned: &[&str], vrfs: &Value) -> Result<()> {
        let include = self.leaf.run_dir().join("state/frr/boot-network.conf");
        let desired = serde_json::json!({
            "pxe_vlan": 4000, "unprovisioned": unprovisioned, "vrfs": vrfs, "include": include,
        });
        let path = self.leaf.run_dir().join("metal-core.json");
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, desired.to_string()).context(|| "what metal-core is to do".into())?;
        std::fs::rename(&temporary, &path).context(|| path.display().to_string())
    }

    fn report(&self) -> Result<Value> {
        let path = self.leaf.run_dir().join("metal-core-report.json");
        let text = std::fs::read_to_string(&path).context(|| path.display().to_string())?;
        serde_json::from_str(&text).context(|| text.clone())
    }

    /// `count` more passes without an error, the last of them without a reload.
    fn passes(&self, count: u64) -> Result<()> {
        let before = self.report()?;
        let enough = before["passes"].as_u64().unwrap_or_default() + count;
        wait::until(wait::seconds(30 + 15 * count), || {
            let now = self.report()?;
            ensure!(now["error"].is_null(), "metal-core fails: {now}");
            ensure!(now["passes"].as_u64() >= Some(enough), "too few passes: {now}");
            Ok(())
        })?;
        let after = self.report()?;
        ensure!(after["reloads"] == before["reloads"], "metal-core reloads without end: {before}, {after}");
        Ok(())
    }
}

/// Adopt mode: metal-core makes the VRF and binds the port, and its template includes the agent's snippet.
fn metal_core_and_the_agent_run_side_by_side(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let before = leaf.rows(CONFIG_DB)?;
    let result = side_by_side(lab, leaf);
    leaf.service("metal-core", "stop")?;
    leaf.restore(&before, &["BOOT_NETWORK", "BOOT_NETWORK_PARTITION", "BOOT_NETWORK_PORT", "PORT"])?;
    // The agent takes its address off a port that is somebody else's; then metal-core's rows can go.
    let let_go = wait::until(CHANGE, || {
        let left = leaf.rows(CONFIG_DB)?.into_keys().find(|key| key.starts_with("INTERFACE|Ethernet0|"));
        ensure!(left.is_none(), "{left:?} is still in CONFIG_DB");
        Ok(())
    });
    let rows = leaf.rows(CONFIG_DB)?;
    let theirs = rows.keys().filter(|key| {
        key.starts_with("VLAN_MEMBER|Vlan4000") || *key == "INTERFACE|Ethernet0" || *key == "VRF|Vrf104009"
    });
    leaf.unconfigure(&theirs.map(String::as_str).collect::<Vec<_>>())?;
    leaf.service("frr", "restart")?;
    wait::until(CHANGE, || leaf.converged())?;
    lab.machines[0].reboot()?;
    lab.machines[1].reboot()?;
    for machine in &lab.machines[..2] {
        wait::until(wait::seconds(30), || machine.get("/healthz")?.expect(200))?;
    }
    result.and(let_go)
}

fn side_by_side(lab: &Lab, leaf: &Leaf) -> Result<()> {
    let metal_core = MetalCore { leaf };
    let machine = &lab.machines[0];
    leaf.unconfigure(&[
        "BOOT_NETWORK_PARTITION|p2",
        "BOOT_NETWORK_PORT|Ethernet4",
        "BOOT_NETWORK_PORT|Ethernet8",
        "BOOT_NETWORK_PORT|Ethernet0",
    ])?;
    let adopted = [("manage_vrf", "disabled"), ("vrf_name", "Vrf104009"), ("service_address@", "")];
    leaf.configure("BOOT_NETWORK_PARTITION|p1", &adopted)?;
    leaf.configure("BOOT_NETWORK|global", &[("leak_method", "auto")])?;
    // The agent's own VRFs have to be gone before metal-core sees them.
    wait::until(CHANGE, || {
        let rows = leaf.rows(CONFIG_DB)?;
        let left = rows.keys().find(|key| key.starts_with("VRF|") || key.starts_with("INTERFACE|Ethernet0"));
        ensure!(left.is_none(), "{left:?} is still in CONFIG_DB");
        Ok(())
    })?;
    metal_core.desire(&["Ethernet4", "Ethernet8"], &serde_json::json!({"Vrf104009": ["Ethernet0"]}))?;
    leaf.service("metal-core", "start")?;
    leaf.configure("BOOT_NETWORK_PORT|Ethernet0", &[("partition", "p1")])?;
    wait::until(CHANGE, || leaf.expect_phase("Ethernet0", "ready"))?;
    wait::until(CHANGE, || {
        expect_method(leaf, "render-only")?;
        let status = leaf.admin_json("/v1/status")?;
        let reason = status["leak_method"]["reason"].to_string();
        ensure!(reason.contains("metal-core"), "the reason is another: {reason}");
        let partitions = leaf.list("/v1/partitions", "partitions")?;
        ensure!(partitions[0]["leak"]["state"] == "applied", "the leak is not in FRR: {partitions:?}");
        let warnings = status["warnings"].to_string();
        ensure!(!warnings.contains("metal-core"), "warned: {warnings}");
        Ok(())
    })?;
    machine.reboot()?;
    wait::until(wait::seconds(30), || machine.get("/healthz")?.expect(200))?;
    reaches_the_api_and_nothing_else(std::slice::from_ref(machine))?;
    metal_core.passes(2)?;
    // A change of metal-core's own is a reload, and the leak is part of it.
    let reloads = metal_core.report()?["reloads"].as_u64();
    leaf.configure("BOOT_NETWORK_PARTITION|p1", &[("leak_prefix@", "2001:db8:a91::/64,2001:db8:a92::/64")])?;
    wait::until(CHANGE, || {
        ensure!(metal_core.report()?["reloads"].as_u64() > reloads, "no reload yet");
        Ok(())
    })?;
    reaches_the_api_and_nothing_else(std::slice::from_ref(machine))?;
    metal_core.passes(2)?;
    leaf.expect_phase("Ethernet0", "ready")?;
    println!("# metal-core: {}", metal_core.report()?);
    // What does not go together is named.
    leaf.configure("BOOT_NETWORK|global", &[("leak_method", "vtysh")])?;
    wait::until(wait::seconds(30), || {
        let status = leaf.admin_json("/v1/status")?;
        let warnings = status["warnings"].to_string();
        ensure!(warnings.contains("leak_method") && warnings.contains("metal-core"), "not named: {warnings}");
        Ok(())
    })?;
    leaf.configure("BOOT_NETWORK|global", &[("leak_method", "auto")])?;
    leaf.configure("BOOT_NETWORK_PARTITION|p9", &[("prefix", "2001:db8:1:900::/56")])?;
    let named = wait::until(wait::seconds(30), || {
        let warnings = leaf.admin_json("/v1/status")?["warnings"].to_string();
        ensure!(warnings.contains("manage_vrf") && warnings.contains("metal-core"), "not named: {warnings}");
        Ok(())
    });
    leaf.unconfigure(&["BOOT_NETWORK_PARTITION|p9"])?;
    named
}
