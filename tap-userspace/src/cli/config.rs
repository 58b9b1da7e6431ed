//! `tap config`: whether the configuration is right and what it would do, its JSON Schema, and what is
//! in force of it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, Global};
use crate::config::{
    environment::{Environment, Signal},
    file::{Config, Direction, HttpPayload},
    load::{ConfigError, DEFAULT_PATH, Loaded},
    pipelines::{Destination, Pipelines, To},
    schema, show,
};

/// Flags of `tap config`.
#[derive(Clone, Debug, Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Check the configuration, tell each mistake with line and column, and say what it would do.
    Validate(Which),
    /// Print the JSON Schema of the configuration.
    Schema,
    /// Print the configuration in force, defaults included and secrets masked.
    Show(Which),
}

#[derive(Clone, Debug, Args)]
struct Which {
    /// The file, if it is another than --config names.
    file: Option<PathBuf>,
}

/// Runs the command.
pub fn config(global: &Global, arguments: &ConfigArguments) -> Result<(), Failure> {
    let place = |which: &Which| which.file.clone().or_else(|| global.config.clone());
    match &arguments.command {
        What::Validate(which) => validate(place(which).as_deref()),
        What::Schema => {
            print!("{}", schema::json());
            Ok(())
        }
        What::Show(which) => {
            let loaded = load(place(which).as_deref()).map_err(Failure::usage)?;
            for warning in &loaded.warnings {
                tracing::warn!("{warning}.");
            }
            print!("{}", show::yaml(&loaded.config).map_err(Failure::runtime)?);
            Ok(())
        }
    }
}

/// The file that is named, or the default one, or none.
fn load(named: Option<&Path>) -> Result<Loaded, ConfigError> {
    match Config::place(named) {
        Some(path) => Loaded::read(path),
        None => Ok(Loaded::default()),
    }
}

fn validate(named: Option<&Path>) -> Result<(), Failure> {
    let place = Config::place(named);
    let shown = match place {
        Some(path) => path.display().to_string(),
        None => format!("no file (there is no {DEFAULT_PATH})"),
    };
    let loaded = match load(named) {
        Ok(loaded) => loaded,
        Err(error) => {
            let lines = error.lines();
            for line in &lines {
                println!("{line}");
            }
            return Err(Failure::usage(match lines.len() {
                1 => format!("{shown} cannot be used: 1 mistake"),
                count => format!("{shown} cannot be used: {count} mistakes"),
            }));
        }
    };
    let environment = Environment::from_process(&loaded.config).map_err(Failure::usage)?;
    let pipelines = Pipelines::resolve(&loaded.config, &environment).map_err(Failure::usage)?;
    for warning in &loaded.warnings {
        println!("warning: {shown}:{warning}");
    }
    for warning in warnings(&loaded.config, &environment, &pipelines) {
        println!("warning: {warning}");
    }
    println!("{shown}: valid");
    for (what, text) in effects(&loaded.config, &pipelines) {
        println!("{what:<8} {text}");
    }
    Ok(())
}

/// What is right, and will hardly do what was meant.
fn warnings(config: &Config, environment: &Environment, pipelines: &Pipelines) -> Vec<String> {
    let mut found = Vec::new();
    for exporter in pipelines.idle(config) {
        found.push(format!("exporters.{exporter}: no pipeline leads to it, so it is off"));
    }
    for signal in Signal::ALL {
        let lower = signal.lower();
        if !pipelines.of(signal).is_empty() {
            continue;
        }
        for (id, _) in config.service.pipelines.iter().flat_map(|them| them.of(signal)) {
            found.push(format!(
                "service.pipelines.{}: no exporter serves it, as OTEL_{}_EXPORTER or \
                 OTEL_SDK_DISABLED switches {lower} off",
                id.name,
                lower.to_uppercase()
            ));
        }
    }
    for (name, _) in config.processors.iter() {
        let of = |signal| pipelines.lines(signal).iter();
        let mut lines = Signal::ALL.into_iter().flat_map(of);
        if !lines.any(|line| line.processors.iter().any(|(used, _)| used == name)) {
            found.push(format!("processors.{name}: it is in no pipeline that is on"));
        }
    }
    let none = |signal| pipelines.of(signal).is_empty();
    if (config.http.spans || config.db.spans) && none(Signal::Traces) && !pipelines.bare {
        found.push("http.spans, db.spans: no exporter of spans is on".into());
    }
    if config.connection.logs && none(Signal::Logs) {
        found.push("connection.logs: no exporter of log records is on".into());
    }
    let off = config.capture.payload.http == HttpPayload::Off;
    if off && (config.http.spans || config.db.spans || config.http_capture.is_on()) {
        found.push("capture.payload.http: nothing is read of exchanges, so there are none".into());
    }
    let capture = &config.http_capture;
    let wants = capture.level != Default::default() || !capture.rules.is_empty();
    if wants && capture.store.is_none() {
        found.push("http_capture: there is no `store`, so nothing is stored".into());
    }
    if capture.store.is_some() && !capture.is_on() {
        found.push("http_capture: no `level` is above none, so nothing is stored".into());
    }
    let all = config.capture.exclude.iter().any(|rule| config.capture.include.contains(rule));
    if all {
        found.push("capture: a rule is under `include` and `exclude`; `exclude` wins".into());
    }
    for finding in environment.findings().iter().filter(|finding| finding.is_warning()) {
        found.push(format!("{}: {}", finding.variable, finding.effect));
    }
    found
}

/// What it would do, by part.
fn effects(config: &Config, pipelines: &Pipelines) -> Vec<(&'static str, String)> {
    let capture = &config.capture;
    let whose = match capture.direction {
        Direction::All => "connections",
        Direction::Ingress => "connections accepted here",
        Direction::Egress => "connections opened here",
    };
    let loopback = if capture.loopback { "" } else { ", none within the host" };
    let rules = match (capture.include.len(), capture.exclude.len()) {
        (0, 0) => String::new(),
        (0, out) => format!(", but what {out} rules exclude"),
        (only, 0) => format!(", of them what {only} rules include"),
        (only, out) => format!(", of them what {only} rules include and {out} do not exclude"),
    };
    let mut list = vec![("capture", format!("{whose}{loopback}{rules}"))];
    for signal in Signal::ALL {
        let destinations = pipelines.of(signal);
        for line in pipelines.lines(signal).iter().filter(|line| !line.processors.is_empty()) {
            let names = line.processors.iter().map(|(name, _)| &**name);
            let to = line.to.iter().filter_map(|at| destinations.get(*at)).map(|it| &*it.name);
            let way: Vec<_> = names.chain(to).collect();
            list.push((signal.lower(), format!("{}: {}", line.name, way.join(" → "))));
        }
        let to: Vec<_> = destinations.iter().map(destination).collect();
        let text = match &*to {
            [] if signal == Signal::Traces && pipelines.bare => "printed".to_owned(),
            [] => "off".to_owned(),
            to => to.join(", "),
        };
        list.push((signal.lower(), text));
    }
    if let Some(store) = config.http_capture.store.as_ref().filter(|_| config.http_capture.is_on())
    {
        list.push(("objects", store.name().to_owned()));
    }
    list
}

fn destination(Destination { name, to, .. }: &Destination) -> String {
    match to {
        To::Otlp(way, _) => format!("{name} ({} {})", way.protocol.name(), way.endpoint),
        To::Console => format!("{name} (standard output)"),
        To::File(file) => format!("{name} ({})", file.path.display()),
    }
}
