//! The proxies side by side: how each is configured, started and addressed.
//!
//! All of them speak HTTP/1.1 to the machine and HTTP/1.1 over TLS to the control API, check its certificate
//! against the same CA, keep connections to it, stream in both directions, set the same headers about the
//! port, and write no log.

use std::fs;
use std::net::SocketAddrV6;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::load::Target;
use super::world::{API_ADDRESS, API_NAME, API_PORT, LEAF, MACHINE, PORT, PROXY_PORT, ROUTER, World, start};
use crate::failure::{Context, Result};
use crate::http;
use crate::process::Family;
use crate::wait;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    SwitchAgent,
    Nginx,
    Haproxy,
}

/// Worker threads or processes of each; the agent has one thread that serves machines.
const WORKERS: u32 = 1;
/// Beyond every load of the bench.
const IDLE_SECONDS: u32 = 600;

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::SwitchAgent, Kind::Nginx, Kind::Haproxy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::SwitchAgent => "switch-agent",
            Kind::Nginx => "nginx",
            Kind::Haproxy => "haproxy",
        }
    }

    /// Version, as the program tells it.
    pub(super) fn version(self, bin: &Path) -> String {
        let (program, argument) = match self {
            Kind::SwitchAgent => (bin.join("switch-agent"), "--version"),
            Kind::Nginx => (PathBuf::from("/usr/sbin/nginx"), "-v"),
            Kind::Haproxy => (PathBuf::from("/usr/sbin/haproxy"), "-v"),
        };
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
        let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().next().unwrap_or("not there").trim().to_owned()
    }

    fn command(self, world: &World, bin: &Path) -> Result<Command> {
        let dir = &world.dir;
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            fs::write(&path, text).context(|| path.display().to_string()).map(|()| path)
        };
        Ok(match self {
            Kind::SwitchAgent => {
                // The test of the bench has another build of it at hand.
                let program = std::env::var_os("BENCH_FORWARD").map(PathBuf::from);
                let mut command = Command::new(program.unwrap_or_else(|| bin.join("examples/forward")));
                command.arg(write("config_db.json", config_db(world))?).arg(dir.join("state"));
                command
            }
            Kind::Nginx => {
                let mut command = Command::new("/usr/sbin/nginx");
                command.arg("-p").arg(dir).arg("-c").arg(write("nginx.conf", nginx_conf(world))?);
                command.args(["-g", "daemon off;"]);
                command
            }
            Kind::Haproxy => {
                let mut command = Command::new("/usr/sbin/haproxy");
                command.arg("-db").arg("-f").arg(write("haproxy.cfg", haproxy_cfg(world))?);
                command
            }
        })
    }
}

fn config_db(world: &World) -> String {
    let value = json!({
        "DEVICE_METADATA": {"localhost": {"hostname": "leaf1"}},
        "PORT": {PORT: {"index": "0", "alias": "Eth1/1", "lanes": "0"}},
        "BOOT_NETWORK": {"global": {
            "control_api_url": format!("https://[{API_ADDRESS}]:{API_PORT}"),
            "control_api_ca_file": world.ca().display().to_string(),
            "proxy_port": PROXY_PORT.to_string(),
        }},
        "BOOT_NETWORK_PARTITION": {"p1": {"prefix": "2001:db8:b007::/56"}},
        "BOOT_NETWORK_PORT": {PORT: {"partition": "p1"}},
    });
    value.to_string()
}

