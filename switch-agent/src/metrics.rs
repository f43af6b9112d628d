//! Every metric: name, help, labels, registry. Nobody else names a metric.

use std::sync::Arc;

/// Cheap to clone; shared by all parts.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {}
