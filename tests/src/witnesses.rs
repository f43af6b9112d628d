//! Services that a boot machine must not reach. They answer everybody who gets there, which is what makes
//! "not reached" a finding.

use std::io::Write;
use std::net::{Ipv6Addr, SocketAddrV6, TcpListener};
use std::thread;

use crate::failure::{Context, Result};
use crate::lab::{SPINE_LOOPBACK, TENANT, WITNESS_PORT};
use crate::ns::Ns;

/// Name, namespace and address of each witness.
const PLACES: [(&str, Ns, Ipv6Addr); 4] = [
    ("tenant service", Ns("tenant"), TENANT),
    ("service of the underlay", Ns("spine"), SPINE_LOOPBACK),
    // As sshd and telemetry do it: every address, default VRF.
    ("service of leaf1", Ns("leaf1"), Ipv6Addr::UNSPECIFIED),
    ("service of leaf2", Ns("leaf2"), Ipv6Addr::UNSPECIFIED),
];

/// Serves until the process ends.
pub(crate) fn serve() -> Result<()> {
    for (name, ns, address) in PLACES {
        let listener = ns.run(|| {
            TcpListener::bind(SocketAddrV6::new(address, WITNESS_PORT, 0, 0))
                .context(|| format!("{name}: [{address}]:{WITNESS_PORT}"))
        })?;
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // A peer that is gone already saw the connection, which is all that counts.
                let _ = writeln!(stream, "{name}");
            }
        });
    }
    loop {
        thread::park();
    }
}
