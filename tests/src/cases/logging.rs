//! Syslog as a SONiC host receives it, and its level at run time.

use std::net::UdpSocket;
use std::thread;
use std::time::Duration;

use super::floods::Tool;
use crate::cases::{Case, cases};
use crate::failure::{Context, Result, ensure};
use crate::lab::Lab;
use crate::leaf::{CONFIG_DB, Leaf, STATE_DB};
use crate::machine::NIC;
use crate::ns::Ns;
use crate::wait;

const ROW: &str = "LOGGER|switch-agent";
/// How long routers are forged; each second brings hundreds of them.
const FLOOD: Duration = Duration::from_secs(3);

pub(crate) fn cases() -> Vec<Case> {
    cases!("logging", 60 s:
        lines_go_where_the_logger_table_says,
        a_flood_of_forged_routers_is_a_few_lines,
    )
}

/// The place of a switch's rsyslog.
struct Rsyslog(UdpSocket);

impl Rsyslog {
    fn listen(ns: Ns) -> Result<Self> {
        let socket =
            ns.run(|| UdpSocket::bind("127.0.0.1:514").context(|| "syslog's port of a leaf".into()))?;
        socket.set_nonblocking(true).context(|| "a socket that does not block".into())?;
        Ok(Self(socket))
    }

    /// What has arrived since the last time.
    fn packets(&self) -> Vec<String> {
        let mut packet = [0; 4096];
        let received = std::iter::from_fn(|| {
            let len = self.0.recv(&mut packet).ok()?;
            Some(String::from_utf8_lossy(&packet[..len]).into_owned())
        });
        received.collect()
    }

    /// Waits for a line that contains `text`; all lines until then.
    fn line(&self, text: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        wait::until(wait::seconds(10), || {
            lines.extend(self.packets());
            ensure!(lines.iter().any(|line| line.contains(text)), "no line with {text:?} among {lines:?}");
            Ok(())
        })?;
        Ok(lines)
    }
}

fn with_row(leaf: &Leaf, work: impl FnOnce(&Rsyslog) -> Result<()>) -> Result<()> {
    let before = leaf.rows(CONFIG_DB)?;
    let rsyslog = Rsyslog::listen(leaf.ns)?;
    let result = work(&rsyslog);
    leaf.restore(&before, &["LOGGER"])?;
    result
}

fn lines_go_where_the_logger_table_says(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    with_row(leaf, |rsyslog| {
        leaf.configure(ROW, &[("LOGLEVEL", "NOTICE"), ("LOGOUTPUT", "SYSLOG")])?;
        let first = rsyslog.line("log lines come here")?;
        let tag = format!("#switch-agent[{}]: ", leaf.agent_pid()?);
        let well_formed = |line: &String| line.starts_with('<') && line.contains(&tag) && line.len() <= 1024;
        ensure!(first.iter().all(well_formed), "not {tag:?}: {first:?}");
        machine.get("/nowhere")?.expect(404)?;
        // Severity INFO is 6, and 30 with the facility.
        leaf.configure(ROW, &[("LOGLEVEL", "INFO")])?;
        let quiet = rsyslog.line("log level changed")?;
        ensure!(!quiet.iter().any(|line| line.contains("refused")), "INFO at level NOTICE: {quiet:?}");
        machine.get("/nowhere")?.expect(404)?;
        let refused = rsyslog.line("refused")?;
        ensure!(refused.iter().any(|line| line.starts_with("<30>")), "{refused:?}");
        // A value that is none changes nothing, and is told of.
        leaf.configure(ROW, &[("LOGLEVEL", "LOUD")])?;
        let told = rsyslog.line("row rejected")?;
        let allowed = "must be one of EMERG, ALERT, CRIT, ERROR, WARN, NOTICE, INFO, DEBUG";
        ensure!(told.iter().any(|line| line.starts_with("<28>") && line.contains(allowed)), "{told:?}");
        let status = leaf.row(STATE_DB, "BOOT_NETWORK_STATE|global")?;
        let rejected = status.get("rejected").map_or("", String::as_str);
        ensure!(rejected.contains("LOGLEVEL = \"LOUD\""), "STATE_DB says {status:?}");
        machine.get("/nowhere")?.expect(404)?;
        rsyslog.line("refused")?;
        // Without the row the command line holds, which says standard error here.
        leaf.unconfigure(&[ROW])?;
        rsyslog.line("log lines go elsewhere")?;
        machine.get("/nowhere")?.expect(404)?;
        thread::sleep(Duration::from_millis(300));
        let more = rsyslog.packets();
        ensure!(more.is_empty(), "still to syslog: {more:?}");
        leaf.converged()
    })
}

/// Each has an address of its own, so each is news.
fn a_flood_of_forged_routers_is_a_few_lines(lab: &Lab) -> Result<()> {
    let (leaf, machine) = (&lab.leaves[0], &lab.machines[0]);
    let counter = format!("switch_agent_foreign_ra_total{{port=\"{}\"", machine.home.port);
    with_row(leaf, |rsyslog| {
        leaf.configure(ROW, &[("LOGLEVEL", "NOTICE"), ("LOGOUTPUT", "SYSLOG")])?;
        rsyslog.line("log lines come here")?;
        let before = leaf.counter(&counter)?;
        let tool = ["ra6", "-i", NIC, "-s", "fe80::/64", "-d", "ff02::1", "-F", "100", "-l", "-z", "1"];
        let flood = Tool::start(machine, &tool)?;
        thread::sleep(FLOOD);
        drop(flood);
        let lines = rsyslog.line("log lines were left out")?;
        let seen = leaf.counter(&counter)? - before;
        let told = lines.iter().filter(|line| line.contains("another router advertises")).count();
        // One of them is the line that counts the others.
        ensure!(seen >= 200.0 && told <= 25, "{told} lines of {seen} forged routers");
        Ok(())
    })?;
    wait::until(wait::seconds(40), || machine.get("/healthz")?.expect(200).map(drop))
}
