//! `tap check`: whether this host can run tap. Each line says what was looked at and what it means;
//! a bad one says what to do. Exit 0, or 1 where something is missing.

use std::{
    fs,
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Failure, Global};
use crate::{
    config::{
        environment::{Environment, Signal},
        exporters::{File, SendingQueue},
        file::Config,
        http_capture::HttpCapture,
        pipelines::{Destination, Pipelines, To},
    },
    export::{delivery, disk, object},
    policy::{admission::Rules, order},
    probe::{
        cgroup, kernel_btf,
        load::{self, Use},
        neighbours,
        plan::Need,
        support, sys,
    },
};

/// For one connection to an exporter's endpoint.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the report.
pub fn check(global: &Global) -> Result<(), Failure> {
    let mut report = Report::default();
    report.good("kernel", &support::kernel_release());
    capabilities(&mut report);
    btf(&mut report);
    match cgroup::root() {
        Ok(root) => report.good("cgroup v2 root", &root.found),
        Err(error) => report.bad("cgroup v2 root", &error.to_string()),
    }
    let config = Config::find(global.config.as_deref());
    match &config {
        Ok(_) => report.good("configuration", "valid"),
        Err(error) => report.bad("configuration", &error.to_string()),
    }
    let config = config.unwrap_or_default();
    for (rule, text) in super::rules::table(&Rules::new(&config.capture).unwrap_or_default()) {
        report.good(&format!("capture.{rule}"), &text);
    }
    programs(&mut report, &config);
    if neighbours::another_tap() {
        report.note("other tap", "one runs on this host; a second gives every span twice");
    } else {
        report.good("other tap", "none");
    }
    environment(&mut report, &config);
    store(&mut report, &config.http_capture);
    objects_queue(&mut report, &config.http_capture);
    report.end()
}

fn capabilities(report: &mut Report) {
    let missing = support::missing_capabilities();
    if missing.is_empty() {
        sys::unlimit_locked_memory();
        report.good("capabilities", "all there");
    }
    for (name, purpose) in missing {
        report
            .bad("capabilities", &format!("{name} is missing, {purpose}: run as root or grant it"));
    }
}

fn btf(report: &mut Report) {
    if Path::new(kernel_btf::VMLINUX).exists() {
        let offsets = kernel_btf::offsets(&fs::read(kernel_btf::VMLINUX).unwrap_or_default());
        if offsets == tap_common::settings::Offsets::UNKNOWN {
            report.note("BTF", "cannot be read: causes of closes are less exact");
        } else {
            report.good("BTF", kernel_btf::VMLINUX);
        }
    } else {
        let text = "the kernel has none (CONFIG_DEBUG_INFO_BTF): no second witness of closes, and \
                    owners of accepted connections only at their close";
        report.note("BTF", text);
    }
}

fn programs(report: &mut Report, config: &Config) {
    let outcomes = match load::try_all(&config.kernel(0, true)) {
        Ok(outcomes) => outcomes,
        Err(error) => {
            report.bad("programs", &error.to_string());
            return;
        }
    };
    let loads = |name: &str| {
        outcomes.iter().any(|other| other.row.program == name && other.state == Use::Attached)
    };
    for outcome in &outcomes {
        let row = outcome.row;
        match (&outcome.state, row.need) {
            (Use::Attached, Need::InsteadOf(other)) if loads(other) => {
                report.good(row.program, &format!("loads; not needed, {other} does"));
            }
            (Use::Refused(_), Need::InsteadOf(other)) if loads(other) => {
                report.good(row.program, &format!("not needed, {other} loads"));
            }
            (Use::Attached | Use::NotNeeded, _) => {
                report.good(row.program, &format!("would be used: {}", hook(&row)));
            }
            (Use::Refused(why), Need::Required) => {
                report.bad(row.program, &format!("{}, and {why}", row.without));
            }
            (Use::Refused(why), _) => {
                report.note(row.program, &format!("not used, so {}: {why}", row.without));
            }
        }
    }
}

