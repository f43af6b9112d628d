//! `BOOT_NETWORK_PROFILE`: named sets of what a machine boots, for partitions to use and ports to be pinned to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Findings;
use super::fields::{Reader, Rule, row_name};
use super::url::{absolute_path, download_url, kernel_cmdline, root_path};
use crate::desired::{Partition, Rejected};
use crate::row::{ConfigDb, leaf_list};

const TABLE: &str = "BOOT_NETWORK_PROFILE";
pub(super) const FIELDS: [&str; 5] = ["kernel_url", "initrd_url@", "cmdline", "template_file", "root_path@"];
pub(super) const INITRDS_MAX: usize = 16;
pub(super) const ROOT_PATHS_MAX: usize = 8;
const NAME_LEN_MAX: usize = 64;
/// What follows the name in `boot_profile_once`.
const TAG_LEN_MAX: usize = 64;

/// What a machine boots. A profile stands for all of a partition's `boot_*` fields: what it does not have,
/// the machine does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Profile {
    pub name: String,
    pub kernel_url: Option<String>,
    pub initrd_urls: Vec<String>,
    pub cmdline: Option<String>,
    pub template_file: Option<String>,
    /// SAN targets, in the words of whoever boots from them.
    pub root_paths: Vec<String>,
}

impl Profile {
    /// Makes the partition one that boots this.
    pub fn apply(&self, partition: &mut Partition) {
        partition.boot_profile = Some(self.name.clone());
        partition.boot_kernel_url.clone_from(&self.kernel_url);
        partition.boot_initrd_urls.clone_from(&self.initrd_urls);
        partition.boot_cmdline.clone_from(&self.cmdline);
        partition.boot_template_file.clone_from(&self.template_file);
        partition.boot_root_paths.clone_from(&self.root_paths);
    }
}

/// A profile for one boot of a port (`boot_profile_once`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootOnce {
    /// The whole value of the field. It is used up when a machine has got it; another one counts anew.
    pub value: String,
    pub profile: Profile,
}

pub(super) type Profiles = BTreeMap<String, Profile>;

pub(super) fn profiles(config: &ConfigDb, findings: &mut Findings) -> Profiles {
    let mut profiles = Profiles::new();
    for (key, fields) in config.table(TABLE) {
        let row = row_name(TABLE, key);
        if let Err(rule) = name(key) {
            findings.rejected.push(Rejected::of_row(&row, format!("the key {rule}")));
            continue;
        }
        let mut reader = Reader::new(row, fields, &[&FIELDS]);
        let profile = Profile {
            name: key.to_owned(),
            kernel_url: reader.optional("kernel_url", download_url),
            initrd_urls: reader.list("initrd_url@", INITRDS_MAX, download_url),
            cmdline: reader.optional("cmdline", kernel_cmdline),
            template_file: reader.optional("template_file", absolute_path),
            root_paths: reader.list("root_path@", ROOT_PATHS_MAX, root_path),
        };
        // A list may be there and empty.
        let root_path = reader.text("root_path@").is_some_and(|list| leaf_list(list).next().is_some());
        if !root_path && !reader.has("kernel_url") && !reader.has("template_file") {
            reader.reject_row("boots nothing: it has none of kernel_url, template_file and root_path@");
        }
        let rejected = reader.finish();
        if rejected.is_empty() {
            profiles.insert(key.to_owned(), profile);
        }
        findings.rejected.extend(rejected);
    }
    profiles
}

fn name(text: &str) -> Result<(), Rule> {
    let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if plain && (1..=NAME_LEN_MAX).contains(&text.len()) {
        Ok(())
    } else {
        Err(format!("must be 1 to {NAME_LEN_MAX} of letters, digits, . _ -").into())
    }
}

/// A reference to a profile that holds.
pub(super) fn known_profile<'a>(
    value: &str,
    config: &ConfigDb,
    profiles: &'a Profiles,
) -> Result<&'a Profile, Rule> {
    name(value)?;
    profiles.get(value).ok_or_else(|| match config.row(TABLE, value) {
        Some(_) => format!("the row {TABLE}|{value} is rejected").into(),
        None => format!("profile {value} has no row in {TABLE}").into(),
    })
}

/// `name[@tag]`.
pub(super) fn boot_once(value: &str, config: &ConfigDb, profiles: &Profiles) -> Result<BootOnce, Rule> {
    let (name, tag) = value.split_once('@').unwrap_or((value, "once"));
    let plain = tag.bytes().all(|b| b.is_ascii_graphic());
    if !plain || !(1..=TAG_LEN_MAX).contains(&tag.len()) {
        return Err(
            format!("must be profile or profile@tag, a tag of 1 to {TAG_LEN_MAX} printable bytes").into()
        );
    }
    let profile = known_profile(name, config, profiles)?.clone();
    Ok(BootOnce { value: value.to_owned(), profile })
}
