use std::collections::BTreeMap;
use std::time::Duration;

use redis::Value;
use switch_agent_core::observed::AclState;
use switch_agent_core::row::{Table, fields};

use super::*;
use crate::backend::redis::testing::{RedisServer, run};

fn ports(names: &[&str]) -> BTreeSet<PortName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn port(name: &str) -> PortName {
    name.parse().unwrap()
}

#[tokio::test]
async fn state_db_is_read_as_swss_writes_it() {
    let server = RedisServer::start();
    let store = StateStore::new(&server.databases());
    let db = server.databases().state_db;
    assert_eq!(store.read_state().await.unwrap(), StateDb::default());
    for row in [
        ["HSET", "VRF_TABLE|VrfBoot-p1", "state", "ok"],
        ["HSET", "VRF_OBJECT_TABLE|VrfBoot-p1", "state", "ok"],
        ["HSET", "INTERFACE_TABLE|Ethernet0", "vrf", "VrfBoot-p1"],
        ["HSET", "INTERFACE_TABLE|Ethernet4", "vrf", ""],
        ["HSET", "INTERFACE_TABLE|Ethernet0|2001:db8::1/64", "state", "ok"],
        ["HSET", "INTERFACE_TABLE|Ethernet4|10.0.0.0/31", "state", "ok"],
        ["HSET", "INTERFACE_TABLE|Vlan100", "vrf", ""],
        ["HSET", "PORT_TABLE|Ethernet0", "state", "ok"],
        ["HSET", "PORT_TABLE|Ethernet0", "netdev_oper_status", "up"],
        ["HSET", "PORT_TABLE|Ethernet4", "netdev_oper_status", "down"],
        ["HSET", "LAG_TABLE|PortChannel1", "state", "ok"],
        ["HSET", "LAG_TABLE|PortChannel1", "oper_status", "up"],
        ["HSET", "VLAN_MEMBER_TABLE|Vlan100|Ethernet8", "state", "ok"],
        ["HSET", "FAST_RESTART_ENABLE_TABLE|system", "enable", "false"],
        ["HSET", "TRANSCEIVER_INFO|Ethernet0", "type", "QSFP"],
        ["HSET", "ACL_TABLE_TABLE|DATAACL", "status", "Active"],
        ["HSET", "ACL_RULE_TABLE|DATAACL|RULE_1", "status", "Inactive"],
        ["HSET", "ACL_TABLE_TABLE|BOOTNET_IPV4", "status", "Pending creation"],
        ["HSET", "ACL_RULE_TABLE|BOOTNET_IPV4|DEFAULT_RULE", "status", "Inactive"],
    ] {
        run(&db, &row).await;
    }
    let up = PortState { state_ok: true, oper_up: true };
    let expected = StateDb {
        vrf_table: BTreeSet::from(["VrfBoot-p1".to_owned()]),
        vrf_object_table: BTreeSet::from(["VrfBoot-p1".to_owned()]),
        interface_table: BTreeMap::from([
            (port("Ethernet0"), "VrfBoot-p1".to_owned()),
            (port("Ethernet4"), String::new()),
        ]),
        interface_prefixes: BTreeSet::from([(port("Ethernet0"), "2001:db8::1/64".parse().unwrap())]),
        port_table: BTreeMap::from([
            (port("Ethernet0"), up.clone()),
            (port("Ethernet4"), PortState::default()),
            (port("PortChannel1"), up),
        ]),
        vlan_members: ports(&["Ethernet8"]),
        reboot: None,
        acl: AclState {
            told: true,
            tables: [("BOOTNET_IPV4".to_owned(), "Pending creation".to_owned())].into(),
            rules: [("BOOTNET_IPV4|DEFAULT_RULE".to_owned(), "Inactive".to_owned())].into(),
        },
    };
    assert_eq!(store.read_state().await.unwrap(), expected);
    let reboot = async || store.read_state().await.unwrap().reboot;
    for (flag, expected) in [
        (["HSET", "WARM_RESTART_ENABLE_TABLE|swss", "enable", "true"], None),
        (["HSET", "WARM_RESTART_ENABLE_TABLE|system", "enable", "true"], Some(Reboot::Warm)),
        (["HSET", "FAST_RESTART_ENABLE_TABLE|system", "enable", "true"], Some(Reboot::Fast)),
        (["HSET", "WARM_RESTART_ENABLE_TABLE|system", "enable", "false"], Some(Reboot::Fast)),
        (["HSET", "FAST_RESTART_ENABLE_TABLE|system", "enable", "false"], None),
    ] {
        run(&db, &flag).await;
        assert_eq!(reboot().await, expected, "{flag:?}");
    }
    // Up to release 202211.
    run(&db, &["SET", "FAST_REBOOT|system", "1", "EX", "180"]).await;
    assert_eq!(reboot().await, Some(Reboot::Fast));
}

