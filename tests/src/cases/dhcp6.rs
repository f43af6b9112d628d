//! DHCPv6 as real clients see it: address, DNS, boot file, and what is refused.

use std::fs::{self, File, Permissions};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::Commands;
use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Failure, Result, ensure, fail};
use crate::lab::{Lab, PROXY_PORT, Socket};
use crate::leaf::{CONFIG_DB, Leaf};
use crate::machine::{Machine, NIC};
use crate::{ndp, wait};

pub(crate) fn cases() -> Vec<Case> {
    cases!("dhcp6",
        90 s: a_client_gets_the_computed_address_and_its_boot_file,
            a_stateless_client_gets_dns_and_boot_file,
            an_address_by_dhcp6_alone_reaches_the_proxy;
        60 s: ipxe_is_sent_to_the_ports_own_script,
            advertisements_say_what_is_served,
            a_solicit_is_answered_by_an_advertisement_as_well,
            relays_and_foreign_servers_get_no_answer,
            a_flood_is_bounded_and_another_port_is_served,
            a_fuzzer_of_servers_breaks_nothing,
            machines_and_timelines_know_the_client,
            the_role_goes_on_and_off_at_run_time;
    )
}

const X64: &str = "http://[2001:db8:a91::10]/x64.efi";
const ARM64: &str = "http://[{router}]:8080/arm64.efi";
const DNS: &str = "2001:db8:a91::53";
const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RELAY_FORW: u8 = 12;

/// What SLAAC would make of the port's prefix.
fn computed(machine: &Machine, at: &Socket) -> Result<Ipv6Addr> {
    let mut segments = at.prefix().addr().segments();
    segments[4..].copy_from_slice(&machine.link_local()?.segments()[4..]);
    Ok(Ipv6Addr::from(segments))
}

/// A message with the machine's identifier.
fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, 0xd, 0xc, kind];
    for (code, data) in options {
        bytes.extend(code.to_be_bytes());
        bytes.extend(u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend(*data);
    }
    bytes
}

const CLIENT_ID: (u16, &[u8]) = (1, &[0, 4, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
const IA_NA: (u16, &[u8]) = (3, &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);

fn socket(machine: &Machine) -> Result<(UdpSocket, SocketAddrV6)> {
    machine.ns.run(|| {
        let index = nix::net::if_::if_nametoindex(NIC).context(|| NIC.into())?;
        let own = SocketAddrV6::new(machine.link_local()?, 546, 0, index);
        // The address may still be probed for duplicates after a boot.
        let bind = || UdpSocket::bind(own).context(|| format!("bind to {own}"));
        let socket = wait::until(wait::seconds(5), bind)?;
        socket.set_read_timeout(Some(Duration::from_millis(500))).context(|| "timeout".into())?;
        Ok((socket, SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2), 547, 0, index)))
    })
}

/// Sends one message; the first answer to it.
fn ask(machine: &Machine, message: &[u8]) -> Result<Vec<u8>> {
    let (socket, servers) = socket(machine)?;
    socket.send_to(message, servers).context(|| "send".into())?;
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).context(|| "no answer".into())?;
    ensure!(from.port() == 547, "answer from {from}");
    Ok(buffer[..length].to_vec())
}

fn solicit(machine: &Machine) -> Result<Vec<u8>> {
    let answer = ask(machine, &message(SOLICIT, &[CLIENT_ID, IA_NA]))?;
    ensure!(answer.first() == Some(&ADVERTISE), "answered by message {:?}", answer.first());
    Ok(answer)
}

/// Content of an option at the top of a message.
fn option(message: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = message.get(4..)?;
    while let Some((&[c0, c1, l0, l1], after)) = rest.split_first_chunk() {
        let (data, next) = after.split_at_checked(usize::from(u16::from_be_bytes([l0, l1])))?;
        if u16::from_be_bytes([c0, c1]) == wanted {
            return Some(data);
        }
        rest = next;
    }
    None
}

/// What a distribution's script does: waits for the link-local address, and configures what was told.
const CLIENT_SCRIPT: &str = r#"#!/bin/sh
case $reason in
PREINIT6)
  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    ip -6 address show dev NIC scope link -tentative | grep -q inet6 && break
    sleep 0.2
  done
  ;;
*)
  env | grep '^new_' >TOLD
  [ -z "$new_ip6_address" ] || ip -6 address replace "$new_ip6_address/128" dev NIC \
    valid_lft "$new_max_life" preferred_lft "$new_preferred_life" nodad
  ;;
esac
"#;

