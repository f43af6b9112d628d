//! Every series the agent can export, for those that query them.
//!
//! Everything is recorded once, through the same functions as in operation, and encoded as for a scrape; the
//! names and labels are kept in `labs/grafana/testdata/series.txt`, which dashboards and alerts are checked
//! against, and which the lab compares with a running agent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use switch_agent_core::dhcp6::{Answer, AnswerType, Architecture, MessageType, Refusal};
use switch_agent_core::machines::{Counters, SightingSource};
use switch_agent_core::name::PortName;
use switch_agent_core::ndp::FrameAddresses;
use switch_agent_core::ra::TransmitKind;
use switch_agent_core::status::{LeakStatus, Phase, PortStatus, SOURCES, Status, Verdict};
use switch_agent_core::timeline::Stage;

use super::Metrics;
use super::advertise::{NdMode, RaState, SourceKind};
use super::frr::Outcome;
use super::reconcile::ActionOutcome;
use crate::http::admin::tests::snapshot;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn record(metrics: &Metrics) {
    let port = "Ethernet0".parse().unwrap();
    passes(metrics);
    advertiser(metrics);
    dhcp6(metrics);
    let stages = [Stage::FirstRs, Stage::Dhcp6, Stage::BootUrl, Stage::Ra, Stage::Neighbor, Stage::Config];
    for stage in stages.iter().chain(&[Stage::Token, Stage::Api]) {
        metrics.boots.reached(stage, Duration::from_secs(1));
    }
    metrics.boots.set_in_flight(&BTreeMap::from([("Ethernet0".parse().unwrap(), true)]));
    metrics.machines.set_machines(&BTreeMap::from([("Ethernet0".parse().unwrap(), 1)]));
    let mut counters =
        Counters { moves: 1, evicted_machines: 1, evicted_addresses: 1, ..Counters::default() };
    for source in SightingSource::ALL {
        counters.sightings[source] = 1;
    }
    metrics.machines.counted(&Counters::default(), &counters);
    metrics.machines.events_dropped(1);

    let proxy = &metrics.proxy;
    proxy.request("api", 200);
    proxy.upstream_answered(Duration::from_millis(1));
    std::mem::forget(proxy.connection_opened(&port));
    proxy.rejected("host-refused");
    proxy.token_minted();
    proxy.token_refused("too-many-tokens");
    proxy.upstream_error("upstream-tls");
    proxy.upstream_usable(true);
    proxy.upstream_suspended(false);
    proxy.upstream_retried();
    for file in ["ca", "client", "grpc-ca", "grpc-client"] {
        proxy.certificate_expiry(file, Some(2_000_000_000));
    }
    metrics.metal_stack_v2.called("Register", "ok");
    metrics.metal_stack_v2.told("event", "sent");
    metrics.metal_stack_v2.config_age(&"p1".parse().unwrap(), Duration::from_secs(1));
}

fn passes(metrics: &Metrics) {
    let Status { ports, .. } = snapshot().status;
    let port = ports.values().next().unwrap();
    let ports: BTreeMap<_, _> = (0..)
        .zip(Phase::ALL)
        .map(|(number, phase)| {
            let name: PortName = format!("Ethernet{}", 4 * number).parse().unwrap();
            (name.clone(), PortStatus { port: name, phase, ..port.clone() })
        })
        .collect();
    for verdict in [Verdict::Converged, Verdict::Converging, Verdict::Degraded] {
        let status = Status { verdict, ports: ports.clone(), ..snapshot().status };
        metrics.reconcile.pass_finished(&status, Duration::from_millis(3));
    }
    for outcome in [ActionOutcome::Ok, ActionOutcome::Failed, ActionOutcome::TimedOut] {
        metrics.reconcile.action("bind-interface", outcome);
    }
    for outcome in [Outcome::Ok, Outcome::Deferred, Outcome::Failed] {
        metrics.frr.applied(outcome);
    }
    metrics.frr.drift_repaired();
    let (partition, vrf) = ("p1".parse().unwrap(), "VrfBoot-p1".parse().unwrap());
    metrics.frr.set_leaks([(&partition, &vrf, &LeakStatus::Applied)]);
}

