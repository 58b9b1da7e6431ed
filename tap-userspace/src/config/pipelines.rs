//! Which processors and exporters each signal goes to. Comes in: the configuration file and the environment; goes
//! out: [`Pipelines`], settings of every exporter that is on.
//!
//! The environment adds to the file: an exporter of the file is on unless the signal's
//! `OTEL_<SIGNAL>_EXPORTER` is `none`, and what that variable names is on as well. Without
//! `service.pipelines` every exporter of the file serves every signal that it can.

use std::sync::Arc;

use super::{
    environment::{self, Environment, Exporter as Variable, Signal},
    exporters::{self, ENVIRONMENTS, Exporter},
    file::Config,
    processors::{Batch, Processor},
};

/// What is on.
#[derive(Clone, Debug, Default)]
pub struct Pipelines {
    traces: Signals,
    logs: Signals,
    metrics: Signals,
    /// Nobody has said anything of exporters, and connections may be printed.
    pub bare: bool,
    /// Their processors may become others while tap runs.
    pub live: bool,
}

/// The ways of one signal.
#[derive(Clone, Debug, Default)]
struct Signals {
    destinations: Vec<Destination>,
    lines: Vec<Line>,
}

/// One pipeline.
#[derive(Clone, Debug)]
pub struct Line {
    /// `signal` or `signal/name`.
    pub name: Arc<str>,
    /// What is done to items, in this order.
    pub processors: Vec<(Arc<str>, Processor)>,
    /// Where they go, by the index of each destination.
    pub to: Vec<usize>,
}

impl Line {
    /// Whether something is done to items before they are brought together.
    pub fn has_steps(&self) -> bool {
        self.processors.iter().any(|(_, processor)| !matches!(processor, Processor::Batch(_)))
    }
}

/// One exporter of one signal.
#[derive(Clone, Debug)]
pub struct Destination {
    /// `type` or `type/name`.
    pub name: Arc<str>,
    /// The exporter.
    pub to: To,
    /// How its pipeline brings items together.
    pub batch: Option<Batch>,
}

/// Where an exporter leads to.
#[derive(Clone, Debug)]
pub enum To {
    /// A collector: the way there, and how what goes there waits.
    Otlp(Box<environment::Otlp>, Box<exporters::Otlp>),
    /// Standard output.
    Console,
    /// A file.
    File(Box<exporters::File>),
}

/// Why an exporter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that it names.
    #[error(transparent)]
    Environment(#[from] environment::Error),
    /// A pipeline leads to it, and it has no endpoint for that.
    #[error(
        "service.pipelines.{signal} leads to `{name}`, which has no endpoint for {signal}: give it \
         an `endpoint` or a `{signal}_endpoint`"
    )]
    Endpoint {
        /// The signal.
        signal: &'static str,
        /// The exporter.
        name: Arc<str>,
    },
}

impl Pipelines {
    /// What the file and the environment make together.
    pub fn resolve(config: &Config, environment: &Environment) -> Result<Self, Error> {
        let of = |signal| {
            let mut destinations = destinations(config, environment, signal)?;
            let lines = lines(config, signal, &mut destinations);
            Ok::<_, Error>(Signals { destinations, lines })
        };
        Ok(Self {
            traces: of(Signal::Traces)?,
            logs: of(Signal::Logs)?,
            metrics: of(Signal::Metrics)?,
            bare: !environment.is_set() && config.exporters.is_empty(),
            live: false,
        })
    }

    fn signals(&self, signal: Signal) -> &Signals {
        match signal {
            Signal::Traces => &self.traces,
            Signal::Logs => &self.logs,
            Signal::Metrics => &self.metrics,
        }
    }

    /// The exporters of a signal, each once.
    pub fn of(&self, signal: Signal) -> &[Destination] {
        &self.signals(signal).destinations
    }

    /// The pipelines of a signal.
    pub fn lines(&self, signal: Signal) -> &[Line] {
        &self.signals(signal).lines
    }

    /// Every exporter of every signal.
    pub fn all(&self) -> impl Iterator<Item = (Signal, &Destination)> {
        let of = |signal| self.of(signal).iter().map(move |destination| (signal, destination));
        Signal::ALL.into_iter().flat_map(of)
    }

    /// Exporters of the file that no pipeline leads to.
    pub fn idle<'a>(&self, config: &'a Config) -> Vec<&'a str> {
        let used = |name: &str| self.all().any(|(_, destination)| &*destination.name == name);
        let names = config.exporters.iter().map(|(name, _)| &**name);
        names.filter(|name| !used(name)).collect()
    }
}

