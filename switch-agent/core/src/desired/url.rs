//! URLs and file paths, to the narrow shapes that the proxy and boot scripts can use safely.

use super::fields::{Rule, number};
use super::values::url_host;

const URL_LEN_MAX: usize = 1024;
const PATH_LEN_MAX: usize = 1024;
/// Longest command line that x86 and arm64 kernels take (`COMMAND_LINE_SIZE`).
const CMDLINE_LEN_MAX: usize = 2048;
/// RFC 8910 section 2: "there is no captive portal here".
const CAPPORT_UNRESTRICTED: &str = "urn:ietf:params:capport:unrestricted";

/// The control API's address, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ControlApiUrl {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) base: String,
}

/// `https://host[:port][/base]`, nothing else.
pub(super) fn control_api_url(value: &str) -> Result<ControlApiUrl, Rule> {
    const RULE: &str = "must be https://host[:port][/base]";
    let rest = value.strip_prefix("https://").filter(|_| value.len() <= URL_LEN_MAX);
    let rest = rest.ok_or_else(|| Rule::from(RULE))?;
    without_query(rest)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = split_authority(authority)?;
    let base = path.strip_suffix('/').unwrap_or(path);
    let segment_ok = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    if !base.is_empty() && !base[1..].split('/').all(segment_ok) {
        return Err("must have a base path of plain segments (letters, digits, - . _ ~)".into());
    }
    Ok(ControlApiUrl { host, port: port.unwrap_or(443), base: base.to_owned() })
}

fn without_query(rest: &str) -> Result<(), Rule> {
    if rest.contains('?') || rest.contains('#') {
        return Err("must not have a query or a fragment".into());
    }
    Ok(())
}

/// `host[:port]`, as the authority of a URL.
pub(super) fn authority(value: &str) -> Result<(String, Option<u16>), Rule> {
    if value.len() > URL_LEN_MAX {
        return Err("must be at most 1024 bytes".into());
    }
    split_authority(value)
}

fn split_authority(authority: &str) -> Result<(String, Option<u16>), Rule> {
    if authority.contains('@') {
        return Err("must not carry a user name or password".into());
    }
    let literal_end = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[literal_end..].find(':') {
        Some(at) => (&authority[..literal_end + at], Some(&authority[literal_end + at + 1..])),
        None => (authority, None),
    };
    let port = port.map(number(1..=u16::MAX)).transpose();
    let host = url_host(host)?;
    Ok((host, port.map_err(|_| Rule::from("must have a port from 1 to 65535"))?))
}

/// `http://` or `https://` with a host; what follows is any printable ASCII, so that iPXE settings
/// (`${net0/mac}`) pass. A comma is spelt `%2C`: it separates the items of a leaf-list.
pub(super) fn download_url(value: &str) -> Result<String, Rule> {
    const RULE: &str = "must be an http:// or https:// URL of printable ASCII, at most 1024 bytes";
    let rest = value.strip_prefix("https://").or_else(|| value.strip_prefix("http://"));
    let printable = value.len() <= URL_LEN_MAX && value.bytes().all(|b| b.is_ascii_graphic());
    let rest = rest.filter(|_| printable).ok_or_else(|| Rule::from(RULE))?;
    if rest.contains('#') {
        return Err("must not have a fragment".into());
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    split_authority(&rest[..end])?;
    Ok(value.to_owned())
}

/// A SAN target as data: `iscsi:...`, `nvme+tcp://...` or what else firmware, iPXE or an initrd takes. Spaces
/// would end the kernel's parameter.
pub(super) fn root_path(value: &str) -> Result<String, Rule> {
    let scheme = value.split_once(':').map(|(scheme, _)| scheme);
    let known = scheme.is_some_and(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
    });
    if known && value.len() <= URL_LEN_MAX && value.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(value.to_owned())
    } else {
        Err("must be scheme:target of printable ASCII without spaces, at most 1024 bytes".into())
    }
}

/// The URI of a captive-portal API: HTTPS (RFC 8908 section 4.1), or the URN for "none".
pub(super) fn captive_portal(value: &str) -> Result<String, Rule> {
    if value == CAPPORT_UNRESTRICTED || value.starts_with("https://") && download_url(value).is_ok() {
        Ok(value.to_owned())
    } else {
        Err("must be an https:// URL or urn:ietf:params:capport:unrestricted".into())
    }
}

/// An absolute path of a file.
pub(super) fn absolute_path(value: &str) -> Result<String, Rule> {
    let ok = value.starts_with('/')
        && !value.ends_with('/')
        && value.len() <= PATH_LEN_MAX
        && !value.chars().any(char::is_control)
        && value[1..].split('/').all(|segment| !matches!(segment, "" | "." | ".."));
    if ok { Ok(value.to_owned()) } else { Err("must be an absolute path of a file, without . and ..".into()) }
}

/// A kernel command line: one line of printable ASCII.
pub(super) fn kernel_cmdline(value: &str) -> Result<String, Rule> {
    let printable = value.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    if printable && (1..=CMDLINE_LEN_MAX).contains(&value.len()) {
        Ok(value.to_owned())
    } else {
        Err("must be one line of printable ASCII, at most 2048 bytes".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_api_urls_come_apart() {
        let parts = |url| control_api_url(url).map(|u| (u.host, u.port, u.base)).ok();
        let expect = |host: &str, port, base: &str| Some((host.to_owned(), port, base.to_owned()));
        assert_eq!(parts("https://api.example.com"), expect("api.example.com", 443, ""));
        assert_eq!(parts("https://API.example.com:8443/"), expect("api.example.com", 8443, ""));
        assert_eq!(parts("https://10.0.0.1/metal/api/"), expect("10.0.0.1", 443, "/metal/api"));
        assert_eq!(parts("https://[2001:DB8::1]:1/v1"), expect("2001:db8::1", 1, "/v1"));
        assert_eq!(parts("https://[2001:db8::1]"), expect("2001:db8::1", 443, ""));
        for bad in [
            "https://",
            "https:///x",
            "https://h:",
            "https://h:0",
            "https://h:65536",
            "https://h:+1",
            "https://[::1",
            "https://::1",
            "https://[::1]x",
            "https://[fe80::1%eth0]",
            "https://[1.2.3.4]",
            "https://h/a//b",
            "https://h/../b",
            "https://h/%61",
            "https://1.2.3",
            "https://h]:1",
            "HTTPS://h",
            "https://h//",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
