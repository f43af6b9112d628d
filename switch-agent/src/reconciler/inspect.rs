//! What a pass plans from, on demand: it is megabytes on a large switch, and nobody reads it but bug reports.

use std::time::Duration;

use serde::Serialize;
use switch_agent_core::desired::Desired;
use switch_agent_core::observed::Observed;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::wake::{Reason, Waker};

/// What a pass may take until it answers; one that waits for a stuck Redis answers later, to nobody. Less than
/// the command line waits, which then still learns why.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(8);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error("somebody else asks for it")]
    Busy,
    #[error("no pass answered within {} s", ANSWER_TIMEOUT.as_secs())]
    NoAnswer,
}

/// Asks the loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Inspector {
    requests: mpsc::Sender<oneshot::Sender<String>>,
    waker: Waker,
}

/// The loop's end: at most one request waits.
#[derive(Debug)]
pub struct Inspections(mpsc::Receiver<oneshot::Sender<String>>);

/// Both ends; `waker` is the loop's.
pub fn inspection(waker: Waker) -> (Inspector, Inspections) {
    let (requests, receiver) = mpsc::channel(1);
    (Inspector { requests, waker }, Inspections(receiver))
}

impl Inspector {
    /// Desired and observed state of the next pass, as JSON.
    ///
    /// # Errors
    /// [`InspectError`]
    pub async fn inputs(&self) -> Result<String, InspectError> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(reply).map_err(|failure| match failure {
            mpsc::error::TrySendError::Full(_) => InspectError::Busy,
            mpsc::error::TrySendError::Closed(_) => InspectError::NoAnswer,
        })?;
        self.waker.wake(Reason::Operator);
        match timeout(ANSWER_TIMEOUT, answer).await {
            Ok(Ok(inputs)) => Ok(inputs),
            Ok(Err(_)) | Err(_) => Err(InspectError::NoAnswer),
        }
    }
}

impl Inspections {
    /// Answers whoever waits with what this pass planned from.
    pub(crate) fn answer(&mut self, desired: &Desired, observed: &Observed) {
        if let Ok(reply) = self.0.try_recv() {
            // Whoever asked may have given up.
            reply.send(inputs_json(desired, observed)).ok();
        }
    }
}

/// Lines of FRR's running configuration that are ours or about our VRFs. The rest is not the agent's, and
/// may have passwords of neighbours.
fn frr_lines<'a>(desired: &Desired, observed: &'a Observed) -> Vec<&'a str> {
    let vrfs: Vec<&str> = desired.partitions.values().map(|partition| partition.vrf.as_str()).collect();
    let ours =
        |line: &&str| line.contains("BOOTNET-") || line.split_whitespace().any(|word| vrfs.contains(&word));
    let config = observed.frr.known().map(|frr| frr.running_config.as_str()).unwrap_or_default();
    config.lines().filter(ours).filter(|line| !line.contains("password")).collect()
}