fn nginx_conf(world: &World) -> String {
    let dir = world.dir.display();
    let ca = world.ca();
    let ca = ca.display();
    format!(
        "worker_processes {WORKERS};\npid {dir}/nginx.pid;\nerror_log stderr error;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
         access_log off;\nkeepalive_requests 10000000;\nkeepalive_timeout {IDLE_SECONDS}s;\n\
         client_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\nfastcgi_temp_path {dir}/f2;\n\
         uwsgi_temp_path {dir}/u2;\nscgi_temp_path {dir}/s2;\n\
         upstream api {{ server [{API_ADDRESS}]:{API_PORT}; keepalive 64; keepalive_requests 10000000; }}\n\
         server {{\n\
         listen [::]:{PROXY_PORT};\n\
         client_max_body_size 1m;\n\
         location /api/ {{\n\
         proxy_pass https://api/;\nproxy_http_version 1.1;\nproxy_buffering off;\nproxy_request_buffering off;\n\
         proxy_ssl_verify on;\nproxy_ssl_verify_depth 2;\nproxy_ssl_trusted_certificate {ca};\n\
         proxy_ssl_name {API_NAME};\nproxy_ssl_session_reuse on;\nproxy_ssl_protocols TLSv1.2 TLSv1.3;\n\
         proxy_set_header Connection \"\";\nproxy_set_header X-Forwarded-For \"\";\n\
         proxy_set_header X-Boot-Switch leaf1;\nproxy_set_header X-Boot-Port {PORT};\n\
         proxy_set_header X-Boot-Partition p1;\nproxy_set_header X-Request-Id $request_id;\n\
         proxy_set_header Forwarded \"for=\\\"[$remote_addr]\\\";by=_leaf1;proto=http\";\n\
         }}\n}}\n}}\n"
    )
}

fn haproxy_cfg(world: &World) -> String {
    let ca = world.ca();
    let ca = ca.display();
    format!(
        "global\n  nbthread {WORKERS}\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 3s\n  timeout client {IDLE_SECONDS}s\n\
         \x20 timeout server {IDLE_SECONDS}s\n  timeout http-request 5s\n\
         \x20 timeout http-keep-alive {IDLE_SECONDS}s\n  http-reuse always\n\
         frontend machines\n  bind [::]:{PROXY_PORT}\n  unique-id-format %{{+X}}o%ci%cp%ts%rt\n\
         \x20 unique-id-header X-Request-Id\n\
         \x20 http-request del-header X-Forwarded-For\n\
         \x20 http-request set-header X-Boot-Switch leaf1\n  http-request set-header X-Boot-Port {PORT}\n\
         \x20 http-request set-header X-Boot-Partition p1\n\
         \x20 http-request set-header Forwarded for=\\\"[%[src]]\\\";by=_leaf1;proto=http\n\
         \x20 http-request replace-path /api(/.*) \\1\n  default_backend api\n\
         backend api\n  server api [{API_ADDRESS}]:{API_PORT} ssl verify required verifyhost {API_NAME} ca-file {ca} pool-max-conn 64\n"
    )
}

/// A proxy that runs, ready for requests.
pub(super) struct Running {
    pub family: Family,
    pub small: Target,
    pub bulk: Target,
}

impl Running {
    pub(super) fn start(kind: Kind, world: &World, bin: &Path) -> Result<Self> {
        let log = world.dir.join(format!("{}.log", kind.name()));
        let mut family = start(LEAF, kind.command(world, bin)?, &log)?;
        let address = SocketAddrV6::new(ROUTER, PROXY_PORT, 0, 0);
        let waited = wait::until(Duration::from_secs(15), || {
            MACHINE.run(|| http::connect(address).map(drop).context(|| format!("connect to {address}")))
        });
        family.check_alive().and(waited).context(|| {
            let said = fs::read_to_string(&log).unwrap_or_default();
            format!("{} said {:?}", kind.name(), said.trim())
        })?;
        let authorization = match kind {
            Kind::SwitchAgent => MACHINE.run(|| token(address))?,
            // As long as a token of the agent; the others pass it on unseen.
            Kind::Nginx | Kind::Haproxy => format!("Bearer {}", "0".repeat(43)),
        };
        let target = |path| Target { address, path, authorization: authorization.clone() };
        Ok(Self { family, small: target("/api/v1/machine"), bulk: target("/api/bulk") })
    }
}

fn token(address: SocketAddrV6) -> Result<String> {
    let reply = http::Request::post("/v1/token", "").header("boot-token", "request").send(address)?;
    let reply = reply.expect(200)?.json()?;
    let token = reply.get("token").and_then(|token| token.as_str());
    Ok(format!("Bearer {}", token.context(|| format!("no token in {reply}"))?))
}
