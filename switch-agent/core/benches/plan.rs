//! How long one call of `plan()` takes on the largest switch it is meant for.
//!
//! `cargo bench -p switch-agent-core --features sim --bench plan [-- --json]`. A figure, not a gate: what a
//! machine that is busy with something else measures says nothing about the code.
#![allow(clippy::unwrap_used, reason = "a row that does not parse is a mistake of the bench itself")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use switch_agent_core::action::Action;
use switch_agent_core::desired::Desired;
use switch_agent_core::frr::FrrObserved;
use switch_agent_core::name::PortName;
use switch_agent_core::observed::{AdvertiserState, Observed, Runtime, Source};
use switch_agent_core::ownership::Ledger;
use switch_agent_core::plan::plan;
use switch_agent_core::row::fields;
use switch_agent_core::service::UpstreamState;
use switch_agent_core::sim::SimSwitch;

const PORTS: usize = 512;
const PARTITIONS: usize = 16;
const TARGET: Duration = Duration::from_millis(5);
/// Of `cargo bench`. Under `cargo test` it only has to get through, once.
const RUNS: usize = 200;
/// A switch of this size converges in far fewer passes.
const PASSES_MAX: usize = 32;

/// An agent without a clock: a switch and what the agent knows of its own doing.
struct Agent {
    switch: SimSwitch,
    ledger: Ledger,
    runtime: Runtime,
}

impl Agent {
    fn new() -> Agent {
        let ports: Vec<PortName> =
            (0..PORTS).map(|number| format!("Ethernet{}", number * 4).parse().unwrap()).collect();
        let mut switch = SimSwitch::new(&ports);
        for partition in 0..PARTITIONS {
            let prefix = format!("2001:db8:{partition:x}::/48");
            let row = fields([("prefix", prefix.as_str())]);
            switch.config_set("BOOT_NETWORK_PARTITION", &format!("p{partition}"), row);
        }
        for (number, port) in ports.iter().enumerate() {
            let partition = format!("p{}", number % PARTITIONS);
            switch.config_set("BOOT_NETWORK_PORT", port.as_str(), fields([("partition", &partition)]));
        }
        Agent { switch, ledger: Ledger::default(), runtime: Runtime::default() }
    }

    fn inputs(&self) -> (Desired, Observed) {
        let (state, appl, kernel) = self.switch.observe();
        let config = self.switch.config().clone();
        let desired = Desired::from_config(&config);
        let observed = Observed {
            config: Source::Known(config),
            state: Source::Known(state),
            appl: Source::Known(appl),
            kernel: Source::Known(kernel),
            frr: Source::Known(FrrObserved::default()),
            ledger: Source::Known(self.ledger.clone()),
            runtime: self.runtime.clone(),
            backing_off: BTreeMap::new(),
            cooling: std::collections::BTreeSet::new(),
            overdue: std::collections::BTreeSet::new(),
        };
        (desired, observed)
    }

    /// Carries plans out until half of the ports have their address.
    fn half_way(&mut self) {
        for _ in 0..PASSES_MAX {
            self.switch.settle(100_000);
            let (desired, observed) = self.inputs();
            let actions = plan(&desired, &observed).actions;
            let addresses = actions.iter().any(|action| matches!(action, Action::AddAddress { .. }));
            let step = if addresses { 2 } else { 1 };
            for action in actions.into_iter().step_by(step) {
                self.carry_out(action);
            }
            if addresses {
                self.switch.settle(100_000);
                return;
            }
        }
    }

