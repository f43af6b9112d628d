//! Nothing secret is ever logged, by any test of the proxy at any level, by any library; nor counted or told.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use tracing::level_filters::LevelFilter;

use super::control_api::{Api, Ca};
use super::support::{Proxy, ask, bearer, raw, token};

/// What tokens (a JWS begins with the base64url of `{"`), keys, and secrets of these tests look like.
const SECRETS: [&str; 4] = ["eyJ", "PRIVATE KEY", AGENT_TOKEN, FOREIGN];
const AGENT_TOKEN: &str = "agent-token-of-the-tests";
const FOREIGN: &str = "basic-secret-of-the-tests";

static LINES: AtomicUsize = AtomicUsize::new(0);
static LEAKED: Mutex<Option<String>> = Mutex::new(None);

/// Reads every line of the log.
struct Reader;

impl io::Write for Reader {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.fetch_add(1, Ordering::Relaxed);
        let line = String::from_utf8_lossy(bytes);
        if SECRETS.iter().any(|secret| line.contains(secret)) {
            *LEAKED.lock().unwrap_or_else(PoisonError::into_inner) = Some(line.into_owned());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on, of the whole process.
pub(super) fn watch_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(|| Reader);
        subscriber.try_init().expect("nobody else reads the log");
    });
}

pub(super) fn expect_none_logged() {
    let leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(leaked, None, "a secret is in the log");
}

#[tokio::test]
async fn secrets_stay_where_they_belong() {
    let (proxy, ca) = (Proxy::new(), Ca::new());
    let mut told = Vec::new();
    for http1_only in [false, true] {
        let api = Api::start(&ca, &["127.0.0.1"], http1_only).await;
        let (cert, key) = ca.leaf(&["leaf1"], |_| {});
        let mut spec = api.spec("127.0.0.1", &proxy.directory.write("ca.pem", &ca.pem));
        spec.client_cert_file = Some(proxy.directory.write("client.pem", &cert));
        spec.client_key_file = Some(proxy.directory.write("client.key", &key));
        spec.token_file = Some(proxy.directory.write("token", AGENT_TOKEN));
        proxy.discovery.set_upstream(Some(spec.clone())).await;
        let port = proxy.open("Ethernet0", |_| {}).await;
        let (older, newer) = (token(port).await, token(port).await);
        let foreign = format!("Authorization: Basic {FOREIGN}\r\n");
        for fields in [bearer(&newer), bearer(&older), bearer(&newer[..40]), foreign] {
            told.push(ask(port, "GET /api/v1", &fields, "").await);
            told.push(ask(port, "POST /api/v1", &fields, "body").await);
        }
        assert_eq!(told[told.len() - 8].status, 200);
        // Malformed in ways that parsers and the look before them complain of.
        for bad in ["Transfer-Encoding: x\r\n", "X: \0\r\n", "Host: y\r\n"] {
            let text = format!("GET /api/x HTTP/1.1\r\nHost: x\r\n{}{bad}\r\n", bearer(&newer));
            raw(port, text.as_bytes()).await;
        }
        // Files that are broken where the secret is.
        spec.client_key_file = Some(proxy.directory.write("client.key", &key.replace("\n", "\n!")));
        proxy.discovery.set_upstream(Some(spec.clone())).await;
        spec.token_file = Some(proxy.directory.write("token", &format!("{AGENT_TOKEN} \u{1}")));
        spec.client_key_file = None;
        spec.client_cert_file = None;
        proxy.discovery.set_upstream(Some(spec)).await;
        let error = proxy.discovery.upstream().unwrap().error.unwrap();
        assert!(!SECRETS.iter().any(|secret| error.contains(secret)), "{error}");
        told.push(ask(port, "GET /api/v1", &bearer(&newer), "").await);
        proxy.discovery.close(&"Ethernet0".parse().unwrap(), "test").await;
    }
    let counted = proxy.metrics.encode();
    assert!(!SECRETS.iter().any(|secret| counted.contains(secret)));
    for reply in told {
        assert!(!SECRETS.iter().any(|secret| format!("{reply:?}").contains(secret)), "{reply:?}");
    }
    assert!(LINES.load(Ordering::Relaxed) > 100, "the log is read");
}
