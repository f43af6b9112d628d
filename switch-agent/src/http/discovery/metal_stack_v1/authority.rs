//! The switch's own authority: it vouches for the proxy towards machines, and for machines towards nobody
//! but the proxy.
//!
//! Its key is made once and kept in the state directory (0600); certificates are made as they are needed.
//! Clocks of booting machines are wrong in both directions, so all certificates begin in 1970, and the
//! server's never expire (they last no longer than the process that holds their key).

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use switch_agent_core::discovery::metal_stack_v1::MachineId;
use switch_agent_core::discovery::metal_stack_v1::credentials::{CERTIFICATE_TTL, Fingerprint};
use switch_agent_core::service::PortContext;

use crate::backend::keys::{KeyError, load_or_make};
use crate::http::tokens::unix_now;

const FILE_NAME: &str = "machine-ca.p8";

/// Signs the certificates of the machine leg.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A client certificate as it is handed to a machine.
pub struct ClientCertificate {
    pub fingerprint: Fingerprint,
    pub pem: String,
    pub key_pem: String,
}

/// SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Fingerprint {
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, certificate).as_ref());
    fingerprint
}

fn params(common_name: String) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(1970, 1, 1);
    // RFC 5280 section 4.1.2.5: no well-defined expiration date.
    params.not_after = date_time_ymd(9999, 12, 31);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, DnValue::Utf8String(common_name));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

impl Authority {
    /// Reads the key from the state directory, or makes it. Blocks on file I/O.
    pub fn load_or_create(state_dir: &Path) -> Result<Authority, KeyError> {
        let make = || Ok(KeyPair::generate().map_err(KeyError::Authority)?.serialize_der());
        let der = load_or_make(state_dir, FILE_NAME, make)?;
        let key =
            KeyPair::try_from(&PrivatePkcs8KeyDer::from(der.as_slice())).map_err(KeyError::Authority)?;
        // Two switches' authorities have different names: clients look a root up by its name.
        let id = ring::digest::digest(&ring::digest::SHA256, key.public_key_raw());
        let id: String = id.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut params = params(format!("boot network {id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).map_err(KeyError::Authority)?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), pem })
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of the proxy for the addresses at which one port's machines reach it.
    pub fn server(
        &self,
        addresses: &[IpAddr],
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error> {
        let mut params = params("discovery proxy".to_owned());
        params.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok((certificate.der().clone(), PrivateKeyDer::Pkcs8(key)))
    }

    /// A certificate of the machine on a port, with its machine id where that is known.
    pub fn client(
        &self,
        port: &PortContext,
        machine: Option<&MachineId>,
    ) -> Result<ClientCertificate, rcgen::Error> {
        let mut params = params(format!("machine on {}", port.port));
        let name = match machine {
            Some(machine) => format!("urn:uuid:{machine}"),
            None => format!("boot-port://{}/{}", port.switch_id, port.port),
        };
        params.subject_alt_names = vec![SanType::URI(name.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let expires = Duration::from_secs(unix_now()) + CERTIFICATE_TTL;
        params.not_after = date_time_ymd(1970, 1, 1) + expires;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ClientCertificate {
            fingerprint: fingerprint(certificate.der()),
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use switch_agent_core::discovery::validity::not_after;

    use super::*;

    #[test]
    fn the_authority_is_made_once_and_kept_private() {
        let dir = std::env::temp_dir().join(format!("switch-agent-authority-{}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        let first = Authority::load_or_create(&dir).unwrap();
        let second = Authority::load_or_create(&dir).unwrap();
        let key = |authority: &Authority| authority.issuer.key().public_key_raw().to_vec();
        assert_eq!(key(&first), key(&second));
        assert_eq!(std::fs::metadata(dir.join(FILE_NAME)).unwrap().mode() & 0o777, 0o600);
        let (server, _) = first.server(&["2001:db8::1".parse().unwrap()]).unwrap();
        assert!(not_after(&server).unwrap() > 200_000_000_000);
        std::fs::remove_dir_all(dir).unwrap();
    }
}
