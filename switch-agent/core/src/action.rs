//! What a plan may do. Declaration order is execution order: services end before the rows under them go,
//! rows appear before the services on them start.

use std::net::Ipv6Addr;
use std::sync::Arc;

use serde::Serialize;

use ipnet::Ipv6Net;

use crate::desired::UpstreamSpec;
use crate::frr::FrrDelta;
use crate::name::{PortName, VrfName};
use crate::ownership::{Ledger, OwnedAcl, OwnedAddress, OwnedInterface, OwnedLeakRow, OwnedVrf};
use crate::ra::{AdvertiserSpec, Cease};
use crate::row::Fields;
use crate::service::PortService;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Writes the ledger. Always first: rows are announced before they are written.
    RecordLedger(Ledger),
    /// Takes routes of ports and VRFs that leave out of FRR. Precondition: the lines are in its running
    /// configuration.
    WithdrawLeak(FrrDelta),
    /// Deletes a row of the leak, in the order in which it has to go. Precondition: it exists.
    DeleteLeakRow(OwnedLeakRow),
    /// Ends an advertiser. Precondition: it runs.
    CeaseAdvertiser { port: PortName, cease: Cease },
    /// Closes the port's listener, its connections and its tokens. Precondition: it is open.
    CloseService { port: PortName },
    /// Takes `fe80::1` off a port that leaves. Precondition: the kernel has it, CAP_NET_ADMIN.
    RemoveConvenienceLinkLocal { port: PortName, ifindex: u32, address: Ipv6Addr },
    /// Deletes an address row. Precondition: it exists, no service runs on it.
    DeleteAddress(OwnedAddress),
    /// Deletes a base row. Precondition: it exists, no address row of the port exists in CONFIG_DB or
    /// STATE_DB (intfmgrd evaluates the base row first and would lose the deletion).
    DeleteInterface(OwnedInterface),
    /// Takes the unreachable default out of the table of a VRF that goes: the kernel keeps such routes, and
    /// vrfmgrd hands the table out again. Precondition: nothing is in the VRF any more.
    RemoveUnreachableDefault { vrf: VrfName, table: u32 },
    /// Deletes a VRF row. Precondition: it exists, no base row names it, no FRR line of ours names it.
    DeleteVrf(OwnedVrf),
    /// Deletes an ACL row of ours; rules before their table. Precondition: no port is in the VRF any more, or
    /// the role `isolate` is off.
    DeleteAcl(OwnedAcl),
    /// Writes an ACL row; the table before its rules, both before ports are bound.
    SetAcl { table: &'static str, key: String, row: Fields },
    /// Writes an empty `VRF` row. Precondition: no row, and no trace of an earlier one (`VRF_TABLE`,
    /// `VRF_OBJECT_TABLE`, kernel device), else its pending deletion would take the new one along.
    CreateVrf(VrfName),
    /// Re-writes an existing `VRF` row whose device never came (or was lost), as vrfmgrd expects.
    RepairVrf(VrfName),
    /// Writes the base row in one HSET. Precondition: `VRF_TABLE` and `VRF_OBJECT_TABLE` exist, the port is
    /// usable, no trace of an earlier binding (`INTERFACE_TABLE`, `INTF_TABLE`, `INTF_TABLE_KEY_SET`,
    /// `VLAN_MEMBER_TABLE`).
    BindInterface { port: PortName, vrf: VrfName },
    /// Re-writes a correct base row whose binding the kernel lost (swss restarted under it).
    RepairBinding { port: PortName, vrf: VrfName },
    /// Writes an address row. Precondition: STATE_DB and the kernel show the binding.
    AddAddress { port: PortName, address: Ipv6Net },
    /// Re-writes a correct address row whose address the kernel lost.
    RepairAddress { port: PortName, address: Ipv6Net },
    /// Adds `unreachable default` to the VRF's table. Precondition: CAP_NET_ADMIN, the device exists.
    AddUnreachableDefault { vrf: VrfName, table: u32 },
    /// Adds `fe80::1` to a bound port. Precondition: CAP_NET_ADMIN.
    AddConvenienceLinkLocal { port: PortName, ifindex: u32, address: Ipv6Addr },
    /// Configures (or with `None` drops) the client of the control API.
    SetUpstream(Option<UpstreamSpec>),
    /// Opens the port's listener, or updates what it tells. Precondition: binding and address observed.
    SetService(Box<PortService>),
    /// Starts or reconfigures the port's advertiser. Precondition: binding, address, link-local observed;
    /// where the proxy role is on, its listener is open.
    SetAdvertiser(Arc<AdvertiserSpec>),
    /// Deletes a row of the leak that is as wanted but not in FRR, so that it can be written anew: the daemon
    /// that reads it believes it done. Precondition: FRR was read some time after the row was written.
    RenewLeakRow { row: OwnedLeakRow, wanted: Fields },
    /// Writes a row of the leak that actions before it have taken away for a moment, in the same transaction.
    RewriteLeakRow { table: &'static str, key: String, row: Fields },
    /// Brings FRR's running configuration to the wanted set. Precondition: addresses observed.
    ApplyLeak(FrrDelta),
    /// Writes a row of the leak. Precondition: the rows before it are in effect, addresses observed.
    SetLeakRow { table: &'static str, key: String, row: Fields },
}

impl Action {
    /// Position in the execution order; equal for actions of one kind.
    pub fn rank(&self) -> u8 {
        match self {
            Action::RecordLedger(_) => 0,
            // Planned in their order, and sorting is stable.
            Action::WithdrawLeak(_)
            | Action::DeleteLeakRow(_)
            | Action::RenewLeakRow { .. }
            | Action::RewriteLeakRow { .. } => 1,
            Action::CeaseAdvertiser { .. } => 2,
            Action::CloseService { .. } => 3,
            Action::RemoveConvenienceLinkLocal { .. } => 4,
            Action::DeleteAddress(_) => 5,
            Action::DeleteInterface(_) => 6,
            // Planned in this order for one VRF, and sorting is stable.
            Action::RemoveUnreachableDefault { .. } | Action::DeleteVrf(_) => 7,
            Action::DeleteAcl(_) => 8,
            Action::SetAcl { .. } => 9,
            Action::CreateVrf(_) => 10,
            Action::RepairVrf(_) => 11,
            Action::BindInterface { .. } => 12,
            Action::RepairBinding { .. } => 13,
            Action::AddAddress { .. } => 14,
            Action::RepairAddress { .. } => 15,
            Action::AddUnreachableDefault { .. } => 16,
            Action::AddConvenienceLinkLocal { .. } => 17,
            Action::SetUpstream(_) => 18,
            Action::SetService(_) => 19,
            Action::SetAdvertiser(_) => 20,
            Action::ApplyLeak(_) | Action::SetLeakRow { .. } => 21,
        }
    }

    /// The object the action is about, as shown to operators and used for back-off: a row, a port's part,
    /// or a daemon.
    pub fn object(&self) -> String {
        match self {
            Action::RecordLedger(_) => "ledger".to_owned(),
            Action::WithdrawLeak(_) | Action::ApplyLeak(_) => "FRR".to_owned(),
            Action::CeaseAdvertiser { port, .. } => format!("advertiser {port}"),
            Action::SetAdvertiser(spec) => format!("advertiser {}", spec.port),
            Action::CloseService { port } => format!("listener {port}"),
            Action::SetService(service) => format!("listener {}", service.listener.port),
            Action::SetUpstream(_) => "control API".to_owned(),
            Action::DeleteAddress(owned) => address_row(owned.port(), owned.address()),
            Action::AddAddress { port, address } | Action::RepairAddress { port, address } => {
                address_row(port, *address)
            }
            Action::DeleteInterface(owned) => base_row(owned.port()),
            Action::BindInterface { port, .. } | Action::RepairBinding { port, .. } => base_row(port),
            Action::DeleteVrf(owned) => format!("VRF|{}", owned.name()),
            Action::DeleteAcl(owned) => format!("{}|{}", owned.table(), owned.key()),
            // That of the row to be written, so that each time takes longer.
            Action::RenewLeakRow { row, wanted } => {
                format!("{}|{} {:08x}", row.table(), row.key(), digest(wanted))
            }
            Action::DeleteLeakRow(owned) => format!("{}|{}", owned.table(), owned.key()),
            // With what it says: a row that has to change is not held up by having been written a moment ago.
            Action::SetAcl { table, key, row }
            | Action::SetLeakRow { table, key, row }
            | Action::RewriteLeakRow { table, key, row } => {
                format!("{table}|{key} {:08x}", digest(row))
            }
            Action::CreateVrf(vrf) | Action::RepairVrf(vrf) => format!("VRF|{vrf}"),
            Action::AddUnreachableDefault { vrf, .. } | Action::RemoveUnreachableDefault { vrf, .. } => {
                format!("unreachable default of {vrf}")
            }
            Action::RemoveConvenienceLinkLocal { port, .. }
            | Action::AddConvenienceLinkLocal { port, .. } => {
                format!("fe80::1 of {port}")
            }
        }
    }

    /// Short verb for metrics and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Action::RecordLedger(_) => "record-ledger",
            Action::WithdrawLeak(_) => "withdraw-leak",
            Action::CeaseAdvertiser { .. } => "cease-advertiser",
            Action::CloseService { .. } => "close-service",
            Action::RemoveConvenienceLinkLocal { .. } => "remove-link-local",
            Action::DeleteAddress(_) => "delete-address",
            Action::DeleteInterface(_) => "delete-interface",
            Action::DeleteVrf(_) => "delete-vrf",
            Action::DeleteAcl(_) => "delete-acl",
            Action::SetAcl { .. } => "set-acl",
            Action::CreateVrf(_) => "create-vrf",
            Action::RepairVrf(_) => "repair-vrf",
            Action::BindInterface { .. } => "bind-interface",
            Action::RepairBinding { .. } => "repair-binding",
            Action::AddAddress { .. } => "add-address",
            Action::RepairAddress { .. } => "repair-address",
            Action::AddUnreachableDefault { .. } => "add-unreachable-default",
            Action::RemoveUnreachableDefault { .. } => "remove-unreachable-default",
            Action::AddConvenienceLinkLocal { .. } => "add-link-local",
            Action::SetUpstream(_) => "set-upstream",
            Action::SetService(_) => "set-service",
            Action::SetAdvertiser(_) => "set-advertiser",
            Action::ApplyLeak(_) => "apply-leak",
            Action::SetLeakRow { .. } => "set-leak-row",
            Action::DeleteLeakRow(_) => "delete-leak-row",
            Action::RenewLeakRow { .. } => "renew-leak-row",
            Action::RewriteLeakRow { .. } => "rewrite-leak-row",
        }
    }
}

fn base_row(port: &PortName) -> String {
    format!("{}|{port}", port.kind().interface_table())
}

fn address_row(port: &PortName, address: Ipv6Net) -> String {
    format!("{}|{port}|{address}", port.kind().interface_table())
}

/// FNV-1a over a row: the same on every run, and enough to tell two contents of one row apart.
fn digest(row: &Fields) -> u32 {
    let bytes =
        row.iter().flat_map(|(field, value)| [field.as_bytes(), b"=", value.as_bytes(), b";"].concat());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
