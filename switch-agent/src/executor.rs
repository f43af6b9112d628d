//! Maps each action to one backend call and its typed outcome. The order is the plan's, not this file's.

use std::collections::BTreeSet;
use std::sync::Arc;

use switch_agent_core::action::Action;
use switch_agent_core::name::PortName;
use switch_agent_core::ownership::Ledger;
use switch_agent_core::ra::AdvertiserSpec;
use switch_agent_core::row::fields;
use switch_agent_core::service::PortService;

use crate::advertise::AdvertiseHandle;
use crate::backend::config_db::{ConfigStore, RowChange};
use crate::backend::kernel::KernelHandle;
use crate::backend::state_dir::StateDir;
use crate::http::discovery::Discovery;
use crate::leak::Leak;
use crate::observer::chain;

/// Carries actions out.
#[derive(Clone)]
pub struct Executor {
    pub config: ConfigStore,
    pub kernel: KernelHandle,
    pub state_dir: StateDir,
    pub leak: Leak,
    pub advertise: AdvertiseHandle,
    pub discovery: Discovery,
}

/// What became of one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub object: String,
    pub kind: &'static str,
    /// The error chain, on failure.
    pub result: Result<(), String>,
}

impl Executor {
    /// Carries the actions out in order. A failure concerns its object alone, with one exception: rows are
    /// not written while the ledger that announces them cannot be. Returns the outcomes, and the ledger
    /// where it was recorded.
    pub async fn execute(&self, actions: &[Action]) -> (Vec<Outcome>, Option<Ledger>) {
        let mut outcomes = Vec::with_capacity(actions.len());
        let mut recorded = None;
        let mut ledger_ok = true;
        let mut not_listening = BTreeSet::new();
        let mut rest = actions;
        while let Some(action) = rest.first() {
            // What comes in a row is done as one: SONiC sees a batch of rows as one change.
            let rows: Vec<RowChange> = rest.iter().map_while(row_change).collect();
            let services: Vec<PortService> = rest.iter().map_while(service).cloned().collect();
            let advertisers: Vec<&Arc<AdvertiserSpec>> = rest.iter().map_while(advertiser).collect();
            let results = if !rows.is_empty() {
                let result = match ledger_ok {
                    true => self.config.write(&rows).await.map_err(|failure| chain(&failure)),
                    false => Err("the ledger cannot be written".to_owned()),
                };
                vec![result; rows.len()]
            } else if !services.is_empty() {
                self.serve(services, &mut not_listening).await
            } else if !advertisers.is_empty() {
                let (wanted, results) = where_listening(&advertisers, &not_listening);
                self.advertise.set(wanted);
                results
            } else {
                vec![self.single(action).await]
            };
            if let (Action::RecordLedger(ledger), Some(result)) = (action, results.first()) {
                ledger_ok = result.is_ok();
                recorded = ledger_ok.then(|| ledger.clone());
            }
            let (done, left) = rest.split_at(results.len());
            if done
                .iter()
                .any(|action| matches!(action.kind(), "set-leak-row" | "delete-leak-row" | "renew-leak-row"))
            {
                self.leak.look();
            }
            outcomes.extend(done.iter().zip(results).map(|(action, result)| Outcome {
                object: action.object(),
                kind: action.kind(),
                result,
            }));
            rest = left;
        }
        (outcomes, recorded)
    }

    /// Opens or changes the services of ports.
    async fn serve(
        &self,
        services: Vec<PortService>,
        not_listening: &mut BTreeSet<PortName>,
    ) -> Vec<Result<(), String>> {
        let ports: Vec<PortName> = services.iter().map(|service| service.listener.port.clone()).collect();
        let opened = self.discovery.set_all(services).await;
        let results = ports.into_iter().zip(opened).map(|(port, opened)| {
            opened.map_err(|failure| {
                not_listening.insert(port);
                chain(&failure)
            })
        });
        results.collect()
    }

