//! The lab's swss: SimSwitch decides what each daemon does next, the real kernel and the real databases
//! get it done.
//!
//! One task does everything, so a daemon's step and its effects are one: the model never runs ahead of
//! the kernel. What the kernel does by itself (carriers, flaps, addresses, indexes) is read back from the
//! netlink socket that the effects went through before the next step is taken.

mod acl;
mod carry_out;
mod database;
mod kernel;
mod lldp;
mod neighbors;

use std::path::PathBuf;
use std::time::Duration;

use switch_agent_core::sim::{Daemon, Effect, SimSwitch, Step};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use acl::Acls;
use database::{ConfigEvents, Databases};
use kernel::Kernel;
use lldp::Lldp;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// SONiC's database_config.json: sockets and numbers of the databases
    #[arg(long, value_name = "PATH", default_value = "/var/run/redis/sonic-db/database_config.json")]
    database_config: PathBuf,
    /// How long orchagent leaves its queues alone after something was put in
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0)]
    orch_delay_ms: u64,
    /// Neighbours that lldpd would report: a JSON object of ports, each an object of LLDP_ENTRY_TABLE
    /// fields; read again when it changes
    #[arg(long, value_name = "FILE")]
    lldp: Option<PathBuf>,
    /// Start as in a warm restart: databases, VRFs and loopbacks are kept
    #[arg(long)]
    warm: bool,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    ReadFile { path: PathBuf, source: std::io::Error },
    #[error("{path} is not what it should be")]
    ParseFile { path: PathBuf, source: serde_json::Error },
    #[error("{path} names no database {database}")]
    NoDatabase { path: PathBuf, database: &'static str },
    #[error("{step}: redis refused")]
    Redis { step: &'static str, source: redis::RedisError },
    #[error("{step}: the kernel refused")]
    Netlink { step: String, source: rtnetlink::Error },
    #[error("{step}: the kernel did not answer")]
    Unanswered { step: String },
    #[error("cannot {step}")]
    Io { step: &'static str, source: std::io::Error },
    #[error("{0} ended")]
    Ended(&'static str),
}

/// Retry timers, drift and the LLDP file are looked after this often.
const TICK: Duration = Duration::from_secs(1);
/// Until swss starts again after one of its processes exited.
const RESTART_DELAY: Duration = Duration::from_secs(2);

pub(crate) fn run(args: Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { step: "start the runtime", source })?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|source| Error::Io { step: "listen for SIGTERM", source })?;
        let mut acls = Acls::default();
        tokio::select! {
            ended = live(&args, &mut acls) => ended,
            // As the ASIC is emptied when swss is stopped; SIGKILL leaves what is there.
            _ = terminate.recv() => acls.remove().await,
        }
    })
}

/// swss, started again whenever it ends, until it cannot be.
async fn live(args: &Args, acls: &mut Acls) -> Result<(), Error> {
    // Once: after a crash it starts cold.
    let mut warm = args.warm;
    loop {
        let ended = match Swss::start(args, std::mem::take(&mut warm), acls).await {
            Ok(mut swss) => swss.serve().await,
            Err(error) => Err(error),
        };
        match ended {
            // Redis went away, or is not there yet; on a switch that restarts swss, too.
            Err(error @ (Error::Redis { .. } | Error::Ended(_) | Error::Unanswered { .. })) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "starting again");
                sleep(RESTART_DELAY).await;
            }
            ended => return ended,
        }
    }
}

struct Swss<'a> {
    switch: SimSwitch,
    databases: Databases,
    events: ConfigEvents,
    kernel: Kernel,
    lldp: Option<Lldp>,
    acls: &'a mut Acls,
    orch_delay: Duration,
    /// When orchagent looks at its queues.
    orch_due: Option<Instant>,
    /// When swss starts again after a daemon exited.
    restart_due: Option<Instant>,
    hangup: Signal,
}

impl<'a> Swss<'a> {
    async fn start(args: &Args, warm: bool, acls: &'a mut Acls) -> Result<Self, Error> {
        let (databases, events) = database::open(&args.database_config).await?;
        let hangup =
            signal(SignalKind::hangup()).map_err(|source| Error::Io { step: "listen for SIGHUP", source })?;
        let mut swss = Swss {
            switch: SimSwitch::for_real_kernel(),
            databases,
            events,
            kernel: Kernel::open()?,
            lldp: args.lldp.clone().map(Lldp::new),
            acls,
            orch_delay: Duration::from_millis(args.orch_delay_ms),
            orch_due: None,
            restart_due: None,
            hangup,
        };
        swss.kernel.move_local_rules().await;
        swss.begin(warm).await?;
        Ok(swss)
    }

    async fn cold_start(&mut self) -> Result<(), Error> {
        self.begin(false).await
    }

