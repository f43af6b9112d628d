//! The discovery proxy alone, on the ports of a `config_db.json`, wherever they are bound, with no limit on a
//! port's rate and sizes. `tests/bench/proxy` measures it on kernels without VRF, where the agent itself would
//! wait for the ports to be bound.
//!
//! Usage: `forward CONFIG_DB_JSON STATE_DIR`

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use switch_agent::backend::kernel::KernelHandle;
use switch_agent::backend::keys::Signer;
use switch_agent::cli::check::read_file;
use switch_agent::http::discovery::{Discovery, Parts};
use switch_agent::http::worker;
use switch_agent::hub::Hub;
use switch_agent::metrics::Metrics;
use switch_agent::wake::Waker;
use switch_agent_core::desired::Desired;
use switch_agent_core::discovery::Limits as ProxyLimits;
use switch_agent_core::machines::Limits;
use switch_agent_core::name::router_interface_address;
use switch_agent_core::service::{ListenerSpec, PortContext, PortService};
use tokio_util::sync::CancellationToken;

/// What holds one port back for the others' sake, out of the way: there is only one here.
fn limits() -> ProxyLimits {
    ProxyLimits {
        request_rate: 1_000_000,
        request_burst: 1_000_000,
        connection_rate: 1_000_000,
        connection_burst: 1_000_000,
        port_connections: 4096,
        connections: 4096,
        response_body_bytes: u64::MAX,
        idle_timeout: Duration::from_secs(600),
        ..ProxyLimits::default()
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(file), Some(state_dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: forward CONFIG_DB_JSON STATE_DIR".into());
    };
    let desired = Desired::from_config(&read_file(&file)?);
    let (metrics, waker, stop) = (Metrics::default(), Waker::default(), CancellationToken::new());
    let hub = Hub::new(metrics.clone(), Limits::default());
    tokio::spawn(hub.clone().run(stop.clone()));
    let kernel = KernelHandle::new();
    tokio::spawn(kernel.clone().follow(|_| {}, |_| {}, |_| {}, hub.clone(), waker.clone(), stop.clone()));
    let (runtime, _) = worker::start(stop.clone())?;
    let discovery = Discovery::new(Parts {
        signer: Arc::new(Signer::load_or_create(&state_dir)?),
        neighbors: Arc::new(kernel.clone()),
        hub,
        metrics,
        waker,
        limits: limits(),
        state_dir: None,
        runtime,
        cancel: stop.clone(),
    });
    let global = &desired.global;
    discovery.set_upstream(global.upstream.clone()).await;
    let links = kernel.snapshot().await?.links;
    for (port, wanted) in &desired.ports {
        let partition = desired.partition_of(wanted).ok_or("a port without partition")?;
        let link = links.get(port.as_str()).ok_or_else(|| format!("there is no {port}"))?;
        let listener = ListenerSpec {
            port: port.clone(),
            ifindex: link.ifindex,
            vrf: partition.vrf.clone(),
            vrf_ifindex: link.ifindex,
            tcp_port: global.proxy_port,
        };
        let context = PortContext {
            switch_id: global.switch_id.clone(),
            chassis_mac: global.chassis_mac,
            partition: wanted.partition.clone(),
            port: port.clone(),
            alias: wanted.alias.clone(),
            index: wanted.index,
            mac: link.mac.ok_or_else(|| format!("{port} has no MAC"))?,
            vrf: partition.vrf.clone(),
            prefix: wanted.prefix,
            router: router_interface_address(wanted.prefix).addr(),
            tcp_port: global.proxy_port,
            settings: partition.clone(),
        };
        discovery.set(PortService { listener, context: context.into() }).await?;
    }
    println!("ready");
    stop.cancelled().await;
    Ok(())
}
