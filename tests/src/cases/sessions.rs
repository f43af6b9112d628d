//! A connection ends with what it belongs to, and no port's load is another's.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::http::Request;
use crate::lab::{CONVERGENCE, Lab, PROXY_PORT, SOCKETS, run};
use crate::leaf::Leaf;
use crate::machine::{Machine, NIC};
use crate::wait;

const ATTEMPT: Duration = Duration::from_secs(3);
/// The link watch of the kernel tells of a lost carrier up to a second late.
const CARRIER_TOLD: Duration = Duration::from_secs(4);
/// Resident memory of the agent, whatever machines do.
const MEMORY_MAX_KIB: u64 = 32 << 10;

pub(crate) fn cases() -> Vec<Case> {
    cases!("sessions",
        60 s: a_forged_source_address_gets_no_answer;
        90 s: a_pulled_cable_ends_connections_and_token,
            another_mac_ends_connections_and_token,
            many_connections_of_one_port_are_no_others_trouble;
        180 s: a_port_that_leaves_its_vrf_ends_its_connections;
    )
}

fn open_connections(leaf: &Leaf, port: &str) -> Result<f64> {
    leaf.counter(&format!("switch_agent_proxy_open_connections{{port=\"{port}\"}}"))
}

/// Asks over an open connection, which stays open.
fn ask(stream: &mut TcpStream) -> Result<String> {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").context(|| "ask".into())?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer).context(|| "read".into())?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

/// An established connection to the router's link-local address, in use.
fn established(machine: &Machine) -> Result<TcpStream> {
    // A case before may have used up the port's rate.
    wait::until(wait::seconds(10), || {
        let mut stream = machine.open_proxy_connection()?;
        stream.set_read_timeout(Some(ATTEMPT)).context(|| "timeout".into())?;
        let answer = ask(&mut stream)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(stream)
    })
}

/// With an address of another port of the same VRF: the reply would leave by that port.
fn a_forged_source_address_gets_no_answer(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let mut segments = SOCKETS[2].prefix().addr().segments();
    segments[7] = 0xbad;
    let forged = Ipv6Addr::from(segments);
    let own = machine.address()?;
    let address = format!("{forged}/128");
    let change = |action: &str| {
        let mut command = Command::new("ip");
        command.args(["-n", machine.ns.0, "addr", action, &address, "dev", NIC]);
        // Nobody has to find out whether it is taken.
        command.args((action == "add").then_some("nodad"));
        run(&mut command).map(drop)
    };
    change("add")?;
    let attempts = [machine.home.router(), machine.home.service_address()]
        .map(|to| (answered_from(machine, own, to), answered_from(machine, forged, to)));
    change("del")?;
    for (own, forged) in attempts {
        ensure!(own?, "the own address gets no answer either");
        ensure!(!forged?, "a forged address is answered");
    }
    Ok(())
}

/// Whether a request from this source address is answered.
fn answered_from(machine: &Machine, source: Ipv6Addr, to: Ipv6Addr) -> Result<bool> {
    machine.ns.run(|| {
        let socket =
            Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)).context(|| "socket".into())?;
        socket.bind(&SocketAddrV6::new(source, 0, 0, 0).into()).context(|| format!("bind to {source}"))?;
        let to = SocketAddrV6::new(to, PROXY_PORT, 0, 0);
        if socket.connect_timeout(&to.into(), ATTEMPT).is_err() {
            return Ok(false);
        }
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(ATTEMPT)).context(|| "timeout".into())?;
        Ok(ask(&mut stream).is_ok_and(|answer| answer.starts_with("HTTP/1.1 ")))
    })
}

fn a_pulled_cable_ends_connections_and_token(lab: &Lab) -> Result<()> {
    let (machine, leaf) = (&lab.machines[0], &lab.leaves[0]);
    let token = machine.token()?;
    let mut stream = established(machine)?;
    let open = open_connections(leaf, machine.home.port)?;
    ensure!(open >= 1.0, "{open} connections are counted");
    machine.home.set_carrier(false)?;
    let ended = wait::until(CARRIER_TOLD, || {
        let open = open_connections(leaf, machine.home.port)?;
        ensure!(open == 0.0, "{open} connections live on without a carrier");
        Ok(())
    });
    machine.home.set_carrier(true)?;
    ended?;
    wait::until(wait::seconds(20), || machine.get("/healthz")?.expect(200))?;
    let answer = ask(&mut stream).unwrap_or_default();
    ensure!(answer.is_empty(), "the old connection is answered: {answer}");
    let call = Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}"));
    machine.send(&call)?.expect(401).map(drop)
}

