//! The `OTEL_*` environment (SPEC §5): variables in, settings and [`Finding`]s out. What cannot be
//! understood is warned about and ignored, an empty value is unset, and what cannot be used at all
//! is an [`Error`].

mod otlp;
mod values;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use self::values::Values;
pub(crate) use self::values::percent_decode;
pub use self::{
    otlp::{Compression, Otlp, Protocol, Signal, Tls, check_endpoint},
    values::Finding,
};
use super::{
    exporters::{self, ENVIRONMENTS},
    file::Config,
};
use crate::{
    policy::sample::Sampler,
    telemetry::{
        limits::Limits,
        metric::{histogram::Aggregation, otlp::Temporality},
    },
};

/// A variable whose value cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not an endpoint.
    #[error("{variable}={value} cannot be used: {why}; give a URL such as {example}")]
    Endpoint {
        /// The variable.
        variable: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
        /// One that could be used.
        example: &'static str,
    },
    /// A certificate or key that cannot be read.
    #[error("{variable}={} cannot be used: {why}; give a PEM file that tap may read", path.display())]
    File {
        /// The variable.
        variable: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Where a signal goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exporter {
    /// To a collector.
    Otlp,
    /// To standard output, as JSON lines.
    Console,
    /// To `/metrics` of the admin address.
    Prometheus,
}

/// `OTEL_METRICS_EXEMPLAR_FILTER`: which measurements may become exemplars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExemplarFilter {
    /// All.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// Those of sampled traces.
    #[default]
    TraceBased,
}

/// `OTEL_BSP_*`, and `OTEL_BLRP_*` for log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Spans that may wait (`OTEL_BSP_MAX_QUEUE_SIZE`). The specification's default of 2,048 is a
    /// tenth of a second of a busy host's connections, so a short stall of the collector would
    /// lose spans; unset it is 65,536 here, and [`Self::max_bytes`] holds as well.
    pub max_queue: usize,
    /// Bytes of memory that waiting spans may have.
    pub max_bytes: usize,
    /// Spans in one request (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub max_batch: usize,
    /// Longest wait for a batch to fill (`OTEL_BSP_SCHEDULE_DELAY`).
    pub delay: Duration,
    /// Longest time for one batch, retries included (`OTEL_BSP_EXPORT_TIMEOUT`). Its default in
    /// the specification, 30 s, ends retries early where a collector restarts slowly; unset it is
    /// 5 minutes here, as in the Collector. `None` is without end.
    pub give_up: Option<Duration>,
}

impl Default for Batching {
    fn default() -> Self {
        Self {
            max_queue: 65_536,
            max_bytes: 64 << 20,
            max_batch: 512,
            delay: Duration::from_millis(5_000),
            give_up: Some(Duration::from_secs(300)),
        }
    }
}

impl Batching {
    /// The defaults for log records, which wait for a second only, as the specification has it.
    fn of_logs() -> Self {
        Self { delay: Duration::from_millis(1_000), ..Self::default() }
    }
}

/// `OTEL_METRIC_EXPORT_*` and what else concerns metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metering {
    /// Between two exports (`OTEL_METRIC_EXPORT_INTERVAL`).
    pub interval: Duration,
    /// Longest time for one export, retries included (`OTEL_METRIC_EXPORT_TIMEOUT`); `None` is
    /// without end.
    pub give_up: Option<Duration>,
    /// `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`.
    pub aggregation: Aggregation,
    /// `OTEL_METRICS_EXEMPLAR_FILTER`.
    pub exemplars: ExemplarFilter,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
    pub temporality: Temporality,
}

/// `OTEL_<SIGNAL>_EXPORTER`.
#[derive(Clone, Debug, Default)]
struct Said {
    /// It is set.
    set: bool,
    /// It is `none`, and nothing else.
    none: bool,
    exporters: Vec<Exporter>,
}

/// All that the environment says.
#[derive(Clone, Debug)]
pub struct Environment {
    any: bool,
    disabled: bool,
    service_name: Option<String>,
    resource: Vec<(String, String)>,
    traces: Said,
    logs: Said,
    metrics: Said,
    otlp_traces: Otlp,
    otlp_logs: Otlp,
    otlp_metrics: Otlp,
    batching: Batching,
    log_batching: Batching,
    metering: Metering,
    limits: Limits,
    log_limits: Limits,
    sampler: Sampler,
    findings: Vec<Finding>,
}

