//! `tap run` and `tap record`: from arguments to a running pipeline and back.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use super::{Failure, Global};
use crate::{
    admin::{self, server::Admin},
    config::{
        environment::{Environment, Exporter, Signal},
        file::{Config, DbPayload, HttpPayload},
        load::DEFAULT_PATH,
        pipelines::Pipelines,
        reload::{self, Reloader},
    },
    connection::{identity::Identities, table},
    export::{self, Exporters, object},
    observe::{
        Board, Picture,
        traffic::{self, Traffic},
    },
    pipeline::{self, Parts, TraceError},
    policy::{admission::Rules, order},
    probe::{admission::Control, cgroup, load, neighbours, plan::Need, privileges, support, sys},
    protocol::content::Collect,
    source::file::Writer,
    telemetry::{cloud, log, resource::Resource},
};

/// From the signal to the exit (SPEC §2).
const LEAVE_WITHIN: Duration = Duration::from_millis(4500);

/// Flags of `tap run`.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArguments {
    /// Take the place of another tap on this host: derive the same span ids as it does.
    #[arg(long, env = "TAP_TAKEOVER")]
    pub takeover: bool,
}

/// Flags of `tap record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArguments {
    /// The file to write; it is replaced, and readable by its owner only.
    pub file: PathBuf,
    #[command(flatten)]
    pub(super) run: RunArguments,
}

/// Traces until SIGINT or SIGTERM.
pub fn run(
    global: &Global,
    arguments: &RunArguments,
    record: Option<&Path>,
) -> Result<(), Failure> {
    let config = Config::find(global.config.as_deref()).map_err(Failure::usage)?;
    let environment = Environment::from_process(&config).map_err(Failure::usage)?;
    environment.warn();
    let mut pipelines = pipelines(&config, &environment)?;
    pipelines.live = global.config.is_some() || Path::new(DEFAULT_PATH).exists();
    can_run()?;
    let root = cgroup::root().map_err(Failure::host)?;
    let found = root.found.clone();
    let neighbour = neighbours::another_tap();
    // The port is taken before anything is attached: a second tap by mistake ends here.
    let listener = admin::server::bind(&global.admin).map_err(Failure::runtime)?;
    let recorder = record.map(|path| create(path, own_pid(&config))).transpose()?;
    let metered = traffic::Terms::new(&environment, &pipelines, listener.is_some());
    if listener.is_none() && environment.exporters(Signal::Metrics).contains(&Exporter::Prometheus)
    {
        tracing::warn!("OTEL_METRICS_EXPORTER=prometheus shows nothing with --admin off.");
    }
    let settings = settings(&config, &environment, &pipelines, &metered);
    let wanted = config.kernel(own_pid(&config), settings.parse);

    // The one thread that keeps all rights; it ends when the programs run.
    let (go, told) = mpsc::sync_channel(1);
    let loader = spawn("tap-load", move || told.recv().map(|()| load::load(&root, wanted)))?;
    privileges::drop_unneeded()
        .unwrap_or_else(|error| tracing::warn!(%error, "tap keeps rights that it does not need."));
    let runtime = runtime()?;
    let board = Board::default();
    let (collect, print) = (settings.collect.clone(), record.is_none());
    let exporters = exporters(&config, &environment, &pipelines, &runtime, print, collect)?;
    let _ = go.send(()); // if it is gone, `join` says why
    let mut probes = match loader.join() {
        Ok(Ok(loaded)) => loaded.map_err(Failure::host)?,
        _ => return Err(Failure::runtime("the loading thread panicked")),
    };
    announce(&probes, &found, neighbour, arguments.takeover);
    board.show(&exporters.registry());
    std::mem::take(&mut probes.usage).show(&exporters.registry());
    let traffic = Traffic::start(&metered, &exporters.registry());
    let admin = Admin { board: board.clone(), registry: exporters.registry() };
    let serving = listener.map(|listener| runtime.spawn(admin::server::serve(listener, admin)));

    let admission = probes.admission.clone();
    let reloader = Reloader::new(global.config.as_deref(), config.clone(), &exporters.registry());
    let (swap, of) = (exporters.swap(), environment);
    let reloading = runtime.spawn(reload(reloader, move |config| {
        // What can fail comes first.
        let pipelines = Pipelines::resolve(config, &of).map_err(|error| error.to_string())?;
        apply(config, &admission)?;
        swap.apply(&pipelines);
        Ok(())
    }));

    let stop = Arc::new(AtomicBool::new(false));
    let (sink, transactions) = (exporters.sink(), exporters.transactions());
    let lives = exporters.lives(config.connection.logs);
    let opened = lives.clone();
    let of_connections = traffic.clone();
    let parts = Parts {
        probes,
        settings,
        max_bytes: config.capture.payload.max_bytes,
        identities: Identities::new(&config.trace, neighbour && !arguments.takeover),
        sink: Box::new(move |batch| {
            of_connections.connections(&batch);
            lives.ended(&batch);
            sink.offer(batch);
        }),
        lives: Box::new(move |batch| opened.opened(batch)),
        transactions: Box::new(move |batch| {
            traffic.transactions(&batch);
            transactions.offer(batch);
        }),
        pressure: exporters.pressure(),
        board,
        recorder,
        stop: stop.clone(),
    };
    let tracer = spawn("tap-trace", move || pipeline::trace(parts))?;
    runtime.block_on(until_told_to_stop(&tracer))?;
    reloading.abort();
    let deadline = Instant::now() + LEAVE_WITHIN;
    stop.store(true, Relaxed);
    let traced = tracer.join().map_err(|_| Failure::runtime("the tracing thread panicked"))?;
    let items = runtime.block_on(exporters.shutdown(deadline));
    if let Some(serving) = serving {
        serving.abort();
    }
    runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
    finish(traced, &items)
}