fn hook(row: &crate::probe::plan::Row) -> String {
    use crate::probe::plan::{Hook, Way};
    match row.hook {
        Hook::SockOps => "sock_ops of the root cgroup".into(),
        Hook::Packets(Way::In) => "cgroup_skb/ingress of the root cgroup".into(),
        Hook::Packets(Way::Out) => "cgroup_skb/egress of the root cgroup".into(),
        Hook::Connect => "cgroup connect hook of the root cgroup".into(),
        Hook::Release => "cgroup/sock_release of the root cgroup".into(),
        Hook::Typed(name) => format!("tp_btf/{name}"),
        Hook::Raw(name) => format!("raw_tp/{name}"),
        Hook::Iterator(name) => format!("iter/{name}"),
    }
}

fn environment(report: &mut Report, config: &Config) {
    match Environment::from_process(config) {
        Ok(environment) => {
            for finding in environment.findings() {
                if finding.is_warning() {
                    report.bad(&finding.variable, &finding.effect);
                } else {
                    report.good(&finding.variable, &finding.effect);
                }
            }
            match Pipelines::resolve(config, &environment) {
                Ok(pipelines) => {
                    for warning in order::warnings(&pipelines) {
                        report.note("processors", &warning);
                    }
                    exporters(report, &pipelines, config);
                }
                Err(error) => report.bad("exporters", &error.to_string()),
            }
        }
        Err(error) => report.bad("environment", &error.to_string()),
    }
}

/// Every exporter that is on: where it sends, and whether that can be reached or written.
fn exporters(report: &mut Report, pipelines: &Pipelines, config: &Config) {
    for name in config.exporters.iter().map(|(name, _)| name) {
        let of_signals: Vec<_> =
            pipelines.all().filter(|(_, destination)| destination.name == *name).collect();
        if of_signals.is_empty() {
            report.note(name, "is in no pipeline, so it is off");
        }
    }
    let mut files: Vec<&str> = Vec::new();
    for (signal, Destination { name, to, .. }) in pipelines.all() {
        match to {
            To::Otlp(otlp, block) => {
                endpoint(report, signal, name, &otlp.endpoint);
                if let Some(queue) = block.sending_queue.as_ref().filter(|queue| queue.enabled) {
                    storage(report, signal.lower(), name, queue);
                }
            }
            To::Console => {
                report.good(&format!("{name} {}", signal.lower()), "goes to standard output");
            }
            // One file, however many signals go there.
            To::File(file) if !files.contains(&&**name) => {
                files.push(name);
                written(report, name, file);
            }
            To::File(_) => {}
        }
    }
}

/// Whether something listens where a signal goes. A proxy or a name that only the collector checks is
/// not seen through: it is the first connection that is tried.
fn endpoint(report: &mut Report, signal: Signal, name: &str, endpoint: &http::Uri) {
    let what = format!("{name} {}", signal.lower());
    let key = match name {
        "otlp" => "OTEL_EXPORTER_OTLP_ENDPOINT, or its `endpoint`",
        _ => "its `endpoint`",
    };
    match reach(endpoint) {
        Ok(address) => report.good(&what, &format!("{endpoint} is reachable at {address}")),
        Err(why) => report.bad(
            &what,
            &format!(
                "{endpoint} is not reachable: {why}; start a collector there or change {key} (tap \
                 would run, and try again)"
            ),
        ),
    }
}

/// Whether a queue on disk can be made where it is wanted, and nobody else has it.
fn storage(report: &mut Report, signal: &str, name: &str, queue: &SendingQueue) {
    let Some(folder) = &queue.storage else { return };
    let what = format!("{name} {signal} queue");
    let own = folder.join(delivery::folder(name, signal));
    if let Err(why) = disk::is_free(&own) {
        return report.bad(&what, &why.to_string());
    }
    match writable(&own, true) {
        Ok(free) if free < queue.storage_limit => report.note(
            &what,
            &format!(
                "{} can be written, but {} MiB are free and it may take {}: lower \
                 sending_queue.storage_limit, or make room",
                own.display(),
                free >> 20,
                queue.storage_limit >> 20
            ),
        ),
        Ok(_) => report.good(&what, &format!("{} can be written", own.display())),
        Err(why) => report.bad(
            &what,
            &format!(
                "{} cannot be written: {why}; give tap a folder that it may write to in \
                 sending_queue.storage",
                own.display()
            ),
        ),
    }
}