fn inputs_json(desired: &Desired, observed: &Observed) -> String {
    #[derive(Serialize)]
    struct Inputs<'a> {
        desired: &'a Desired,
        observed: &'a Observed,
        frr_lines: Vec<&'a str>,
    }
    let inputs = Inputs { desired, observed, frr_lines: frr_lines(desired, observed) };
    serde_json::to_string(&inputs).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::Value;
    use switch_agent_core::frr::FrrObserved;
    use switch_agent_core::observed::{ApplDb, Kernel, Link, PortState, Runtime, Source, StateDb};
    use switch_agent_core::ownership::Ledger;
    use switch_agent_core::row::{ConfigDb, fields};

    use super::*;

    /// Something in every part whose keys are no strings by themselves.
    fn observed() -> Observed {
        let mut config = ConfigDb::default();
        config.insert("BOOT_NETWORK_PARTITION", "p1", fields([("prefix", "2001:db8::/56")]));
        let port = "Ethernet0".parse().unwrap();
        let prefix = "2001:db8:0:1::1/64".parse().unwrap();
        let state = StateDb {
            interface_prefixes: BTreeSet::from([(port, prefix)]),
            port_table: BTreeMap::from([(
                "Ethernet0".parse().unwrap(),
                PortState { state_ok: true, oper_up: true },
            )]),
            ..StateDb::default()
        };
        let link = Link {
            ifindex: 7,
            master: Some("VrfBoot-p1".to_owned()),
            is_vrf: false,
            vrf_table: None,
            admin_up: true,
            carrier: true,
            mac: Some("52:54:00:00:00:01".parse().unwrap()),
            addresses: BTreeSet::from([prefix]),
            tentative: BTreeSet::new(),
            forwarding: Some(true),
        };
        let kernel = Kernel { links: BTreeMap::from([("Ethernet0".to_owned(), link)]), ..Kernel::default() };
        let frr = FrrObserved {
            running_config: "router bgp 65000\n neighbor 2001:db8::2 password PRIVATE\nvrf VrfBoot-p1\n \
                             ipv6 route ::/0 blackhole\nipv6 prefix-list BOOTNET-p1 seq 5 permit ::/0\n"
                .to_owned(),
            ..FrrObserved::default()
        };
        Observed {
            config: Source::Known(config),
            state: Source::Known(state),
            appl: Source::Known(ApplDb::default()),
            kernel: Source::Known(kernel),
            frr: Source::Known(frr),
            ledger: Source::Known(Ledger::default()),
            runtime: Runtime::default(),
            backing_off: BTreeMap::from([("FRR".to_owned(), "lock held".to_owned())]),
            cooling: BTreeSet::new(),
            overdue: BTreeSet::new(),
        }
    }

    #[test]
    fn everything_is_told_but_other_peoples_frr() {
        let observed = observed();
        let desired = Desired::from_config(observed.config.known().unwrap());
        let text = inputs_json(&desired, &observed);
        assert!(!text.contains("PRIVATE") && !text.contains("65000"), "{text}");
        let inputs: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(inputs["desired"]["partitions"]["p1"]["prefix"], "2001:db8::/56");
        let known = |source: &str| inputs["observed"][source]["known"].clone();
        assert_eq!(known("kernel")["links"]["Ethernet0"]["master"], "VrfBoot-p1");
        assert_eq!(known("state")["interface_prefixes"][0][0], "Ethernet0");
        assert_eq!(known("config")["tables"]["BOOT_NETWORK_PARTITION"]["p1"]["prefix"], "2001:db8::/56");
        assert_eq!(inputs["observed"]["backing_off"]["FRR"], "lock held");
        assert_eq!(
            inputs["frr_lines"],
            serde_json::json!(["vrf VrfBoot-p1", "ipv6 prefix-list BOOTNET-p1 seq 5 permit ::/0"])
        );
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let mut observed = observed();
        let desired = Desired::from_config(&ConfigDb::default());
        observed.frr = Source::Unknown("vtysh: connection refused".to_owned());
        let inputs: Value = serde_json::from_str(&inputs_json(&desired, &observed)).unwrap();
        assert_eq!(inputs["observed"]["frr"]["unknown"], "vtysh: connection refused");
        assert_eq!(inputs["frr_lines"], serde_json::json!([]));
    }

    #[tokio::test]
    async fn one_asks_at_a_time_and_the_loop_is_woken() {
        let waker = Waker::default();
        let (inspector, mut inspections) = inspection(waker.clone());
        let asking = tokio::spawn({
            let inspector = inspector.clone();
            async move { inspector.inputs().await }
        });
        assert_eq!(waker.woken().await, BTreeSet::from([Reason::Operator]));
        assert_eq!(inspector.inputs().await, Err(InspectError::Busy));
        let observed = observed();
        inspections.answer(&Desired::from_config(&ConfigDb::default()), &observed);
        assert!(asking.await.unwrap().unwrap().starts_with('{'));
        // Nobody waits: a pass is none the slower.
        inspections.answer(&Desired::from_config(&ConfigDb::default()), &observed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_hangs_or_ended_is_not_waited_for() {
        let (inspector, inspections) = inspection(Waker::default());
        assert_eq!(inspector.inputs().await, Err(InspectError::NoAnswer));
        drop(inspections);
        assert_eq!(inspector.inputs().await, Err(InspectError::NoAnswer));
    }
}
