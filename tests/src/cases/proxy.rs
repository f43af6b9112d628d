//! The discovery proxy towards machines and towards the control API.

use std::fs;

use crate::cases::{Case, cases};
use crate::failure::{Result, ensure};
use crate::http::{Request, Response};
use crate::lab::Lab;
use crate::leaf::CONFIG_DB;
use crate::machine::Machine;
use crate::wait;

/// Echoes how the control API saw the request: identity, token subject, headers.
const WHOAMI: &str = "/api/v1/whoami";

pub(crate) fn cases() -> Vec<Case> {
    cases!("proxy",
        60 s: token_is_accepted_from_its_own_port,
            token_is_refused_from_every_other_port,
            token_needs_its_header,
            a_newer_token_replaces_the_older,
            control_api_is_told_the_true_place,
            paths_outside_the_rules_are_refused,
            unknown_paths_and_methods_are_errors_with_the_port,
            events_are_accepted;
        90 s: wrong_ca_is_a_counted_502;
    )
}

fn call(machine: &Machine, token: &str) -> Result<Response> {
    machine.send(&Request::get(WHOAMI).header("authorization", format!("Bearer {token}")))
}

fn token_is_accepted_from_its_own_port(lab: &Lab) -> Result<()> {
    for machine in &lab.machines {
        call(machine, &machine.token()?)?.expect(200)?;
    }
    Ok(())
}

/// From another partition, and from the same partition on another leaf.
fn token_is_refused_from_every_other_port(lab: &Lab) -> Result<()> {
    let token = lab.machines[0].token()?;
    call(&lab.machines[0], &token)?.expect(200)?;
    for thief in &lab.machines[1..] {
        let reply = call(thief, &token)?;
        ensure!(
            reply.status == 401 || reply.status == 403,
            "the token of m1 is answered with {} when {} presents it: {}",
            reply.status,
            thief.ns.0,
            reply.excerpt()
        );
    }
    Ok(())
}

/// A plain POST, as a page in a browser could send it, gets nothing.
fn token_needs_its_header(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    let reply = machine.send(&Request::post("/v1/token", "{}"))?;
    ensure!((400..500).contains(&reply.status), "status {} without Boot-Token", reply.status);
    let error = reply.json()?;
    ensure!(
        error["error"]["code"].is_string() && error["error"]["port"] == machine.home.port,
        "error {error}"
    );
    let reply = machine.get("/v1/token")?;
    ensure!((400..500).contains(&reply.status), "GET /v1/token is answered with {}", reply.status);
    Ok(())
}

fn a_newer_token_replaces_the_older(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[1];
    let older = machine.token()?;
    let newer = machine.token()?;
    ensure!(older != newer, "two requests gave the same token");
    call(machine, &newer)?.expect(200)?;
    let reply = call(machine, &older)?;
    ensure!(matches!(reply.status, 401 | 403), "the older token is answered with {}", reply.status);
    Ok(())
}

/// Headers that a machine sends about itself are replaced, not forwarded.
fn control_api_is_told_the_true_place(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[3];
    let token = machine.token()?;
    let request = Request::get(WHOAMI)
        .header("authorization", format!("Bearer {token}"))
        .header("x-boot-port", "Ethernet99")
        .header("X-Boot-Switch", "elsewhere")
        .header("x-boot-identity", "forged")
        .header("x-forwarded-for", "2001:db8::bad")
        .header("forwarded", "for=\"[2001:db8::bad]\"")
        .header("connection", "x-boot-mac");
    let seen = machine.send(&request)?.expect(200)?.body.to_lowercase();
    for forged in ["ethernet99", "elsewhere", "forged", "2001:db8::bad"] {
        ensure!(!seen.contains(forged), "the control API was told {forged}: {seen}");
    }
    for fact in ["ethernet4", "leaf2", "p2", machine.mac] {
        ensure!(seen.contains(fact), "the control API was not told {fact}: {seen}");
    }
    Ok(())
}

fn paths_outside_the_rules_are_refused(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    for path in ["/api/../admin", "/api/v1/../../metrics", "/api/%2e%2e/admin", "//api/v1/whoami"] {
        let reply = machine.get(path)?;
        ensure!((400..500).contains(&reply.status), "{path} is answered with {}", reply.status);
    }
    Ok(())
}

fn unknown_paths_and_methods_are_errors_with_the_port(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    // The operators' API is not served to machines.
    for path in ["/nothing", "/metrics", "/v1/ports", "/v1/macs", "/v1/status", "/.well-known/jwks.json"] {
        let reply = machine.get(path)?;
        ensure!(reply.status == 404, "{path} is answered with {}", reply.status);
        ensure!(reply.json()?["error"]["port"] == machine.home.port, "{path}: {}", reply.excerpt());
    }
    let reply = machine.send(&Request::post("/v1/boot", "{}"))?;
    ensure!(reply.status == 405, "POST /v1/boot is answered with {}", reply.status);
    Ok(())
}

fn events_are_accepted(lab: &Lab) -> Result<()> {
    let machine = &lab.machines[0];
    machine.send(&Request::post("/v1/events", r#"{"stage":"Installing"}"#))?.expect(202)?;
    let bad = machine.send(&Request::post("/v1/events", "no json"))?;
    ensure!(bad.status == 400, "an event that is no JSON is answered with {}", bad.status);
    let large = format!(r#"{{"stage":"x","message":"{}"}}"#, "y".repeat(1 << 20));
    let large = machine.send(&Request::post("/v1/events", large));
    // A server that stops reading may close before the client has sent all.
    ensure!(large.map_or(true, |reply| reply.status == 413), "an event of 1 MiB is taken");
    Ok(())
}

fn wrong_ca_is_a_counted_502(lab: &Lab) -> Result<()> {
    let leaf = &lab.leaves[0];
    let machine = &lab.machines[0];
    let token = machine.token()?;
    let good = leaf.row(CONFIG_DB, "BOOT_NETWORK|global")?["control_api_ca_file"].clone();
    let wrong = leaf.run_dir().join("wrong-ca.pem");
    crate::lab::run(
        std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "1", "-subj", "/CN=Another CA", "-keyout", "/dev/null", "-out"])
            .arg(&wrong),
    )?;
    ensure!(fs::metadata(&wrong).is_ok_and(|file| file.len() > 0), "no wrong CA");
    let replies = || leaf.counter("switch_agent_proxy_requests_total{route=\"api\",code=\"502\"}");
    let errors = || leaf.counter("switch_agent_proxy_upstream_errors_total{");
    let (replies_before, errors_before) = (replies()?, errors()?);

    leaf.configure("BOOT_NETWORK|global", &[("control_api_ca_file", &wrong.display().to_string())])?;
    let refused = wait::until(wait::seconds(20), || {
        let reply = call(machine, &token)?;
        ensure!(reply.status == 502, "status {} with the wrong CA", reply.status);
        Ok(reply)
    });
    let discovery = machine.get("/v1/boot");
    leaf.configure("BOOT_NETWORK|global", &[("control_api_ca_file", &good)])?;

    let error = refused?.json()?;
    let said = error["error"].to_string().to_lowercase();
    ensure!(said.contains("certificate") || said.contains("tls"), "the 502 does not say why: {error}");
    discovery?.expect(200)?;
    ensure!(replies()? > replies_before, "no 502 is counted");
    ensure!(errors()? > errors_before, "no error of the control API is counted");
    wait::until(wait::seconds(20), || call(machine, &token)?.expect(200)).map(drop)
}
