//! What a partition's DHCPv6 tells, within the length of one answer.

use std::net::Ipv6Addr;
use std::sync::Arc;

use super::fields::{Reader, Rule};
use super::router::RouterVariables;
use super::url::download_url;
use crate::dhcp6::{ANSWER_LEN_MAX, BootUrl, Dhcp6Options, expand, has_unknown_placeholder, longest_answer};

const URLS: &str = "dhcp6_boot_url@";
const PARAMS: &str = "dhcp6_boot_param@";
/// Fields that only the role `dhcp6` gives a meaning.
pub(super) const BOOT_FILE_FIELDS: [&str; 2] = [URLS, PARAMS];
const URLS_MAX: usize = 32;
const PARAMS_MAX: usize = 16;
/// Bytes of a boot URL with its placeholders filled in: firmware has little room for one.
const URL_LEN_MAX: usize = 512;
const PARAM_LEN_MAX: usize = 256;

/// Boot files of a partition.
pub(super) struct BootFiles {
    urls: Vec<BootUrl>,
    params: Vec<String>,
}

/// Reads the boot files; they mean nothing where the role `dhcp6` is off.
pub(super) fn boot_files(reader: &mut Reader, proxy: bool) -> BootFiles {
    let urls: Vec<BootUrl> = reader.list(URLS, URLS_MAX, boot_url);
    for (at, url) in urls.iter().enumerate() {
        if urls[..at].iter().any(|earlier| earlier.client == url.client) {
            reader.reject_item(URLS, &url.client.to_string(), "has two URLs");
        }
        if !proxy && url.url.contains("{proxy_port}") {
            let item = format!("{}|{}", url.client, url.url);
            reader.reject_item(URLS, &item, "names the discovery proxy, but proxy is disabled");
        }
    }
    BootFiles { urls, params: reader.list(PARAMS, PARAMS_MAX, boot_param) }
}

/// Puts together what is told, and rejects a row whose answers would grow too long.
pub(super) fn dhcp6_options(
    reader: &mut Reader,
    files: BootFiles,
    router: &RouterVariables,
    ntp_servers: &[String],
) -> Arc<Dhcp6Options> {
    let options = Dhcp6Options {
        valid_s: router.prefix.adv_valid_lifetime_s,
        preferred_s: router.prefix.adv_preferred_lifetime_s,
        dns_servers: router.config.rdnss.clone(),
        domain_search: router.config.dnssl.clone(),
        ntp_servers: ntp_servers.to_vec(),
        boot_urls: files.urls,
        boot_params: files.params,
    };
    let len = longest_answer(&options);
    if len > ANSWER_LEN_MAX {
        reader.reject_row(format!(
            "its DHCPv6 answers could have {len} bytes; at most {ANSWER_LEN_MAX} are allowed: shorten \
             {URLS}, {PARAMS}, rdnss@, dnssl@ or ntp_servers@"
        ));
    }
    Arc::new(options)
}

/// The partition's options on a port whose advertisements say something else: both tell the same.
pub(super) fn with_router_variables(
    reader: &mut Reader,
    options: &Dhcp6Options,
    router: &RouterVariables,
) -> Arc<Dhcp6Options> {
    let files = BootFiles { urls: options.boot_urls.clone(), params: options.boot_params.clone() };
    dhcp6_options(reader, files, router, &options.ntp_servers)
}

/// One item of `dhcp6_boot_url@`: `client|URL`, the client an architecture by word or number, `ipxe` or
/// `default`.
fn boot_url(value: &str) -> Result<BootUrl, Rule> {
    let (client, url) = value.split_once('|').unwrap_or((value, ""));
    let client = client.parse().map_err(|()| {
        Rule::from(
            "must be client|URL, like x64-uefi-http|http://[{router}]:8080/x64.efi; a client is ipxe, default, or an \
             architecture by its number or word (x64-uefi-http, arm64-uefi-http, x64-uefi, arm64-uefi, x86-bios, ...)",
        )
    })?;
    if has_unknown_placeholder(url) {
        return Err("knows the placeholders {router} and {proxy_port} only".into());
    }
    const WIDEST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff);
    let example = expand(url, WIDEST, u16::MAX);
    let like_http = match example.strip_prefix("tftp://") {
        Some(rest) => format!("http://{rest}"),
        None if example.starts_with("http://") || example.starts_with("https://") => example.clone(),
        None => return Err("must have a URL with http://, https:// or tftp:// behind the |".into()),
    };
    download_url(&like_http)?;
    if example.len() > URL_LEN_MAX {
        return Err(format!("must have a URL of at most {URL_LEN_MAX} bytes").into());
    }
    Ok(BootUrl { client, url: url.to_owned() })
}

/// One parameter of a boot file.
fn boot_param(value: &str) -> Result<String, Rule> {
    let printable = value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && (1..=PARAM_LEN_MAX).contains(&value.len()) {
        Ok(value.to_owned())
    } else {
        Err(format!("must be 1 to {PARAM_LEN_MAX} bytes of printable ASCII").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_may_name_the_ports_own_router() {
        for good in [
            "x64-uefi-http|http://[{router}]:{proxy_port}/x.efi",
            "0|tftp://[2001:db8::1]/undionly.kpxe",
            "65535|https://boot.example/a?b=c|d",
            "ipxe|http://[{router}]:{proxy_port}/boot.ipxe?mac=${net0/mac}",
        ] {
            assert!(boot_url(good).is_ok(), "{good}");
        }
        for bad in ["x64-uefi-http", "|http://h/", "default|", "default|http://{router}/x", "00|http://h/"] {
            assert!(boot_url(bad).is_err(), "{bad}");
        }
        assert!(boot_url(&format!("default|http://h/{}", "x".repeat(512))).is_err());
    }
}
