//! Dialect `metal-stack-v1`: machines that boot as metal-hammer does, in front of a metal-api that believes
//! every holder of the fleet's certificate.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure, fail};
use crate::http::{self, Request};
use crate::lab::{API, Lab, PROXY_PORT};
use crate::leaf::CONFIG_DB;
use crate::machine::Machine;
use crate::ns::Ns;
use crate::wait;

/// As `labs/local/lib/services.sh` starts it.
const GRPC_PORT: u16 = 50051;
const REST_PORT: u16 = 8446;
const CONTROL_PORT: u16 = 8447;
const FLEET_KEY: &str = "lab-fleet-key";

const A: &str = "00000000-0000-4000-8000-525400000001";
const B: &str = "00000000-0000-4000-8000-525400000002";
/// A machine that fell silent is pinged after 5 s and given 5 s to answer.
const SILENCE_MAX: Duration = Duration::from_secs(12);

pub(crate) fn cases() -> Vec<Case> {
    cases!("metal_stack_v1",
        120 s: metal_hammer_boots_with_the_fleets_secrets_unseen,
            one_machines_credentials_are_worth_nothing_to_another,
            a_lost_metal_api_is_no_allocation,
            metal_api_learns_of_a_dead_machine,
            a_machine_waits_through_a_restart_of_the_agent;
    )
}

/// Runs `work` with metal-api behind leaf1, and puts everything back.
fn with_metal_api(lab: &Lab, work: impl FnOnce(&Bench<'_>) -> Result<()>) -> Result<()> {
    let leaf = &lab.leaves[0];
    let before = leaf.rows(CONFIG_DB)?;
    lab.service("api", "metal-api", "start")?;
    let pki = PathBuf::from("/run/lab/pki");
    let file = |name: &str| pki.join(name).display().to_string();
    let fields = [
        ("control_api_url", format!("https://[{API}]:{REST_PORT}/metal")),
        ("control_api_ca_file", file("ca.pem")),
        ("control_api_dialect", "metal-stack-v1".to_owned()),
        ("metal_stack_grpc_address", format!("[{API}]:{GRPC_PORT}")),
        ("metal_stack_grpc_cert_file", file("client.pem")),
        ("metal_stack_grpc_key_file", file("client.key")),
        ("metal_stack_hmac_file", file("hmac")),
    ];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let done = leaf
        .configure("BOOT_NETWORK|global", &fields)
        .and_then(|()| {
            wait::until(wait::seconds(20), || lab.machines[0].get("/certs")?.expect(200))?;
            wait::until(wait::seconds(20), || calls().map(drop))
        })
        .and_then(|()| work(&Bench { lab }));
    let restored = leaf.restore(&before, &["BOOT_NETWORK"]);
    let stopped = lab.service("api", "metal-api", "stop");
    done.and(restored).and(stopped)?;
    lab.settle(crate::lab::CONVERGENCE)
}

struct Bench<'a> {
    lab: &'a Lab,
}

/// A metal-hammer that runs. Ends with its handle.
struct Hammer(Child);

impl Drop for Hammer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

impl Hammer {
    /// Lines of all steps, once it has ended.
    fn finish(mut self) -> Result<Vec<Value>> {
        let output = self.0.stdout.take().context(|| "no output".into())?;
        let mut steps = Vec::new();
        for line in BufReader::new(output).lines() {
            let line = line.context(|| "read its output".into())?;
            steps.push(serde_json::from_str(&line).context(|| line.clone())?);
        }
        let status = self.0.wait().context(|| "wait for it".into())?;
        ensure!(status.success(), "metal-hammer ended with {status}: {steps:?}");
        Ok(steps)
    }
}

fn step<'a>(steps: &'a [Value], name: &str) -> Result<&'a Value> {
    steps.iter().find(|step| step["step"] == name).context(|| format!("no step {name} in {steps:?}"))
}

