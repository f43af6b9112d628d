//! Opening the services of ports.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use switch_agent_core::discovery::bucket::Bucket;
use switch_agent_core::name::PortName;
use switch_agent_core::service::PortService;
use tokio_util::task::TaskTracker;

use super::session::{Sessions, connection};
use super::stamps::LastStamps;
use super::{Discovery, OpenPort, PortState, ServiceError};
use crate::http::listener::acceptor::{Listening, Room};
use crate::http::listener::{Ingress, ListenerError, open};

/// Services that are opened before others of the thread have their turn: a fraction of a millisecond.
const AT_A_TIME: usize = 8;

impl Discovery {
    /// As [`Discovery::set`] for each, with a result for each, on the thread that serves machines: hundreds of
    /// listeners opened elsewhere would be hundreds of times that the two threads wake each other.
    pub async fn set_all(&self, services: Vec<PortService>) -> Vec<Result<(), ServiceError>> {
        let (discovery, count) = (self.clone(), services.len());
        let work = async move {
            let mut results = Vec::with_capacity(count);
            for service in services {
                results.push(discovery.set(service).await);
                if results.len().is_multiple_of(AT_A_TIME) {
                    tokio::task::yield_now().await;
                }
            }
            results
        };
        match self.shared.runtime.spawn(work).await {
            Ok(results) => results,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The thread has ended.
                Err(_) => (0..count).map(|_| Err(ServiceError::Stopping)).collect(),
            },
        }
    }

    pub(super) fn open(&self, service: PortService) -> Result<(), ServiceError> {
        let port = service.listener.port.clone();
        let limits = self.shared.limits.clone();
        let device = self.shared.device.unwrap_or(port.as_str());
        let opened = open(&service.listener, device, &limits);
        let (listener, ingress) = opened.map_err(|source| self.not_opened(&port, source))?;
        let interval = Duration::from_secs(1) / limits.request_rate.max(1);
        let state = Arc::new(PortState {
            listener: service.listener,
            context: RwLock::new(service.context),
            shared: self.shared.clone(),
            minting: tokio::sync::Mutex::default(),
            requests: Mutex::new(Bucket::new(limits.request_burst, interval)),
            sessions: Sessions::default(),
            stamps: LastStamps::default(),
        });
        let cancel = self.shared.cancel.child_token();
        let tasks = TaskTracker::new();
        let room = Room::new(&limits, self.shared.room.clone());
        let (serving, ending, spawner) = (state.clone(), cancel.clone(), tasks.clone());
        let accepted = Box::new(move |accepted| {
            spawner.spawn(connection(serving.clone(), accepted, ending.clone()));
        });
        let listening = Listening { listener, room, cancel: cancel.clone(), tasks: tasks.clone(), accepted };
        let registered = self.shared.acceptor.add(listening).map_err(|source| {
            let device = device.to_owned();
            self.not_opened(&port, ListenerError::Socket { step: "watch the listener", device, source })
        })?;
        if ingress == Ingress::Watched {
            tracing::info!(%port, "no CAP_NET_ADMIN: a port that leaves its VRF is cut off by events, not by the kernel");
        }
        tracing::info!(%port, ?ingress, "discovery proxy opened");
        let mut ports = self.ports();
        ports.errors.remove(&port);
        ports.open.insert(port, OpenPort { state, cancel, tasks, _registered: registered });
        Ok(())
    }

    /// Tells of a listener that could not be opened.
    fn not_opened(&self, port: &PortName, source: ListenerError) -> ServiceError {
        let why = std::error::Error::source(&source).map(|why| format!("{source}: {why}"));
        self.ports().errors.insert(port.clone(), why.unwrap_or_else(|| source.to_string()));
        ServiceError::Listener { port: port.clone(), source }
    }
}
