//! Where the control API is.

use ::http::Uri;
use ::http::uri::{Authority, Parts, PathAndQuery, Scheme};
use bytes::Bytes;
use switch_agent_core::desired::UpstreamSpec;
use switch_agent_core::discovery::Target;

/// `https://host[:port]`, the port only where it is not 443.
pub(super) struct Origin {
    text: String,
    authority: Option<Authority>,
}

impl Origin {
    pub(super) fn of(spec: &UpstreamSpec) -> Origin {
        let host = if spec.host.contains(':') { format!("[{}]", spec.host) } else { spec.host.clone() };
        let text = match spec.port {
            443 => format!("https://{host}"),
            port => format!("https://{host}:{port}"),
        };
        let authority = text.parse::<Uri>().ok().and_then(|uri| uri.into_parts().authority);
        Origin { text, authority }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Where a target is, below the base path. `None` where that is no URL.
    pub(super) fn uri(&self, base: &str, target: &Target) -> Option<Uri> {
        let path = match base {
            "" => target.path_and_query().into_owned(),
            base => format!("{base}{}", target.path_and_query()),
        };
        let mut parts = Parts::default();
        parts.scheme = Some(Scheme::HTTPS);
        parts.authority = Some(self.authority.clone()?);
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(path)).ok()?);
        Uri::from_parts(parts).ok()
    }
}
