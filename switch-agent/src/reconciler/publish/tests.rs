//! What others read of a pass.

use switch_agent_core::desired::Rejected;
use switch_agent_core::machines::Limits;

use super::*;
use crate::http::admin::tests::snapshot;
use crate::metrics::Metrics;

/// One port ready, one waiting.
fn status() -> Status {
    snapshot().status
}

#[test]
fn the_service_is_ready_from_the_first_converged_pass_on() {
    let mut status = status();
    let Readiness::NotReady(awaited) = readiness(false, &status) else { panic!("nothing is awaited") };
    assert!(awaited.starts_with("INTERFACE|Ethernet4: "), "{awaited}");
    status.unknown.insert("STATE_DB".to_owned(), "connection refused".to_owned());
    let unreadable = Readiness::NotReady("STATE_DB: connection refused".to_owned());
    assert_eq!(readiness(false, &status), unreadable);
    assert_eq!(readiness(true, &status), Readiness::Ready, "it was ready before");
    status.unknown.clear();
    status.waiting.clear();
    assert_eq!(readiness(false, &status), Readiness::NotReady("ports are being set up".to_owned()));
}

#[test]
fn messages_about_rows_are_in_state_db_one_a_line() {
    let hub = Hub::new(Metrics::default(), Limits::default());
    let global = |status: &Status| -> Fields {
        let rows = status_rows(status, &Since::default(), &hub, 1, "packet", 90);
        rows["BOOT_NETWORK_STATE"]["global"].clone()
    };
    let mut status = status();
    let clean = global(&status);
    assert!(!clean.contains_key("warnings") && !clean.contains_key("rejected"), "{clean:?}");
    assert_eq!(clean["last_pass"], "60", "once a minute");
    let message = |row: &str| Rejected {
        row: row.to_owned(),
        field: None,
        value: None,
        rule: "must be something else".to_owned(),
    };
    status.warnings = vec![message("BOOT_NETWORK_PARTITION|p1"), message("BOOT_NETWORK_PORT|Ethernet0")];
    status.rejected = vec![message("BOOT_NETWORK_PORT|Ethernet4")];
    let told = global(&status);
    let lines: Vec<&str> = told["warnings"].lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("BOOT_NETWORK_PARTITION|p1: must be"), "{lines:?}");
    assert_eq!(told["rejected"], "BOOT_NETWORK_PORT|Ethernet4: must be something else");
}
