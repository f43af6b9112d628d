use std::collections::BTreeMap;
use std::time::Duration;

use switch_agent_core::row::fields;

use super::*;
use crate::backend::redis::testing::{RedisServer, run};

async fn initialized(server: &RedisServer) -> (ConfigStore, Database) {
    let database = server.databases().config_db;
    run(&database, &["SET", INITIALIZED_KEY, "1"]).await;
    (ConfigStore::new(database.clone()), database)
}

fn set(table: &str, key: &str, fields: Fields) -> RowChange {
    RowChange::Set { table: table.to_owned(), key: key.to_owned(), fields }
}

fn delete(table: &str, key: &str) -> RowChange {
    RowChange::Delete { table: table.to_owned(), key: key.to_owned() }
}

/// Waits for a wake-up that must come.
async fn woken(waker: &Waker) {
    let reasons = tokio::time::timeout(Duration::from_secs(8), waker.woken()).await.expect("no wake-up");
    assert_eq!(reasons, BTreeSet::from([Reason::ConfigDb]));
}

/// Lets events of earlier writes arrive and drops them.
async fn settle(waker: &Waker) {
    while tokio::time::timeout(Duration::from_millis(200), waker.woken()).await.is_ok() {}
}

#[tokio::test]
async fn our_tables_are_read_whole_and_nothing_else() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    run(&database, &["HSET", "VRF|VrfBoot-p1", "NULL", "NULL"]).await;
    run(&database, &["HSET", "INTERFACE|Ethernet0|2001:db8::1/64", "NULL", "NULL"]).await;
    run(&database, &["HSET", "BOOT_NETWORK_PORT|Ethernet0", "partition", "p1", "prefix_offset", "3"]).await;
    run(&database, &["HSET", "BUFFER_PG|Ethernet0|0", "profile", "x"]).await;
    run(&database, &["HSET", "VRFX|a", "b", "c"]).await;
    for port in 0..3000 {
        run(&database, &["HSET", &format!("PORT|Ethernet{port}"), "mtu", "9100"]).await;
    }
    let mut pipeline = redis::pipe();
    pipeline.cmd("HSET").arg("PORT|Ethernet7").arg("description").arg(b"caf\xe9".as_slice());
    let _: redis::Value = database.query("HSET", &pipeline).await.unwrap();

    let config = store.read().await.unwrap();
    let tables: Vec<&str> = config.tables.keys().map(String::as_str).collect();
    assert_eq!(tables, ["BOOT_NETWORK_PORT", "INTERFACE", "PORT", "VRF"]);
    assert_eq!(config.row("VRF", "VrfBoot-p1"), Some(&Fields::new()));
    assert_eq!(config.row("INTERFACE", "Ethernet0|2001:db8::1/64"), Some(&Fields::new()));
    assert_eq!(
        config.row("BOOT_NETWORK_PORT", "Ethernet0"),
        Some(&fields([("partition", "p1"), ("prefix_offset", "3")]))
    );
    assert_eq!(config.tables["PORT"].len(), 3000);
    assert_eq!(config.row("PORT", "Ethernet7").unwrap()["description"], "caf\u{fffd}");
}

#[tokio::test]
async fn a_half_loaded_config_db_is_refused() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    assert!(store.read().await.is_ok());
    run(&database, &["FLUSHDB"]).await;
    let error = store.read().await.unwrap_err();
    assert_eq!(error.to_string(), "CONFIG_DB is not initialised");
    run(&database, &["SET", INITIALIZED_KEY, "0"]).await;
    assert!(matches!(store.read().await, Err(ConfigDbError::NotInitialized)));
}

#[tokio::test]
async fn a_glance_tells_of_a_flush_and_of_a_database_that_tells_nothing() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    run(&database, &["HSET", "PORT|Ethernet0", "mtu", "9100"]).await;
    assert_eq!(store.glance().await, Some(2));
    assert_eq!(store.glance().await, Some(2));
    run(&database, &["FLUSHDB"]).await;
    assert_eq!(store.glance().await, None, "being loaded");
    run(&database, &["SET", INITIALIZED_KEY, "1"]).await;
    assert_eq!(store.glance().await, Some(1), "loaded, and another one");
    run(&database, &["CONFIG", "SET", "notify-keyspace-events", ""]).await;
    assert_eq!(store.glance().await, None);
}

