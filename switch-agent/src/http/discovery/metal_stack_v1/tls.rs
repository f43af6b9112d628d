//! TLS on the machine leg: the proxy shows a certificate of the switch's authority, and takes no client but
//! one with a certificate that this very port was given.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use switch_agent_core::name::PortName;
use switch_agent_core::service::PortContext;

use super::authority::fingerprint;
use super::credentials::Credentials;
use super::{MetalStackV1, Server};

/// Knows the port's certificates one by one: neither the authority's signature nor a date makes another one
/// good, so that what ended stays ended, whatever the switch's clock says.
struct PortCertificates {
    port: PortName,
    credentials: Arc<Credentials>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for PortCertificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PortCertificates").field("port", &self.port).finish_non_exhaustive()
    }
}

impl ClientCertVerifier for PortCertificates {
    /// None: a client with a hint may hold back a certificate that it thinks unfit.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match self.credentials.check_certificate(&self.port, &fingerprint(end_entity)) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Every address at which machines on the port may dial the proxy.
fn addresses(context: &PortContext) -> Vec<IpAddr> {
    let link_local = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let service = context.settings.service_addresses.iter().copied();
    [context.router, context.mac.eui64_link_local(), link_local]
        .into_iter()
        .chain(service)
        .map(IpAddr::V6)
        .collect()
}

impl MetalStackV1 {
    /// TLS of one port; `None` where no machine on it can have credentials.
    pub(crate) fn server_config(&self, port: &PortName, context: &PortContext) -> Option<Arc<ServerConfig>> {
        self.grpc()?;
        let authority = self.authority.get()?;
        let addresses = addresses(context);
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(port)
            && server.addresses == addresses
        {
            return Some(server.config.clone());
        }
        let (certificate, key) = authority
            .server(&addresses)
            .inspect_err(|error| tracing::warn!(%port, %error, "no server certificate can be made"))
            .ok()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = PortCertificates {
            port: port.clone(),
            credentials: self.credentials.clone(),
            provider: provider.clone(),
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .ok()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(vec![certificate], key)
            .inspect_err(|error| tracing::warn!(%port, %error, "TLS of the port cannot be set up"))
            .ok()?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A resumed session would skip the look at the certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let config = Arc::new(config);
        servers.insert(port.clone(), Server { addresses, config: config.clone() });
        Some(config)
    }
}