/// Runs ISC dhclient on the machine; what it told its script when it was done, as `name=value` lines.
fn dhclient(machine: &Machine, mode: &[&str], config: &str) -> Result<String> {
    let path = |name: &str| format!("/tmp/dhclient-{}.{name}", machine.ns.0);
    let script = CLIENT_SCRIPT.replace("NIC", NIC).replace("TOLD", &path("told"));
    fs::write(path("script"), script).context(|| path("script"))?;
    fs::write(path("conf"), config).context(|| path("conf"))?;
    for old in ["told", "leases"] {
        fs::remove_file(path(old)).ok();
    }
    fs::set_permissions(path("script"), Permissions::from_mode(0o755)).context(|| path("script"))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{}", machine.ns.0)).args(["dhclient", "-6", "-1", "-d"]);
    command.args(mode).args(["-sf", &path("script"), "-cf", &path("conf"), "-lf", &path("leases")]);
    command.args(["-pf", &path("pid"), NIC]);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(path("log")).context(|| path("log"))?)
        .spawn()
        .context(|| "dhclient".into())?;
    let told = wait::until(wait::seconds(25), || {
        let told = fs::read_to_string(path("told")).context(|| "dhclient was told nothing".into())?;
        ensure!(told.contains("new_dhcp6_client_id"), "dhclient was told {told:?}");
        Ok(told)
    });
    // It runs in the foreground, so that its end is ours to see.
    child.kill().ok();
    child.wait().context(|| "dhclient".into())?;
    let log = fs::read_to_string(path("log")).unwrap_or_default();
    told.map_err(|reason| Failure(format!("{reason}\n{log}")))
}

/// A client of this architecture, with everything asked for that a boot needs.
fn client(architecture: u16) -> String {
    format!(
        "send dhcp6.client-arch-type {architecture};\n\
         request dhcp6.name-servers, dhcp6.domain-search, dhcp6.bootfile-url;\n"
    )
}

fn expect(told: &str, name: &str, value: &str) -> Result<()> {
    let line = format!("{name}={value}");
    ensure!(told.lines().any(|found| found == line), "no {line} in what the client was told:\n{told}");
    Ok(())
}

fn a_client_gets_the_computed_address_and_its_boot_file(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let address = computed(machine, &machine.home)?.to_string();
    let router = machine.home.router();
    let arm64 = ARM64.replace("{router}", &router.to_string());
    for (architecture, url) in [(16, X64), (19, &arm64)] {
        let told = dhclient(machine, &["-N"], &client(architecture))?;
        expect(&told, "new_ip6_address", &address)?;
        expect(&told, "new_preferred_life", "1800")?;
        expect(&told, "new_max_life", "3600")?;
        expect(&told, "new_dhcp6_name_servers", DNS)?;
        expect(&told, "new_dhcp6_bootfile_url", url)?;
    }
    Ok(())
}

fn a_stateless_client_gets_dns_and_boot_file(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[1];
    let told = dhclient(machine, &["-S"], &client(16))?;
    expect(&told, "new_dhcp6_name_servers", DNS)?;
    expect(&told, "new_dhcp6_bootfile_url", X64)?;
    ensure!(!told.contains("new_ip6_address"), "a stateless client got an address: {told}");
    Ok(())
}

/// A machine that does not autoconfigure: the address by DHCPv6, the route by the advertisement.
fn an_address_by_dhcp6_alone_reaches_the_proxy(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let result = (|| {
        machine.set_autoconf(false)?;
        machine.reboot()?;
        wait::until(wait::seconds(15), || machine.router())?;
        let addresses = machine.addresses()?;
        ensure!(addresses.is_empty(), "the machine autoconfigured {addresses:?}");
        dhclient(machine, &["-N"], &client(16))?;
        wait::until(wait::seconds(5), || machine.check_address_in(&machine.home))?;
        ensure!(machine.address()? == computed(machine, &machine.home)?, "has {}", machine.address()?);
        let document = machine.get_at(machine.home.router(), "/v1/boot")?.expect(200)?.json()?;
        ensure!(document["port"]["name"] == machine.home.port, "told {document}");
        Ok(())
    })();
    machine.set_autoconf(true)?;
    machine.reboot()?;
    wait::until(wait::seconds(15), || machine.check_address_in(&machine.home))?;
    result
}

/// The last advertisement that a machine saw.
fn flags(machine: &Machine, expected: bool) -> Result<()> {
    let watch = ndp::Watch::start(machine)?;
    wait::until(wait::seconds(20), || {
        let last = watch.advertisements().pop().context(|| "no advertisement".into())?;
        ensure!(
            (last.managed, last.other) == (expected, expected),
            "M and O are {:?}",
            (last.managed, last.other)
        );
        Ok(())
    })
}

