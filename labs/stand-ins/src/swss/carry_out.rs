//! Effects of the model, done for real.

use switch_agent_core::sim::Effect;

use super::Error;
use super::database::Databases;
use super::kernel::Kernel;

/// A kernel operation that fails is logged and lost, as with the daemons' calls of `ip`: the next
/// reading of the kernel corrects the model.
pub(super) async fn carry_out(
    effect: Effect,
    kernel: &Kernel,
    databases: &mut Databases,
) -> Result<(), Error> {
    let done = match effect {
        Effect::VrfAdd { name, table } => kernel.add_vrf(&name, table).await,
        Effect::DummyAdd { name } => kernel.add_dummy(&name).await,
        Effect::BridgeAdd { name } => kernel.add_bridge(&name).await,
        Effect::VrfDel { name } | Effect::DummyDel { name } => kernel.del_link(&name).await,
        Effect::SetMaster { port, master } => kernel.set_master(&port, Some(&master)).await,
        Effect::NoMaster { port } => kernel.set_master(&port, None).await,
        Effect::AddrAdd { port, address } => kernel.add_address(&port, address).await,
        Effect::AddrDel { port, address } => kernel.del_address(&port, address).await,
        Effect::StateSet { table, key, fields } => return databases.state_set(table, &key, &fields).await,
        Effect::StateDel { table, key } => return databases.state_del(table, &key).await,
        Effect::ApplSet { table, key, fields } => return databases.appl_set(table, &key, &fields).await,
        Effect::ApplDel { table, key } => return databases.appl_del(table, &key).await,
        Effect::KeySetAdd { table, key } => return databases.key_set(table, &key, true).await,
        Effect::KeySetDel { table, key } => return databases.key_set(table, &key, false).await,
        Effect::Refused { daemon, log } => {
            tracing::warn!(daemon = daemon.name(), "{log}");
            Ok(())
        }
        Effect::Exit { daemon, log } => {
            tracing::error!(daemon = daemon.name(), "exited: {log}");
            Ok(())
        }
        // Ports are the lab's own.
        Effect::PortAdd { .. } | Effect::PortDel { .. } => Ok(()),
    };
    if let Err(error) = done {
        tracing::warn!(error = &error as &dyn std::error::Error, "effect lost");
    }
    Ok(())
}