impl Environment {
    /// The environment of this process, over `file`.
    pub fn from_process(file: &Config) -> Result<Self, Error> {
        Self::read_over(std::env::vars_os(), file)
    }

    /// The environment that these variables make, over an empty file.
    pub fn read<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Error> {
        Self::read_over(variables, &Config::default())
    }

    /// The environment that these variables make; what `file` says of the exporter `otlp` holds
    /// where they are silent.
    pub fn read_over<N: Into<OsString>, V: Into<OsString>>(
        variables: impl IntoIterator<Item = (N, V)>,
        file: &Config,
    ) -> Result<Self, Error> {
        let mut values =
            Values::new(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        let any = values.any();
        let disabled = values.flag("OTEL_SDK_DISABLED").unwrap_or(false);
        let service_name = values.text("OTEL_SERVICE_NAME");
        let resource = values.pairs("OTEL_RESOURCE_ATTRIBUTES", true).unwrap_or_default();
        let traces = exporters(&mut values, Signal::Traces);
        let logs = exporters(&mut values, Signal::Logs);
        let metrics = exporters(&mut values, Signal::Metrics);
        let name: Arc<str> = ENVIRONMENTS.into();
        let none = exporters::Otlp::default();
        let block = file.exporters.environments().unwrap_or(&none);
        let otlp_traces = Otlp::read(&mut values, Signal::Traces, &name, block)?;
        let otlp_logs = Otlp::read(&mut values, Signal::Logs, &name, block)?;
        let otlp_metrics = Otlp::read(&mut values, Signal::Metrics, &name, block)?;
        let batching = read_batching(&mut values, "OTEL_BSP", Batching::default());
        let log_batching = read_batching(&mut values, "OTEL_BLRP", Batching::of_logs());
        let metering = metering(&mut values);
        let limits = span_limits(&mut values);
        let log_limits = log_limits(&mut values);
        log_level(&mut values);
        propagators(&mut values);
        let sampler = sampler(&mut values);
        for (signal, said) in
            [(Signal::Traces, &traces), (Signal::Logs, &logs), (Signal::Metrics, &metrics)]
        {
            if !said.set && !file.names_exporters_for(signal) {
                warn_if_off(&mut values, signal);
            }
        }
        Ok(Self {
            any,
            disabled,
            service_name,
            resource,
            traces,
            logs,
            metrics,
            otlp_traces,
            otlp_logs,
            otlp_metrics,
            batching,
            log_batching,
            metering,
            limits,
            log_limits,
            sampler,
            findings: values.into_findings(),
        })
    }

    /// Whether any `OTEL_*` variable is set.
    pub const fn is_set(&self) -> bool {
        self.any
    }

    /// `OTEL_SDK_DISABLED`: nothing is exported.
    pub const fn disabled(&self) -> bool {
        self.disabled
    }

    /// `OTEL_SERVICE_NAME`.
    pub fn service_name(&self) -> Option<&str> {
        self.service_name.as_deref()
    }

    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded.
    pub fn resource(&self) -> &[(String, String)] {
        &self.resource
    }

    /// Where the environment has a signal go; nowhere where its variable is unset, `none`, or the
    /// SDK is disabled. The file may have more ([`super::pipelines`]).
    pub fn exporters(&self, signal: Signal) -> &[Exporter] {
        if self.disabled { &[] } else { &self.said(signal).exporters }
    }

    /// Whether the environment forbids a signal, whatever the file says.
    pub const fn forbids(&self, signal: Signal) -> bool {
        self.disabled || self.said(signal).none
    }

    const fn said(&self, signal: Signal) -> &Said {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Logs => &self.logs,
            Signal::Metrics => &self.metrics,
        }
    }

    /// How a signal goes by OTLP.
    pub const fn otlp(&self, signal: Signal) -> &Otlp {
        match signal {
            Signal::Traces => &self.otlp_traces,
            Signal::Logs => &self.otlp_logs,
            Signal::Metrics => &self.otlp_metrics,
        }
    }

    /// How items of a signal are queued and batched.
    pub const fn batching(&self, signal: Signal) -> &Batching {
        match signal {
            Signal::Logs => &self.log_batching,
            Signal::Traces | Signal::Metrics => &self.batching,
        }
    }

    /// How metrics are exported.
    pub const fn metering(&self) -> &Metering {
        &self.metering
    }

