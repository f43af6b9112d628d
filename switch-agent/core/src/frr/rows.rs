//! The leak as rows of CONFIG_DB, for bgpcfgd (`static-route`) and frrcfgd (`frr-mgmt`) to carry out.
//!
//! | method | in | out | deny |
//! |---|---|---|---|
//! | `static-route` | `STATIC_ROUTE\|<boot vrf>\|<half of a leak prefix>`: next hop in the leak VRF | `STATIC_ROUTE\|<leak vrf>\|<port /64>` by the port, `...::1/128` by the VRF's device | `STATIC_ROUTE\|<boot vrf>\|::/0`, blackhole |
//! | `frr-mgmt` | `BGP_GLOBALS`, `BGP_GLOBALS_AF` (`import_vrf` under `import_vrf_route_map`), `ROUTE_MAP_SET`, `ROUTE_MAP`, `PREFIX_SET`, `PREFIX` | the same, and `BGP_GLOBALS_AF_NETWORK` | the same |
//!
//! A `STATIC_ROUTE` cannot import. Its next hop is therefore the first address of the leak prefix itself,
//! looked up in the leak VRF: zebra resolves it through whatever route the fabric has there and follows that
//! route, with all its next hops, so the agent tracks none. zebra takes a route of the same prefix for the
//! static route itself, whatever VRF it is in, and does not resolve through it; so a leak prefix is written
//! as its two halves ([`static_prefixes`]), which together are the same. What that cannot say: `::/0` (there
//! is no address to look up), and a prefix that is connected in the leak VRF (its first address is nobody's
//! there). Both wait with that reason.
//!
//! A row is ours when it has exactly the content that the agent writes at that key and names a boot VRF of
//! ours; in an adopted VRF the ledger has to know it, too. Any other row at a key of ours is somebody
//! else's: a conflict, and yielded to.
//!
//! Order. Rows come in stages, each when the one before is in effect ([`Stage`]), and leave in the order of
//! [`Kind`]: announcement, ways out, ways in, the import before its route-map, the deny last but the policy,
//! a list after what refers to it. bgpcfgd and frrcfgd both take the rows of a transaction in its order.
//! frrcfgd carries the fields of one row out in an order of its own, `import_vrf` before
//! `import_vrf_route_map`: so the route-map is written by itself, and the import when it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ipnet::Ipv6Net;

use super::wanted::export_routes;
use super::{
    BootVrfSpec, DEFAULT_VRF, FrrSpec, OBJECT_PREFIX, Running, object_vrf, prefix_list_name, route_map_name,
};
use crate::map::IntoMap;
use crate::name::{PortName, VrfName};
use crate::row::{ConfigDb, Fields, fields};

/// Tables of SONiC that rows of the leak are in.
pub const LEAK_TABLES: [&str; 8] = [
    "BGP_GLOBALS",
    "BGP_GLOBALS_AF",
    "BGP_GLOBALS_AF_NETWORK",
    "PREFIX",
    "PREFIX_SET",
    "ROUTE_MAP",
    "ROUTE_MAP_SET",
    "STATIC_ROUTE",
];

/// Announcements.
pub(crate) const NETWORK_TABLE: &str = "BGP_GLOBALS_AF_NETWORK";
/// Distance of the deny route: behind everything that a routing protocol may bring.
const DENY_DISTANCE: &str = "254";
/// `afi_safi` in keys.
const IPV6_UNICAST: &str = "ipv6_unicast";
/// Sequence number of the one entry of a route-map.
const ROUTE_MAP_ENTRY: &str = "10";

/// What a row is for. The order is that of removal; rows are written in the reverse order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `BGP_GLOBALS_AF_NETWORK`: the announcement of a port's /64.
    Network,
    /// `STATIC_ROUTE` in the leak VRF: the way back to a port, or to the router's own address.
    Out,
    /// `STATIC_ROUTE` in the boot VRF towards a leak prefix.
    In,
    /// `BGP_GLOBALS_AF` of the boot VRF.
    Import,
    /// `BGP_GLOBALS` of the boot VRF.
    Instance,
    /// The blackhole of the boot VRF.
    Deny,
    RouteMap,
    RouteMapSet,
    Prefix,
    PrefixSet,
}

/// When a row may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Opens nothing: the deny, policy objects, the BGP instance.
    Base,
    /// The deny stands, and so does the policy: ways in and out, the route-map of the import.
    Routes,
    /// The import's route-map stands: the import, the announcement.
    Import,
}

