use super::*;
use crate::identity::table::tests::binding;

const SECOND: Duration = Duration::from_secs(1);
const FIRST: Pinned = Pinned { first_sight: true, left: None };

fn issue(table: &mut CredentialTable, port: &str, certificate: u8, now: Duration) -> Generation {
    table.issue(binding(port), [certificate; 32], now)
}

fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

fn machine(last: char) -> MachineId {
    MachineId::parse(&format!("00112233-4455-6677-8899-aabbccddeef{last}")).unwrap()
}

#[test]
fn a_certificate_is_good_on_its_own_port_for_its_time() {
    let mut table = CredentialTable::default();
    let (a, b) = (port("Ethernet0"), port("Ethernet4"));
    assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Err(CredentialRefusal::None));
    let first = issue(&mut table, "Ethernet0", 1, SECOND);
    let second = issue(&mut table, "Ethernet4", 2, SECOND);
    assert_ne!(first, second);
    assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Ok(first));
    assert_eq!(table.check_certificate(&b, &[1; 32], SECOND), Err(CredentialRefusal::Other));
    let end = SECOND + CERTIFICATE_TTL;
    assert_eq!(table.check_certificate(&a, &[1; 32], end - SECOND), Ok(first));
    assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
}

#[test]
fn asking_again_keeps_what_is_in_use_within_bounds() {
    let mut table = CredentialTable::default();
    let a = port("Ethernet0");
    let generation = issue(&mut table, "Ethernet0", 0, SECOND);
    table.pin(&a, &machine('0'), SECOND).unwrap();
    for certificate in 1..8 {
        assert_eq!(issue(&mut table, "Ethernet0", certificate, SECOND), generation);
    }
    assert_eq!(table.check_certificate(&a, &[0; 32], SECOND), Ok(generation));
    issue(&mut table, "Ethernet0", 8, SECOND);
    assert_eq!(table.check_certificate(&a, &[0; 32], SECOND), Err(CredentialRefusal::Other));
    assert_eq!(table.check_certificate(&a, &[8; 32], SECOND), Ok(generation));
    assert_eq!(table.machine(&a, SECOND), Some(machine('0')));
}

#[test]
fn another_mac_vrf_interface_or_partition_is_another_stay() {
    type Change<'a> = &'a dyn Fn(&mut Binding);
    let changes: [Change<'_>; 5] = [
        &|binding| binding.mac.0[5] = 9,
        &|binding| binding.vrf = "VrfBoot-p2".parse().unwrap(),
        &|binding| binding.ifindex = 8,
        &|binding| binding.partition = "p2".parse().unwrap(),
        &|binding| binding.switch_id = "leaf2".to_owned(),
    ];
    for change in changes {
        let mut table = CredentialTable::default();
        let a = port("Ethernet0");
        let before = issue(&mut table, "Ethernet0", 1, SECOND);
        table.pin(&a, &machine('0'), SECOND).unwrap();
        let mut at = binding("Ethernet0");
        change(&mut at);
        assert_ne!(table.issue(at, [2; 32], SECOND), before);
        assert_eq!(table.check_certificate(&a, &[1; 32], SECOND), Err(CredentialRefusal::Other));
        assert_eq!(table.pin(&a, &machine('1'), SECOND), Ok(FIRST));
    }
}

#[test]
fn a_request_comes_from_where_the_credentials_are_bound_to() {
    let mut table = CredentialTable::default();
    let generation = issue(&mut table, "Ethernet0", 1, SECOND);
    let check = |table: &mut CredentialTable, change: &dyn Fn(&mut Binding)| {
        let mut at = binding("Ethernet0");
        change(&mut at);
        table.check_binding(&at, SECOND)
    };
    assert_eq!(check(&mut table, &|_| {}), Ok(generation));
    assert_eq!(check(&mut table, &|at| at.mac.0[5] = 9), Err(CredentialRefusal::OtherMac));
    assert_eq!(check(&mut table, &|at| at.ifindex = 8), Err(CredentialRefusal::Moved));
    let moved = |at: &mut Binding| at.vrf = "VrfBoot-p2".parse().unwrap();
    assert_eq!(check(&mut table, &moved), Err(CredentialRefusal::Moved));
    assert_eq!(check(&mut table, &|at| at.port = port("Ethernet4")), Err(CredentialRefusal::None));
    let other_partition = |at: &mut Binding| at.partition = "p2".parse().unwrap();
    assert_eq!(check(&mut table, &other_partition), Err(CredentialRefusal::Moved));
}

