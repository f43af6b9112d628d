//! The control API as it is configured: its clients, and what ends when it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use switch_agent_core::desired::{Dialect, UpstreamSpec};
use switch_agent_core::discovery::Limits;
use switch_agent_core::map::IntoMap;
use switch_agent_core::service::UpstreamState;
use tokio_util::sync::CancellationToken;

use super::Discovery;
use super::metal_stack_v2::refresh::{self, Served};
use crate::http::upstream::resolve::AddressPolicy;
use crate::http::upstream::{self, Upstream};
use crate::metrics::Metrics;

impl Discovery {
    /// Configures the client of the control API, or with `None` drops it. Requests under way go on with
    /// the client they started with.
    pub async fn set_upstream(&self, spec: Option<UpstreamSpec>) {
        if self.shared.current_upstream().map(|upstream| upstream.spec().clone()) == spec {
            return;
        }
        let shared = self.shared.clone();
        if let Some(new) = &spec {
            let old = shared.tokens_for.lock().unwrap_or_else(PoisonError::into_inner).replace(new.clone());
            if old.is_some_and(|old| other_tokens(&old, new)) {
                drop(shared.tokens.revoke_all());
                shared.metal_stack_v2.reset();
                shared.metrics.metal_stack_v2.forget();
            }
            if new.dialect != Dialect::MetalStackV1 {
                shared.metal_stack_v1.credentials.revoke_all();
            }
        }
        let grpc = spec.as_ref().and_then(UpstreamSpec::grpc);
        if grpc.is_some() {
            self.load_metal_stack_v1().await;
        }
        let grpc = self.start_upstream(grpc, Upstream::grpc).await;
        if let Some((_, cancel)) = shared.metal_stack_v1.set_grpc(grpc) {
            cancel.cancel();
        }
        let made = self.start_upstream(spec, Upstream::new).await;
        let mut current = shared.upstream.write().unwrap_or_else(PoisonError::into_inner);
        let gone = made.is_none();
        if let Some((_, cancel)) = std::mem::replace(&mut *current, made) {
            cancel.cancel();
        }
        if gone {
            shared.metrics.proxy.upstream_gone();
        }
    }

    async fn start_upstream(
        &self,
        spec: Option<UpstreamSpec>,
        make: fn(UpstreamSpec, Arc<AddressPolicy>, Arc<Limits>, Metrics) -> Upstream,
    ) -> Option<(Arc<Upstream>, CancellationToken)> {
        let shared = &self.shared;
        let (spec, policy, limits) = (spec?, shared.policy.clone(), shared.limits.clone());
        let metrics = shared.metrics.clone();
        let making = tokio::task::spawn_blocking(move || Arc::new(make(spec, policy, limits, metrics)));
        let upstream = making.await.ok()?;
        let cancel = shared.cancel.child_token();
        let (metrics, waker) = (shared.metrics.clone(), shared.waker.clone());
        tokio::spawn(upstream::watch(upstream.clone(), metrics, waker, cancel.clone()));
        if upstream.spec().dialect == Dialect::MetalStackV2 {
            let (shared, upstream, discovery) = (shared.clone(), upstream.clone(), self.clone());
            // Its connections to the control API are those of the machines, too.
            let runtime = &self.shared.runtime;
            runtime.spawn(cancel.clone().run_until_cancelled_owned(async move {
                refresh::run(&shared, &upstream, || discovery.served()).await;
            }));
        }
        Some((upstream, cancel))
    }

    /// Makes ready what the dialect metal-stack-v1 keeps in the state directory.
    async fn load_metal_stack_v1(&self) {
        let shared = self.shared.clone();
        match tokio::task::spawn_blocking(move || shared.metal_stack_v1.load()).await {
            Ok(Ok(Some(state_dir))) => {
                let credentials = self.shared.metal_stack_v1.credentials.clone();
                let cancel = self.shared.cancel.clone();
                tokio::spawn(async move {
                    cancel.run_until_cancelled(credentials.keep(state_dir)).await;
                });
            }
            Ok(Err(error)) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "machines get no credentials");
            }
            Ok(Ok(None)) | Err(_) => {}
        }
    }

    /// The client of the control API as it runs.
    pub fn upstream(&self) -> Option<UpstreamState> {
        let state = self.shared.current_upstream()?.state();
        let grpc = self.shared.metal_stack_v1.grpc().and_then(|grpc| grpc.state().error);
        let error = state.error.or_else(|| grpc.map(|error| format!("gRPC: {error}")));
        Some(UpstreamState { error, ..state })
    }

    fn served(&self) -> Served {
        let ports = self.ports();
        let contexts: Vec<_> = ports.open.values().map(|open| open.state.context()).collect();
        let partitions: BTreeMap<_, _> =
            contexts.iter().map(|context| (context.partition.clone(), context.mac)).into_map();
        Served {
            switch_id: contexts.first().map(|context| context.switch_id.clone()),
            partitions: partitions.into_iter().collect(),
        }
    }
}

/// Whether tokens of the one control API are nothing for the other.
fn other_tokens(old: &UpstreamSpec, new: &UpstreamSpec) -> bool {
    let kind = |spec: &UpstreamSpec| (spec.dialect, spec.machine_token);
    let place = |spec: &UpstreamSpec| (spec.host.clone(), spec.port, spec.base.clone());
    kind(old) != kind(new) || old.dialect != Dialect::Generic && place(old) != place(new)
}
