//! `boot.ipxe`: a template and the facts of a port in, iPXE text out.

use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{Environment, UndefinedBehavior};
use serde_json::json;

use crate::desired::Dialect;
use crate::name::MacAddr;
use crate::service::PortContext;

/// The script of partitions without `boot_template_file`: loads the partition's kernel and tries again
/// for ever, slower each time; a person at the console may take a shell in between.
pub const DEFAULT_TEMPLATE: &str = include_str!("boot.ipxe.j2");

/// Longest script, in bytes. iPXE holds scripts in memory; this is far beyond any sensible one.
const SCRIPT_LEN_MAX: usize = 64 << 10;

/// Why no script came out.
#[derive(Debug, thiserror::Error)]
pub enum IpxeError {
    #[error("boot template is invalid")]
    Template(#[source] minijinja::Error),
    #[error("boot template cannot be rendered")]
    Render(#[source] minijinja::Error),
    #[error("boot template renders to more than {SCRIPT_LEN_MAX} bytes")]
    TooLong,
    #[error("{field} holds a control character, which would start a new iPXE command")]
    ControlCharacter { field: &'static str },
    #[error("boot template does not render to an iPXE script: its first line must be #!ipxe")]
    NoScript,
}

/// Renders a script for the machine (where its MAC is known) on a port. `template` is the content of
/// `boot_template_file`.
///
/// Variables: `switch.{id,chassis_mac}`, `port.{name,alias,index,mac}`, `machine.mac`, `partition`, `vrf`,
/// `prefix`, `router`, `proxy` (URL), `dialect`, `profile`, `kernel`, `initrds`, `cmdline`, `parameters` (see
/// [`parameters`]), `root_paths`, `ntp_servers`, `dns_servers`. An unknown variable is an error, not an empty
/// string.
pub fn render(
    template: Option<&str>,
    port: &PortContext,
    machine: Option<MacAddr>,
    dialect: Dialect,
) -> Result<String, IpxeError> {
    let settings = &port.settings;
    let texts = [
        ("switch_id", Some(port.switch_id.as_str())),
        ("alias", Some(&*port.alias)),
        ("boot_kernel_url", settings.boot_kernel_url.as_deref()),
        ("boot_cmdline", settings.boot_cmdline.as_deref()),
    ];
    let lists = settings.boot_initrd_urls.iter().map(|url| ("boot_initrd_url", Some(url.as_str())));
    for (field, text) in texts.into_iter().chain(lists) {
        if text.is_some_and(|text| text.chars().any(char::is_control)) {
            return Err(IpxeError::ControlCharacter { field });
        }
    }
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.map_err(IpxeError::Template)?);
    environment
        .add_template("boot.ipxe", template.unwrap_or(DEFAULT_TEMPLATE))
        .map_err(IpxeError::Template)?;
    let values = Value::from(Serde(json!({
        "switch": { "id": port.switch_id, "chassis_mac": port.chassis_mac },
        "port": { "name": port.port, "alias": port.alias, "index": port.index, "mac": port.mac },
        "machine": { "mac": machine },
        "partition": port.partition,
        "vrf": port.vrf,
        "prefix": port.prefix,
        "router": port.router,
        "proxy": port.proxy_url(),
        "dialect": dialect,
        "profile": settings.boot_profile,
        "parameters": parameters(port, dialect),
        "root_paths": settings.boot_root_paths,
        "kernel": settings.boot_kernel_url,
        "initrds": settings.boot_initrd_urls,
        "cmdline": settings.boot_cmdline,
        "ntp_servers": settings.ntp_servers,
        "dns_servers": settings.ra.rdnss,
    })));
    let mut script = Bounded::default();
    let rendered =
        environment.get_template("boot.ipxe").and_then(|t| t.render_captured_to(values, &mut script));
    if script.overflowed {
        return Err(IpxeError::TooLong);
    }
    rendered.map(drop).map_err(IpxeError::Render)?;
    let script = String::from_utf8_lossy(&script.bytes).into_owned();
    if script.starts_with("#!ipxe") { Ok(script) } else { Err(IpxeError::NoScript) }
}

/// Kernel parameters by which the started system finds the proxy, and the NIC that it was loaded through.
///
/// `boot.proxy`, `boot.switch`, `boot.port`, `boot.partition`, `boot.root_path` (once for each SAN target) and
/// `BOOTIF` as pxelinux spells it; for the metal-stack dialects also `PIXIE_API_URL`, the whole URL of the
/// configuration that metal-hammer fetches, unless the command line has one. `${...}` is iPXE's to fill in.
pub fn parameters(port: &PortContext, dialect: Dialect) -> String {
    let proxy = port.proxy_url();
    let mut all = vec![
        "BOOTIF=01-${netX/mac:hexhyp}".to_owned(),
        format!("boot.proxy={proxy}"),
        format!("boot.switch={}", port.switch_id),
        format!("boot.port={}", port.port),
        format!("boot.partition={}", port.partition),
    ];
    all.extend(port.settings.boot_root_paths.iter().map(|path| format!("boot.root_path={path}")));
    let named = port.settings.boot_cmdline.as_ref().is_some_and(|line| line.contains("PIXIE_API_URL="));
    match dialect {
        Dialect::MetalStackV2 if !named => all.push(format!("PIXIE_API_URL={proxy}/config/${{uuid}}")),
        Dialect::MetalStackV1 if !named => all.push(format!("PIXIE_API_URL={proxy}/certs")),
        Dialect::Generic | Dialect::MetalStackV2 | Dialect::MetalStackV1 => {}
    }
    all.join(" ")
}

#[derive(Default)]
struct Bounded {
    bytes: Vec<u8>,
    overflowed: bool,
}

impl Write for Bounded {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + more.len() > SCRIPT_LEN_MAX {
            self.overflowed = true;
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::context as port_context;

    #[test]
    fn the_default_script_boots_and_retries() {
        let mut port = port_context("Ethernet4");
        port.settings_mut().boot_kernel_url = Some("http://[2001:db8::2]/kernel".to_owned());
        port.settings_mut().boot_initrd_urls = vec!["http://c/a".to_owned(), "http://c/b".to_owned()];
        port.settings_mut().boot_cmdline = Some("console=ttyS1 ip=dhcp6".to_owned());
        let script =
            render(None, &port, Some("52:54:00:00:00:01".parse().unwrap()), Dialect::Generic).unwrap();
        let wanted = "#!ipxe
# leaf1 Ethernet4 (Eth2/1), partition p1
echo Boot network of leaf1, port Ethernet4 (Eth2/1), partition p1
set attempt:int32 0
set delay:int32 0

:retry
inc attempt
iseq ${delay} 30 || inc delay 5
imgfree
kernel --name kernel http://[2001:db8::2]/kernel initrd=initrd0 initrd=initrd1 console=ttyS1 ip=dhcp6 BOOTIF=01-${netX/mac:hexhyp} boot.proxy=http://[2001:db8:0:2::1]:18090 boot.switch=leaf1 boot.port=Ethernet4 boot.partition=p1 || goto failed
initrd --name initrd0 http://c/a || goto failed
initrd --name initrd1 http://c/b || goto failed
boot || goto failed

:failed
echo Attempt ${attempt} failed, next one in ${delay} seconds
prompt --key s --timeout ${delay}000 Press s for a shell && shell ||
goto retry
";
        assert_eq!(script, wanted);
    }

    #[test]
    fn without_a_kernel_the_script_asks_again() {
        let script = render(None, &port_context("Ethernet4"), None, Dialect::Generic).unwrap();
        assert!(script.contains("chain --replace http://[2001:db8:0:2::1]:18090/boot.ipxe"), "{script}");
        assert!(!script.contains("\nkernel "), "{script}");
    }

    #[test]
    fn the_console_is_found_where_the_command_line_names_none() {
        let mut port = port_context("Ethernet4");
        port.settings_mut().boot_kernel_url = Some("http://c/k".to_owned());
        port.settings_mut().boot_profile = Some("hammer-1".to_owned());
        let script = render(None, &port, None, Dialect::MetalStackV2).unwrap();
        assert!(
            script.contains("isset ${console} && goto console_known ||\nset console ttyS1\n"),
            "{script}"
        );
        assert!(script.contains(" console=tty0 console=${console},115200n8 BOOTIF="), "{script}");
        let url = " PIXIE_API_URL=http://[2001:db8:0:2::1]:18090/config/${uuid} || goto failed\n";
        assert!(script.contains(url), "{script}");
        assert!(script.contains(", partition p1, profile hammer-1\necho "), "{script}");
        port.settings_mut().boot_cmdline = Some("quiet console=ttyS3".to_owned());
        let script = render(None, &port, None, Dialect::MetalStackV1).unwrap();
        assert!(!script.contains("${console}"), "{script}");
        assert!(script.contains(" PIXIE_API_URL=http://[2001:db8:0:2::1]:18090/certs "), "{script}");
    }

    #[test]
    fn root_paths_are_data_with_a_kernel_and_targets_without() {
        let mut port = port_context("Ethernet4");
        port.settings_mut().boot_root_paths =
            vec!["iscsi:[2001:db8::9]::::iqn.2026-11.example:m1".to_owned(), "iscsi:b::::iqn.b".to_owned()];
        let script = render(None, &port, None, Dialect::Generic).unwrap();
        let tries = "sanboot iscsi:[2001:db8::9]::::iqn.2026-11.example:m1 ||\nsanboot iscsi:b::::iqn.b ||\n\n:failed\n";
        assert!(script.contains(tries), "{script}");
        port.settings_mut().boot_kernel_url = Some("http://c/k".to_owned());
        let script = render(None, &port, None, Dialect::Generic).unwrap();
        assert!(!script.contains("sanboot"), "{script}");
        assert!(script.contains(" boot.root_path=iscsi:b::::iqn.b || goto failed"), "{script}");
    }

    #[test]
    fn templates_are_strict_and_bounded() {
        let port = port_context("Ethernet4");
        let of = |text: &str| render(Some(text), &port, None, Dialect::Generic);
        assert_eq!(
            of("#!ipxe\necho {{ port.index }} {{ machine.mac is none }} {{ vrf }}").unwrap(),
            "#!ipxe\necho 2 True VrfBoot-p1"
        );
        assert!(matches!(of("#!ipxe {% if %}"), Err(IpxeError::Template(_))));
        assert!(matches!(of("#!ipxe {{ nothing }}"), Err(IpxeError::Render(_))));
        assert!(matches!(of("echo"), Err(IpxeError::NoScript)));
        let endless = "#!ipxe{% for a in range(9999) %}{{ '0123456789' }}{% endfor %}";
        assert!(matches!(of(endless), Err(IpxeError::TooLong)));
    }

    #[test]
    fn a_value_cannot_smuggle_a_command() {
        let mut port = port_context("Ethernet4");
        port.settings_mut().boot_cmdline = Some("quiet\nshell".to_owned());
        assert!(matches!(
            render(None, &port, None, Dialect::Generic),
            Err(IpxeError::ControlCharacter { field: "boot_cmdline" })
        ));
    }
}
