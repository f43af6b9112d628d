//! What a daemon may do next, and what it did.

use ipnet::IpNet;

use crate::row::Fields;

/// The daemons that SimSwitch models, each a process of its own on a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Daemon {
    Portsyncd,
    Vlanmgrd,
    Vrfmgrd,
    Intfmgrd,
    Orchagent,
}

impl Daemon {
    pub const ALL: [Daemon; 5] =
        [Daemon::Portsyncd, Daemon::Vlanmgrd, Daemon::Vrfmgrd, Daemon::Intfmgrd, Daemon::Orchagent];

    /// CONFIG_DB tables that the daemon subscribes to.
    pub fn config_tables(self) -> &'static [&'static str] {
        match self {
            Daemon::Portsyncd | Daemon::Orchagent => &[],
            Daemon::Vlanmgrd => &["VLAN_MEMBER"],
            Daemon::Vrfmgrd => &["VRF"],
            Daemon::Intfmgrd => &["INTERFACE", "LOOPBACK_INTERFACE", "PORTCHANNEL_INTERFACE"],
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Daemon::Portsyncd => "portsyncd",
            Daemon::Vlanmgrd => "vlanmgrd",
            Daemon::Vrfmgrd => "vrfmgrd",
            Daemon::Intfmgrd => "intfmgrd",
            Daemon::Orchagent => "orchagent",
        }
    }
}

/// APPL_DB tables whose queue towards orchagent is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApplTable {
    Vrf,
    Intf,
}

impl ApplTable {
    pub const ALL: [ApplTable; 2] = [ApplTable::Vrf, ApplTable::Intf];

    pub fn name(self) -> &'static str {
        match self {
            ApplTable::Vrf => "VRF_TABLE",
            ApplTable::Intf => "INTF_TABLE",
        }
    }
}

/// How many waiting notifications a daemon finds when it reads: nothing promises either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Batch {
    /// Only those of the oldest transaction.
    First,
    /// Everything that waits.
    All,
}

/// One thing that can happen next. [`super::SimSwitch::runnable`] lists them; any order is possible on
/// a switch, because the daemons know nothing of each other's progress.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A daemon that does not run starts cold.
    Start(Daemon),
    /// orchagent creates the netdev of a configured port.
    CreatePort(String),
    /// orchagent removes the netdev of a port that is no longer configured.
    RemovePort(String),
    /// portsyncd reports the oldest unreported change of a port.
    SyncPort(String),
    /// A daemon reads notifications of one table and works on that table.
    Deliver { daemon: Daemon, table: &'static str, batch: Batch },
    /// orchagent takes everything from one APPL_DB queue and works on that table.
    Pop(ApplTable),
    /// A daemon's select timed out: it tries everything pending again.
    Retry(Daemon),
}

/// What a step changed. Kernel operations and database writes, in the order in which the daemon does
/// them; carried out for real they make a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// `ip link add <name> type vrf table <table>`, set up.
    VrfAdd {
        name: String,
        table: u32,
    },
    VrfDel {
        name: String,
    },
    /// A VLAN-aware bridge, up.
    BridgeAdd {
        name: String,
    },
    SetMaster {
        port: String,
        master: String,
    },
    NoMaster {
        port: String,
    },
    AddrAdd {
        port: String,
        address: IpNet,
    },
    AddrDel {
        port: String,
        address: IpNet,
    },
    DummyAdd {
        name: String,
    },
    DummyDel {
        name: String,
    },
    PortAdd {
        port: String,
    },
    PortDel {
        port: String,
    },
    /// HSET in STATE_DB; an empty row is `NULL: NULL`.
    StateSet {
        table: &'static str,
        key: String,
        fields: Fields,
    },
    StateDel {
        table: &'static str,
        key: String,
    },
    /// HSET of the hash `<table>:<key>` in APPL_DB.
    ApplSet {
        table: &'static str,
        key: String,
        fields: Fields,
    },
    ApplDel {
        table: &'static str,
        key: String,
    },
    /// SADD to the set `<table>_KEY_SET` in APPL_DB: a change that orchagent has not taken.
    KeySetAdd {
        table: &'static str,
        key: String,
    },
    KeySetDel {
        table: &'static str,
        key: String,
    },
    /// The daemon logged an error and dropped (or goes on retrying) the task.
    Refused {
        daemon: Daemon,
        log: String,
    },
    /// The daemon exited.
    Exit {
        daemon: Daemon,
        log: String,
    },
}