#[tokio::test]
async fn the_barrier_of_a_rebind_is_read_for_the_ports_asked_for() {
    let server = RedisServer::start();
    let store = StateStore::new(&server.databases());
    let db = server.databases().appl_db;
    run(&db, &["HSET", "INTF_TABLE:Ethernet0", "vrf_name", "VrfBoot-p1"]).await;
    run(&db, &["HSET", "INTF_TABLE:Ethernet4:2001:db8::1/64", "scope", "global"]).await;
    run(&db, &["HSET", "INTF_TABLE:Ethernet8", "NULL", "NULL"]).await;
    run(&db, &["SADD", INTF_KEY_SET, "Ethernet12", "Ethernet16:2001:db8::1/64", "Vlan7"]).await;
    let asked = ports(&["Ethernet0", "Ethernet4", "Ethernet12"]);
    let appl = store.read_appl(&asked, |_| true).await.unwrap();
    // Whatever was expected: nothing is missed, and nothing believed.
    for expected in [&[][..], &["Ethernet0"], &["Ethernet4"], &["Ethernet0", "Ethernet12"], &["Ethernet8"]] {
        let expected = ports(expected);
        let same = store.read_appl(&asked, |port| expected.contains(port)).await.unwrap();
        assert_eq!(same, appl, "{expected:?}");
    }
    assert_eq!(appl.intf_table, ports(&["Ethernet0"]));
    assert_eq!(appl.intf_key_set, ports(&["Ethernet12", "Ethernet16"]));
    assert!(!appl.port_init_done);
    assert_eq!(store.glance().await, Some(false));
    run(&db, &["HSET", "PORT_TABLE:PortInitDone", "lanes", "0"]).await;
    assert!(store.read_appl(&BTreeSet::new(), |_| true).await.unwrap().port_init_done);
    assert_eq!(store.glance().await, Some(true));
    run(&db, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
    assert_eq!(store.glance().await, None, "a database that tells nothing");
}

#[tokio::test]
async fn lldp_neighbours_carry_a_mac_only_where_one_was_sent() {
    let server = RedisServer::start();
    let store = StateStore::new(&server.databases());
    let db = server.databases().appl_db;
    let entry = |port: &str, chassis: [&str; 2], port_id: [&str; 2]| {
        let key = format!("LLDP_ENTRY_TABLE:{port}");
        let words = [
            ["lldp_rem_chassis_id_subtype", chassis[0]],
            ["lldp_rem_chassis_id", chassis[1]],
            ["lldp_rem_port_id_subtype", port_id[0]],
            ["lldp_rem_port_id", port_id[1]],
            ["lldp_rem_sys_name", "machine"],
        ];
        let mut all = vec!["HSET".to_owned(), key];
        all.extend(words.concat().into_iter().map(str::to_owned));
        all
    };
    let (a, b) = ("52:54:00:00:00:0a", "52:54:00:00:00:0b");
    for words in [
        entry("Ethernet0", ["4", a], ["3", b]),
        entry("Ethernet4", ["4", a], ["5", "eth0"]),
        entry("Ethernet8", ["7", a], ["7", "eth0"]),
        entry("Ethernet12", ["4", "ff:ff:ff:ff:ff:ff"], ["5", "eth0"]),
        entry("Ethernet16", ["4", a], ["3", b]),
    ] {
        run(&db, &words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let asked = ports(&["Ethernet0", "Ethernet4", "Ethernet8", "Ethernet12", "Ethernet20"]);
    let found = store.read_lldp(&asked).await.unwrap();
    let macs: Vec<(String, Option<String>)> = found
        .iter()
        .map(|(port, neighbor)| (port.to_string(), neighbor.mac.map(|mac| mac.to_string())))
        .collect();
    let expected =
        [("Ethernet0", Some(b)), ("Ethernet4", Some(a)), ("Ethernet8", None), ("Ethernet12", None)];
    assert_eq!(macs, expected.map(|(port, mac)| (port.to_owned(), mac.map(str::to_owned))));
    assert_eq!(found[0].1.sys_name, "machine");
}

#[tokio::test]
async fn swss_wakes_the_reconciler_and_lldp_does_not() {
    let server = RedisServer::start();
    let databases = server.databases();
    let store = StateStore::new(&databases);
    let (waker, lldp, cancel) = (Waker::default(), Arc::new(Notify::new()), CancellationToken::new());
    let task = tokio::spawn(store.follow(waker.clone(), lldp.clone(), cancel.clone()));
    let limit = Duration::from_secs(5);
    let settle = async || {
        while tokio::time::timeout(Duration::from_millis(300), waker.woken()).await.is_ok() {}
        let _ = tokio::time::timeout(Duration::from_millis(10), lldp.notified()).await;
    };
    tokio::time::timeout(limit, lldp.notified()).await.expect("no first LLDP read");
    settle().await;

    run(&databases.appl_db, &["HSET", "LLDP_ENTRY_TABLE:Ethernet0", "lldp_rem_time_mark", "1"]).await;
    tokio::time::timeout(limit, lldp.notified()).await.expect("no LLDP event");
    assert!(waker.take().is_empty(), "an LLDP refresh cost a pass");
    run(&databases.appl_db, &["HSET", "ROUTE_TABLE:::/0", "nexthop", "fe80::1"]).await;
    run(&databases.state_db, &["HSET", "BOOT_NETWORK_STATE|global", "status", "ok"]).await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), waker.woken()).await;
    assert!(quiet.is_err(), "woken by a route or by our own table");
    for (database, words) in [
        (&databases.state_db, ["HSET", "VRF_OBJECT_TABLE|VrfBoot-p1", "state", "ok"]),
        (&databases.appl_db, ["SADD", INTF_KEY_SET, "Ethernet0", "Ethernet4"]),
        (&databases.appl_db, ["HSET", "INTF_TABLE:Ethernet0", "vrf_name", "Vrf1"]),
        (&databases.appl_db, ["HSET", "PORT_TABLE:PortInitDone", "lanes", "0"]),
    ] {
        run(database, &words).await;
        let reasons = tokio::time::timeout(limit, waker.woken()).await.expect(words[1]);
        assert_eq!(reasons, BTreeSet::from([Reason::StateDb]));
    }
    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(1), task).await.expect("follow did not end").unwrap();
}