/// One row, by table and the key after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RowId {
    pub table: &'static str,
    pub key: String,
}

impl fmt::Display for RowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}|{}", self.table, self.key)
    }
}

/// A row that should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedRow {
    pub id: RowId,
    pub row: Fields,
    /// The boot VRF it is for.
    pub vrf: VrfName,
    pub stage: Stage,
    pub(crate) kind: Kind,
}

/// What BGP rows need to know of the switch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Globals {
    /// `local_asn` of the leak VRF's `BGP_GLOBALS` row.
    pub asn: Option<String>,
    pub router_id: Option<String>,
}

/// Rows of method `static-route`.
pub fn static_route(spec: &FrrSpec) -> Vec<WantedRow> {
    let mut rows = Vec::new();
    for (vrf, boot) in &spec.vrfs {
        rows.push(deny(vrf));
        if !boot.leaks(vrf) {
            continue;
        }
        for prefix in boot.leak_prefixes.iter().flat_map(|prefix| static_prefixes(*prefix)) {
            let next_hop = prefix.network().to_string();
            let row =
                [("nexthop", next_hop.as_str()), ("nexthop-vrf", &boot.leak_vrf), ("advertise", "false")];
            rows.push(static_row(vrf, Kind::In, vrf.as_str(), prefix, fields(row)));
        }
        rows.extend(ways_out(vrf, boot));
    }
    rows
}

/// What stands for a leak prefix among static routes: its halves, or a single address as it is. Nothing for
/// `::/0`.
pub fn static_prefixes(prefix: Ipv6Net) -> Vec<Ipv6Net> {
    match prefix.prefix_len() {
        0 => Vec::new(),
        length => prefix.subnets((length + 1).min(128)).map(Iterator::collect).unwrap_or_default(),
    }
}

/// Rows of method `frr-mgmt`. `globals` are those of a leak VRF; where it has none, nothing but the deny is
/// wanted. `config` tells the sequence numbers that prefixes have already.
pub fn frr_mgmt(spec: &FrrSpec, globals: &dyn Fn(&str) -> Globals, config: &ConfigDb) -> Vec<WantedRow> {
    let mut rows = Vec::new();
    for (vrf, boot) in &spec.vrfs {
        rows.push(deny(vrf));
        let Globals { asn: Some(asn), router_id } = globals(&boot.leak_vrf) else {
            continue;
        };
        if !boot.leaks(vrf) {
            continue;
        }
        rows.extend(policy(vrf, boot, config));
        let mut instance = fields([("local_asn", asn.as_str())]);
        instance.extend(router_id.map(|id| ("router_id".to_owned(), id)));
        let mut row = |stage, kind, table, key: String, row| {
            rows.push(WantedRow { id: RowId { table, key }, row, vrf: vrf.clone(), stage, kind });
        };
        row(Stage::Base, Kind::Instance, "BGP_GLOBALS", vrf.to_string(), instance);
        let family = format!("{vrf}|{IPV6_UNICAST}");
        let map = route_map_name(vrf);
        let filter = fields([("import_vrf_route_map", map.as_str())]);
        row(Stage::Routes, Kind::Import, "BGP_GLOBALS_AF", family.clone(), filter);
        let import = fields([("import_vrf_route_map", map.as_str()), ("import_vrf", &boot.leak_vrf)]);
        row(Stage::Import, Kind::Import, "BGP_GLOBALS_AF", family, import);
        for prefix in boot.ports.values() {
            let key = format!("{}|{IPV6_UNICAST}|{}", boot.leak_vrf, prefix.trunc());
            row(Stage::Import, Kind::Network, NETWORK_TABLE, key, Fields::new());
        }
        rows.extend(ways_out(vrf, boot));
    }
    rows
}

fn static_row(vrf: &VrfName, kind: Kind, table_vrf: &str, prefix: Ipv6Net, row: Fields) -> WantedRow {
    let id = RowId { table: "STATIC_ROUTE", key: format!("{table_vrf}|{prefix}") };
    let stage = if kind == Kind::Deny { Stage::Base } else { Stage::Routes };
    WantedRow { id, row, vrf: vrf.clone(), stage, kind }
}

fn deny_fields() -> Fields {
    fields([("blackhole", "true"), ("distance", DENY_DISTANCE), ("advertise", "false")])
}