    /// How much a span may say.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    /// How much a log record may say.
    pub const fn log_limits(&self) -> Limits {
        self.log_limits
    }

    /// Which traces are kept.
    pub const fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// What each variable does, or why it does nothing.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Logs the warnings among the findings.
    pub fn warn(&self) {
        for finding in self.findings.iter().filter(|finding| finding.is_warning()) {
            tracing::warn!(
                variable = finding.variable,
                value = finding.value,
                "{}",
                finding.effect
            );
        }
    }
}

fn exporters(values: &mut Values, signal: Signal) -> Said {
    let variable = format!("OTEL_{}_EXPORTER", signal.name());
    let Some(list) = values.text(&variable) else { return Said::default() };
    let mut exporters = Vec::new();
    let mut none = false;
    for name in list.split(',').map(str::trim) {
        let exporter = match (&*name.to_ascii_lowercase(), signal) {
            ("otlp", _) => Exporter::Otlp,
            ("console" | "logging", _) => Exporter::Console,
            ("none", _) => {
                none = true;
                continue;
            }
            ("", _) => continue,
            ("prometheus", Signal::Metrics) => {
                values.note(&variable, &list, "metrics are on /metrics of the admin address");
                Exporter::Prometheus
            }
            _ => {
                let allowed = match signal {
                    Signal::Traces | Signal::Logs => "otlp, console, none",
                    Signal::Metrics => "otlp, console, prometheus, none",
                };
                let what =
                    format!("{name:?} is not an exporter of tap's; allowed: {allowed}; ignored");
                values.warn(&variable, &list, &what);
                continue;
            }
        };
        if !exporters.contains(&exporter) {
            exporters.push(exporter);
        }
    }
    Said { set: true, none: none && exporters.is_empty(), exporters }
}

/// Warns of endpoints to which nothing is sent, since `signal` is off.
fn warn_if_off(values: &mut Values, signal: Signal) {
    let endpoints = match signal {
        Signal::Traces => {
            &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"][..]
        }
        Signal::Logs => &["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"][..],
        Signal::Metrics => &["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"][..],
    };
    let (name, lower) = (signal.name(), signal.lower());
    let what = format!(
        "an endpoint is set, but {lower} are off: set OTEL_{name}_EXPORTER=otlp to send them, or \
         OTEL_{name}_EXPORTER=none to be rid of this warning"
    );
    for variable in endpoints {
        if let Some(value) = values.peek(variable) {
            values.warn(variable, &value, &what);
        }
    }
}

fn read_batching(values: &mut Values, prefix: &str, default: Batching) -> Batching {
    let name = |rest: &str| format!("{prefix}_{rest}");
    let max_queue = values.count(&name("MAX_QUEUE_SIZE"), 1).unwrap_or(default.max_queue);
    let variable = &name("MAX_EXPORT_BATCH_SIZE");
    let mut max_batch = values.count(variable, 1).unwrap_or(default.max_batch);
    if max_batch > max_queue {
        if let Some(value) = values.peek(variable) {
            let what = format!("more than the queue holds: batches of {max_queue} instead");
            values.warn(variable, &value, &what);
        }
        max_batch = max_queue;
    }
    Batching {
        max_queue,
        max_batch,
        delay: values.milliseconds(&name("SCHEDULE_DELAY")).unwrap_or(default.delay),
        give_up: values.timeout(&name("EXPORT_TIMEOUT")).unwrap_or(default.give_up),
        max_bytes: default.max_bytes,
    }
}

fn metering(values: &mut Values) -> Metering {
    let wrong = "no interval; allowed: whole milliseconds from 1; ignored";
    let interval = values.parse("OTEL_METRIC_EXPORT_INTERVAL", wrong, |value| {
        value.parse().ok().filter(|interval| *interval > 0).map(Duration::from_millis)
    });
    let timeout = values.timeout("OTEL_METRIC_EXPORT_TIMEOUT");
    let temporalities = [
        ("cumulative", Temporality::Cumulative),
        ("delta", Temporality::Delta),
        ("lowmemory", Temporality::LowMemory),
    ];
    let aggregations = [
        ("explicit_bucket_histogram", Aggregation::Explicit),
        ("base2_exponential_bucket_histogram", Aggregation::Exponential),
    ];
    let filters = [
        ("always_on", ExemplarFilter::AlwaysOn),
        ("always_off", ExemplarFilter::AlwaysOff),
        ("trace_based", ExemplarFilter::TraceBased),
    ];
    let otlp = |what: &str| format!("OTEL_EXPORTER_OTLP_METRICS_{what}");
    Metering {
        interval: interval.unwrap_or(Duration::from_secs(60)),
        give_up: timeout.unwrap_or(Some(Duration::from_secs(30))),
        temporality: values
            .one_of(&otlp("TEMPORALITY_PREFERENCE"), &temporalities)
            .unwrap_or_default(),
        aggregation: values
            .one_of(&otlp("DEFAULT_HISTOGRAM_AGGREGATION"), &aggregations)
            .unwrap_or_default(),
        exemplars: values.one_of("OTEL_METRICS_EXEMPLAR_FILTER", &filters).unwrap_or_default(),
    }
}

