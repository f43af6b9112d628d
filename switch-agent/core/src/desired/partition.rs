//! `BOOT_NETWORK_PARTITION`: each row by itself, then the rows against each other.

use std::collections::BTreeMap;

use ipnet::Ipv6Net;

use super::dhcp6::{BOOT_FILE_FIELDS, boot_files, dhcp6_options};
use super::fields::{Reader, row_name};
use super::profile::{INITRDS_MAX, Profiles, ROOT_PATHS_MAX, known_profile};
use super::router::{self, router_variables};
use super::url::{absolute_path, download_url, kernel_cmdline, root_path};
use super::values::{boot_prefix, default_or_vrf, ntp_server, path_rule, routed_prefix, routed_unicast};
use super::{Findings, in_use};
use crate::desired::{Partition, Rejected};
use crate::name::{PartitionId, VrfName};
use crate::row::{ConfigDb, Fields};

pub(super) const TABLE: &str = "BOOT_NETWORK_PARTITION";
/// Its own; the router variables come on top.
pub(super) const FIELDS: [&str; 22] = [
    "prefix",
    "vrf_name",
    "manage_vrf",
    "advertise",
    "proxy",
    "leak",
    "isolate",
    "dhcp6",
    "dhcp6_boot_url@",
    "dhcp6_boot_param@",
    "service_address@",
    "ntp_servers@",
    "leak_vrf",
    "leak_prefix@",
    "api_allow@",
    "boot_profile",
    "boot_kernel_url",
    "boot_initrd_url@",
    "boot_cmdline",
    "boot_template_file",
    "boot_root_path@",
    "machine_config_file",
];

/// What a profile stands for.
const OWN_BOOT_FIELDS: [&str; 5] =
    ["boot_kernel_url", "boot_initrd_url@", "boot_cmdline", "boot_template_file", "boot_root_path@"];
const SERVICE_ADDRESSES_MAX: usize = 8;
const NTP_SERVERS_MAX: usize = 8;
const LEAK_PREFIXES_MAX: usize = 64;
const PATH_RULES_MAX: usize = 128;

/// A row whose key holds, judged by itself.
struct Candidate<'a> {
    id: PartitionId,
    row: String,
    fields: &'a Fields,
    /// `None` without a usable prefix.
    partition: Option<Partition>,
    rejected: Vec<Rejected>,
}

/// Reads the partitions. Where two rows cannot both hold, the one that is in use stays; else the one with
/// the earlier id.
pub(super) fn partitions(
    config: &ConfigDb,
    profiles: &Profiles,
    findings: &mut Findings,
) -> BTreeMap<PartitionId, Partition> {
    let mut candidates = candidates(config, profiles, findings);
    candidates.sort_by_key(|candidate| {
        !candidate.partition.as_ref().is_some_and(|partition| in_use::partition(config, partition))
    });
    let mut accepted = BTreeMap::new();
    for Candidate { id, row, fields, partition, mut rejected } in candidates {
        if let Some(partition) = &partition {
            rejected.extend(clashes(&row, fields, partition, &accepted));
        }
        match partition {
            Some(partition) if rejected.is_empty() => {
                accepted.insert(id, partition);
            }
            _ => findings.rejected.extend(rejected),
        }
    }
    keep_apart(&mut accepted, findings);
    for partition in accepted.values() {
        let fields = config.row(TABLE, partition.id.as_str());
        findings.warnings.extend(fields.iter().flat_map(|fields| unused_boot_files(fields, partition)));
        findings.warnings.extend(warnings(partition, &accepted));
    }
    accepted
}

fn candidates<'a>(config: &'a ConfigDb, profiles: &Profiles, findings: &mut Findings) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for (key, fields) in config.table(TABLE) {
        let row = row_name(TABLE, key);
        let id: PartitionId = match key.parse() {
            Ok(id) => id,
            Err(error) => {
                findings.rejected.push(Rejected::of_row(&row, format!("the key must be {}", error.wanted)));
                continue;
            }
        };
        let mut reader = Reader::new(row.clone(), fields, &[&FIELDS, &router::FIELDS]);
        let partition = read(&mut reader, &id, config, profiles);
        candidates.push(Candidate { id, row, fields, partition, rejected: reader.finish() });
    }
    candidates
}