impl Bench<'_> {
    /// Starts a metal-hammer on a machine.
    fn start(&self, machine: &Machine, uuid: &str, steps: &str, more: &[&str]) -> Result<Hammer> {
        let mut command = Command::new(self.lab.bin.join("stand-ins"));
        command.args(["metal-hammer", "--uuid", uuid, "--steps", steps]).args(more);
        if !more.contains(&"--config") {
            let url = format!("http://[{}]:{PROXY_PORT}/certs", machine.home.router());
            command.args(["--pixie-api-url", &url]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        machine.ns.run(|| command.spawn().map(Hammer).context(|| "start metal-hammer".into()))
    }

    fn run(&self, machine: &Machine, uuid: &str, steps: &str, more: &[&str]) -> Result<Vec<Value>> {
        self.start(machine, uuid, steps, more)?.finish()
    }

    /// Starts one, and returns when metal-api has it waiting.
    fn wait(&self, machine: &Machine, uuid: &str) -> Result<Hammer> {
        let hammer = self.start(machine, uuid, "send,register,wait,report", &[])?;
        wait::until(wait::seconds(20), || {
            ensure!(waits(uuid)?, "{uuid} does not wait");
            Ok(())
        })?;
        Ok(hammer)
    }
}

fn control(request: &Request<'_>) -> Result<Value> {
    Ns("api").run(|| request.send(http::address(API, CONTROL_PORT, 0))?.expect(200)?.json())
}

fn calls() -> Result<Vec<Value>> {
    Ok(control(&Request::get("/calls"))?["calls"].as_array().cloned().unwrap_or_default())
}

fn waits(uuid: &str) -> Result<bool> {
    let shown = control(&Request::get("/calls"))?;
    Ok(shown["waiting"].as_array().is_some_and(|waiting| waiting.iter().any(|id| id == uuid)))
}

/// What metal-api was asked about a machine, in order.
fn asked(uuid: &str) -> Result<Vec<String>> {
    let calls = calls()?;
    let about = calls.iter().filter(|call| call["machine"] == uuid);
    Ok(about.filter_map(|call| call["procedure"].as_str().map(str::to_owned)).collect())
}

fn metal_hammer_boots_with_the_fleets_secrets_unseen(lab: &Lab) -> Result<()> {
    with_metal_api(lab, |bench| {
        let machine = &lab.machines[0];
        let saved = lab.leaves[0].run_dir().join("hammer.json");
        let all = "send,password,register,machine,wait,report";
        let save = saved.display().to_string();
        let hammer = bench.start(machine, A, all, &["--save", &save])?;
        wait::until(wait::seconds(20), || {
            ensure!(waits(A)?, "{A} does not wait");
            Ok(())
        })?;
        // Longer than metal-api is silent between two messages, and than an idle connection lives.
        wait::throughout(wait::seconds(17), || {
            ensure!(waits(A)?, "{A} waits no more");
            Ok(())
        })?;
        control(&Request::post(&format!("/allocate/{A}"), ""))?;
        let steps = hammer.finish()?;
        for name in ["send", "password", "register", "wait", "report"] {
            ensure!(step(&steps, name)?["status"] == 0, "{name}: {steps:?}");
        }
        ensure!(step(&steps, "machine")?["http"] == 200, "machine: {steps:?}");
        ensure!(step(&steps, "wait")?["messages"].as_u64() >= Some(3), "wait: {steps:?}");
        let wanted = ["Dhcp", "Send", "Register", "GET machine", "Wait", "Wait", "Report"];
        ensure!(asked(A)? == wanted, "metal-api was asked {:?}", asked(A)?);
        let config = std::fs::read_to_string(&saved).context(|| save.clone())?;
        let fleet = std::fs::read_to_string("/run/lab/pki/client.key").context(|| "client.key".into())?;
        let secret = fleet.lines().nth(1).context(|| "client.key is empty".into())?;
        ensure!(!config.contains(FLEET_KEY), "the fleet's HMAC key is in the machine's configuration");
        ensure!(!config.contains(secret), "the fleet's key is in the machine's configuration");
        Ok(())
    })
}

fn one_machines_credentials_are_worth_nothing_to_another(lab: &Lab) -> Result<()> {
    with_metal_api(lab, |bench| {
        let (a, b) = (&lab.machines[0], &lab.machines[1]);
        let dir = lab.leaves[0].run_dir();
        let path = |name: &str| dir.join(name).display().to_string();
        let (of_a, of_b, mixed) = (path("a.json"), path("b.json"), path("mixed.json"));
        let steps = bench.run(a, A, "register", &["--save", &of_a])?;
        ensure!(step(&steps, "register")?["status"] == 0, "A: {steps:?}");
        let own = format!("[{}]:{PROXY_PORT}", b.home.router());
        let refused = |steps: &[Value], name: &str, wanted: &str| -> Result<()> {
            let said = step(steps, name)?;
            ensure!(said[wanted].is_string() || said[wanted].is_number(), "{name} is not refused: {said}");
            ensure!(said["status"] != 0 && said["http"] != 200, "{name} is served: {said}");
            Ok(())
        };
        // A's certificate on B's own port.
        let steps = bench.run(b, B, "register", &["--config", &of_a, "--address", &own])?;
        refused(&steps, "register", "error")?;
        // A's id, while A's port has it.
        let steps = bench.run(b, A, "register,machine", &["--save", &of_b])?;
        ensure!(step(&steps, "register")?["status"] == 7, "A's id: {steps:?}");
        ensure!(step(&steps, "machine")?["http"] == 403, "A's id: {steps:?}");
        // A's HMAC key with everything else of B.
        let read = |path: &str| -> Result<Value> {
            let text = std::fs::read_to_string(path).context(|| path.to_owned())?;
            serde_json::from_str(&text).context(|| path.to_owned())
        };
        let mut config = read(&of_b)?;
        config["hmac"] = read(&of_a)?["hmac"].clone();
        std::fs::write(&mixed, config.to_string()).context(|| mixed.clone())?;
        let steps = bench.run(b, B, "machine", &["--config", &mixed])?;
        ensure!(step(&steps, "machine")?["http"] == 401, "A's HMAC key: {steps:?}");
        // B is B, and nobody else afterwards.
        let steps = bench.run(b, B, "register,machine", &["--config", &of_b])?;
        ensure!(step(&steps, "register")?["status"] == 0, "B: {steps:?}");
        ensure!(step(&steps, "machine")?["http"] == 200, "B: {steps:?}");
        ensure!(asked(A)? == ["Dhcp", "Register"], "metal-api was asked {:?} of A", asked(A)?);
        Ok(())
    })
}

fn a_lost_metal_api_is_no_allocation(lab: &Lab) -> Result<()> {
    with_metal_api(lab, |bench| {
        let machine = &lab.machines[0];
        let hammer = bench.wait(machine, A)?;
        lab.service("api", "metal-api", "kill")?;
        let steps = hammer.finish()?;
        let waited = step(&steps, "wait")?;
        ensure!(waited["status"] == 14 || waited["error"].is_string(), "wait: {waited}");
        let report = step(&steps, "report")?;
        ensure!(report["http"] == 503 || report["error"].is_string(), "report: {report}");
        lab.service("api", "metal-api", "start")?;
        let served = || {
            let steps = bench.run(machine, A, "register", &[])?;
            ensure!(step(&steps, "register")?["status"] == 0, "register: {steps:?}");
            Ok(())
        };
        wait::until(wait::seconds(20), served)
    })
}

fn metal_api_learns_of_a_dead_machine(lab: &Lab) -> Result<()> {
    with_metal_api(lab, |bench| {
        let machine = &lab.machines[0];
        // Its kernel says so: the process was killed.
        let mut hammer = bench.wait(machine, A)?;
        hammer.0.kill().context(|| "kill it".into())?;
        let died = Instant::now();
        wait::until(wait::seconds(1), || {
            ensure!(!waits(A)?, "{A} still waits");
            Ok(())
        })?;
        println!("    a killed machine waits no more after {} ms", died.elapsed().as_millis());
        // Nobody says so: its NIC went down.
        let hammer = bench.wait(machine, A)?;
        machine.set_up(false)?;
        let died = Instant::now();
        let noticed = wait::until(SILENCE_MAX, || {
            ensure!(!waits(A)?, "{A} still waits");
            Ok(())
        });
        println!("    a silent machine waits no more after {} ms", died.elapsed().as_millis());
        machine.set_up(true)?;
        drop(hammer);
        noticed
    })
}

fn a_machine_waits_through_a_restart_of_the_agent(lab: &Lab) -> Result<()> {
    with_metal_api(lab, |bench| {
        let (machine, leaf) = (&lab.machines[0], &lab.leaves[0]);
        let saved = leaf.run_dir().join("hammer.json").display().to_string();
        let steps = bench.run(machine, A, "register", &["--save", &saved])?;
        ensure!(step(&steps, "register")?["status"] == 0, "before: {steps:?}");
        leaf.end_agent(nix::sys::signal::Signal::SIGKILL)?;
        leaf.start_agent()?;
        wait::until(crate::lab::CONVERGENCE, || machine.get("/healthz")?.expect(200))?;
        // metal-hammer fetches its credentials once: those of before are the ones it has.
        wait::until(wait::seconds(20), || {
            let steps = bench.run(machine, A, "register,machine", &["--config", &saved])?;
            ensure!(step(&steps, "register")?["status"] == 0, "after: {steps:?}");
            ensure!(step(&steps, "machine")?["http"] == 200, "after: {steps:?}");
            Ok(())
        })?;
        let steps = bench.run(machine, B, "register", &["--config", &saved])?;
        if step(&steps, "register")?["status"] != 7 {
            fail!("the pin was forgotten: {steps:?}");
        }
        Ok(())
    })
}
