//! What the API says of a partition, checked: it ends up in scripts and in replies to machines.

use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::messages::{BootAnswer, Partition};
use crate::service::PortContext;

const URL_LEN_MAX: usize = 1024;
const CMDLINE_LEN_MAX: usize = 4096;
const HOST_LEN_MAX: usize = 253;
const ITEMS_MAX: usize = 16;

/// Boot parameters and servers of a partition, as far as the API gives them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartitionFacts {
    pub kernel: Option<String>,
    pub initrds: Vec<String>,
    pub cmdline: Option<String>,
    pub dns_servers: Vec<Ipv6Addr>,
    pub ntp_servers: Vec<String>,
}

/// A value of the API that is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API's {field} cannot be used")]
pub struct InvalidFact {
    pub field: &'static str,
}

fn url(text: &str) -> bool {
    let plain = text.len() <= URL_LEN_MAX && text.bytes().all(|b| b.is_ascii_graphic());
    plain && (text.starts_with("http://") || text.starts_with("https://"))
}

fn cmdline(text: &str) -> bool {
    text.len() <= CMDLINE_LEN_MAX && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn host(text: &str) -> bool {
    (1..=HOST_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b))
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

impl PartitionFacts {
    /// Of `PartitionService.Get`. Machines have IPv6 only: name servers with other addresses are left out.
    pub fn of_partition(partition: Partition) -> Result<PartitionFacts, InvalidFact> {
        let boot = partition.boot_configuration;
        let dns = partition.dns_servers.iter().filter_map(|server| server.ip.parse().ok());
        let ntp = partition.ntp_servers.into_iter().map(|server| server.address);
        PartitionFacts {
            kernel: filled(boot.kernel_url),
            initrds: filled(boot.image_url).into_iter().collect(),
            cmdline: without_dhcp(&boot.commandline),
            dns_servers: dns.take(ITEMS_MAX).collect(),
            ntp_servers: ntp.take(ITEMS_MAX).collect(),
        }
        .checked()
    }

    /// Of `BootService.Boot`.
    pub fn of_boot(boot: BootAnswer) -> Result<PartitionFacts, InvalidFact> {
        PartitionFacts {
            kernel: filled(boot.kernel),
            initrds: boot.init_ram_disks.into_iter().filter(|url| !url.is_empty()).collect(),
            cmdline: boot.cmdline.as_deref().and_then(without_dhcp),
            ..PartitionFacts::default()
        }
        .checked()
    }

    /// The facts, if all of them are fit for use.
    pub fn checked(self) -> Result<PartitionFacts, InvalidFact> {
        let few = self.initrds.len() <= ITEMS_MAX;
        let checks = [
            ("kernel_url", self.kernel.as_deref().is_none_or(url)),
            ("image_url", few && self.initrds.iter().all(|initrd| url(initrd))),
            ("commandline", self.cmdline.as_deref().is_none_or(cmdline)),
            ("ntp_servers", self.ntp_servers.iter().all(|server| host(server))),
        ];
        match checks.iter().find(|(_, good)| !good) {
            Some((field, _)) => Err(InvalidFact { field }),
            None => Ok(self),
        }
    }

    /// The port's context as machines are told of it: what the partition's row leaves out is the API's.
    pub fn complete(&self, mut context: PortContext) -> PortContext {
        let settings = context.settings_mut();
        let rows_own = settings.boot_profile.is_some()
            || !settings.boot_root_paths.is_empty()
            || settings.boot_kernel_url.is_some()
            || !settings.boot_initrd_urls.is_empty()
            || settings.boot_cmdline.is_some();
        // Kernel, initrd and command line belong together.
        if !rows_own {
            settings.boot_kernel_url.clone_from(&self.kernel);
            settings.boot_initrd_urls.clone_from(&self.initrds);
            settings.boot_cmdline.clone_from(&self.cmdline);
        }
        if settings.ntp_servers.is_empty() {
            settings.ntp_servers.clone_from(&self.ntp_servers);
        }
        if settings.ra.rdnss.is_empty() {
            settings.ra.rdnss.clone_from(&self.dns_servers);
        }
        context
    }
}

/// A kernel command line without `ip=dhcp`: there is no DHCPv4, and the kernel would wait for it.
fn without_dhcp(cmdline: &str) -> Option<String> {
    let words: Vec<&str> = cmdline.split(' ').filter(|word| !word.is_empty() && *word != "ip=dhcp").collect();
    filled(words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::metal_stack_v2::messages::PartitionAnswer;
    use crate::service::tests::context;

    fn answer(change: &dyn Fn(&mut serde_json::Value)) -> Result<PartitionFacts, InvalidFact> {
        let mut value = serde_json::json!({ "partition": {
            "id": "p1",
            "bootConfiguration": {
                "imageUrl": "https://i/initrd", "kernelUrl": "https://i/kernel", "commandline": "console=ttyS0 ip=dhcp  quiet"
            },
            "dnsServers": [{ "ip": "192.0.2.53" }, { "ip": "2001:db8::53" }],
            "ntpServers": [{ "address": "ntp.example" }, { "address": "2001:db8::123" }]
        } });
        change(&mut value["partition"]);
        let answer: PartitionAnswer = serde_json::from_value(value).unwrap();
        PartitionFacts::of_partition(answer.partition)
    }

    #[test]
    fn facts_fill_what_the_row_leaves_out() {
        let facts = answer(&|_| {}).unwrap();
        let mut bare = context("Ethernet4");
        bare.settings_mut().ntp_servers.clear();
        bare.settings_mut().ra.rdnss.clear();
        let full = facts.complete(bare.clone()).settings;
        assert_eq!(full.boot_kernel_url.as_deref(), Some("https://i/kernel"));
        assert_eq!(full.boot_initrd_urls, ["https://i/initrd"]);
        assert_eq!(full.boot_cmdline.as_deref(), Some("console=ttyS0 quiet"));
        assert_eq!(full.ntp_servers, ["ntp.example", "2001:db8::123"]);
        assert_eq!(full.ra.rdnss, ["2001:db8::53".parse::<Ipv6Addr>().unwrap()]);

        let mut own = context("Ethernet4");
        own.settings_mut().boot_kernel_url = Some("http://c/k".to_owned());
        let kept = facts.complete(own.clone()).settings;
        assert_eq!(kept, own.settings, "the row's own are not mixed with the API's");
    }

    #[test]
    fn doubtful_values_are_not_used() {
        let field = |change: &dyn Fn(&mut serde_json::Value)| answer(change).unwrap_err().field;
        assert_eq!(
            field(&|p| p["bootConfiguration"]["kernelUrl"] = "https://i/k\nshell".into()),
            "kernel_url"
        );
        assert_eq!(field(&|p| p["bootConfiguration"]["kernelUrl"] = "tftp://i/k".into()), "kernel_url");
        assert_eq!(field(&|p| p["bootConfiguration"]["imageUrl"] = "https://i/a b".into()), "image_url");
        assert_eq!(field(&|p| p["bootConfiguration"]["commandline"] = "a\rb".into()), "commandline");
        assert_eq!(field(&|p| p["ntpServers"][0]["address"] = "a b".into()), "ntp_servers");
        let empty = answer(&|p| *p = serde_json::json!({ "id": "p1" })).unwrap();
        assert_eq!(empty, PartitionFacts::default());
        let boot = BootAnswer {
            kernel: "https://i/k".to_owned(),
            init_ram_disks: vec!["https://i/i".to_owned()],
            cmdline: None,
        };
        assert_eq!(PartitionFacts::of_boot(boot).unwrap().initrds, ["https://i/i"]);
    }
}