#[tokio::test]
async fn rows_are_written_as_sonic_wants_them() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    let raw = async |key: &str| -> Fields {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(key);
        let (fields,): (BTreeMap<String, String>,) = database.query("HGETALL", &pipeline).await.unwrap();
        fields
    };
    store.write(&[set("VRF", "VrfBoot-p1", fields([]))]).await.unwrap();
    assert_eq!(raw("VRF|VrfBoot-p1").await, fields([("NULL", "NULL")]));
    run(&database, &["HSET", "INTERFACE|Ethernet0", "mpls", "disable"]).await;
    store.write(&[set("INTERFACE", "Ethernet0", fields([("vrf_name", "VrfBoot-p1")]))]).await.unwrap();
    assert_eq!(
        raw("INTERFACE|Ethernet0").await,
        fields([("mpls", "disable"), ("vrf_name", "VrfBoot-p1")]),
        "a foreign field stays"
    );
    store.write(&[delete("VRF", "VrfBoot-p1")]).await.unwrap();
    store.write(&[delete("VRF", "VrfBoot-p1")]).await.unwrap();
    assert!(raw("VRF|VrfBoot-p1").await.is_empty());

    let batch = [
        set("STATIC_ROUTE", "default|::/0", fields([("nexthop", "fe80::1")])),
        set("ACL_TABLE", "X", fields([])),
        delete("INTERFACE", "Ethernet0"),
    ];
    store.write(&batch).await.unwrap();
    store.write(&[]).await.unwrap();
    assert_eq!(raw("STATIC_ROUTE|default|::/0").await, fields([("nexthop", "fe80::1")]));
    assert_eq!(raw("ACL_TABLE|X").await, fields([("NULL", "NULL")]));
    assert!(raw("INTERFACE|Ethernet0").await.is_empty());

    // One row that cannot be written: the error says so.
    run(&database, &["SET", "VRF|Vrf1", "a string"]).await;
    let error = store.write(&[set("VRF", "Vrf1", fields([]))]).await.unwrap_err();
    let refused = matches!(error, ConfigDbError::Database(DatabaseError::Command { operation: "EVAL", .. }));
    assert!(refused, "{error:?}");
}

/// `config reload` empties the database without an event, between a decision and its write.
#[tokio::test]
async fn nothing_is_written_into_a_config_db_that_is_being_loaded() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    let batch = [set("VRF", "VrfBoot-p1", fields([])), delete("PORT", "Ethernet0")];
    for begin in [&["FLUSHDB"][..], &["SET", INITIALIZED_KEY, "0"]] {
        run(&database, begin).await;
        // sonic-cfggen has come as far as this.
        run(&database, &["HSET", "PORT|Ethernet0", "mtu", "9100"]).await;
        let error = store.write(&batch).await.unwrap_err();
        assert!(matches!(error, ConfigDbError::NotInitialized), "{error:?}");
        let rows = database.keys(|key| key.contains('|')).await.unwrap();
        assert_eq!(rows, BTreeSet::from(["PORT|Ethernet0".to_owned()]));
    }
    run(&database, &["SET", INITIALIZED_KEY, "1"]).await;
    store.write(&batch).await.unwrap();
    let rows = database.keys(|key| key.contains('|')).await.unwrap();
    assert_eq!(rows, BTreeSet::from(["VRF|VrfBoot-p1".to_owned()]));
}

#[tokio::test]
async fn changes_wake_and_foreign_ones_do_not() {
    let mut server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    let (waker, cancel) = (Waker::default(), CancellationToken::new());
    let task = tokio::spawn(store.clone().follow(waker.clone(), cancel.clone()));
    woken(&waker).await;
    settle(&waker).await;

    run(&database, &["HSET", "BUFFER_PG|Ethernet0|0", "profile", "x"]).await;
    run(&server.databases().state_db, &["HSET", "VRF|a", "b", "c"]).await;
    let quiet = tokio::time::timeout(Duration::from_millis(300), waker.woken()).await;
    assert!(quiet.is_err(), "woken by a table or database that is not ours");

    store.write(&[set("VRF", "VrfBoot-p1", fields([]))]).await.unwrap();
    woken(&waker).await;
    settle(&waker).await;
    store.write(&[delete("VRF", "VrfBoot-p1")]).await.unwrap();
    woken(&waker).await;
    settle(&waker).await;

    // A restart of Redis: the subscription comes back by itself, says so, and works again.
    server.stop();
    assert!(matches!(store.read().await, Err(ConfigDbError::Database(_))));
    server.restart();
    woken(&waker).await;
    settle(&waker).await;
    run(&database, &["SET", INITIALIZED_KEY, "1"]).await;
    woken(&waker).await;
    assert_eq!(store.read().await.unwrap(), ConfigDb::default());

    cancel.cancel();
    tokio::time::timeout(Duration::from_secs(1), task).await.expect("follow did not end").unwrap();
}

