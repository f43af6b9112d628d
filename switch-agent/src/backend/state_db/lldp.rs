//! `LLDP_ENTRY_TABLE` of APPL_DB: who says it is at the other end of a port.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use switch_agent_core::machines::{LldpNeighbor, MachineEvent};
use switch_agent_core::name::{MacAddr, PortName};
use switch_agent_core::row::Fields;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{LLDP_TABLE, StateStore};
use crate::backend::redis::DatabaseError;
use crate::hub::Hub;

/// lldp_syncd writes the rows of all ports one after another; they are read once, this much later.
const SETTLE: Duration = Duration::from_millis(500);
/// Reads that no event asked for: FLUSHDB, as in a cold start of swss, emits none.
const REREAD_INTERVAL: Duration = Duration::from_secs(30);

/// IEEE 802.1AB-2016 table 8-2: chassis ID subtype "MAC address".
const CHASSIS_ID_MAC: &str = "4";
/// IEEE 802.1AB-2016 table 8-3: port ID subtype "MAC address".
const PORT_ID_MAC: &str = "3";

impl StateStore {
    /// The LLDP neighbours of `ports`; ports without one are absent.
    ///
    /// # Errors
    /// APPL_DB cannot be read.
    pub async fn read_lldp(
        &self,
        ports: &BTreeSet<PortName>,
    ) -> Result<Vec<(PortName, LldpNeighbor)>, DatabaseError> {
        let keys: Vec<String> =
            ports.iter().map(|port| self.appl_db.key(LLDP_TABLE, port.as_str())).collect();
        let rows = self.appl_db.hashes(&keys).await?;
        let neighbors = ports.iter().zip(&keys).filter_map(|(port, key)| {
            let fields = rows.get(key.as_str())?;
            Some((port.clone(), neighbor(fields)))
        });
        Ok(neighbors.collect())
    }
}

fn neighbor(fields: &Fields) -> LldpNeighbor {
    let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let mac = |id: &str, subtype: &str, wanted: &str| {
        let mac: MacAddr = fields.get(id)?.parse().ok()?;
        (fields.get(subtype)? == wanted && mac.is_unicast()).then_some(mac)
    };
    // The port's MAC is that of the network card at this cable; the chassis' may be another card's.
    let port_mac = mac("lldp_rem_port_id", "lldp_rem_port_id_subtype", PORT_ID_MAC);
    LldpNeighbor {
        chassis_id: text("lldp_rem_chassis_id"),
        port_id: text("lldp_rem_port_id"),
        port_desc: text("lldp_rem_port_desc"),
        sys_name: text("lldp_rem_sys_name"),
        sys_desc: text("lldp_rem_sys_desc"),
        mac: port_mac.or_else(|| mac("lldp_rem_chassis_id", "lldp_rem_chassis_id_subtype", CHASSIS_ID_MAC)),
    }
}

/// Reports the LLDP neighbours of the ports that `ports` names to the hub: when `changed` is notified, at
/// most twice a second, and every [`REREAD_INTERVAL`]. Ends when cancelled.
pub async fn follow_lldp(
    store: StateStore,
    ports: impl Fn() -> BTreeSet<PortName>,
    changed: Arc<Notify>,
    hub: Hub,
    cancel: CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = tokio::time::timeout(REREAD_INTERVAL, changed.notified()) => {}
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(SETTLE) => {}
        }
        match store.read_lldp(&ports()).await {
            Ok(neighbors) => hub.observe(MachineEvent::Lldp { neighbors }),
            Err(error) => {
                tracing::info!(error = &error as &dyn std::error::Error, "LLDP neighbours not read");
            }
        }
    }
}