/// iPXE, which nothing is configured for, and a client that names no architecture.
fn ipxe_is_sent_to_the_ports_own_script(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let asks = (6, &[0, 59][..]);
    let arch = (61, &[0, 16][..]);
    let answer = ask(machine, &message(SOLICIT, &[CLIENT_ID, asks, arch, (15, b"\0\x04iPXE")]))?;
    let script = format!("http://[{}]:{PROXY_PORT}/boot.ipxe", machine.home.router());
    ensure!(option(&answer, 59) == Some(script.as_bytes()), "the boot URL is {:?}", option(&answer, 59));
    let answer = ask(machine, &message(SOLICIT, &[CLIENT_ID, asks]))?;
    ensure!(option(&answer, 59).is_none(), "a client without architecture got {:?}", option(&answer, 59));
    Ok(())
}

fn advertisements_say_what_is_served(lab: &Lab) -> Result<()> {
    flags(&lab.machines[0], true)
}

fn the_role_goes_on_and_off_at_run_time(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[2];
    let leaf = lab.leaf_of(&machine.home);
    let key = format!("BOOT_NETWORK_PARTITION|{}", machine.home.partition);
    flags(machine, false)?;
    ensure!(solicit(machine).is_err(), "a partition without the role answers DHCPv6");
    leaf.configure(&key, &[("dhcp6", "enabled")])?;
    let on =
        flags(machine, true).and_then(|()| wait::until(wait::seconds(20), || solicit(machine).map(drop)));
    leaf.configure(&key, &[("dhcp6", "disabled")])?;
    on?;
    flags(machine, false)?;
    ensure!(solicit(machine).is_err(), "a partition that lost the role answers DHCPv6");
    leaf.redis(CONFIG_DB)?.hdel::<_, _, ()>(&key, "dhcp6").context(|| key.clone())?;
    wait::until(wait::seconds(20), || leaf.converged())
}

fn a_solicit_is_answered_by_an_advertisement_as_well(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let leaf = lab.leaf_of(&machine.home);
    let triggered =
        format!("switch_agent_ra_sent_total{{port=\"{}\",type=\"triggered\"}}", machine.home.port);
    wait::until(wait::seconds(20), || {
        let before = leaf.counter(&triggered)?;
        let watch = ndp::Watch::start(machine)?;
        let asked = Instant::now();
        solicit(machine)?;
        wait::until(wait::seconds(1), || {
            ensure!(
                !watch.advertisements().is_empty(),
                "no advertisement {:?} after a Solicit",
                asked.elapsed()
            );
            Ok(())
        })?;
        // A periodic one may have come in between; then it is tried again.
        ensure!(leaf.counter(&triggered)? > before, "the advertisement was not triggered");
        Ok(())
    })
}

fn refused(leaf: &Leaf, port: &str, reason: &str) -> Result<f64> {
    leaf.counter(&format!("switch_agent_dhcp6_refused_total{{port=\"{port}\",reason=\"{reason}\"}}"))
}

fn relays_and_foreign_servers_get_no_answer(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let (leaf, port) = (lab.leaf_of(&machine.home), machine.home.port);
    let mut relayed = vec![RELAY_FORW, 0];
    relayed.extend([0; 32]);
    relayed.extend([0, 9, 0, 4, SOLICIT, 0, 0, 1]);
    let other = (2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9][..]);
    for (bytes, reason) in [
        (relayed, "relay"),
        (message(REQUEST, &[CLIENT_ID, other, IA_NA]), "other_server"),
        (message(REQUEST, &[CLIENT_ID, IA_NA]), "no_server_id"),
        (message(SOLICIT, &[IA_NA]), "no_client_id"),
        (message(SOLICIT, &[CLIENT_ID, (2, &[0, 3, 0, 1, 2, 0, 0, 0, 0, 9])]), "unexpected_server_id"),
        (message(SOLICIT, &[(1, &[0; 131])]), "duid"),
        (vec![SOLICIT, 0, 0, 1, 0, 1, 0, 9], "option_overrun"),
    ] {
        let before = refused(leaf, port, reason)?;
        ensure!(ask(machine, &bytes).is_err(), "a message with fault {reason} was answered");
        ensure!(refused(leaf, port, reason)? == before + 1.0, "{reason} was not counted");
    }
    Ok(())
}