#[test]
fn the_first_machine_is_the_one() {
    let mut table = CredentialTable::default();
    let a = port("Ethernet0");
    assert_eq!(table.pin(&a, &machine('0'), SECOND), Err(CredentialRefusal::None));
    issue(&mut table, "Ethernet0", 1, SECOND);
    assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(FIRST));
    assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(Pinned { first_sight: false, left: None }));
    assert_eq!(table.pin(&a, &machine('1'), SECOND), Err(CredentialRefusal::OtherMachine));
    assert!(table.revoke(&a));
    issue(&mut table, "Ethernet0", 2, SECOND);
    assert_eq!(table.pin(&a, &machine('1'), SECOND), Ok(FIRST));
}

#[test]
fn a_short_loss_of_carrier_ends_the_stay_only_for_who_asks_anew() {
    let mut table = CredentialTable::default();
    let a = port("Ethernet0");
    let before = issue(&mut table, "Ethernet0", 1, SECOND);
    table.carrier(&a, false, SECOND * 2);
    table.carrier(&a, true, SECOND * 8);
    assert_eq!(table.check_certificate(&a, &[1; 32], SECOND * 60), Ok(before));
    let after = issue(&mut table, "Ethernet0", 2, SECOND * 61);
    assert_ne!(after, before);
    assert_eq!(table.check_certificate(&a, &[1; 32], SECOND * 61), Err(CredentialRefusal::Other));
    // The new stay was not interrupted.
    assert_eq!(issue(&mut table, "Ethernet0", 3, SECOND * 62), after);
}

#[test]
fn a_long_loss_of_carrier_ends_the_stay() {
    let mut table = CredentialTable::default();
    let a = port("Ethernet0");
    issue(&mut table, "Ethernet0", 1, SECOND);
    table.carrier(&a, false, SECOND * 2);
    // Told again, the loss is as old as before.
    table.carrier(&a, false, SECOND * 9);
    let end = SECOND * 2 + CARRIER_GRACE;
    assert!(table.generation(&a, end - SECOND).is_some());
    table.carrier(&a, true, end);
    assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::None));
}

#[test]
fn a_signature_opens_once_and_on_its_own_port() {
    let mut table = CredentialTable::default();
    let a = port("Ethernet0");
    assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Err(HmacRefusal::Key));
    issue(&mut table, "Ethernet0", 1, SECOND);
    assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Ok(()));
    assert_eq!(table.take_signature(&a, &[1; 32], SECOND), Err(HmacRefusal::Replayed));
}

#[test]
fn a_machine_is_on_one_port() {
    let mut table = CredentialTable::default();
    let (a, b) = (port("Ethernet0"), port("Ethernet4"));
    issue(&mut table, "Ethernet0", 1, SECOND);
    issue(&mut table, "Ethernet4", 2, SECOND);
    assert_eq!(table.pin(&a, &machine('0'), SECOND), Ok(FIRST));
    assert_eq!(table.pin(&b, &machine('0'), SECOND), Err(CredentialRefusal::OtherPort));
    assert_eq!(table.machine(&b, SECOND), None);
    // Its cable is out: it may be here.
    table.carrier(&a, false, SECOND);
    let moved = Pinned { first_sight: true, left: Some(a.clone()) };
    assert_eq!(table.pin(&b, &machine('0'), SECOND * 2), Ok(moved));
    assert_eq!(table.generation(&a, SECOND * 2), None);
}

#[test]
fn credentials_are_kept_over_a_restart_as_after_a_loss_of_carrier() {
    let mut before = CredentialTable::default();
    let a = port("Ethernet0");
    issue(&mut before, "Ethernet0", 1, SECOND);
    before.pin(&a, &machine('0'), SECOND).unwrap();
    let kept = before.kept(SECOND * 11);
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].certificates, [([1; 32], CERTIFICATE_TTL.as_secs() - 10)]);
    let text = serde_json::to_string(&kept[0]).unwrap();
    let kept: KeptCredentials = serde_json::from_str(&text).unwrap();
    let mut after = CredentialTable::default();
    let restored = after.restore(&kept, SECOND * 100).unwrap();
    assert_eq!(after.restore(&kept, SECOND * 100), None);
    assert_eq!(after.check_certificate(&a, &[1; 32], SECOND * 100), Ok(restored));
    assert_eq!(after.pin(&a, &machine('1'), SECOND * 100), Err(CredentialRefusal::OtherMachine));
    let end = SECOND * 90 + CERTIFICATE_TTL;
    assert_eq!(after.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
    assert_ne!(issue(&mut after, "Ethernet0", 2, SECOND * 101), restored);
    let long = KeptCredentials { certificates: vec![([1; 32], u64::MAX)], ..kept.clone() };
    let mut table = CredentialTable::default();
    table.restore(&long, SECOND).unwrap();
    let end = SECOND + CERTIFICATE_TTL;
    assert_eq!(table.check_certificate(&a, &[1; 32], end), Err(CredentialRefusal::Expired));
    let broken = KeptCredentials { machine: Some("x".to_owned()), ..kept };
    assert_eq!(CredentialTable::default().restore(&broken, SECOND), None);
}