/// Whoever has the address now is somebody else, whatever he knows of the one before.
fn another_mac_ends_connections_and_token(lab: &Lab) -> Result<()> {
    let (machine, leaf) = (&lab.machines[0], &lab.leaves[0]);
    let token = machine.token()?;
    let mut stream = established(machine)?;
    let before = machine.get("/v1/boot")?.expect(200)?.json()?;
    let own = before["machine"]["mac"].as_str().context(|| format!("no MAC in {before}"))?.to_owned();
    let other = "52:54:00:0b:ad:01";
    let change_to = |mac: &str| {
        run(Command::new("ip").args(["-n", machine.ns.0, "link", "set", NIC, "address", mac])).map(drop)
    };
    // As a host that replaces another one does: it tells of itself at once.
    machine.ns.run(|| {
        let path = format!("/proc/sys/net/ipv6/conf/{NIC}/ndisc_notify");
        fs::write(&path, "1").context(|| path)
    })?;
    change_to(other)?;
    let ended = wait::until(wait::seconds(10), || {
        let open = open_connections(leaf, machine.home.port)?;
        ensure!(open == 0.0, "{open} connections live on with another MAC");
        Ok(())
    });
    let answer = ask(&mut stream).unwrap_or_default();
    let call = Request::get("/api/v1/whoami").header("authorization", format!("Bearer {token}"));
    let refused = wait::until(wait::seconds(10), || machine.send(&call)?.expect(401));
    change_to(&own)?;
    let back = wait::until(wait::seconds(20), || {
        let now = machine.get("/v1/boot")?.expect(200)?.json()?;
        ensure!(now["machine"]["mac"] == own.as_str(), "{now}");
        machine.send(&call)?.expect(401)
    });
    ended?;
    ensure!(answer.is_empty(), "the old connection is answered: {answer}");
    refused.and(back).map(drop)
}

/// The kernel's filter and the agent's events: the established connection gets no answer any more, though the
/// agent binds the port anew at once.
fn a_port_that_leaves_its_vrf_ends_its_connections(lab: &Lab) -> Result<()> {
    let (machine, leaf) = (&lab.machines[0], &lab.leaves[0]);
    let (port, vrf) = (machine.home.port, machine.home.vrf());
    let mut stream = established(machine)?;
    let link = |arguments: &[&str]| {
        run(Command::new("ip").args(["-n", leaf.ns.0, "link", "set", port]).args(arguments)).map(drop)
    };
    link(&["nomaster"])?;
    let left = Instant::now();
    let answer = ask(&mut stream).unwrap_or_default();
    let ended = wait::until(wait::seconds(2), || {
        let open = open_connections(leaf, port)?;
        ensure!(open == 0.0, "{open} connections live on outside the VRF");
        Ok(())
    });
    let took = left.elapsed();
    link(&["master", &vrf])?;
    let back = wait::until(CONVERGENCE, || {
        leaf.converged()?;
        machine.get("/v1/boot")?.expect(200)
    });
    ensure!(answer.is_empty(), "answered outside the VRF: {answer}");
    ended?;
    let answer = ask(&mut stream).unwrap_or_default();
    ensure!(answer.is_empty(), "a connection outlived the VRF: {answer}");
    println!("connections outside the VRF ended within {took:?}");
    back.map(drop)
}

/// Half-sent requests, bodies byte by byte, and responses that nobody reads, as many as the port may have.
fn many_connections_of_one_port_are_no_others_trouble(lab: &Lab) -> Result<()> {
    let (leaf, [attacker, other, ..]) = (&lab.leaves[0], &lab.machines);
    let (before, _) = leaf.agent_memory_kib()?;
    let mut streams = Vec::new();
    for number in 0..48 {
        // Beyond the port's room they wait in the backlog.
        let Ok(mut stream) = attacker.open_proxy_connection() else { break };
        let part: Vec<u8> = match number % 3 {
            0 => b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ".to_vec(),
            1 => b"POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: 16000\r\n\r\n{".to_vec(),
            _ => b"GET /v1/boot HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100),
        };
        stream.write_all(&part).ok();
        streams.push(stream);
    }
    ensure!(streams.len() > 16, "only {} connections", streams.len());
    let (mut slowest, mut most) = (Duration::ZERO, 0);
    for _ in 0..20 {
        for stream in &mut streams {
            stream.write_all(b"a").ok();
        }
        let asked = Instant::now();
        other.get("/healthz")?.expect(200)?;
        slowest = slowest.max(asked.elapsed());
        most = most.max(leaf.agent_memory_kib()?.0);
        thread::sleep(Duration::from_millis(150));
    }
    println!(
        "{} connections: the other port waits {slowest:?} at most; {before} KiB, then {most}",
        streams.len()
    );
    ensure!(most <= MEMORY_MAX_KIB, "the agent has {most} KiB");
    ensure!(slowest < Duration::from_secs(1), "the other port waits {slowest:?}");
    drop(streams);
    wait::until(wait::seconds(30), || attacker.get("/healthz")?.expect(200)).map(drop)
}