/// The port of the flood answers as many as it may; the other one answers at once.
fn a_flood_is_bounded_and_another_port_is_served(lab: &Lab) -> Result<()> {
    let [flooder, other, ..] = &lab.machines;
    let leaf = lab.leaf_of(&flooder.home);
    let sent = format!("switch_agent_dhcp6_sent_total{{port=\"{}\"", flooder.home.port);
    let before = leaf.counter(&sent)?;
    let started = Instant::now();
    let (socket, servers) = socket(flooder)?;
    let message = message(SOLICIT, &[CLIENT_ID, IA_NA]);
    for round in 0..5000 {
        // The sender's own queue may be full for a moment; a flood does not care.
        socket.send_to(&message, servers).ok();
        if round % 1000 == 999 {
            solicit(other)?;
        }
    }
    let answered = leaf.counter(&sent)? - before;
    let most = 20.0 + 10.0 * (started.elapsed().as_secs_f64() + 1.0);
    ensure!((1.0..=most).contains(&answered), "{answered} answers, at most {most} are allowed");
    drop(socket);
    // The port recovers by itself.
    wait::until(wait::seconds(15), || solicit(flooder).map(drop))
}

/// thc-ipv6's fuzzer of DHCPv6 servers for a while, every type of message.
fn a_fuzzer_of_servers_breaks_nothing(lab: &Lab) -> Result<()> {
    let [fuzzer, other, ..] = &lab.machines;
    let leaf = lab.leaf_of(&fuzzer.home);
    let heard = format!("switch_agent_dhcp6_received_total{{port=\"{}\"", fuzzer.home.port);
    let (pid, before) = (leaf.agent_pid()?, leaf.counter(&heard)?);
    let memory = leaf.agent_keeps_kib()?;
    // It sends faster than a port may, so most of one round is dropped in the kernel.
    wait::until(wait::seconds(30), || {
        let status = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", fuzzer.ns.0))
            .args(["timeout", "5", "atk6-fuzz_dhcps6", "-1", "-2", "-3", "-4", "-5", "-6", "-7", "-8", NIC])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context(|| "atk6-fuzz_dhcps6".into())?;
        ensure!(status.code() != Some(127), "atk6-fuzz_dhcps6 (thc-ipv6) is not installed");
        let heard = leaf.counter(&heard)? - before;
        ensure!(heard >= 200.0, "only {heard} messages of the fuzzer were heard");
        Ok(())
    })?;
    solicit(other)?;
    ensure!(leaf.agent_pid()? == pid, "the agent was restarted");
    leaf.converged()?;
    let grown = leaf.agent_keeps_kib()?.saturating_sub(memory);
    ensure!(grown <= 2048, "the agent grew by {grown} KiB");
    wait::until(wait::seconds(15), || solicit(fuzzer).map(drop))
}

fn machines_and_timelines_know_the_client(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let leaf = lab.leaf_of(&machine.home);
    let asks = (6, &[0, 59][..]);
    let arch = (61, &[0, 16][..]);
    let offer = ask(machine, &message(SOLICIT, &[CLIENT_ID, IA_NA, asks, arch]))?;
    let server = option(&offer, 2).context(|| "no server identifier".into())?.to_vec();
    let expected_server = [&[0, 3, 0, 1][..], &[0x52, 0x54, 0, 0x0f, 0, 1]].concat();
    ensure!(server == expected_server, "the server calls itself {server:?}");
    ensure!(option(&offer, 7) == Some(&[255]), "the offer has preference {:?}", option(&offer, 7));
    let reply = ask(machine, &message(REQUEST, &[CLIENT_ID, (2, &server), IA_NA, asks, arch]))?;
    ensure!(option(&reply, 59) == Some(X64.as_bytes()), "the boot URL is {:?}", option(&reply, 59));

    let entry = leaf.port(machine.home.port)?;
    let sources = &entry["machines"][0]["sources"];
    ensure!(sources.as_array().is_some_and(|s| s.contains(&Value::from("dhcp6"))), "sources {sources}");
    let timeline = leaf.admin_json(&format!("/v1/ports/{}/timeline", machine.home.port))?;
    let entries = timeline["boots"][0]["entries"].as_array().cloned().unwrap_or_default();
    for (stage, detail) in [("dhcp6", "x64-uefi-http"), ("boot-url", X64)] {
        let Some(entry) = entries.iter().find(|entry| entry["stage"] == stage) else {
            fail!("no {stage} in {timeline}")
        };
        ensure!(entry["detail"] == detail, "{stage} is {entry}");
    }
    let shown = &entry["dhcp6"]["clients"]["x64-uefi-http"];
    ensure!(shown.as_u64().is_some_and(|count| count >= 1), "the port shows {}", entry["dhcp6"]);
    let clients = leaf.counter("switch_agent_dhcp6_clients_total{client=\"x64-uefi-http\"}")?;
    ensure!(clients >= 1.0, "{clients} clients were counted");
    Ok(())
}