/// One row by itself; `None` without a usable prefix.
fn read(reader: &mut Reader, id: &PartitionId, config: &ConfigDb, profiles: &Profiles) -> Option<Partition> {
    let prefix = reader.required("prefix", boot_prefix);
    let vrf = reader.or("vrf_name", VrfName::derived(id), |value| Ok(value.parse()?));
    let dhcp6 = reader.flag("dhcp6", false);
    let proxy = reader.flag("proxy", true);
    let boot_files = boot_files(reader, proxy);
    let router = router_variables(reader, dhcp6);
    let ntp_servers = reader.list("ntp_servers@", NTP_SERVERS_MAX, ntp_server);
    let dhcp6 = dhcp6.then(|| dhcp6_options(reader, boot_files, &router, &ntp_servers));
    let leak_vrf = reader.or("leak_vrf", "default".to_owned(), default_or_vrf);
    if leak_vrf == vrf.as_str() {
        reader.reject("leak_vrf", "must not be the partition's own VRF");
    }
    let leak_prefixes = reader.list("leak_prefix@", LEAK_PREFIXES_MAX, routed_prefix);
    for leak in leak_prefixes.iter().filter(|leak| leak.prefix_len() > 0) {
        if let Some(prefix) = prefix.filter(|prefix| overlap(*prefix, *leak)) {
            let rule = format!("must not overlap the partition's own prefix {prefix}");
            reader.reject_item("leak_prefix@", &leak.to_string(), rule);
        }
    }
    let mut partition = Partition {
        id: id.clone(),
        prefix: Ipv6Net::default(),
        vrf,
        manage_vrf: reader.flag("manage_vrf", true),
        advertise: reader.flag("advertise", true),
        proxy,
        leak: reader.flag("leak", true),
        isolate: reader.flag("isolate", true),
        dhcp6,
        service_addresses: reader.list("service_address@", SERVICE_ADDRESSES_MAX, routed_unicast),
        ra: router.config,
        adv_prefix: router.prefix,
        ntp_servers,
        leak_vrf,
        leak_prefixes,
        api_allow: reader.list("api_allow@", PATH_RULES_MAX, path_rule),
        boot_profile: None,
        boot_kernel_url: reader.optional("boot_kernel_url", download_url),
        boot_initrd_urls: reader.list("boot_initrd_url@", INITRDS_MAX, download_url),
        boot_cmdline: reader.optional("boot_cmdline", kernel_cmdline),
        boot_template_file: reader.optional("boot_template_file", absolute_path),
        boot_root_paths: reader.list("boot_root_path@", ROOT_PATHS_MAX, root_path),
        boot_once: None,
        machine_config_file: reader.optional("machine_config_file", absolute_path),
    };
    if let Some(profile) = reader.optional("boot_profile", |value| known_profile(value, config, profiles)) {
        for field in OWN_BOOT_FIELDS.iter().filter(|field| reader.has(field)).collect::<Vec<_>>() {
            reader.reject(field, "must not be set beside boot_profile");
        }
        profile.apply(&mut partition);
    }
    partition.prefix = prefix?;
    Some(partition)
}

/// Whether two prefixes share an address.
fn overlap(left: Ipv6Net, right: Ipv6Net) -> bool {
    left.contains(&right) || right.contains(&left)
}

/// What in `row` cannot hold beside the partitions accepted before it.
fn clashes(
    row: &str,
    fields: &Fields,
    partition: &Partition,
    accepted: &BTreeMap<PartitionId, Partition>,
) -> Vec<Rejected> {
    let mut clashes = Vec::new();
    let mut clash = |field: &str, rule: String| {
        clashes.push(Rejected::of_field(row, field, fields.get(field).map(String::as_str), rule));
    };
    for earlier in accepted.values() {
        if overlap(earlier.prefix, partition.prefix) {
            clash("prefix", format!("overlaps {} of partition {}", earlier.prefix, earlier.id));
        }
        if earlier.vrf == partition.vrf {
            clash("vrf_name", format!("{} is already the VRF of partition {}", earlier.vrf, earlier.id));
        }
    }
    clashes
}

/// Rejects what needs all prefixes and VRFs known: a service address inside a boot prefix, and a leak
/// into a boot VRF. Judged against the same set for every row, so that the order does not matter.
fn keep_apart(accepted: &mut BTreeMap<PartitionId, Partition>, findings: &mut Findings) {
    let mut rejected = Vec::new();
    for partition in accepted.values() {
        let row = row_name(TABLE, partition.id.as_str());
        for address in &partition.service_addresses {
            if let Some(other) = accepted.values().find(|other| other.prefix.contains(address)) {
                let rule =
                    format!("must not be inside {}, the prefix of partition {}", other.prefix, other.id);
                let address = address.to_string();
                rejected.push((
                    partition.id.clone(),
                    Rejected::of_field(&row, "service_address@", Some(&address), rule),
                ));
            }
        }
        if let Some(other) = accepted.values().find(|other| other.vrf.as_str() == partition.leak_vrf) {
            let rule = format!("must not be a boot VRF, and is that of partition {}", other.id);
            let rejection = Rejected::of_field(&row, "leak_vrf", Some(&partition.leak_vrf), rule);
            rejected.push((partition.id.clone(), rejection));
        }
    }
    for (id, rejection) in rejected {
        accepted.remove(&id);
        findings.rejected.push(rejection);
    }
}

/// Boot files that nobody tells.
fn unused_boot_files(fields: &Fields, partition: &Partition) -> Vec<Rejected> {
    let row = row_name(TABLE, partition.id.as_str());
    let unused = BOOT_FILE_FIELDS.iter().filter(|_| partition.dhcp6.is_none());
    let given = unused.filter_map(|field| Some((field, fields.get(*field)?)));
    let warn = |(field, value): (&&str, &String)| {
        Rejected::of_field(&row, field, Some(value), "has no effect while dhcp6 is disabled")
    };
    given.map(warn).collect()
}

/// Legal settings of one partition that an operator should know about.
fn warnings(partition: &Partition, accepted: &BTreeMap<PartitionId, Partition>) -> Vec<Rejected> {
    let row = row_name(TABLE, partition.id.as_str());
    let mut warnings = Vec::new();
    if partition.dhcp6.is_some() && !partition.advertise {
        let rule = "has no effect while advertise is disabled";
        warnings.push(Rejected::of_field(&row, "dhcp6", Some("enabled"), rule));
    }
    for leak in &partition.leak_prefixes {
        let mut warn = |rule: String| {
            warnings.push(Rejected::of_field(&row, "leak_prefix@", Some(&leak.to_string()), rule));
        };
        if leak.prefix_len() == 0 {
            warn(format!("lets machines reach everything that VRF {} reaches", partition.leak_vrf));
            continue;
        }
        let others = accepted.values().filter(|other| other.id != partition.id);
        if let Some(other) = others.into_iter().find(|other| overlap(other.prefix, *leak)) {
            warn(format!("lets machines reach {}, the prefix of partition {}", other.prefix, other.id));
        }
    }
    warnings.extend(router::warnings(&row, partition, |_| true));
    warnings
}