    /// Carries plans out until nothing is left to do.
    fn converge(&mut self) {
        for _ in 0..PASSES_MAX {
            self.switch.settle(100_000);
            let (desired, observed) = self.inputs();
            let actions = plan(&desired, &observed).actions;
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action);
            }
        }
        let (desired, observed) = self.inputs();
        let left: Vec<&str> = plan(&desired, &observed).actions.iter().map(Action::kind).collect();
        assert!(left.is_empty(), "does not converge: {left:?}");
    }

    fn carry_out(&mut self, action: Action) {
        let switch = &mut self.switch;
        match action {
            Action::RecordLedger(ledger) => self.ledger = ledger,
            Action::SetAcl { table, key, row }
            | Action::SetLeakRow { table, key, row }
            | Action::RewriteLeakRow { table, key, row } => switch.config_set(table, &key, row),
            Action::CreateVrf(vrf) => switch.config_set("VRF", vrf.as_str(), fields([])),
            Action::BindInterface { port, vrf } => {
                let row = fields([("vrf_name", vrf.as_str())]);
                switch.config_set(port.kind().interface_table(), port.as_str(), row);
            }
            Action::AddAddress { port, address } => {
                let key = format!("{port}|{address}");
                switch.config_set(port.kind().interface_table(), &key, fields([]));
            }
            Action::AddUnreachableDefault { vrf, .. } => {
                switch.kernel_add_unreachable_default(vrf.as_str());
            }
            Action::AddConvenienceLinkLocal { port, address, .. } => {
                let net = ipnet::Ipv6Net::new_assert(address, 64);
                switch.kernel_add_address(port.as_str(), net.into());
            }
            Action::SetAdvertiser(spec) => {
                self.runtime.advertisers.insert(spec.port.clone(), AdvertiserState::Running(spec));
            }
            Action::SetService(service) => {
                self.runtime.services.insert(service.listener.port.clone(), *service);
            }
            Action::SetUpstream(spec) => {
                self.runtime.upstream = spec.map(|spec| UpstreamState { spec, error: None });
            }
            // Nothing is ever taken away or repaired here; the pass limit shows an action that is left out.
            _ => {}
        }
    }
}

struct Measured {
    name: &'static str,
    actions: usize,
    /// Sorted.
    times: Vec<Duration>,
}

impl Measured {
    fn measure(name: &'static str, agent: &Agent, runs: usize) -> Measured {
        let (desired, observed) = agent.inputs();
        assert_eq!(desired.ports.len(), PORTS, "{:?}", desired.rejected.first());
        assert_eq!(desired.partitions.len(), PARTITIONS);
        let actions = plan(&desired, &observed).actions.len();
        let mut times: Vec<Duration> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                let plan = plan(&desired, &observed);
                let took = start.elapsed();
                std::hint::black_box(&plan);
                took
            })
            .collect();
        times.sort();
        Measured { name, actions, times }
    }

    fn median(&self) -> Duration {
        self.times[self.times.len() / 2]
    }

    fn bounds(&self) -> (Duration, Duration) {
        (self.times[0], self.times[self.times.len() - 1])
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn print_table(measured: &[Measured]) {
    let runs = measured[0].times.len();
    println!("plan() for {PORTS} ports in {PARTITIONS} partitions, {runs} runs, milliseconds");
    println!("{:<12}{:>9}{:>9}{:>9}{:>9}  target", "observation", "actions", "median", "min", "max");
    for one in measured {
        let (min, max) = one.bounds();
        let verdict = if one.median() <= TARGET { "met" } else { "missed" };
        println!(
            "{:<12}{:>9}{:>9.2}{:>9.2}{:>9.2}  {} ({} ms median)",
            one.name,
            one.actions,
            milliseconds(one.median()),
            milliseconds(min),
            milliseconds(max),
            verdict,
            TARGET.as_millis(),
        );
    }
}

fn print_json(measured: &[Measured]) {
    let rows: Vec<serde_json::Value> = measured
        .iter()
        .map(|one| {
            let (min, max) = one.bounds();
            serde_json::json!({
                "observation": one.name,
                "actions": one.actions,
                "median_ms": milliseconds(one.median()),
                "min_ms": milliseconds(min),
                "max_ms": milliseconds(max),
                "target_ms": milliseconds(TARGET),
                "target_met": one.median() <= TARGET,
            })
        })
        .collect();
    let report = serde_json::json!({
        "bench": "plan", "ports": PORTS, "partitions": PARTITIONS, "runs": measured[0].times.len(), "results": rows,
    });
    println!("{report}");
}

fn main() {
    let measures = std::env::args().any(|argument| argument == "--bench");
    let runs = if measures { RUNS } else { 1 };
    let mut agent = Agent::new();
    let cold = Measured::measure("cold", &agent, runs);
    agent.half_way();
    let half_way = Measured::measure("half-way", &agent, runs);
    agent.converge();
    let converged = Measured::measure("converged", &agent, runs);
    let measured = [cold, half_way, converged];
    if !measures {
        println!("plan() for {PORTS} ports: converges");
    } else if std::env::args().any(|argument| argument == "--json") {
        print_json(&measured);
    } else {
        print_table(&measured);
    }
}
