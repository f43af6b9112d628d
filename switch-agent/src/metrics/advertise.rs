//! Router Advertisements and solicitations.

use prometheus_client::registry::Registry;

#[derive(Debug)]
pub struct AdvertiseMetrics {}

impl AdvertiseMetrics {
    pub(super) fn register(_registry: &mut Registry) -> Self {
        AdvertiseMetrics {}
    }
}