async fn writes(database: &Database) -> u64 {
    let Value::BulkString(info) = run(database, &["INFO", "commandstats"]).await else { panic!("no INFO") };
    let info = String::from_utf8(info).unwrap();
    let calls = info.lines().filter(|line| ["hset:", "hdel:", "del:"].iter().any(|c| line.contains(c)));
    calls.filter_map(|line| line.split_once("calls=")?.1.split(',').next()?.parse::<u64>().ok()).sum()
}

async fn rows_of(database: &Database) -> BTreeMap<String, Fields> {
    let keys = database.keys(|_| true).await.unwrap();
    database.hashes(&keys).await.unwrap().into_iter().map(|(key, row)| (key.to_owned(), row)).collect()
}

fn status(port_rows: &[(&str, Fields)]) -> StatusRows {
    let rows: Table = port_rows.iter().map(|(key, row)| ((*key).to_owned(), row.clone())).collect();
    let global = Table::from([("global".to_owned(), fields([("status", "ok")]))]);
    StatusRows::from([
        ("BOOT_NETWORK_PORT_TABLE".to_owned(), rows),
        ("BOOT_NETWORK_STATE".to_owned(), global),
        ("PORT_TABLE".to_owned(), Table::from([("Ethernet0".to_owned(), fields([("state", "no")]))])),
    ])
}

#[tokio::test]
async fn status_is_written_by_difference_and_only_ours() {
    let server = RedisServer::start();
    let db = server.databases().state_db;
    run(&db, &["HSET", "BOOT_NETWORK_PORT_TABLE|Ethernet99", "phase", "ready"]).await;
    run(&db, &["HSET", "PORT_TABLE|Ethernet0", "state", "ok"]).await;
    let mut writer = StatusWriter::new(db.clone());
    let ready = fields([("phase", "ready"), ("mac", "52:54:00:00:00:01")]);
    let wanted = status(&[("Ethernet0", ready.clone()), ("Ethernet4", fields([("phase", "waiting")]))]);
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 4, "two ports, one global row, one stale row");
    let rows = rows_of(&db).await;
    assert_eq!(rows["PORT_TABLE|Ethernet0"], fields([("state", "ok")]), "a foreign table was touched");
    assert_eq!(rows["BOOT_NETWORK_PORT_TABLE|Ethernet0"], ready);
    assert!(!rows.contains_key("BOOT_NETWORK_PORT_TABLE|Ethernet99"));
    assert_eq!(rows.len(), 4);

    let before = writes(&db).await;
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 0);
    assert_eq!(writes(&db).await, before, "an idle pass wrote");

    let wanted = status(&[("Ethernet0", fields([("phase", "foreign")]))]);
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 2);
    let rows = rows_of(&db).await;
    assert_eq!(rows["BOOT_NETWORK_PORT_TABLE|Ethernet0"], fields([("phase", "foreign")]));
    assert_eq!(rows.len(), 3);
}

#[tokio::test]
async fn status_comes_back_after_a_flush_and_after_a_restart() {
    let mut server = RedisServer::start();
    let db = server.databases().state_db;
    let mut writer = StatusWriter::new(db.clone());
    let wanted = status(&[("Ethernet0", fields([("phase", "ready")]))]);
    writer.publish(wanted.clone()).await.unwrap();
    run(&db, &["FLUSHDB"]).await;
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 0, "nothing tells of a flush");
    assert!(!writer.intact().await);
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 2);
    assert!(writer.intact().await);
    run(&db, &["DEL", "BOOT_NETWORK_PORT_TABLE|Ethernet0"]).await;
    assert!(!writer.intact().await, "one row is enough");
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 1);

    server.stop();
    assert!(!writer.intact().await);
    assert!(writer.publish(wanted.clone()).await.is_err());
    server.restart();
    run(&db, &["HSET", "BOOT_NETWORK_PARTITION_TABLE|old", "phase", "ready"]).await;
    assert_eq!(writer.publish(wanted.clone()).await.unwrap(), 3, "what is there is read anew after an error");
    assert_eq!(rows_of(&db).await.len(), 2);
}
