//! Builds backends and tasks, and owns the order of start and stop.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use switch_agent_core::discovery::Limits as ProxyLimits;
use switch_agent_core::machines::Limits as MachineLimits;
use switch_agent_core::ownership::Ledger;
use switch_agent_core::row::ConfigDb;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

use crate::advertise;
use crate::args::{DatabaseArgs, LiveCheckArgs, RunArgs};
use crate::backend::config_db::ConfigStore;
use crate::backend::frr::{Vtysh, load_templates};
use crate::backend::kernel::KernelHandle;
use crate::backend::keys::Signer;
use crate::backend::memory;
use crate::backend::redis::{DatabaseConfig, Databases};
use crate::backend::state_db::{FeatureWriter, StateStore, StatusWriter, follow_lldp};
use crate::backend::state_dir::{LEDGER_FILE, LoadedLedger, StateDir};
use crate::cli::check;
use crate::cli::render::{self, RenderArgs};
use crate::executor::Executor;
use crate::http::admin::{AdminLimits, AdminListen, AdminServer, AdminState, Snapshot};
use crate::http::discovery::{Discovery, Parts};
use crate::http::worker;
use crate::hub::Hub;
use crate::leak::Leak;
use crate::lifecycle::{Ended, Lifecycle, stop_signal};
use crate::logging::{self, LogFormat, Logging};
use crate::metrics::Metrics;
use crate::observer::{Observer, chain};
use crate::reconciler::{DecisionLog, Reconciler, inspection};
use crate::sonic;
use crate::waiting;
use crate::wake::Waker;

/// Bound on one vtysh process. `docker exec` into a busy switch takes seconds.
const VTYSH_TIMEOUT: Duration = Duration::from_secs(30);

/// Anything that keeps the agent from starting.
type StartError = Box<dyn Error + Send + Sync>;

/// `run`: until SIGTERM or SIGINT.
pub async fn run(args: RunArgs) -> ExitCode {
    let logging = logging::install(args.log_level, args.log_format.unwrap_or_else(LogFormat::detect));
    if let Err(failure) = memory::keep_private() {
        error!(reason = chain(&failure), "cannot keep secrets out of core files");
        return ExitCode::FAILURE;
    }
    match start(&args, logging, stop_signal()).await {
        Ok(Ended::Asked) => ExitCode::SUCCESS,
        Ok(Ended::TaskLost(_)) => ExitCode::FAILURE,
        Err(failure) => {
            error!(reason = chain(&*failure), "cannot start");
            ExitCode::FAILURE
        }
    }
}

