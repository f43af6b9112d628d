//! Name resolution of the control API, with addresses that no API can have taken out.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::Name;
use ipnet::Ipv6Net;
use switch_agent_core::discovery::upstream::{AddressRefusal, check_address};
use tower_service::Service;

/// Every address that the name has is refused.
#[derive(Debug, thiserror::Error)]
#[error("{name} has only refused addresses")]
pub struct RefusedAddress {
    name: String,
}

/// Which addresses are refused; knows the boot prefixes of the switch.
#[derive(Debug, Default)]
pub struct AddressPolicy {
    boot_prefixes: RwLock<Vec<Ipv6Net>>,
    #[cfg(test)]
    pub allow_loopback: bool,
}

impl AddressPolicy {
    pub fn set_boot_prefixes(&self, prefixes: Vec<Ipv6Net>) {
        *self.boot_prefixes.write().unwrap_or_else(PoisonError::into_inner) = prefixes;
    }

    pub fn has_boot_prefix(&self, prefix: Ipv6Net) -> bool {
        self.boot_prefixes.read().unwrap_or_else(PoisonError::into_inner).contains(&prefix)
    }

    pub fn check(&self, address: IpAddr) -> Result<(), AddressRefusal> {
        #[cfg(test)]
        if self.allow_loopback && address.is_loopback() {
            return Ok(());
        }
        check_address(address, &self.boot_prefixes.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The system's resolver, filtered at every connection: a name that moves to a refused address later is
/// refused then.
#[derive(Debug, Clone)]
pub struct PolicyResolver(pub Arc<AddressPolicy>);

impl Service<Name> for PolicyResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let policy = self.0.clone();
        Box::pin(async move {
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good: Vec<SocketAddr> =
                all.iter().copied().filter(|address| policy.check(address.ip()).is_ok()).collect();
            if good.is_empty() && !all.is_empty() {
                return Err(io::Error::other(RefusedAddress { name: name.as_str().to_owned() }));
            }
            Ok(good.into_iter())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The resolver is asked again for every connection; what a name leads to now is all that counts.
    #[tokio::test]
    async fn a_name_that_leads_to_a_refused_address_leads_nowhere() {
        let policy = AddressPolicy { allow_loopback: true, ..AddressPolicy::default() };
        let resolve = async |policy: &Arc<AddressPolicy>| {
            PolicyResolver(policy.clone()).call("localhost".parse().unwrap()).await
        };
        assert!(resolve(&Arc::new(policy)).await.unwrap().all(|address| address.ip().is_loopback()));
        let strict = Arc::new(AddressPolicy::default());
        let error = resolve(&strict).await.unwrap_err();
        assert!(error.get_ref().unwrap().is::<RefusedAddress>(), "{error}");
    }

    #[test]
    fn a_prefix_that_becomes_a_boot_prefix_is_refused_from_then_on() {
        let policy = AddressPolicy::default();
        let address = "2001:db8:b::1".parse().unwrap();
        assert_eq!(policy.check(address), Ok(()));
        policy.set_boot_prefixes(vec!["2001:db8:b::/48".parse().unwrap()]);
        assert_eq!(policy.check(address), Err(AddressRefusal::BootPrefix));
    }
}
