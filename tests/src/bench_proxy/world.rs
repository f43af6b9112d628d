//! Where the proxies run: a machine, a leaf and a control API behind it, each a network namespace.

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Context, Result, ensure};
use crate::http;
use crate::ns::Ns;
use crate::process::Family;
use crate::wait;

pub(super) const MACHINE: Ns = Ns("bench-machine");
pub(super) const LEAF: Ns = Ns("bench-leaf");
const API: Ns = Ns("bench-api");
const NODES: [Ns; 3] = [MACHINE, LEAF, API];

/// The leaf's port, named like one of SONiC's.
pub(super) const PORT: &str = "Ethernet0";
pub(super) const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb007, 0, 0, 0, 0, 1);
pub(super) const PROXY_PORT: u16 = 18090;
pub(super) const API_ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa91, 0, 0, 0, 0, 0x10);
pub(super) const API_PORT: u16 = 8443;
/// Also in the control API's certificate: nginx checks names only.
pub(super) const API_NAME: &str = "api.example";
/// Served by the control API at `/bulk`.
pub(super) const BULK_MIB: u64 = 256;
const REPLY: &str = r#"{"id": "00000000-0000-0000-0000-000000000001", "state": "waiting", "liveliness": "alive", "tags": []}"#;

/// Everything but the proxies. Goes away when dropped.
pub(super) struct World {
    pub dir: PathBuf,
    _api: Family,
}

impl World {
    pub(super) fn build(bin: &Path, dir: &Path) -> Result<Self> {
        let pki = dir.join("pki");
        let root = dir.join("root");
        fs::create_dir_all(&root).context(|| root.display().to_string())?;
        remove_namespaces();
        topology()?;
        let address = API_ADDRESS.to_string();
        let mut make_ca = Command::new(bin.join("stand-ins"));
        make_ca.args(["control-api", "--make-ca"]).arg(&pki).args([
            "--address",
            &address,
            "--address",
            API_NAME,
        ]);
        ensure!(make_ca.status().context(|| "stand-ins".into())?.success(), "the certificates were not made");
        bulk(&root.join("bulk"))?;
        let config = dir.join("api.conf");
        fs::write(&config, api_conf(dir)).context(|| config.display().to_string())?;
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(dir).arg("-c").arg(&config).args(["-g", "daemon off;"]);
        let api = start(API, nginx, &dir.join("api.log"))?;
        let to = SocketAddrV6::new(API_ADDRESS, API_PORT, 0, 0);
        wait::until(Duration::from_secs(10), || {
            LEAF.run(|| http::connect(to).map(drop).context(|| format!("connect to {to}")))
        })?;
        Ok(Self { dir: dir.to_owned(), _api: api })
    }

    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("pki/ca.pem")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        remove_namespaces();
    }
}

/// Starts a daemon in a namespace, with what it says in a file.
pub(super) fn start(node: Ns, mut command: Command, log: &Path) -> Result<Family> {
    let file = File::create(log).context(|| log.display().to_string())?;
    let copy = file.try_clone().context(|| "log file".into())?;
    command.stdin(Stdio::null()).stdout(copy).stderr(file);
    Ok(Family::new(node.spawn(&mut command)?.1))
}

fn remove_namespaces() {
    for node in NODES {
        // Most often it is not there.
        let _ = Command::new("ip").args(["netns", "del", node.0]).stderr(Stdio::null()).status();
    }
}

fn ip(arguments: &str) -> Result<()> {
    let status = Command::new("ip").args(arguments.split_whitespace()).status();
    ensure!(status.context(|| "ip".into())?.success(), "ip {arguments} failed");
    Ok(())
}

fn topology() -> Result<()> {
    for Ns(node) in NODES {
        ip(&format!("netns add {node}"))?;
        ip(&format!("-n {node} link set lo up"))?;
    }
    let (machine, leaf, api) = (MACHINE.0, LEAF.0, API.0);
    ip(&format!("link add eth0 netns {machine} type veth peer name {PORT} netns {leaf}"))?;
    ip(&format!("link add eth0 netns {api} type veth peer name uplink netns {leaf}"))?;
    for (node, device, address) in [
        (leaf, PORT, format!("{ROUTER}/64")),
        (machine, "eth0", "2001:db8:b007::2/64".to_owned()),
        (leaf, "uplink", "2001:db8:a91::1/64".to_owned()),
        (api, "eth0", format!("{API_ADDRESS}/64")),
    ] {
        ip(&format!("-n {node} addr add {address} dev {device} nodad"))?;
        ip(&format!("-n {node} link set {device} up"))?;
    }
    Ok(())
}

fn bulk(path: &Path) -> Result<()> {
    let mut file = File::create(path).context(|| path.display().to_string())?;
    let mebibyte = vec![0x5a; 1 << 20];
    for _ in 0..BULK_MIB {
        file.write_all(&mebibyte).context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The control API: one small answer, one large one.
fn api_conf(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "worker_processes 1;\npid {dir}/api.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 10000000;\nkeepalive_timeout 600s;\nsendfile on;\n\
         client_body_temp_path {dir}/api-body;\nproxy_temp_path {dir}/api-proxy;\nfastcgi_temp_path {dir}/f;\n\
         uwsgi_temp_path {dir}/u;\nscgi_temp_path {dir}/s;\n\
         server {{\n\
         listen [{API_ADDRESS}]:{API_PORT} ssl;\n\
         ssl_certificate {dir}/pki/server.pem;\nssl_certificate_key {dir}/pki/server.key;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n\
         location /v1/ {{ default_type application/json; return 200 '{REPLY}'; }}\n\
         location /bulk {{ root {dir}/root; }}\n\
         }}\n}}\n"
    )
}