    /// What the swss service does when it starts: flush, unless it starts warm, then replay CONFIG_DB.
    async fn begin(&mut self, warm: bool) -> Result<(), Error> {
        tracing::info!(warm, "start");
        self.restart_due = None;
        self.orch_due = None;
        if !warm {
            self.databases.flush().await?;
        }
        // The flush has already done what these effects ask for.
        drop(self.switch.config_reload(self.databases.config().await?));
        self.switch.set_warm(warm);
        self.kernel.resync(&mut self.switch).await?;
        for daemon in Daemon::ALL {
            let effects = self.switch.step(&Step::Start(daemon));
            self.carry_out(effects).await?;
        }
        let Swss { kernel, databases, switch, .. } = self;
        neighbors::republish(kernel, switch, databases).await?;
        if let Some(lldp) = &mut self.lldp {
            lldp.forget();
        }
        self.acls.reset();
        self.work().await
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let orch_due = self.orch_due.unwrap_or_else(far_away);
            let acls_due = self.acls.due().unwrap_or_else(far_away);
            tokio::select! {
                event = self.events.next() => self.config_changed(event?).await?,
                message = self.kernel.next_message() => {
                    let neighbor = self.kernel.take(message?, &mut self.switch);
                    self.neighbor(neighbor).await?;
                }
                _ = self.hangup.recv() => self.cold_start().await?,
                () = sleep_until(orch_due) => {}
                () = sleep_until(acls_due) => {}
                _ = tick.tick() => self.tick().await?,
            }
            self.work().await?;
        }
    }

    async fn tick(&mut self) -> Result<(), Error> {
        if self.restart_due.is_some_and(|due| due <= Instant::now()) {
            return self.cold_start().await;
        }
        self.kernel.resync(&mut self.switch).await?;
        if let Some(lldp) = &mut self.lldp {
            lldp.refresh(&mut self.databases).await?;
        }
        let Swss { acls, switch, kernel, databases, .. } = self;
        acls.apply(switch, kernel, databases).await
    }

    /// Mirrors one CONFIG_DB row, and those whose events wait behind it: writes of one MULTI arrive
    /// together.
    async fn config_changed(&mut self, first: database::ConfigEvent) -> Result<(), Error> {
        let mut waiting = Some(first);
        while let Some(event) = waiting {
            let database::ConfigEvent { table, key, deleted } = event;
            if acl::CONFIG_TABLES.contains(&table.as_str()) {
                self.acls.changed();
            }
            if deleted {
                self.switch.config_del(&table, &key);
            } else if let Some(row) = self.databases.config_row(&table, &key).await? {
                self.switch.config_put(&table, &key, row);
            }
            waiting = self.events.next_soon().await?;
        }
        Ok(())
    }

    /// Lets the daemons work until none can, with orchagent's delay.
    async fn work(&mut self) -> Result<(), Error> {
        loop {
            self.take_messages().await?;
            let Some(step) = self.next_step() else {
                let Swss { acls, switch, kernel, databases, .. } = self;
                return acls.work(switch, kernel, databases).await;
            };
            let effects = self.switch.step(&step);
            self.carry_out(effects).await?;
        }
    }

    async fn take_messages(&mut self) -> Result<(), Error> {
        while let Some(message) = self.kernel.message_now() {
            let neighbor = self.kernel.take(message, &mut self.switch);
            self.neighbor(neighbor).await?;
        }
        Ok(())
    }

    fn next_step(&mut self) -> Option<Step> {
        let steps = self.switch.runnable();
        let queued = steps.iter().any(|step| matches!(step, Step::Pop(_)));
        let now = Instant::now();
        let due = match (queued, self.orch_due) {
            (false, _) => None,
            (true, None) => Some(now + self.orch_delay),
            (true, due) => due,
        };
        self.orch_due = due;
        let ready = due.is_some_and(|due| due <= now);
        steps.into_iter().find(|step| ready || !matches!(step, Step::Pop(_)))
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) -> Result<(), Error> {
        for effect in effects {
            tracing::debug!(?effect);
            if let Effect::Exit { .. } = effect {
                self.restart_due = Some(Instant::now() + RESTART_DELAY);
            }
            let unsure = carry_out::carry_out(effect, &mut self.kernel, &mut self.databases).await?;
            // Flaps are events, so these come first.
            self.take_messages().await?;
            if unsure {
                self.kernel.resync(&mut self.switch).await?;
            }
        }
        Ok(())
    }

    async fn neighbor(&mut self, change: Option<neighbors::Change>) -> Result<(), Error> {
        match change {
            Some(change) => neighbors::publish(change, &self.switch, &mut self.databases).await,
            None => Ok(()),
        }
    }
}

/// A time that a select never reaches.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