/// Tells the accounting, and how it went.
fn finish(traced: Result<Picture, TraceError>, items: &serde_json::Value) -> Result<(), Failure> {
    let picture = traced.map_err(Failure::runtime)?;
    let mut accounting = picture.to_json();
    accounting["items"] = items.clone();
    eprintln!("{}", json!({ "accounting": accounting }));
    Ok(())
}

/// Whether this process may load programs at all.
fn can_run() -> Result<(), Failure> {
    let missing = support::missing_capabilities();
    if missing.is_empty() {
        // Before 5.11 maps count against the locked memory of the process.
        sys::unlimit_locked_memory();
        return Ok(());
    }
    let list: Vec<_> = missing.iter().map(|(name, what)| format!("{name} ({what})")).collect();
    Err(Failure::host(format!(
        "missing {}: run tap as root, or give it these capabilities",
        list.join(", ")
    )))
}

fn runtime() -> Result<Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tap-export")
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format!("no threads to export with: {error}")))
}

/// Which exporters are on.
pub(super) fn pipelines(config: &Config, environment: &Environment) -> Result<Pipelines, Failure> {
    let pipelines = Pipelines::resolve(config, environment).map_err(Failure::usage)?;
    for exporter in pipelines.idle(config) {
        tracing::warn!(exporter, "An exporter of the configuration is in no pipeline; it is off.");
    }
    for warning in order::warnings(&pipelines) {
        tracing::warn!("{warning}.");
    }
    Ok(pipelines)
}

/// The exporters that are on; without any, `console` prints to standard output.
pub(super) fn exporters(
    config: &Config,
    environment: &Environment,
    pipelines: &Pipelines,
    runtime: &Runtime,
    console: bool,
    collect: Option<Arc<Collect>>,
) -> Result<Exporters, Failure> {
    let mut resource = Resource::detect(environment);
    runtime.block_on(cloud::detect(&config.resource, &mut resource));
    resource.name(environment);
    let terms = log::Terms {
        limits: environment.log_limits(),
        headers: config.capture.payload.http == HttpPayload::Headers,
        spans: [config.http.spans, config.db.spans],
        writes: config.eventstore.spans,
        ..log::Terms::default()
    };
    // A queue on disk that outgrows a limit on files is an error of a write, not the end.
    sys::ignore_file_size_signal();
    let handle = runtime.handle();
    let failure = |error| match error {
        export::Error::Queue(error) => Failure::runtime(error),
        export::Error::File(error) => Failure::runtime(error),
        export::Error::Objects(object::Error::Queue(error)) => Failure::runtime(error),
        error => Failure::usage(error),
    };
    Exporters::start(environment, pipelines, resource, handle, console, &terms)
        .and_then(|exporters| {
            let redaction = terms.redaction.clone();
            exporters.capture(&config.http_capture, collect, environment, redaction, handle)
        })
        .map_err(failure)
}

