//! Machines that reach a metal-apiserver through their switch: config, Register, Wait, allocation.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

use crate::cases::{Case, cases};
use crate::failure::{Context, Failure, Result, ensure};
use crate::http::{Request, Response};
use crate::lab::{API, CONVERGENCE, Lab};
use crate::leaf::{Leaf, Rows};
use crate::machine::Machine;
use crate::wait;

/// `METAL_APISERVER_PORT` of the lab.
const PORT: u16 = 8444;
const REGISTER: &str = "/metalstack.infra.v2.BootService/Register";
const WAIT: &str = "/metalstack.infra.v2.BootService/Wait";
const TABLE: &str = "BOOT_NETWORK";
const ROW: &str = "BOOT_NETWORK|global";
/// Machine ids, as firmware tells them.
const M1: &str = "4f2b1c4e-0000-4000-8000-000000000001";
const M2: &str = "4f2b1c4e-0000-4000-8000-000000000002";

pub(crate) fn cases() -> Vec<Case> {
    cases!("metal_stack_v2",
        120 s: a_machine_boots_registers_waits_and_is_allocated,
            a_machine_acts_for_no_other,
            a_dead_machine_no_longer_waits,
            config_is_served_while_the_api_is_away_and_nothing_is_minted;
    )
}

/// leaf1 with a metal-apiserver behind it; everything is as before once it is dropped.
struct MetalStack<'a> {
    lab: &'a Lab,
    before: Rows,
}

impl<'a> MetalStack<'a> {
    fn start(lab: &'a Lab) -> Result<MetalStack<'a>> {
        let leaf = &lab.leaves[0];
        let stack = MetalStack { lab, before: leaf.rows(crate::leaf::CONFIG_DB)? };
        lab.service("api", "metal-apiserver", "start")?;
        wait::until(wait::seconds(15), || stack.state().map(drop))?;
        leaf.configure(
            ROW,
            &[
                ("control_api_url", &format!("https://[{API}]:{PORT}/metal")),
                ("control_api_dialect", "metal-stack-v2"),
                ("control_api_token_file", "/run/lab/api/infra-token"),
            ],
        )?;
        wait::until(CONVERGENCE, || {
            ensure!(leaf.counter("switch_agent_metal_stack_v2_config_age_seconds{").is_ok(), "no metrics");
            let document = lab.machines[0].boot_document()?;
            ensure!(document["config"]["kernel"].is_string(), "the partition is not known: {document}");
            leaf.converged()
        })?;
        Ok(stack)
    }

    fn leaf(&self) -> &Leaf {
        &self.lab.leaves[0]
    }

    fn control() -> PathBuf {
        Path::new("/run/lab/api").join("metal-apiserver.sock")
    }

    fn state(&self) -> Result<Value> {
        Request::get("/state").send_unix(&Self::control())?.expect(200)?.json()
    }

    fn allocate(&self, uuid: &str) -> Result<()> {
        let body = json!({ "uuid": uuid, "hostname": "allocated-by-a-user" }).to_string();
        Request::post("/allocations", body).send_unix(&Self::control())?.expect(200).map(drop)
    }
}

impl Drop for MetalStack<'_> {
    fn drop(&mut self) {
        // The next case finds out if this does not do.
        self.leaf().restore(&self.before, &[TABLE]).ok();
        self.lab.service("api", "metal-apiserver", "stop").ok();
        wait::until(CONVERGENCE, || self.leaf().converged()).ok();
    }
}

fn config(machine: &Machine, uuid: &str) -> Result<Response> {
    machine.get(&format!("/config/{uuid}"))
}

fn token(machine: &Machine, uuid: &str) -> Result<String> {
    let config = config(machine, uuid)?.expect(200)?.json()?;
    let token = config["metal_apiserver_token_for_hammer"].as_str();
    Ok(token.context(|| format!("no token in {config}"))?.to_owned())
}

fn call(machine: &Machine, token: &str, procedure: &str, body: &Value) -> Result<Response> {
    let request = Request::post(procedure, body.to_string())
        .header("authorization", format!("Bearer {token}"))
        .header("connect-protocol-version", "1");
    machine.send(&request)
}

fn register(machine: &Machine, token: &str, uuid: &str) -> Result<Response> {
    let neighbor =
        json!({ "hostname": "leaf1", "identifier": machine.home.alias, "name": machine.home.port });
    let nics = json!([{ "name": "eth0", "mac": machine.mac, "neighbors": [neighbor] }]);
    let body = json!({ "uuid": uuid, "partition": machine.home.partition, "hardware": { "nics": nics } });
    call(machine, token, REGISTER, &body)
}

