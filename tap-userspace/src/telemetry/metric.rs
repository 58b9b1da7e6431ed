//! tap's own numbers: a small registry of counters and gauges. Stages put numbers in, `/metrics`
//! reads them as text and [`super::meter`] sends them by OTLP.
//!
//! A number is either held here ([`Registry::counter`], looked up once, then an atomic) or read
//! when somebody asks ([`Registry::source`]), where several numbers must be of one moment.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// What a number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It comes and goes.
    Gauge,
}

/// A family of numbers that differ in their labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// `tap_<stage>_<what>_<unit>_total`.
    pub name: &'static str,
    /// One sentence on it.
    pub help: &'static str,
    /// What it does.
    pub kind: Kind,
}

impl Family {
    /// A family of counters.
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Counter }
    }

    /// A family of gauges.
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge }
    }
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its family's name.
    pub name: &'static str,
    /// What tells it from others of its family.
    pub labels: Vec<(&'static str, String)>,
    /// The number.
    pub value: u64,
}

/// A number held in the registry. Clones are the same number.
#[derive(Clone, Debug, Default)]
pub struct Number(Arc<AtomicU64>);

impl Number {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Sets it, if it is a gauge.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The number.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Where numbers are read together.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Puts one in.
    pub fn put(&mut self, family: &Family, labels: &[(&'static str, &str)], value: u64) {
        self.0.push(Sample { name: family.name, labels: owned(labels), value });
    }
}

/// Form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

type Source = Arc<dyn Fn(&mut Samples) + Send + Sync>;
type Watcher = Box<dyn Fn(&Family) + Send + Sync>;

#[derive(Default)]
struct Inner {
    families: Vec<Family>,
    held: Vec<(Sample, Number)>,
    sources: Vec<Source>,
    watchers: Vec<Arc<Watcher>>,
}

/// All of tap's numbers.
#[derive(Default)]
pub struct Registry(Mutex<Inner>);

impl Registry {
    /// The number of `family` with these labels; the same one when asked again.
    pub fn number(&self, family: Family, labels: &[(&'static str, &str)]) -> Number {
        self.declare(&[family]);
        let sample = Sample { name: family.name, labels: owned(labels), value: 0 };
        let mut inner = self.lock();
        if let Some((_, number)) = inner.held.iter().find(|(known, _)| *known == sample) {
            return number.clone();
        }
        let number = Number::default();
        inner.held.push((sample, number.clone()));
        number
    }

    /// Numbers of `families` that `read` puts in whenever somebody asks.
    pub fn source(&self, families: &[Family], read: impl Fn(&mut Samples) + Send + Sync + 'static) {
        self.declare(families);
        self.lock().sources.push(Arc::new(read));
    }

    /// Calls `watcher` with every family, those to come included.
    pub fn watch(&self, watcher: impl Fn(&Family) + Send + Sync + 'static) {
        let watcher: Arc<Watcher> = Arc::new(Box::new(watcher));
        let families = {
            let mut inner = self.lock();
            inner.watchers.push(watcher.clone());
            inner.families.clone()
        };
        families.iter().for_each(|family| watcher(family));
    }

    /// All numbers, each source asked once.
    pub fn samples(&self) -> Vec<Sample> {
        let (mut samples, sources) = {
            let inner = self.lock();
            let held = inner.held.iter();
            let held =
                held.map(|(sample, number)| Sample { value: number.value(), ..sample.clone() });
            (Samples(held.collect()), inner.sources.clone())
        };
        // A source may take its own locks, so none is held here.
        sources.iter().for_each(|read| read(&mut samples));
        samples.0
    }

    /// All numbers as text, families in the order they were declared in.
    pub fn render(&self, format: Format) -> String {
        let families = self.lock().families.clone();
        let samples = self.samples();
        let mut out = String::with_capacity(4096);
        for family in &families {
            render_family(&mut out, family, format);
            for sample in samples.iter().filter(|sample| sample.name == family.name) {
                render_sample(&mut out, sample);
            }
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }

    fn declare(&self, families: &[Family]) {
        for family in families {
            let watchers = {
                let mut inner = self.lock();
                if inner.families.iter().any(|known| known.name == family.name) {
                    continue;
                }
                inner.families.push(*family);
                inner.watchers.clone()
            };
            watchers.iter().for_each(|watcher| watcher(family));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("families", &self.lock().families).finish()
    }
}

fn owned(labels: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

fn render_family(out: &mut String, family: &Family, format: Format) {
    let Family { name, help, kind } = family;
    // OpenMetrics names a family of counters without the suffix that its samples have.
    let name = match (format, kind) {
        (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    };
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    // Writing to a string cannot fail.
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}").unwrap_or_default();
}

fn render_sample(out: &mut String, sample: &Sample) {
    out.push_str(sample.name);
    for (i, (name, value)) in sample.labels.iter().enumerate() {
        out.push(if i == 0 { '{' } else { ',' });
        out.push_str(name);
        out.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                other => out.push(other),
            }
        }
        out.push('"');
    }
    if !sample.labels.is_empty() {
        out.push('}');
    }
    writeln!(out, " {}", sample.value).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Family = Family::counter("tap_records_seen_total", "Records due.");
    const OPEN: Family = Family::gauge("tap_connection_open", "Connections in the table.");

    #[test]
    fn numbers_render_in_both_forms() {
        let registry = Registry::default();
        registry.number(SEEN, &[("kind", "a\"b\\c\n")]).add(2);
        registry.number(SEEN, &[("kind", "a\"b\\c\n")]).add(1);
        registry.source(&[OPEN], |samples| samples.put(&OPEN, &[], 7));
        let body = "tap_records_seen_total{kind=\"a\\\"b\\\\c\\n\"} 3\n\
                    # HELP tap_connection_open Connections in the table.\n\
                    # TYPE tap_connection_open gauge\n\
                    tap_connection_open 7\n";
        assert_eq!(
            registry.render(Format::Prometheus),
            format!(
                "# HELP tap_records_seen_total Records due.\n\
                 # TYPE tap_records_seen_total counter\n{body}"
            )
        );
        assert_eq!(
            registry.render(Format::OpenMetrics),
            format!(
                "# HELP tap_records_seen Records due.\n\
                 # TYPE tap_records_seen counter\n{body}# EOF\n"
            )
        );
    }

    #[test]
    fn a_watcher_sees_families_of_before_and_after() {
        let registry = Registry::default();
        registry.number(SEEN, &[]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = seen.clone();
        registry.watch(move |family| into.lock().unwrap().push(family.name));
        registry.source(&[OPEN, SEEN], |_| {});
        assert_eq!(*seen.lock().unwrap(), [SEEN.name, OPEN.name]);
    }
}
