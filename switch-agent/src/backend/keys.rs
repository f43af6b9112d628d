//! The agent's private keys: files of the state directory, made once.
//!
//! The Ed25519 identity key: one key per switch, made at first start and kept in the state directory as PKCS#8 (`identity.p8`,
//! 0600). Who holds the public half (`/.well-known/jwks.json` of the admin API) can check every statement
//! and token of this switch.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;
use serde::de::DeserializeOwned;
use switch_agent_core::identity::jws::{assemble, signing_input};
use switch_agent_core::identity::{InvalidJws, Jws, JwsKind};
use zeroize::Zeroizing;

use super::state_dir::BROKEN;

const FILE_NAME: &str = "identity.p8";
/// A PKCS#8 key of an elliptic curve is some 100 bytes; anything much longer is another file.
const FILE_LEN_MAX: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot {step} {path}")]
    File {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is readable by others (mode {mode:o}); it must be 0600")]
    Mode { path: PathBuf, mode: u32 },
    #[error("{path} is no Ed25519 key in PKCS#8: {reason}")]
    Key { path: PathBuf, reason: ring::error::KeyRejected },
    #[error("the key of the machines' authority cannot be used")]
    Authority(#[source] rcgen::Error),
    #[error("the system gives no random numbers")]
    Random,
}

#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the token is malformed")]
    Malformed(#[source] InvalidJws),
    #[error("the token is of another kind")]
    Kind,
    #[error("the token was not signed by this switch's key")]
    Signature,
}

/// Signs and verifies with the identity key.
pub struct Signer {
    pair: Ed25519KeyPair,
    kid: String,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl Signer {
    /// Reads the key from the state directory, or makes both. Two processes that start at once agree on
    /// one key. Blocks on file I/O: for start-up.
    pub fn load_or_create(state_dir: &Path) -> Result<Signer, KeyError> {
        let make = || Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random);
        let der = load_or_make(state_dir, FILE_NAME, || Ok(make()?.as_ref().to_vec()))?;
        let path = state_dir.join(FILE_NAME);
        let pair = match Ed25519KeyPair::from_pkcs8(&der) {
            Ok(pair) => pair,
            Err(reason) => {
                // Without a key there is no boot network, and whoever verifies asks for the key set.
                let aside = state_dir.join(format!("{FILE_NAME}{BROKEN}"));
                tracing::warn!(%reason, file = FILE_NAME, "no key of this version, and set aside as .broken; a new one is made");
                fs::rename(&path, aside).map_err(file("set aside", &path))?;
                let der = load_or_make(state_dir, FILE_NAME, || Ok(make()?.as_ref().to_vec()))?;
                Ed25519KeyPair::from_pkcs8(&der).map_err(|reason| KeyError::Key { path, reason })?
            }
        };
        let kid = thumbprint(pair.public_key().as_ref());
        Ok(Signer { pair, kid })
    }

    /// Key id: the JWK thumbprint of the public key (RFC 7638).
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs claims as a compact JWS.
    pub fn sign_jws(&self, kind: JwsKind, claims: &impl Serialize) -> serde_json::Result<String> {
        let input = signing_input(kind, &self.kid, claims)?;
        let signature = self.pair.sign(input.as_bytes());
        Ok(assemble(input, signature.as_ref()))
    }

    /// The claims of a JWS that this key signed. Says nothing of times, ports or addresses in them.
    pub fn verify<T: DeserializeOwned>(&self, kind: JwsKind, text: &str) -> Result<T, VerifyError> {
        let jws = Jws::parse(text).map_err(VerifyError::Malformed)?;
        if jws.kid != self.kid {
            return Err(VerifyError::Signature);
        }
        UnparsedPublicKey::new(&ED25519, self.pair.public_key().as_ref())
            .verify(jws.signing_input.as_bytes(), &jws.signature)
            .map_err(|_| VerifyError::Signature)?;
        if jws.kind != kind {
            return Err(VerifyError::Kind);
        }
        jws.claims().map_err(VerifyError::Malformed)
    }

    /// The public key as a JWK set (RFC 7517, RFC 8037).
    pub fn jwks(&self) -> serde_json::Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref());
        serde_json::json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": self.kid, "x": x }
        ]})
    }
}