/// Sends the call that hangs until the machine is allocated.
fn send_wait(machine: &Machine, token: &str, uuid: &str) -> Result<TcpStream> {
    let message = json!({ "uuid": uuid }).to_string();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    body.extend(message.into_bytes());
    let head = format!(
        "POST {WAIT} HTTP/1.1\r\nhost: switch\r\ncontent-type: application/connect+json\r\n\
         connect-protocol-version: 1\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = machine.open_proxy_connection()?;
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).context(|| WAIT.into())?;
    Ok(stream)
}

/// Sends it, and again when the port has had its share of requests, until the API has it.
fn begin_to_wait(stack: &MetalStack<'_>, machine: &Machine, token: &str, uuid: &str) -> Result<TcpStream> {
    let mut stream = send_wait(machine, token, uuid)?;
    wait::until(wait::seconds(15), || {
        let state = stack.state()?;
        if state["machines"][uuid]["waiting"] == true {
            return Ok(());
        }
        let told = told_so_far(&stream)?;
        if told.starts_with("HTTP/1.1 429 ") {
            thread::sleep(wait::seconds(1));
            stream = send_wait(machine, token, uuid)?;
        }
        Err(Failure(format!("not waiting; told {told:?}; {state}")))
    })?;
    Ok(stream)
}

/// What has come of the answer; nothing should, before the allocation.
fn told_so_far(stream: &TcpStream) -> Result<String> {
    let mut told = [0; 2048];
    stream.set_nonblocking(true).context(|| WAIT.into())?;
    let read = stream.peek(&mut told);
    stream.set_nonblocking(false).context(|| WAIT.into())?;
    Ok(read.map_or_else(|error| error.to_string(), |n| String::from_utf8_lossy(&told[..n]).into_owned()))
}

fn expect_refused(reply: &Response, status: u16, code: &str) -> Result<()> {
    let value = reply.json()?;
    let found = value["error"]["code"].as_str().or(value["code"].as_str());
    ensure!(reply.status == status && found == Some(code), "status {}: {value}", reply.status);
    Ok(())
}

fn a_machine_boots_registers_waits_and_is_allocated(lab: &Lab) -> Result<()> {
    let stack = MetalStack::start(lab)?;
    let machine = &lab.machines[0];
    let script = machine.get("/boot.ipxe")?.expect(200)?.body;
    let told = format!("PIXIE_API_URL=http://[{}]:18090/config/${{uuid}}", machine.home.router());
    ensure!(
        script.contains("/kernel") && script.contains(&told),
        "the script boots something else: {script}"
    );
    let config = config(machine, M1)?.expect(200)?.json()?;
    let url = format!("http://[{}]:18090", machine.home.router());
    ensure!(config["metal_apiserver_url"] == *url && config["partition"] == "p1", "config {config}");
    let token = token(machine, M1)?;
    let registered = register(machine, &token, M1)?.expect(200)?.json()?;
    ensure!(registered["uuid"] == M1, "registered {registered}");
    let stage = r#"{"stage":"Waiting"}"#;
    machine.send(&Request::post("/v1/events", stage))?.expect(202)?;

    let mut stream = begin_to_wait(&stack, machine, &token, M1)?;
    wait::until(wait::seconds(10), || {
        let state = stack.state()?;
        let known = &state["machines"][M1];
        let events = known["events"].to_string();
        ensure!(events.contains("PXE_BOOTING") && events.contains("TYPE_WAITING"), "events {events}");
        ensure!(state["pings"]["leaf1"].is_object(), "no ping of leaf1: {state}");
        Ok(())
    })?;
    stack.allocate(M1)?;
    let mut got = Vec::new();
    while !String::from_utf8_lossy(&got).contains("allocated-by-a-user") {
        let mut piece = [0; 1024];
        let count = stream.read(&mut piece).context(|| "the allocation".into())?;
        ensure!(count > 0, "the stream ended: {}", String::from_utf8_lossy(&got));
        got.extend(&piece[..count]);
    }
    let body = json!({ "uuid": M1, "consolePassword": "secret-of-the-console" });
    let done = "/metalstack.infra.v2.BootService/InstallationSucceeded";
    call(machine, &token, done, &body)?.expect(200)?;
    ensure!(stack.state()?["machines"][M1]["installed"] == true, "the API does not know");
    Ok(())
}

