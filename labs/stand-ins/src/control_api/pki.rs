//! A private CA for the lab: `ca.pem`, `server.pem`, `server.key`, and a client of it, `client.pem` and
//! `client.key`.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

#[derive(Debug)]
pub(crate) enum Error {
    File(String, io::Error),
    Generate(rcgen::Error),
    Pem(String, rustls::pki_types::pem::Error),
    Tls(rustls::Error),
    Clients(rustls::server::VerifierBuilderError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File(path, error) => write!(f, "{path}: {error}"),
            Error::Generate(error) => write!(f, "cannot make a certificate: {error}"),
            Error::Pem(path, error) => write!(f, "{path}: {error}"),
            Error::Clients(error) => write!(f, "cannot require client certificates: {error}"),
            Error::Tls(error) => write!(f, "cannot set up TLS: {error}"),
        }
    }
}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Error::Generate(error)
    }
}

/// Makes the files. `addresses` are IP addresses and DNS names of the server; the clock of a lab machine
/// may be anywhere, so the certificates are good for any sensible one.
pub(crate) fn make(dir: &Path, addresses: &[String]) -> Result<(), Error> {
    let dated = |mut params: CertificateParams, name: &str| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2049, 12, 31);
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut ca = dated(CertificateParams::new(Vec::new())?, "Lab control API CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let mut server = dated(CertificateParams::new(addresses)?, "Lab control API");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_key = KeyPair::generate()?;
    let issuer = Issuer::new(ca, ca_key);
    let server_pem = server.signed_by(&server_key, &issuer)?.pem();
    let mut client = dated(CertificateParams::new(Vec::new())?, "Lab fleet");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client_pem = client.signed_by(&client_key, &issuer)?.pem();
    fs::create_dir_all(dir).map_err(|error| Error::File(dir.display().to_string(), error))?;
    write(dir, "ca.pem", &ca_pem, 0o644)?;
    write(dir, "server.pem", &server_pem, 0o644)?;
    write(dir, "server.key", &server_key.serialize_pem(), 0o600)?;
    write(dir, "client.pem", &client_pem, 0o644)?;
    write(dir, "client.key", &client_key.serialize_pem(), 0o600)
}

fn write(dir: &Path, name: &str, text: &str, mode: u32) -> Result<(), Error> {
    let path = dir.join(name);
    let failed = |error| Error::File(path.display().to_string(), error);
    if path.exists() {
        fs::remove_file(&path).map_err(failed)?;
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
}

fn pem(path: &Path) -> impl Fn(rustls::pki_types::pem::Error) -> Error + use<> {
    let path = path.display().to_string();
    move |error| Error::Pem(path.clone(), error)
}

/// TLS with the certificate in `dir`.
pub(crate) fn server_config(dir: &Path) -> Result<ServerConfig, Error> {
    configured(dir, Arc::new(NoClientAuth))
}

/// The same, for clients with a certificate of the CA and no others.
pub(crate) fn server_config_for_clients_of(dir: &Path) -> Result<ServerConfig, Error> {
    let ca = dir.join("ca.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca).map_err(pem(&ca))?).map_err(Error::Tls)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    configured(dir, verifier.build().map_err(Error::Clients)?)
}

fn configured(dir: &Path, clients: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, Error> {
    let cert = dir.join("server.pem");
    let key = dir.join("server.key");
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&cert).map_err(pem(&cert))?.collect();
    let chain = chain.map_err(pem(&cert))?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(pem(&key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(Error::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
