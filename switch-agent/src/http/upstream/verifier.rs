//! Who is taken for the control API: the library's check of chain, name, validity and revocation, by roots
//! that have not expired themselves. A library that takes a root for a bare key leaves that to its user.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{VerifierBuilderError, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use switch_agent_core::discovery::validity::not_after;

/// Checks the control API's certificate.
#[derive(Debug)]
pub(super) struct Verifier {
    roots: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    provider: Arc<CryptoProvider>,
    /// By all roots.
    whole: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    /// Where there are revocation lists, a server of whose issuer no list speaks is refused, too.
    pub(super) fn new(
        roots: Vec<CertificateDer<'static>>,
        lists: Vec<CertificateRevocationListDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Verifier, VerifierBuilderError> {
        let whole = build(roots.iter().cloned(), &lists, &provider)?;
        Ok(Verifier { roots, lists, provider, whole })
    }

    /// The check by the roots that are still valid.
    fn at(&self, now: UnixTime) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let valid = |root: &&CertificateDer<'_>| not_after(root).is_some_and(|end| now <= end);
        let left: Vec<_> = self.roots.iter().filter(valid).cloned().collect();
        if left.len() == self.roots.len() {
            return Ok(self.whole.clone());
        }
        if left.is_empty() {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        build(left.into_iter(), &self.lists, &self.provider)
            .map_err(|error| Error::General(error.to_string()))
    }
}

fn build(
    roots: impl Iterator<Item = CertificateDer<'static>>,
    lists: &[CertificateRevocationListDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, VerifierBuilderError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone());
    if !lists.is_empty() {
        builder = builder.with_crls(lists.iter().cloned()).only_check_end_entity_revocation();
    }
    builder.build()
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.at(now)?.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.whole.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.whole.supported_verify_schemes()
    }
}