fn a_machine_acts_for_no_other(lab: &Lab) -> Result<()> {
    let stack = MetalStack::start(lab)?;
    // m1 and m2 are on two ports of leaf1.
    let (one, other) = (&lab.machines[0], &lab.machines[1]);
    let first = token(one, M1)?;
    expect_refused(&config(other, M1)?, 403, "machine-id-other-port")?;
    expect_refused(&register(other, &first, M1)?, 401, "unauthenticated")?;
    expect_refused(&config(one, M2)?, 403, "machine-id-mismatch")?;
    let second = token(other, M2)?;
    expect_refused(&register(other, &second, M1)?, 403, "permission_denied")?;
    register(one, &first, M1)?.expect(200)?;
    register(other, &second, M2)?.expect(200)?;
    // Now the API knows both, whatever is seen on the ports.
    let connections = stack.state()?["switches"]["leaf1"]["machineConnections"].clone();
    ensure!(connections.as_array().is_some_and(|list| list.len() == 2), "connections {connections}");
    other.reboot()?;
    wait::until(CONVERGENCE, || other.get("/healthz")?.expect(200))?;
    expect_refused(&register(other, &second, M2)?, 401, "unauthenticated")?;
    token(other, M2)?;
    expect_refused(&config(other, M1)?, 403, "machine-id-mismatch")?;
    let withheld = "/metalstack.api.v2.TokenService/Refresh";
    expect_refused(&call(one, &first, withheld, &json!({}))?, 403, "permission_denied")?;
    let timeline = stack.leaf().admin(&format!("/v1/ports/{}/timeline", other.home.port))?.expect(200)?.body;
    ensure!(timeline.contains("token-refused"), "operators are not told: {timeline}");
    let refused = "switch_agent_proxy_tokens_refused_total{reason=\"machine-id-mismatch\"}";
    ensure!(stack.leaf().counter(refused)? >= 2.0, "not counted");
    Ok(())
}

fn a_dead_machine_no_longer_waits(lab: &Lab) -> Result<()> {
    let stack = MetalStack::start(lab)?;
    let machine = &lab.machines[0];
    let waits_no_longer = || {
        wait::until(wait::seconds(15), || {
            let state = stack.state()?;
            ensure!(state["machines"][M1]["waiting"] == false, "it still waits: {state}");
            Ok(())
        })
    };
    for pulled in [false, true] {
        let token = token(machine, M1)?;
        register(machine, &token, M1)?.expect(200)?;
        let stream = begin_to_wait(&stack, machine, &token, M1)?;
        if pulled {
            // No packet of the machine tells that it is gone.
            machine.home.set_carrier(false)?;
            let noticed = waits_no_longer();
            machine.home.set_carrier(true)?;
            noticed?;
        } else {
            drop(stream);
            waits_no_longer()?;
        }
    }
    lab.settle(CONVERGENCE)
}

fn config_is_served_while_the_api_is_away_and_nothing_is_minted(lab: &Lab) -> Result<()> {
    let stack = MetalStack::start(lab)?;
    let (one, other) = (&lab.machines[0], &lab.machines[1]);
    let live = token(one, M1)?;
    register(one, &live, M1)?.expect(200)?;
    lab.service("api", "metal-apiserver", "kill")?;
    let minted = || stack.leaf().counter("switch_agent_proxy_tokens_minted_total");
    let before = minted()?;
    let reply = wait::until(wait::seconds(15), || config(other, M2)?.expect(503))?;
    ensure!(reply.header("retry-after").is_some(), "no Retry-After: {}", reply.excerpt());
    let document = other.boot_document()?;
    ensure!(document["config"]["kernel"].is_string(), "the config is gone: {document}");
    // A machine that has its token is told it again.
    ensure!(token(one, M1)? == live, "another token of m1");
    expect_refused(&register(one, &live, M1)?, 503, "unavailable")?;
    // The agent's own restart changes nothing for those that know the partition only.
    stack.leaf().end_agent(nix::sys::signal::Signal::SIGTERM)?;
    stack.leaf().start_agent()?;
    wait::until(CONVERGENCE, || {
        let document = other.boot_document()?;
        ensure!(document["config"]["kernel"].is_string(), "the config did not outlive it: {document}");
        ensure!(document["config_age_s"].as_u64().is_some_and(|age| age > 0), "no age: {document}");
        Ok(())
    })?;
    ensure!(minted()? == 0.0 && before > 0.0, "something was minted");

    // The API comes back, without its tokens.
    lab.service("api", "metal-apiserver", "start")?;
    let token = wait::until(wait::seconds(20), || token(other, M2))?;
    register(other, &token, M2)?.expect(200)?;
    Ok(())
}