fn destinations(
    config: &Config,
    environment: &Environment,
    signal: Signal,
) -> Result<Vec<Destination>, Error> {
    if environment.forbids(signal) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    let named: Option<Vec<&str>> = config.service.pipelines.as_ref().map(|pipelines| {
        let names = pipelines.of(signal).flat_map(|(_, pipeline)| &pipeline.exporters);
        names.map(String::as_str).collect()
    });
    for (name, exporter) in config.exporters.iter() {
        if named.as_ref().is_some_and(|named| !named.contains(&&**name)) {
            continue;
        }
        match to(name, exporter, environment, signal)? {
            Some(to) => found.push(Destination { name: name.clone(), to, batch: None }),
            None if named.is_some() => {
                return Err(Error::Endpoint { signal: signal.lower(), name: name.clone() });
            }
            // It can serve others.
            None => {}
        }
    }
    for variable in environment.exporters(signal) {
        let name = match variable {
            Variable::Otlp => ENVIRONMENTS,
            Variable::Console => "console",
            Variable::Prometheus => continue,
        };
        let prints = *variable == Variable::Console;
        let there = |it: &Destination| *it.name == *name || prints && matches!(it.to, To::Console);
        if found.iter().any(there) {
            continue;
        }
        let default = match variable {
            Variable::Otlp => Exporter::Otlp(Box::default()),
            _ => Exporter::Console,
        };
        let (name, exporter) = match config.exporters.find(name) {
            Some((name, exporter)) => (name.clone(), exporter),
            None => (name.into(), &default),
        };
        if let Some(to) = to(&name, exporter, environment, signal)? {
            found.push(Destination { name, to, batch: None });
        }
    }
    Ok(found)
}

/// The pipelines of a signal. What only the environment names goes through the first of them.
fn lines(config: &Config, signal: Signal, destinations: &mut [Destination]) -> Vec<Line> {
    let pipelines = config.service.pipelines.iter().flat_map(|all| all.of(signal));
    let mut lines: Vec<Line> = pipelines
        .map(|(id, pipeline)| Line {
            name: id.name.clone(),
            processors: pipeline
                .processors
                .iter()
                .filter_map(|name| config.processors.find(name))
                .map(|(name, processor)| (name.clone(), processor.clone()))
                .collect(),
            to: (0..destinations.len())
                .filter(|&index| {
                    pipeline.exporters.iter().any(|name| **name == *destinations[index].name)
                })
                .collect(),
        })
        .collect();
    if lines.is_empty() {
        lines.push(Line { name: signal.lower().into(), processors: Vec::new(), to: Vec::new() });
    }
    let first = lines.iter().position(|line| &*line.name == signal.lower()).unwrap_or(0);
    for index in 0..destinations.len() {
        if !lines.iter().any(|line| line.to.contains(&index)) {
            lines[first].to.push(index);
        }
    }
    for line in &lines {
        let batch = line.processors.iter().rev().find_map(|(_, processor)| match processor {
            Processor::Batch(batch) => Some(*batch),
            _ => None,
        });
        let Some(batch) = batch else { continue };
        for &index in &line.to {
            destinations[index].batch.get_or_insert(batch);
        }
    }
    lines
}