fn deny(vrf: &VrfName) -> WantedRow {
    static_row(vrf, Kind::Deny, vrf.as_str(), Ipv6Net::default(), deny_fields())
}

/// The port's /64 is announced; the router's own address is for the switch alone.
fn ways_out<'a>(vrf: &'a VrfName, boot: &'a BootVrfSpec) -> impl Iterator<Item = WantedRow> + 'a {
    let routes = boot.ports.iter().flat_map(|(port, prefix)| export_routes(vrf, port, prefix.trunc()));
    routes.map(move |route| {
        let advertise = if route.prefix.prefix_len() == 64 { "true" } else { "false" };
        let row =
            [("ifname", route.interface.as_str()), ("nexthop-vrf", vrf.as_str()), ("advertise", advertise)];
        static_row(vrf, Kind::Out, &boot.leak_vrf, route.prefix, fields(row))
    })
}

fn policy(vrf: &VrfName, boot: &BootVrfSpec, config: &ConfigDb) -> Vec<WantedRow> {
    let (list, map) = (prefix_list_name(vrf), route_map_name(vrf));
    let mut rows = Vec::new();
    let mut row = |kind, table, key, row| {
        let id = RowId { table, key };
        rows.push(WantedRow { id, row, vrf: vrf.clone(), stage: Stage::Base, kind });
    };
    row(Kind::PrefixSet, "PREFIX_SET", list.clone(), fields([("mode", "IPv6")]));
    let entries: BTreeMap<u32, Ipv6Net> =
        config.table("PREFIX").filter_map(|(key, _)| prefix_entry(key, &list)).into_map();
    let mut free = (1..).map(|number: u32| number * 10).filter(|number| !entries.contains_key(number));
    let mut seen = BTreeSet::new();
    for prefix in boot.leak_prefixes.iter().filter(|prefix| seen.insert(**prefix)) {
        let present = entries.iter().find(|(_, entry)| *entry == prefix).map(|(number, _)| *number);
        if let Some(number) = present.or_else(|| free.next()) {
            let key = format!("{list}|{number}|{prefix}|exact");
            row(Kind::Prefix, "PREFIX", key, fields([("action", "permit")]));
        }
    }
    row(Kind::RouteMapSet, "ROUTE_MAP_SET", map.clone(), Fields::new());
    let entry = fields([("route_operation", "permit"), ("match_prefix_set", list.as_str())]);
    row(Kind::RouteMap, "ROUTE_MAP", format!("{map}|{ROUTE_MAP_ENTRY}"), entry);
    rows
}