fn thumbprint(public: &[u8]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, canonical.as_bytes()))
}

fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_owned();
    move |source| KeyError::File { step, path, source }
}

/// The content of a private file of the state directory (0600, in a directory of 0700), which `make` makes
/// where there is none. Two processes that start at once agree on one. Blocks on file I/O.
pub fn load_or_make(
    state_dir: &Path,
    name: &str,
    make: impl FnOnce() -> Result<Vec<u8>, KeyError>,
) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let path = state_dir.join(name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(file("create", state_dir))?;
    if !path.try_exists().map_err(file("look for", &path))? {
        create(state_dir, name, &Zeroizing::new(make()?))?;
    }
    let opened = File::open(&path).map_err(file("open", &path))?;
    let mode = opened.metadata().map_err(file("stat", &path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Mode { path, mode });
    }
    let mut der = Zeroizing::new(Vec::new());
    opened.take(FILE_LEN_MAX).read_to_end(&mut der).map_err(file("read", &path))?;
    Ok(der)
}

/// Writes a key under a name of its own and links it into place, which fails where another process was
/// first; its key then is the one.
fn create(state_dir: &Path, name: &str, der: &[u8]) -> Result<(), KeyError> {
    let path = &state_dir.join(name);
    let temporary = state_dir.join(format!(".{name}.{}", std::process::id()));
    // A leftover of a process that died under the same id.
    fs::remove_file(&temporary).ok();
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(der).and_then(|()| file.sync_all()))
        .map_err(file("write", &temporary));
    let linked = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(file("create", path)),
    });
    fs::remove_file(&temporary).ok();
    linked?;
    // The name must survive a power cut: a new key would make every statement of before unverifiable.
    File::open(state_dir).and_then(|dir| dir.sync_all()).map_err(file("sync", state_dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("switch-agent-keys-{name}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        path
    }

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let dir = directory("once");
        let first = Signer::load_or_create(&dir).unwrap();
        let second = Signer::load_or_create(&dir).unwrap();
        assert_eq!(first.kid(), second.kid());
        assert_eq!(fs::metadata(dir.join(FILE_NAME)).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::set_permissions(dir.join(FILE_NAME), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Signer::load_or_create(&dir), Err(KeyError::Mode { mode: 0o644, .. })));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_key_of_another_version_is_kept_and_does_not_keep_the_agent_from_starting() {
        let dir = directory("newer");
        let first = Signer::load_or_create(&dir).unwrap();
        let newer = b"a key of a kind that is not known yet";
        fs::write(dir.join(FILE_NAME), newer).unwrap();
        let second = Signer::load_or_create(&dir).unwrap();
        assert_ne!(first.kid(), second.kid());
        assert_eq!(fs::read(dir.join("identity.p8.broken")).unwrap(), newer);
        assert_eq!(Signer::load_or_create(&dir).unwrap().kid(), second.kid());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_its_own_signature_of_the_right_kind_verifies() {
        let dir = directory("verify");
        let signer = Signer::load_or_create(&dir).unwrap();
        let other = Signer::load_or_create(&dir.join("other")).unwrap();
        let text = signer.sign_jws(JwsKind::MachineToken, &serde_json::json!({"a": 1})).unwrap();
        let claims: serde_json::Value = signer.verify(JwsKind::MachineToken, &text).unwrap();
        assert_eq!(claims, serde_json::json!({"a": 1}));
        let fails =
            |signer: &Signer, kind, text: &str| signer.verify::<serde_json::Value>(kind, text).unwrap_err();
        assert!(matches!(fails(&signer, JwsKind::Identity, &text), VerifyError::Kind));
        assert!(matches!(fails(&other, JwsKind::MachineToken, &text), VerifyError::Signature));
        let forged = text.replacen(&text[..20], "", 1);
        assert!(matches!(fails(&signer, JwsKind::MachineToken, &forged), VerifyError::Malformed(_)));
        let (head, rest) = text.split_once('.').unwrap();
        let (_, signature) = rest.split_once('.').unwrap();
        let forged = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"a":2}"#));
        assert!(matches!(fails(&signer, JwsKind::MachineToken, &forged), VerifyError::Signature));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037() {
        let x = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        assert_eq!(thumbprint(&x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }
}