/// Where an exporter has a signal go, if it serves that.
fn to(
    name: &Arc<str>,
    exporter: &Exporter,
    environment: &Environment,
    signal: Signal,
) -> Result<Option<To>, Error> {
    Ok(match exporter {
        Exporter::Otlp(block) => {
            let way = match &**name {
                ENVIRONMENTS => Some(environment.otlp(signal).clone()),
                _ => environment::Otlp::named(name, block, signal)?,
            };
            way.map(|way| To::Otlp(Box::new(way), block.clone()))
        }
        Exporter::Console => Some(To::Console),
        Exporter::File(file) => Some(To::File(file.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(yaml: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let config = Config::parse(yaml).map_err(|error| error.to_string())?;
        let environment = Environment::read_over(variables.iter().copied(), &config)
            .map_err(|error| error.to_string())?;
        let pipelines =
            Pipelines::resolve(&config, &environment).map_err(|error| error.to_string())?;
        let names = |signal| {
            let names: Vec<_> = pipelines.of(signal).iter().map(|it| &*it.name).collect();
            names.join("+")
        };
        let [traces, logs, metrics] = Signal::ALL.map(names);
        Ok(format!("{traces} {logs} {metrics}{}", if pipelines.bare { " bare" } else { "" }))
    }

    #[test]
    fn the_environment_adds_to_the_file_and_none_wins() {
        const TWO: &str = "exporters: { otlp: {}, otlp/b: { endpoint: 'b:4317' } }\n";
        let piped =
            format!("{TWO}service: {{ pipelines: {{ traces: {{ exporters: [otlp/b] }} }} }}");
        let traces = "exporters: { otlphttp/x: { traces_endpoint: 'http://x/t' }, console: }";
        let [otlp, none, console] =
            ["otlp", "none", "console"].map(|value| ("OTEL_TRACES_EXPORTER", value));
        let prometheus = ("OTEL_METRICS_EXPORTER", "prometheus");
        for (yaml, variables, expected) in [
            ("{}", &[][..], "   bare"),
            ("{}", &[otlp], "otlp  "),
            ("{}", &[none], "  "),
            ("{}", &[("OTEL_TRACES_EXPORTER", "console,otlp"), prometheus], "console+otlp  "),
            (TWO, &[], "otlp+otlp/b otlp+otlp/b otlp+otlp/b"),
            (TWO, &[none], " otlp+otlp/b otlp+otlp/b"),
            (TWO, &[console], "otlp+otlp/b+console otlp+otlp/b otlp+otlp/b"),
            ("exporters: { debug: }", &[console], "debug debug debug"),
            (TWO, &[("OTEL_TRACES_EXPORTER", "zipkin")], "otlp+otlp/b otlp+otlp/b otlp+otlp/b"),
            (TWO, &[("OTEL_SDK_DISABLED", "true")], "  "),
            (&piped, &[], "otlp/b  "),
            (&piped, &[otlp], "otlp/b+otlp  "),
            (&piped, &[none, ("OTEL_LOGS_EXPORTER", "otlp")], " otlp "),
            (traces, &[], "otlphttp/x+console console console"),
            (traces, &[prometheus], "otlphttp/x+console console console"),
        ] {
            assert_eq!(of(yaml, variables).as_deref(), Ok(expected), "{yaml} {variables:?}");
        }
        let wanted = "exporters: { otlphttp/x: { traces_endpoint: 'http://x/t' } }\n\
                      service: { pipelines: { logs: { exporters: [otlphttp/x] } } }";
        assert!(of(wanted, &[]).unwrap_err().contains("no endpoint for logs"));
        let unread = "exporters: { otlp/x: { endpoint: 'x:1', tls: { ca_file: /nowhere/ca } } }";
        let error = of(unread, &[]).unwrap_err();
        assert!(error.contains("exporters.otlp/x.tls.ca_file=/nowhere/ca"), "{error}");
    }

    /// Protocol, endpoint, compression, seconds of timeout, and headers.
    fn way(yaml: &str, variables: &[(&str, &str)], signal: Signal) -> String {
        let config = Config::parse(yaml).unwrap();
        let environment = Environment::read_over(variables.iter().copied(), &config).unwrap();
        let pipelines = Pipelines::resolve(&config, &environment).unwrap();
        let To::Otlp(way, _) = &pipelines.of(signal)[0].to else { panic!("{pipelines:?}") };
        let headers: Vec<_> = way
            .headers
            .iter()
            .map(|(name, value)| format!(" {name}={}", value.to_str().unwrap()))
            .collect();
        format!(
            "{} {} {:?} {}{}",
            way.protocol.name(),
            way.endpoint,
            way.compression,
            way.timeout.map_or(0, |timeout| timeout.as_secs()),
            headers.concat()
        )
    }

    #[test]
    fn who_says_the_endpoint_sets_the_defaults() {
        const TRACE: &str = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://e:1");
        for (yaml, variables, expected) in [
            (
                "otlp: {}",
                &[][..],
                "http/protobuf http://localhost:4318/v1/traces None 10".to_owned(),
            ),
            ("otlp: {}", &[endpoint], "http/protobuf http://e:1/v1/traces None 10".to_owned()),
            ("otlp: { endpoint: 'f:4317' }", &[], format!("grpc https://f:4317/{TRACE} Gzip 5")),
            (
                "otlp: { endpoint: 'f:4317' }",
                &[endpoint],
                "http/protobuf http://e:1/v1/traces None 10".to_owned(),
            ),
            (
                "otlp: { endpoint: 'http://f:4317', headers: { a: b }, timeout: 0s }",
                &[
                    ("OTEL_EXPORTER_OTLP_HEADERS", "c=d"),
                    ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
                ],
                format!("grpc http://f:4317/{TRACE} Zstd 0 c=d"),
            ),
            (
                "otlp: { headers: { a: b }, compression: zstd, timeout: 1m }",
                &[endpoint],
                "http/protobuf http://e:1/v1/traces Zstd 60 a=b".to_owned(),
            ),
            // Another one's variables are not its own: they may hold secrets.
            (
                "otlp/b: { endpoint: 'f:4317', tls: { insecure: true } }",
                &[
                    endpoint,
                    ("OTEL_EXPORTER_OTLP_HEADERS", "c=d"),
                    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
                    ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
                ],
                format!("grpc http://f:4317/{TRACE} Gzip 5"),
            ),
            (
                "otlp/b: { endpoint: 'https://f:4318/x/' }",
                &[],
                "http/protobuf https://f:4318/x/v1/traces Gzip 30".to_owned(),
            ),
            (
                "otlp/b: { endpoint: 'https://f:9', protocol: http/json, compression: none }",
                &[],
                "http/json https://f:9/v1/traces None 30".to_owned(),
            ),
            (
                "otlphttp: { endpoint: 'http://f', encoding: json, traces_endpoint: 'http://t/x' }",
                &[],
                "http/json http://t/x Gzip 30".to_owned(),
            ),
            (
                "otlp_grpc: { endpoint: 'f:4318', headers: { a: 7 } }",
                &[],
                format!("grpc https://f:4318/{TRACE} Gzip 5 a=7"),
            ),
        ] {
            let yaml = format!("exporters: {{ {yaml} }}");
            assert_eq!(way(&yaml, variables, Signal::Traces), expected, "{yaml} {variables:?}");
        }
    }
}
