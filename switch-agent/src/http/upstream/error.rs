//! Why the control API gave no answer, told from what the libraries say.

use std::error::Error;
use std::time::Duration;

use super::resolve::RefusedAddress;

/// Why the control API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the control API client is not usable: {0}")]
    Unusable(String),
    #[error("the control API's name or address leads to a refused address")]
    Address,
    #[error("TLS with the control API failed: {0}")]
    Tls(String),
    #[error("a certificate of the control API is not valid at the switch's time: {0}")]
    CertificateTime(String),
    #[error("the control API was not reached ({last}) and is left alone for now")]
    Suspended { last: &'static str, retry_after: Duration },
    #[error("the control API cannot be reached: {0}")]
    Connect(String),
    #[error("the control API did not answer in time")]
    Timeout,
    #[error("the exchange with the control API broke off: {0}")]
    Exchange(String),
}

impl UpstreamError {
    /// Error code of the reply, and label for metrics.
    pub fn code(&self) -> &'static str {
        match self {
            UpstreamError::Unusable(_) => "upstream-unusable",
            UpstreamError::Address => "upstream-address",
            UpstreamError::Tls(_) => "upstream-tls",
            UpstreamError::CertificateTime(_) => "upstream-certificate-time",
            UpstreamError::Suspended { .. } => "upstream-suspended",
            UpstreamError::Connect(_) => "upstream-unavailable",
            UpstreamError::Timeout => "upstream-timeout",
            UpstreamError::Exchange(_) => "upstream-broken",
        }
    }

    /// Whether the control API was not reached at all, which no machine can bring about.
    pub(super) fn is_unreached(&self) -> bool {
        matches!(self, UpstreamError::Connect(_) | UpstreamError::Tls(_) | UpstreamError::CertificateTime(_))
    }
}

/// An error and its sources on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// Searches an error and its sources, looking into `io::Error`s, which hide what they wrap.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = inner.and_then(|inner| find::<T>(inner)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Whether the switch's clock may be what is wrong.
fn concerns_time(error: &rustls::Error) -> bool {
    use rustls::CertificateError as Certificate;
    match error {
        rustls::Error::FailedToGetCurrentTime => true,
        rustls::Error::InvalidCertificate(certificate) => matches!(
            certificate,
            Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. }
        ),
        _ => false,
    }
}

pub(super) fn classify(error: &(dyn Error + 'static), connecting: bool) -> UpstreamError {
    if find::<RefusedAddress>(error).is_some() {
        return UpstreamError::Address;
    }
    if let Some(tls) = find::<rustls::Error>(error) {
        let why = tls.to_string();
        return if concerns_time(tls) {
            UpstreamError::CertificateTime(why)
        } else {
            UpstreamError::Tls(why)
        };
    }
    if connecting { UpstreamError::Connect(chain(error)) } else { UpstreamError::Exchange(chain(error)) }
}
