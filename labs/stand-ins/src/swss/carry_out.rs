//! Effects of the model, done for real.

use switch_agent_core::sim::Effect;

use super::Error;
use super::database::Databases;
use super::kernel::Kernel;

/// Carries out one effect; returns whether the kernel must be read anew: a link came or went, or the
/// kernel refused.
pub(super) async fn carry_out(
    effect: Effect,
    kernel: &mut Kernel,
    databases: &mut Databases,
) -> Result<bool, Error> {
    match effect {
        Effect::StateSet { table, key, fields } => databases.state_set(table, &key, &fields).await?,
        Effect::StateDel { table, key } => databases.state_del(table, &key).await?,
        Effect::ApplSet { table, key, fields } => databases.appl_set(table, &key, &fields).await?,
        Effect::ApplDel { table, key } => databases.appl_del(table, &key).await?,
        Effect::KeySetAdd { table, key } => databases.key_set(table, &key, true).await?,
        Effect::KeySetDel { table, key } => databases.key_set(table, &key, false).await?,
        Effect::Refused { daemon, log } => tracing::warn!(daemon = daemon.name(), "{log}"),
        Effect::Exit { daemon, log } => tracing::error!(daemon = daemon.name(), "exited: {log}"),
        // Ports are the lab's own.
        Effect::PortAdd { .. } | Effect::PortDel { .. } => {}
        effect => {
            let in_place = matches!(
                effect,
                Effect::SetMaster { .. }
                    | Effect::NoMaster { .. }
                    | Effect::AddrAdd { .. }
                    | Effect::AddrDel { .. }
            );
            // A failure is logged and lost, as with the daemons' calls of `ip`.
            let done = change_kernel(effect, kernel).await;
            if let Err(error @ Error::Unanswered { .. }) = done {
                return Err(error);
            }
            if let Err(error) = &done {
                tracing::warn!(error = error as &dyn std::error::Error, "effect lost");
            }
            return Ok(!in_place || done.is_err());
        }
    }
    Ok(false)
}

async fn change_kernel(effect: Effect, kernel: &mut Kernel) -> Result<(), Error> {
    match effect {
        Effect::VrfAdd { name, table } => kernel.add_vrf(&name, table).await,
        Effect::DummyAdd { name } => kernel.add_dummy(&name).await,
        Effect::BridgeAdd { name } => kernel.add_bridge(&name).await,
        Effect::VrfDel { name } | Effect::DummyDel { name } => kernel.del_link(&name).await,
        Effect::SetMaster { port, master } => kernel.set_master(&port, Some(&master)).await,
        Effect::NoMaster { port } => kernel.set_master(&port, None).await,
        Effect::AddrAdd { port, address } => kernel.add_address(&port, address).await,
        Effect::AddrDel { port, address } => kernel.del_address(&port, address).await,
        _ => Ok(()),
    }
}