#[tokio::test]
async fn a_server_that_is_silent_costs_a_bounded_wait() {
    let dir = crate::backend::redis::testing::TempDir::new();
    let path = dir.path().join("silent.sock");
    // It accepts into its backlog and never answers.
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let database = Database::new(crate::backend::redis::DatabaseEntry {
        name: "CONFIG_DB".to_owned(),
        id: 4,
        separator: "|".to_owned(),
        endpoint: crate::backend::redis::Endpoint::Unix(path),
        password_path: None,
    });
    let reading = ConfigStore::new(database);
    let result = tokio::time::timeout(Duration::from_secs(6), reading.read()).await;
    assert!(matches!(result.expect("the read never ended"), Err(ConfigDbError::Database(_))));
}

/// A server without rows, whose `CONFIG_DB_INITIALIZED` is `1` at some of the looks at it.
async fn serve(listener: tokio::net::UnixListener, initialized: [bool; 2]) {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    let mut looks = initialized.into_iter();
    let mut stream = BufReader::new(listener.accept().await.unwrap().0);
    loop {
        let (mut line, mut words) = (String::new(), Vec::new());
        if stream.read_line(&mut line).await.unwrap() == 0 {
            return;
        }
        for _ in 0..line[1..].trim().parse::<usize>().unwrap() {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            let mut word = vec![0; line[1..].trim().parse::<usize>().unwrap() + 2];
            stream.read_exact(&mut word).await.unwrap();
            words.push(String::from_utf8(word).unwrap().trim_end().to_owned());
        }
        let answer = match words[0].as_str() {
            "GET" if looks.next().unwrap() => "$1\r\n1\r\n",
            "GET" => "$-1\r\n",
            "DBSIZE" => ":0\r\n",
            "SCAN" => "*2\r\n$1\r\n0\r\n*0\r\n",
            _ => "+OK\r\n",
        };
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

/// `config reload` empties the database before it loads it: either may fall into a reading.
#[tokio::test]
async fn a_load_that_ends_or_begins_meanwhile_is_no_empty_configuration() {
    for (initialized, whole) in [([true, true], true), ([false, true], false), ([true, false], false)] {
        let dir = crate::backend::redis::testing::TempDir::new();
        let path = dir.path().join("loading.sock");
        let server = tokio::spawn(serve(tokio::net::UnixListener::bind(&path).unwrap(), initialized));
        let store = ConfigStore::new(Database::new(crate::backend::redis::DatabaseEntry {
            name: "CONFIG_DB".to_owned(),
            id: 4,
            separator: "|".to_owned(),
            endpoint: crate::backend::redis::Endpoint::Unix(path),
            password_path: None,
        }));
        match store.read().await {
            Ok(config) => assert!(whole && config == ConfigDb::default(), "{initialized:?}"),
            Err(ConfigDbError::NotInitialized) => assert!(!whole, "{initialized:?}"),
            Err(failure) => panic!("{failure}"),
        }
        server.abort();
    }
}

#[tokio::test]
async fn reads_survive_a_restart_of_the_server_without_an_error() {
    let mut server = RedisServer::start();
    let (store, _) = initialized(&server).await;
    store.read().await.unwrap();
    server.restart();
    // The old connection is dead; the first read replaces it.
    assert!(matches!(store.read().await, Err(ConfigDbError::NotInitialized)));
}

#[tokio::test]
async fn the_password_file_is_used() {
    let server = RedisServer::start();
    let (_, database) = initialized(&server).await;
    run(&database, &["CONFIG", "SET", "requirepass", "secret"]).await;
    let dir = crate::backend::redis::testing::TempDir::new();
    let path = dir.path().join("password");
    let mut entry = server.entry("CONFIG_DB");
    entry.password_path = Some(path.clone());
    let missing = ConfigStore::new(Database::new(entry.clone())).read().await;
    assert!(matches!(missing, Err(ConfigDbError::Database(DatabaseError::Password { .. }))), "{missing:?}");
    std::fs::write(&path, "wrong\n").unwrap();
    assert!(ConfigStore::new(Database::new(entry.clone())).read().await.is_err());
    std::fs::write(&path, "secret\n").unwrap();
    assert!(ConfigStore::new(Database::new(entry)).read().await.is_ok());
}

#[tokio::test]
async fn a_database_is_reached_over_tcp_too() {
    let server = RedisServer::start();
    let (store, database) = initialized(&server).await;
    store.write(&[set("VRF", "VrfBoot-p1", fields([]))]).await.unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    run(&database, &["CONFIG", "SET", "port", &free.to_string()]).await;
    let mut entry = server.entry("CONFIG_DB");
    entry.endpoint = crate::backend::redis::Endpoint::Tcp { hostname: "127.0.0.1".to_owned(), port: free };
    let config = ConfigStore::new(Database::new(entry)).read().await.unwrap();
    assert!(config.row("VRF", "VrfBoot-p1").is_some());
}