/// The limits on attributes of a signal; where one is unset, that for all signals.
fn attribute_limits(values: &mut Values, signal: &str) -> Limits {
    let default = Limits::default();
    let mut limit = |what: &str| {
        let own = values.count(&format!("OTEL_{signal}_ATTRIBUTE_{what}_LIMIT"), 0);
        let all = values.count(&format!("OTEL_ATTRIBUTE_{what}_LIMIT"), 0);
        own.or(all)
    };
    Limits {
        attributes: limit("COUNT").map_or(default.attributes, clamp),
        value_length: limit("VALUE_LENGTH"),
        ..default
    }
}

fn log_limits(values: &mut Values) -> Limits {
    attribute_limits(values, "LOGRECORD")
}

fn span_limits(values: &mut Values) -> Limits {
    let default = attribute_limits(values, "SPAN");
    let mut or = |name: &str, default: u32| values.count(name, 0).map_or(default, clamp);
    Limits {
        events: or("OTEL_SPAN_EVENT_COUNT_LIMIT", default.events),
        links: or("OTEL_SPAN_LINK_COUNT_LIMIT", default.links),
        event_attributes: or("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", default.event_attributes),
        link_attributes: or("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", default.link_attributes),
        ..default
    }
}

/// `OTEL_LOG_LEVEL`: of tap's own log, where nothing else says so (`cli/log.rs`, which starts before
/// the rest of the environment is read).
fn log_level(values: &mut Values) {
    let levels = ["error", "warn", "info", "debug", "trace"].map(|level| (level, ()));
    values.one_of("OTEL_LOG_LEVEL", &levels);
}

/// `OTEL_PROPAGATORS`: tap propagates nothing; of what crosses the wire it understands
/// `tracecontext`.
fn propagators(values: &mut Values) {
    let variable = "OTEL_PROPAGATORS";
    let Some(list) = values.text(variable) else { return };
    let others: Vec<_> = list
        .split(',')
        .map(str::trim)
        .filter(|name| {
            let known = ["tracecontext", "baggage", "none", ""];
            !known.iter().any(|known| known.eq_ignore_ascii_case(name))
        })
        .collect();
    if others.is_empty() {
        values.note(variable, &list, "tap propagates nothing, and reads traceparent");
    } else {
        let what = format!("tap reads traceparent (tracecontext), not {}", others.join(", "));
        values.warn(variable, &list, &what);
    }
}

fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `OTEL_TRACES_SAMPLER` and its argument. A connection's span has no parent, so that
/// `parentbased_x` is `x`.
fn sampler(values: &mut Values) -> Sampler {
    let ratio = Sampler::TraceIdRatio(1.0);
    let allowed = [
        ("always_on", Sampler::AlwaysOn),
        ("always_off", Sampler::AlwaysOff),
        ("traceidratio", ratio),
        ("parentbased_always_on", Sampler::AlwaysOn),
        ("parentbased_always_off", Sampler::AlwaysOff),
        ("parentbased_traceidratio", ratio),
    ];
    let sampler = values.one_of("OTEL_TRACES_SAMPLER", &allowed).unwrap_or(Sampler::AlwaysOn);
    let argument = "OTEL_TRACES_SAMPLER_ARG";
    match sampler {
        Sampler::TraceIdRatio(default) => {
            let what =
                "not a ratio; allowed: a number from 0 to 1; ignored, so all traces are kept";
            let parse = |text: &str| text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
            Sampler::TraceIdRatio(values.parse(argument, what, parse).unwrap_or(default))
        }
        _ => {
            if let Some(value) = values.text(argument) {
                values.note(argument, &value, "not used: the sampler takes no argument");
            }
            sampler
        }
    }
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