/// Starts what needs no database, waits for the description of those, starts the rest, and runs until `asked`.
async fn start(
    args: &RunArgs,
    logging: Logging,
    asked: impl Future<Output = ()>,
) -> Result<Ended, StartError> {
    let mut asked = pin!(asked);
    let mut lifecycle = Lifecycle::default();
    let stop = lifecycle.token();
    let templates = load_templates(args.templates.as_deref()).await?;
    let state_dir = StateDir::open(&args.state_dir)?;
    let ledger = ledger(&state_dir)?;
    let signer = Arc::new(Signer::load_or_create(state_dir.path())?);
    let metrics = Metrics::default();
    let waker = Waker::default();
    let hub = Hub::new(metrics.clone(), MachineLimits::default());
    let kernel = KernelHandle::new();
    let leak = Leak::default();
    let vtysh = Vtysh::new(&args.vtysh, VTYSH_TIMEOUT, metrics.clone())?;

    let (advertise, advertiser) =
        advertise::start(args.nd_socket, hub.clone(), metrics.clone(), waker.clone(), stop.clone())?;
    let (proxy, proxy_ended) = worker::start(stop.clone())?;
    lifecycle.spawn("proxy", proxy_ended);
    let discovery = Discovery::new(Parts {
        signer: signer.clone(),
        neighbors: Arc::new(kernel.clone()),
        hub: hub.clone(),
        metrics: metrics.clone(),
        waker: waker.clone(),
        limits: ProxyLimits::with(&args.proxy_limits),
        state_dir: Some(state_dir.clone()),
        runtime: proxy,
        cancel: stop.clone(),
    });
    let (snapshot, snapshots) = watch::channel(Arc::new(Snapshot::starting()));
    let listen = AdminListen { socket: Some(args.admin_socket.clone()), address: args.admin_listen.0 };
    let jwks = Arc::new(signer.jwks());
    let decisions = DecisionLog::default();
    let (inspector, inspections) = inspection(waker.clone());
    let state = AdminState {
        snapshots,
        hub: hub.clone(),
        metrics: metrics.clone(),
        jwks,
        decisions: decisions.clone(),
        inspector,
    };
    let admin = AdminServer::bind(&listen, AdminLimits::default(), state).await?;

    lifecycle.spawn("admin", admin.run(stop.clone()));
    lifecycle.spawn("advertise", advertiser);
    lifecycle.spawn("logging", logging.clone().tell_left_out(stop.clone()));
    lifecycle.spawn("hub", hub.clone().run(stop.clone()));

    let namespaces = std::env::var("NAMESPACE_COUNT").ok();
    let path = &args.database.database_config;
    let described = waiting::databases(path, namespaces.as_deref(), &snapshot);
    let databases = match lifecycle.until(described, asked.as_mut()).await {
        Ok(databases) => databases?,
        Err(ended) => return Ok(lifecycle.drain(ended).await),
    };

    let config = ConfigStore::new(databases.config_db.clone());
    let store = StateStore::new(&databases);
    let (ports, known_ports) = watch::channel(BTreeSet::new());
    lifecycle.spawn("leak", leak.clone().run(vtysh, waker.clone(), stop.clone()));
    lifecycle.spawn("config-db", config.clone().follow(waker.clone(), stop.clone()));
    let lldp = Arc::new(Notify::new());
    lifecycle.spawn("state-db", store.clone().follow(waker.clone(), lldp.clone(), stop.clone()));
    let port_names = move || known_ports.borrow().clone();
    lifecycle.spawn("lldp", follow_lldp(store.clone(), port_names, lldp, hub.clone(), stop.clone()));
    let on_link = {
        let (advertise, discovery) = (advertise.clone(), discovery.clone());
        move |event: switch_agent_core::ra::LinkEvent| {
            discovery.link(&event);
            advertise.link(event);
        }
    };
    let on_machine = {
        let discovery = discovery.clone();
        move |event: &switch_agent_core::machines::MachineEvent| discovery.machine(event)
    };
    let on_route = {
        let leak = leak.clone();
        move |event| leak.route_changed(event)
    };
    let following =
        kernel.clone().follow(on_link, on_machine, on_route, hub.clone(), waker.clone(), stop.clone());
    lifecycle.spawn("kernel", following);
    let observer = Observer {
        config: config.clone(),
        state: store,
        kernel: kernel.clone(),
        leak: leak.clone(),
        advertise: advertise.clone(),
        discovery: discovery.clone(),
    };
    let executor = Executor { config, kernel, state_dir, leak, advertise, discovery };
    let reconciler = Reconciler {
        observer,
        executor,
        status_rows: StatusWriter::new(databases.state_db.clone()),
        feature: FeatureWriter::new(databases.state_db, sonic::container()),
        waker,
        hub,
        metrics,
        snapshot,
        ports,
        templates,
        decisions,
        inspections,
        logging,
    };
    lifecycle.spawn("reconciler", reconciler.run(ledger, stop));
    info!(version = env!("CARGO_PKG_VERSION"), "started");
    Ok(lifecycle.run(asked).await)
}

fn databases(args: &DatabaseArgs) -> Result<Databases, StartError> {
    let namespaces = std::env::var("NAMESPACE_COUNT").ok();
    let config = DatabaseConfig::load(&args.database_config, namespaces.as_deref())?;
    Ok(Databases::new(&config)?)
}

fn ledger(state_dir: &StateDir) -> Result<Ledger, StartError> {
    Ok(match state_dir.load_ledger()? {
        LoadedLedger::Loaded(ledger) => ledger,
        LoadedLedger::Absent => Ledger::default(),
        LoadedLedger::Broken(reason) => {
            warn!(
                reason,
                file = LEDGER_FILE,
                "not of this version, and set aside as .broken; rows are recognised by name"
            );
            Ledger::default()
        }
    })
}

/// CONFIG_DB from a file, or the running one.
async fn config(file: Option<&Path>, database: &DatabaseArgs) -> Result<ConfigDb, (u8, StartError)> {
    match file {
        Some(file) => check::read_file(file).map_err(|failure| (2, failure.into())),
        None => {
            let databases = databases(database).map_err(|failure| (1, failure))?;
            ConfigStore::new(databases.config_db).read().await.map_err(|failure| (1, failure.into()))
        }
    }
}

fn fail((code, failure): (u8, StartError)) -> ExitCode {
    eprintln!("switch-agent: {}", chain(&*failure));
    ExitCode::from(code)
}

/// `check`: validates without touching anything.
pub async fn check(args: LiveCheckArgs) -> ExitCode {
    let config = match config(args.check.file.as_deref(), &args.database).await {
        Ok(config) => config,
        Err((_, failure)) => return fail((check::EXIT_BAD_INPUT, failure)),
    };
    match check::run(&config, args.check.json, &mut std::io::stdout()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => fail((check::EXIT_BAD_INPUT, failure.into())),
    }
}

/// `render-frr`: prints the wanted FRR configuration.
pub async fn render_frr(args: RenderArgs) -> ExitCode {
    let config = match config(args.file.as_deref(), &args.database).await {
        Ok(config) => config,
        Err(failure) => return fail(failure),
    };
    let text = match load_templates(args.templates.as_deref()).await {
        Ok(templates) => render::text(&config, &args, &templates).map_err(StartError::from),
        Err(failure) => Err(failure.into()),
    };
    match text {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(failure) => fail((2, failure)),
    }
}
