//! The advertisers alone: the sockets, the drop rule and the state machines of the agent, on the ports of a
//! `config_db.json`, wherever they are bound. `tests/bench/ra --kernel host` measures it on kernels without
//! VRF, where the agent itself would wait for the ports to be bound.
//!
//! Usage: `advertise CONFIG_DB_JSON`

use std::error::Error;
use std::path::PathBuf;

use switch_agent::advertise;
use switch_agent::backend::kernel::KernelHandle;
use switch_agent::backend::packet::SocketChoice;
use switch_agent::cli::check::read_file;
use switch_agent::hub::Hub;
use switch_agent::metrics::Metrics;
use switch_agent::wake::Waker;
use switch_agent_core::desired::Desired;
use switch_agent_core::machines::Limits;
use switch_agent_core::ra::{AdvPrefix, AdvertiserSpec};
use tokio_util::sync::CancellationToken;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = PathBuf::from(std::env::args_os().nth(1).ok_or("no config_db.json given")?);
    let desired = Desired::from_config(&read_file(&file)?);
    let (metrics, waker, stop) = (Metrics::default(), Waker::default(), CancellationToken::new());
    let hub = Hub::new(metrics.clone(), Limits::default());
    let (handle, advertiser) =
        advertise::start(SocketChoice::Auto, hub.clone(), metrics, waker.clone(), stop.clone())?;
    tokio::spawn(hub.clone().run(stop.clone()));
    let kernel = KernelHandle::new();
    let on_link = {
        let handle = handle.clone();
        move |event| handle.link(event)
    };
    tokio::spawn(kernel.clone().follow(on_link, |_: &_| {}, |_| {}, hub, waker, stop));
    let advertiser = tokio::spawn(advertiser);
    let links = kernel.snapshot().await?.links;
    for (port, wanted) in &desired.ports {
        let partition = desired.partition_of(wanted).ok_or("a port without partition")?;
        let link = links.get(port.as_str()).ok_or_else(|| format!("there is no {port}"))?;
        let mut config = partition.ra.clone();
        config.adv_prefix_list = vec![AdvPrefix { prefix: wanted.prefix, variables: partition.adv_prefix }];
        handle.set([AdvertiserSpec {
            port: port.clone(),
            ifindex: link.ifindex,
            mac: link.mac.ok_or_else(|| format!("{port} has no MAC"))?,
            link_local: link.link_local().ok_or_else(|| format!("{port} has no link-local address"))?,
            forwarding: link.forwarding != Some(false),
            config,
            dhcp6: None,
        }]);
    }
    advertiser.await?;
    Ok(())
}
