//! Files of the control API client: roots, client certificate, the agent's own token.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use switch_agent_core::desired::UpstreamSpec;
use switch_agent_core::discovery::validity::not_after;

use zeroize::Zeroizing;

use super::verifier::Verifier;

/// Largest file that is read, in bytes. Debian's whole bundle of roots is a quarter of it.
const FILE_LEN_MAX: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} is longer than {FILE_LEN_MAX} bytes")]
    TooLong { path: PathBuf },
    #[error("{path} holds no usable PEM")]
    Pem {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    #[error("{path} holds a certificate that cannot be a root")]
    Root {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("the system has no root certificates; set control_api_ca_file")]
    NoSystemRoots,
    #[error("control_api_client_cert_file and control_api_client_key_file go together")]
    HalfIdentity,
    #[error("client certificate and key do not fit")]
    Identity(#[source] rustls::Error),
    #[error("the roots and revocation lists do not fit")]
    Verifier(#[source] rustls::client::VerifierBuilderError),
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("{path} holds no bearer token on its first line")]
    Token { path: PathBuf },
    #[error("{path} holds no HMAC key on its first line")]
    HmacKey { path: PathBuf },
    #[error("cannot bind to the control API's VRF: {0}")]
    Device(String),
}

/// What the files hold.
pub struct Credentials {
    pub tls: ClientConfig,
    pub agent_token: Option<Arc<str>>,
    /// `metal_stack_hmac_file`.
    pub hmac_key: Option<Arc<ring::hmac::Key>>,
    pub expiry: Expiry,
    /// Files with secrets that others may read.
    pub loose: Vec<String>,
}

/// Unix time at which the first certificate of a file expires; `None` where no file is configured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expiry {
    pub ca: Option<i64>,
    pub client: Option<i64>,
}

impl Expiry {
    fn of(spec: &UpstreamSpec) -> Expiry {
        let first = |path: &Option<String>| {
            let certificates = certificates(path.as_deref()?).ok()?;
            certificates.iter().filter_map(|certificate| not_after(certificate)).min()
        };
        Expiry { ca: first(&spec.ca_file), client: first(&spec.client_cert_file) }
    }
}

/// Length and time of change of every file, to notice a change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, Option<SystemTime>)>>);

impl Stamp {
    /// Follows symbolic links, so that an exchanged link (as Kubernetes and certificate daemons do) is
    /// noticed.
    pub fn of(spec: &UpstreamSpec) -> Stamp {
        let files = [&spec.ca_file, &spec.client_cert_file, &spec.client_key_file, &spec.token_file];
        let hmac_file = spec.metal_stack_v1.as_ref().map(|spec| &spec.hmac_file);
        let files = files.into_iter().map(Option::as_ref).chain([hmac_file]);
        let stamp = |path: &String| fs::metadata(path).ok().map(|meta| (meta.len(), meta.modified().ok()));
        Stamp(files.map(|path| path.and_then(stamp)).collect())
    }
}

/// A file's bytes, some of which are secret: they are overwritten after use.
fn read(path: &str) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let failed = |source| FileError::Read { path: path.into(), source };
    // Never reallocated, which would leave copies behind.
    let mut bytes =
        Zeroizing::new(Vec::with_capacity(usize::try_from(FILE_LEN_MAX).unwrap_or_default() + 64));
    fs::File::open(path).map_err(failed)?.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(FileError::TooLong { path: path.into() });
    }
    Ok(bytes)
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let parsed = parsed.map_err(|source| FileError::Pem { path: path.into(), source })?;
    if parsed.is_empty() { Err(FileError::NoCertificate { path: path.into() }) } else { Ok(parsed) }
}

type Roots = (Vec<CertificateDer<'static>>, Vec<CertificateRevocationListDer<'static>>);

/// Roots, and the revocation lists that stand next to them.
fn roots(ca_file: Option<&str>) -> Result<Roots, FileError> {
    let mut store = RootCertStore::empty();
    if let Some(path) = ca_file {
        let roots = certificates(path)?;
        for root in &roots {
            store.add(root.clone()).map_err(|source| FileError::Root { path: path.into(), source })?;
        }
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&read(path)?).collect();
        return Ok((roots, lists.map_err(|source| FileError::Pem { path: path.into(), source })?));
    }
    // Some systems ship roots that no library takes; those are skipped, as every client does.
    let found = rustls_native_certs::load_native_certs().certs;
    let usable: Vec<_> = found.into_iter().filter(|root| store.add(root.clone()).is_ok()).collect();
    if usable.is_empty() { Err(FileError::NoSystemRoots) } else { Ok((usable, Vec::new())) }
}

/// Reads all files of the spec. Blocks.
pub fn load(spec: &UpstreamSpec) -> Result<Credentials, FileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (roots, lists) = roots(spec.ca_file.as_deref())?;
    let verifier = Verifier::new(roots, lists, provider.clone()).map_err(FileError::Verifier)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(FileError::Tls)?
        // Stricter than the library's own, which it asks.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let tls = match (&spec.client_cert_file, &spec.client_key_file) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key_path)) => {
            let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
                .map_err(|source| FileError::Pem { path: key_path.into(), source })?;
            builder.with_client_auth_cert(certificates(cert)?, key).map_err(FileError::Identity)?
        }
        _ => return Err(FileError::HalfIdentity),
    };
    let agent_token = spec.token_file.as_deref().map(token).transpose()?;
    let hmac_file = spec.metal_stack_v1.as_ref().map(|spec| &spec.hmac_file);
    let hmac_key = hmac_file.map(|path| hmac_key(path)).transpose()?;
    let secrets = [spec.client_key_file.as_ref(), spec.token_file.as_ref(), hmac_file];
    let loose = secrets.into_iter().flatten().filter(|path| others_may_read(path)).cloned().collect();
    Ok(Credentials { tls, agent_token, hmac_key, expiry: Expiry::of(spec), loose })
}

fn others_may_read(path: &str) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.mode() & 0o077 != 0)
}

/// The first line of a file, where it is one word of printable ASCII.
fn word(bytes: &[u8]) -> Option<&str> {
    let word = str::from_utf8(bytes).ok()?.lines().next()?.trim();
    (!word.is_empty() && word.bytes().all(|b| b.is_ascii_graphic())).then_some(word)
}

fn token(path: &str) -> Result<Arc<str>, FileError> {
    word(&read(path)?).map(Arc::from).ok_or_else(|| FileError::Token { path: path.into() })
}

fn hmac_key(path: &str) -> Result<Arc<ring::hmac::Key>, FileError> {
    let bytes = read(path)?;
    let word = word(&bytes).ok_or_else(|| FileError::HmacKey { path: path.into() })?;
    Ok(Arc::new(ring::hmac::Key::new(ring::hmac::HMAC_SHA256, word.as_bytes())))
}
