//! Maps each action to one backend call and its typed outcome. The order is the plan's, not this file's.

use std::collections::BTreeSet;

use switch_agent_core::action::Action;
use switch_agent_core::name::PortName;
use switch_agent_core::ownership::Ledger;
use switch_agent_core::row::fields;

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
            let rows: Vec<RowChange> = rest.iter().map_while(row_change).collect();
            let taken = rows.len().max(1);
            let result = if rows.is_empty() {
                self.single(action, &mut not_listening).await
            } else if ledger_ok {
                // One transaction: SONiC sees the batch as one change.
                self.config.write(&rows).await.map_err(|failure| chain(&failure))
            } else {
                Err("the ledger cannot be written".to_owned())
            };
            if let Action::RecordLedger(ledger) = action {
                ledger_ok = result.is_ok();
                recorded = ledger_ok.then(|| ledger.clone());
            }
            let (done, left) = rest.split_at(taken);
            if done
                .iter()
                .any(|action| matches!(action.kind(), "set-leak-row" | "delete-leak-row" | "renew-leak-row"))
            {
                self.leak.look();
            }
            outcomes.extend(done.iter().map(|action| Outcome {
                object: action.object(),
                kind: action.kind(),
                result: result.clone(),
            }));
            rest = left;
        }
        (outcomes, recorded)
    }

    /// Actions that are no CONFIG_DB row. A port whose listener did not open is not advertised on.
    async fn single(&self, action: &Action, not_listening: &mut BTreeSet<PortName>) -> Result<(), String> {
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
            Action::SetAdvertiser(spec) if not_listening.contains(&spec.port) => {
                Err("its listener did not open".to_owned())
            }
            Action::SetAdvertiser(spec) => {
                self.advertise.set((**spec).clone());
                Ok(())
            }
            Action::CloseService { port } => {
                self.discovery.close(port, "the port left the boot network").await;
                Ok(())
            }
            Action::SetService(service) => {
                let opened = self.discovery.set((**service).clone()).await;
                opened.map_err(|failure| {
                    not_listening.insert(service.listener.port.clone());
                    chain(&failure)
                })
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
            // Rows are taken by `row_change` before this is reached.
            _ => Ok(()),
        }
    }
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