fn create(path: &Path, self_tgid: u32) -> Result<Writer, Failure> {
    Writer::create(path, self_tgid)
        .map_err(|error| Failure::runtime(format!("cannot write {}: {error}", path.display())))
}

/// The process whose connections are left out.
fn own_pid(config: &Config) -> u32 {
    if config.capture.own { 0 } else { std::process::id() }
}

pub(super) fn settings(
    config: &Config,
    environment: &Environment,
    pipelines: &Pipelines,
    metered: &traffic::Terms,
) -> table::Settings {
    let logs = !pipelines.of(Signal::Logs).is_empty();
    // With nothing said of exporters connections are printed, and so are the exchanges within.
    let traces = !pipelines.of(Signal::Traces).is_empty() || pipelines.bare;
    let spans = traces && (config.http.spans || config.db.spans);
    let objects = config.http_capture.is_on();
    let wanted = logs || spans || objects || metered.exchanges;
    table::Settings {
        capacity: config.connection.table_size,
        max_age_ns: config.connection.max_age.as_nanos() as u64,
        event_limit: environment.limits().events as usize,
        lives: logs && config.connection.logs,
        parse: config.capture.payload.http != HttpPayload::Off && wanted,
        statements: config.capture.payload.db == DbPayload::Statement,
        collect: export::object::collect(&config.http_capture),
        self_tgid: own_pid(config),
    }
}

fn announce(probes: &load::Probes, cgroup: &str, neighbour: bool, takeover: bool) {
    tracing::info!(cgroup, kernel = support::kernel_release(), "Tracing.");
    for outcome in &probes.outcomes {
        if let (load::Use::Refused(why), Need::Optional | Need::InsteadOf(_)) =
            (&outcome.state, outcome.row.need)
        {
            let row = outcome.row;
            tracing::info!(
                program = row.program,
                without = row.without,
                why,
                "A program is not in use."
            );
        }
    }
    if neighbour && takeover {
        tracing::warn!("Another tap runs on this host; --takeover derives the same span ids.");
    } else if neighbour {
        tracing::warn!(
            "Another tap runs on this host: every connection is traced twice, and this tap's spans \
             get random ids. Stop one of them, or start this one with --takeover."
        );
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|error| Failure::runtime(format!("no thread {name}: {error}")))
}

/// Looks after the configuration file for as long as tap runs, and at SIGHUP; `apply` brings into
/// force what can be while tap runs.
async fn reload(
    reloader: Reloader,
    apply: impl FnMut(&Config) -> Result<(), String> + Send + 'static,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let mut look = tokio::time::interval(reload::LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut held = Some((reloader, apply));
    // It ends with the runtime.
    while let Some((mut reloader, mut apply)) = held.take() {
        let told = tokio::select! {
            _ = hangup.recv() => true,
            _ = look.tick() => false,
        };
        // Files are read where that holds nobody up.
        let turn = tokio::task::spawn_blocking(move || {
            let outcome = if told { Some(reloader.load()) } else { reloader.look() };
            if let Some(outcome) = outcome {
                reloader.apply(outcome, &mut apply);
            }
            (reloader, apply)
        });
        held = turn.await.ok();
    }
}

/// Brings into force what [`reload`] says can be.
fn apply(config: &Config, admission: &Control) -> Result<(), String> {
    let rules = Rules::new(&config.capture).map_err(|error| error.to_string())?;
    admission.apply(Arc::new(rules)).map_err(|error| error.to_string())
}

/// SIGINT, SIGTERM, or the tracer's own end.
async fn until_told_to_stop<T>(tracer: &JoinHandle<T>) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let on = |kind| signal(kind).map_err(|error| Failure::runtime(format!("signals: {error}")));
    let (mut interrupt, mut terminate) =
        (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = look.tick() => if tracer.is_finished() { return Ok(()) },
        }
    }
}