/// Sequence number and prefix of an entry of `list`.
fn prefix_entry(key: &str, list: &str) -> Option<(u32, Ipv6Net)> {
    let mut parts = key.strip_prefix(list)?.strip_prefix('|')?.split('|');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What a row is for and the boot VRF it names, where it is exactly one that the agent writes.
pub(crate) fn classify(config: &ConfigDb, table: &str, key: &str, row: &Fields) -> Option<(VrfName, Kind)> {
    let (first, rest) = key.split_once('|').unwrap_or((key, ""));
    let named = |kind| Some((object_vrf(first).filter(|_| first.starts_with(OBJECT_PREFIX))?, kind));
    match table {
        "PREFIX_SET" => named(Kind::PrefixSet),
        "PREFIX" => named(Kind::Prefix),
        "ROUTE_MAP_SET" => named(Kind::RouteMapSet),
        "ROUTE_MAP" => named(Kind::RouteMap),
        "STATIC_ROUTE" => static_kind(first, rest.parse().ok()?, row),
        "BGP_GLOBALS" => {
            let plain = row.keys().all(|field| field == "local_asn" || field == "router_id");
            (plain && row.contains_key("local_asn")).then_some((first.parse().ok()?, Kind::Instance))
        }
        "BGP_GLOBALS_AF" if rest == IPV6_UNICAST => {
            let vrf: VrfName = first.parse().ok()?;
            let map = route_map_name(&vrf);
            let plain = row.keys().all(|field| field == "import_vrf" || field == "import_vrf_route_map");
            (plain && row.get("import_vrf_route_map") == Some(&map)).then_some((vrf, Kind::Import))
        }
        NETWORK_TABLE if row.is_empty() => {
            let prefix = rest.strip_prefix(IPV6_UNICAST)?.strip_prefix('|')?;
            let way_out = config.row("STATIC_ROUTE", &format!("{first}|{prefix}"))?;
            let (vrf, kind) = static_kind(first, prefix.parse().ok()?, way_out)?;
            (kind == Kind::Out).then_some((vrf, Kind::Network))
        }
        _ => None,
    }
}

fn static_kind(table_vrf: &str, prefix: Ipv6Net, row: &Fields) -> Option<(VrfName, Kind)> {
    if *row == deny_fields() {
        return (prefix == Ipv6Net::default()).then_some((table_vrf.parse().ok()?, Kind::Deny));
    }
    let field = |name: &str| row.get(name).map(String::as_str);
    if row.len() != 3 {
        return None;
    }
    let next_vrf = field("nexthop-vrf")?;
    match (field("ifname"), field("nexthop"), field("advertise")?) {
        (Some(port), None, "true") => {
            let port_64 = prefix.prefix_len() == 64 && port.parse::<PortName>().is_ok();
            (port_64 && table_vrf != next_vrf).then_some((next_vrf.parse().ok()?, Kind::Out))
        }
        (Some(device), None, "false") => {
            let router = prefix.prefix_len() == 128 && device == next_vrf && table_vrf != next_vrf;
            router.then_some((next_vrf.parse().ok()?, Kind::Out))
        }
        (None, Some(next_hop), "false") => {
            let itself = next_hop.parse() == Ok(prefix.network()) && table_vrf != next_vrf;
            itself.then_some((table_vrf.parse().ok()?, Kind::In))
        }
        _ => None,
    }
}

/// Whether `row` needs no change: it has every wanted field. Fields that others added stay, and make a row
/// somebody else's by [`classify`].
pub(crate) fn same(present: &Fields, wanted: &Fields) -> bool {
    wanted.iter().all(|(field, value)| present.get(field) == Some(value))
}

/// Whether the daemon cannot take `wanted` over `present`, and has to see the row gone first: an AS number
/// and the source of an import cannot be changed.
pub(crate) fn must_be_renewed(kind: Kind, present: &Fields, wanted: &Fields) -> bool {
    matches!(kind, Kind::Import | Kind::Instance)
        && wanted.iter().any(|(field, value)| present.get(field).is_some_and(|present| present != value))
}

/// Whether FRR's running configuration has what `wanted` stands for; `None` where that is no route and no
/// announcement.
pub(crate) fn in_running(running: &Running, wanted: &WantedRow) -> Option<bool> {
    let mut parts = wanted.id.key.split('|');
    let table = parts.next().unwrap_or_default();
    let prefix = parts.next_back().unwrap_or_default();
    let by = ["nexthop", "ifname"].iter().find_map(|name| wanted.row.get(*name)).map_or("blackhole", |by| by);
    let begins = format!("{prefix} {by} ");
    match wanted.kind {
        Kind::Network => {
            let instance = running.bgp.get(table)?;
            Some(instance.has_network(prefix.parse().ok()?))
        }
        Kind::Out | Kind::In | Kind::Deny => {
            let routes = running.routes.get(table);
            Some(routes.is_some_and(|routes| routes.iter().any(|text| text.starts_with(&begins))))
        }
        _ => None,
    }
}

/// What the first `STATIC_ROUTE` of a VRF waits for, as the object that cools down, while a VRF's last one has
/// just gone. bgpcfgd then deletes the one route-map by which it redistributes in every VRF and makes it anew
/// with the next VRF's first route; until `bgp route-map delay-timer` has passed, bgpd of FRR up to 10.3 applies
/// the freed one to the next route and ends with signal 11.
pub const REDISTRIBUTION: &str = "redistribution by bgpcfgd";

/// VRFs that have a `STATIC_ROUTE`, anybody's.
pub fn static_route_vrfs(config: &ConfigDb) -> BTreeSet<&str> {
    config
        .table("STATIC_ROUTE")
        .map(|(key, _)| key.split_once('|').map_or(DEFAULT_VRF, |(vrf, _)| vrf))
        .collect()
}

/// Leak prefixes of `boot` that a static route cannot express, with the reason.
pub(crate) fn not_static(boot: &BootVrfSpec) -> Option<String> {
    let all = boot.leak_prefixes.iter().find(|prefix| prefix.prefix_len() == 0)?;
    Some(format!("leak_method static-route has no next hop for {all}: use vtysh or frr-mgmt"))
}