/// The same of the objects' queue.
fn objects_queue(report: &mut Report, capture: &HttpCapture) {
    if let Some(store) = capture.store.as_ref().filter(|_| capture.is_on()) {
        storage(report, object::SIGNAL, store.name(), &capture.sending_queue);
    }
}

/// Whether a file exporter's file can be written.
fn written(report: &mut Report, name: &str, file: &File) {
    let folder = match file.path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let path = file.path.display();
    // What it may come to: the file, and those that were full.
    let most = file
        .rotation
        .filter(|rotation| rotation.max_backups > 0)
        .map(|rotation| rotation.most_bytes().saturating_mul(rotation.max_backups as u64 + 1));
    match writable(folder, file.create_directory) {
        Err(why) => report.bad(
            name,
            &format!(
                "{path} cannot be written: {why}; give a `path` that tap may write to, or set \
                 `create_directory: true`"
            ),
        ),
        Ok(free) if free < 1 << 20 => {
            report.bad(name, &format!("{path} can be written, but the disk is full: make room"));
        }
        Ok(free) if most.is_some_and(|most| free < most) => report.note(
            name,
            &format!(
                "{path} can be written, but {} MiB are free and its files may take {}: lower \
                 `rotation`, or make room",
                free >> 20,
                most.unwrap_or_default() >> 20
            ),
        ),
        Ok(_) => report.good(name, &format!("{path} can be written")),
    }
}

/// Bytes that are free in a folder where a file can be made; or in the nearest that is there, where
/// the folder is to be `made`. Nothing stays of the attempt.
fn writable(folder: &Path, made: bool) -> Result<u64, String> {
    let there = match folder.ancestors().find(|folder| folder.exists()) {
        Some(there) if made || there == folder => there,
        _ => return Err(format!("{} is not there", folder.display())),
    };
    let probe: PathBuf = there.join(format!(".tap-check-{}", std::process::id()));
    let mut options = fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(&probe);
    let why = |error: std::io::Error| format!("{}: {error}", there.display());
    made.map_err(why)?;
    fs::remove_file(&probe).map_err(why)?;
    sys::free_bytes(there).map_err(why)
}

/// Whether the object store takes an object.
fn store(report: &mut Report, capture: &HttpCapture) {
    const WHAT: &str = "object store";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return report.bad(WHAT, &error.to_string()),
    };
    match runtime.block_on(object::probe(capture)) {
        Some(Ok(text)) if capture.is_on() => report.good(WHAT, &text),
        Some(Ok(text)) => {
            let text =
                format!("{text}; nothing is stored, as http_capture has no level above none");
            report.note(WHAT, &text);
        }
        Some(Err(text)) => report.bad(WHAT, &text),
        None => {}
    }
}

/// The first address of the endpoint's that takes a connection.
fn reach(endpoint: &http::Uri) -> Result<SocketAddr, String> {
    let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
    let default = if endpoint.scheme_str() == Some("https") { 443 } else { 80 };
    let port = endpoint.port_u16().unwrap_or(default);
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(address),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(last)
}

/// Lines of the report, as they are found.
#[derive(Default)]
struct Report {
    bad: usize,
}

impl Report {
    fn good(&mut self, what: &str, text: &str) {
        println!("ok    {what:<20} {text}");
    }

    fn note(&mut self, what: &str, text: &str) {
        println!("note  {what:<20} {text}");
    }

    fn bad(&mut self, what: &str, text: &str) {
        self.bad += 1;
        println!("FAIL  {what:<20} {text}");
    }

    fn end(self) -> Result<(), Failure> {
        match self.bad {
            0 => Ok(()),
            1 => Err(Failure::runtime("1 thing is missing (marked FAIL above)")),
            n => Err(Failure::runtime(format!("{n} things are missing (marked FAIL above)"))),
        }
    }
}