    /// An action that is done by itself.
    async fn single(&self, action: &Action) -> Result<(), String> {
        match action {
            Action::RecordLedger(ledger) => {
                // fsync on a switch's flash takes its time; advertisements must not wait for it.
                let (state_dir, ledger) = (self.state_dir.clone(), ledger.clone());
                let stored = tokio::task::spawn_blocking(move || state_dir.store_ledger(&ledger)).await;
                match stored {
                    Ok(result) => result.map_err(|failure| chain(&failure)),
                    Err(failure) => Err(chain(&failure)),
                }
            }
            Action::WithdrawLeak(delta) | Action::ApplyLeak(delta) => {
                self.leak.apply(delta.clone());
                Ok(())
            }
            Action::CeaseAdvertiser { port, cease } => {
                self.advertise.cease(port.clone(), *cease);
                Ok(())
            }
            Action::CloseService { port } => {
                self.discovery.close(port, "the port left the boot network").await;
                Ok(())
            }
            Action::SetUpstream(spec) => {
                self.discovery.set_upstream(spec.clone()).await;
                Ok(())
            }
            Action::AddUnreachableDefault { table, .. } => {
                self.kernel.add_unreachable_default(*table).await.map_err(|failure| chain(&failure))
            }
            Action::RemoveUnreachableDefault { table, .. } => {
                self.kernel.remove_unreachable_default(*table).await.map_err(|failure| chain(&failure))
            }
            Action::AddConvenienceLinkLocal { ifindex, address, .. } => {
                self.kernel.add_link_local(*ifindex, *address).await.map_err(|failure| chain(&failure))
            }
            Action::RemoveConvenienceLinkLocal { ifindex, .. } => {
                self.kernel.remove_link_local(*ifindex).await.map_err(|failure| chain(&failure))
            }
            // Rows, services and advertisers are taken before this is reached.
            _ => Ok(()),
        }
    }
}

/// The advertisers that may run, which those of ports whose listener did not open may not, and what becomes of
/// each of all.
fn where_listening(
    specs: &[&Arc<AdvertiserSpec>],
    not_listening: &BTreeSet<PortName>,
) -> (Vec<Arc<AdvertiserSpec>>, Vec<Result<(), String>>) {
    let listens = |spec: &AdvertiserSpec| !not_listening.contains(&spec.port);
    let wanted = specs.iter().filter(|spec| listens(spec)).map(|spec| Arc::clone(spec));
    let result = |spec: &&Arc<AdvertiserSpec>| match listens(spec) {
        true => Ok(()),
        false => Err("its listener did not open".to_owned()),
    };
    (wanted.collect(), specs.iter().map(result).collect())
}

fn service(action: &Action) -> Option<&PortService> {
    if let Action::SetService(service) = action { Some(service) } else { None }
}

fn advertiser(action: &Action) -> Option<&Arc<AdvertiserSpec>> {
    if let Action::SetAdvertiser(spec) = action { Some(spec) } else { None }
}

/// The CONFIG_DB change of an action that is one.
fn row_change(action: &Action) -> Option<RowChange> {
    let set = |table: &str, key: String, fields| RowChange::Set { table: table.to_owned(), key, fields };
    let delete = |table: &str, key: String| RowChange::Delete { table: table.to_owned(), key };
    let table = |port: &PortName| port.kind().interface_table();
    Some(match action {
        Action::CreateVrf(vrf) | Action::RepairVrf(vrf) => set("VRF", vrf.to_string(), fields([])),
        Action::SetAcl { table, key, row } => set(table, key.clone(), row.clone()),
        Action::DeleteAcl(owned) => delete(owned.table(), owned.key().to_owned()),
        Action::SetLeakRow { table, key, row } | Action::RewriteLeakRow { table, key, row } => {
            set(table, key.clone(), row.clone())
        }
        Action::DeleteLeakRow(owned) => delete(owned.table(), owned.key().to_owned()),
        Action::RenewLeakRow { row, .. } => delete(row.table(), row.key().to_owned()),
        Action::DeleteVrf(owned) => delete("VRF", owned.name().to_string()),
        Action::BindInterface { port, vrf } | Action::RepairBinding { port, vrf } => {
            set(table(port), port.to_string(), fields([("vrf_name", vrf.as_str())]))
        }
        Action::DeleteInterface(owned) => delete(table(owned.port()), owned.port().to_string()),
        Action::AddAddress { port, address } | Action::RepairAddress { port, address } => {
            set(table(port), format!("{port}|{address}"), fields([]))
        }
        Action::DeleteAddress(owned) => {
            delete(table(owned.port()), format!("{}|{}", owned.port(), owned.address()))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use switch_agent_core::name::MacAddr;
    use switch_agent_core::ra::RaConfig;

    use super::*;

    #[test]
    fn a_port_whose_listener_did_not_open_is_not_advertised_on() {
        let mac: MacAddr = "52:54:00:00:00:01".parse().unwrap();
        let spec = |port: &str| AdvertiserSpec {
            port: port.parse().unwrap(),
            ifindex: 7,
            mac,
            link_local: mac.eui64_link_local(),
            forwarding: true,
            config: RaConfig::default(),
            dhcp6: None,
        };
        let (deaf, listens) = (Arc::new(spec("Ethernet0")), Arc::new(spec("Ethernet4")));
        let not_listening = BTreeSet::from([deaf.port.clone()]);
        let (wanted, results) = where_listening(&[&deaf, &listens], &not_listening);
        assert_eq!(wanted, [listens]);
        assert_eq!(results, [Err("its listener did not open".to_owned()), Ok(())]);
    }
}