fn advertiser(metrics: &Metrics) {
    let port = metrics.advertise.port(&"Ethernet0".parse().unwrap());
    let at = Duration::from_secs(1_767_323_045);
    for (number, state) in RaState::ALL.into_iter().enumerate() {
        metrics.advertise.port(&format!("Ethernet{}", 4 * number).parse().unwrap()).set_state(state);
    }
    use TransmitKind::{Final, Initial, Periodic, Solicited, Triggered, Unicast};
    for kind in [Initial, Periodic, Solicited, Unicast, Triggered, Final] {
        port.sent(kind);
    }
    port.multicast_at(at);
    port.first_after_carrier(Duration::from_millis(1));
    for source in SourceKind::ALL {
        port.solicited(source, at);
    }
    port.answered(Duration::from_millis(1));
    port.dropped("checksum");
    port.suppressed();
    port.set_muted(true);
    port.foreign(&["CurHopLimit"]);
    port.send_failed(libc::ENETDOWN);
    metrics.advertise.answered(Duration::from_millis(1));
    metrics.advertise.socket_lost(1);
    metrics.advertise.set_mode(NdMode { socket: "packet", drop_rule: "active", detail: None });
}

fn dhcp6(metrics: &Metrics) {
    let port = "Ethernet0".parse().unwrap();
    metrics.dhcp6.received(&port, MessageType::Solicit);
    metrics.dhcp6.refused(&port, Refusal::Relay);
    for answer in [AnswerType::Advertise, AnswerType::Reply] {
        metrics.dhcp6.sent(&port, answer, Duration::from_millis(1));
    }
    metrics.dhcp6.send_failed(&port, "ENETDOWN".to_owned());
    metrics.dhcp6.client(&port, &answer());
}

fn answer() -> Answer {
    let (mac, address) = ("52:54:00:00:00:01".parse().unwrap(), std::net::Ipv6Addr::LOCALHOST);
    Answer {
        kind: AnswerType::Advertise,
        request: MessageType::Solicit,
        addresses: FrameAddresses {
            source_mac: mac,
            destination_mac: mac,
            source: address,
            destination: address,
        },
        message: Vec::new(),
        address: None,
        boot_url: None,
        architecture: Some(Architecture(16)),
        ipxe: false,
    }
}

/// `name{labels}` of every sample, in the order of names.
fn series(exposition: &str) -> BTreeSet<String> {
    let samples = exposition.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[test]
fn the_list_is_what_is_exported() {
    let metrics = Metrics::default();
    record(&metrics);
    let exported = series(&metrics.encode());
    let path = repository().join("labs/grafana/testdata/series.txt");
    let text = exported.iter().map(|line| format!("{line}\n")).collect::<String>();
    let text = text.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    if std::env::var_os("UPDATE_SERIES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == text, "{} is not what is exported; UPDATE_SERIES=1 writes it anew", path.display());
}

/// The reference names every metric there is, which its own test sees to.
#[test]
fn the_list_leaves_nothing_out() {
    let metrics = Metrics::default();
    record(&metrics);
    let exported = series(&metrics.encode());
    let reference = std::fs::read_to_string(repository().join("switch-agent/README.md")).unwrap();
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `switch_agent_"));
    let mut count = 0;
    for row in rows {
        let (name, row) = row.split_once("` | ").unwrap();
        let suffix = if row.starts_with("histogram") { "_count" } else { "" };
        let name = format!("switch_agent_{name}{suffix}");
        let has = exported.iter().any(|series| series.split('{').next() == Some(name.as_str()));
        assert!(has, "nothing records {name}");
        count += 1;
    }
    assert!(count > 50, "{count} metrics");
    // Every source has a gauge of its own.
    assert_eq!(exported.iter().filter(|s| s.contains("source_readable")).count(), SOURCES.len());
}
