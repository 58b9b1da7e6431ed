//! Block `exporters` of the configuration file: a map of `type` or `type/name` to that exporter's
//! settings. Types, keys, nesting and defaults are the Collector's; what differs is said at the key.

pub mod file;
pub mod otlp;
pub mod queue;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, MapAccess},
};

pub use self::{
    file::File,
    otlp::Otlp,
    queue::{Batch, RetryOnFailure, SendingQueue, Sizer},
};
use super::{
    place::{Mistake, closest, path},
    schema,
};

/// Block `exporters`, in the file's order; no name is there twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exporters(Vec<(Id, Exporter)>);

/// One exporter of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Exporter {
    /// To a collector.
    Otlp(Box<Otlp>),
    /// To standard output; it has no settings.
    Console,
    /// To a file.
    File(Box<File>),
}

/// `type` or `type/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// As it is written.
    pub name: Arc<str>,
    kind: Kind,
}

/// What the part before the slash says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// `otlp`.
    #[default]
    Otlp,
    /// `otlp_grpc`.
    OtlpGrpc,
    /// `otlphttp`, `otlp_http`.
    OtlpHttp,
    /// `console`; `debug` in the Collector.
    Console,
    /// `file`.
    File,
}

const KINDS: [(&str, Kind); 7] = [
    ("otlp", Kind::Otlp),
    ("otlp_grpc", Kind::OtlpGrpc),
    ("otlphttp", Kind::OtlpHttp),
    ("otlp_http", Kind::OtlpHttp),
    ("console", Kind::Console),
    ("debug", Kind::Console),
    ("file", Kind::File),
];

/// Exporters of the Collector (core and contrib, v0.140) that tap has no counterpart of.
const COLLECTORS: &[&str] = &[
    "alertmanager",
    "alibabacloud_logservice",
    "awscloudwatchlogs",
    "awsemf",
    "awskinesis",
    "awss3",
    "awsxray",
    "azureblob",
    "azuredataexplorer",
    "azuremonitor",
    "bmchelix",
    "cassandra",
    "clickhouse",
    "coralogix",
    "datadog",
    "dataset",
    "doris",
    "elasticsearch",
    "faro",
    "googlecloud",
    "googlecloudpubsub",
    "googlecloudstorage",
    "googlemanagedprometheus",
    "honeycombmarker",
    "influxdb",
    "jaeger",
    "kafka",
    "kinetica",
    "loadbalancing",
    "logging",
    "logicmonitor",
    "logzio",
    "loki",
    "mezmo",
    "nop",
    "opencensus",
    "opensearch",
    "otelarrow",
    "prometheus",
    "prometheusremotewrite",
    "pulsar",
    "rabbitmq",
    "sapm",
    "sentry",
    "signalfx",
    "skywalking",
    "splunk_hec",
    "stef",
    "sumologic",
    "syslog",
    "tencentcloud_logservice",
    "tinybird",
    "zipkin",
];

/// Longest name of an exporter: it is a label, and part of a folder's name.
const LONGEST_NAME: usize = 100;

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let Some((_, found)) = KINDS.iter().find(|(known, _)| *known == kind) else {
            return Err(unknown(kind));
        };
        let sound = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
        if name.is_some_and(|name| !sound(name) || name.contains(char::is_control)) {
            return Err(format!("`{text}` is no name: write {kind} or {kind}/backup"));
        }
        if text.len() > LONGEST_NAME {
            return Err(format!("a name of more than {LONGEST_NAME} bytes: write {kind}/backup"));
        }
        Ok(Self { name: text.into(), kind: *found })
    }
}

/// What is said of a type that tap does not have.
fn unknown(kind: &str) -> String {
    let instead = match kind {
        "prometheus" => "tap serves its metrics itself, on /metrics of --admin",
        "logging" => "use `console`",
        "nop" => {
            "set OTEL_TRACES_EXPORTER=none (or …_LOGS_…, …_METRICS_…) for a signal that is to go nowhere"
        }
        _ => "send to a Collector by an `otlp` exporter, and from there by this one",
    };
    if COLLECTORS.contains(&kind) {
        return format!("tap has no exporter of type `{kind}`: {instead}");
    }
    let known = KINDS.map(|(name, _)| name);
    match closest(kind, &known) {
        Some(meant) => format!("`{kind}` is no type of exporter; did you mean `{meant}`?"),
        None => format!("`{kind}` is no type of exporter; there are {}", known.join(", ")),
    }
}

impl Id {
    /// Whether it is the one that the environment's `OTEL_EXPORTER_OTLP_*` speak of.
    pub fn is_the_environments(&self) -> bool {
        &*self.name == ENVIRONMENTS
    }
}

/// Name of the exporter that the environment's `OTEL_EXPORTER_OTLP_*` speak of.
pub const ENVIRONMENTS: &str = "otlp";

impl Exporters {
    /// Name and settings of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Exporter)> {
        self.0.iter().map(|(id, exporter)| (&id.name, exporter))
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &Exporter)> {
        self.iter().find(|(known, _)| &***known == name)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the file says of the exporter that the environment speaks of.
    pub fn environments(&self) -> Option<&Otlp> {
        match self.find(ENVIRONMENTS) {
            Some((_, Exporter::Otlp(otlp))) => Some(otlp),
            _ => None,
        }
    }

    /// The same without queues on disk, for a process that has another's configuration.
    pub fn in_memory(mut self) -> Self {
        for (_, exporter) in &mut self.0 {
            if let Exporter::Otlp(otlp) = exporter
                && let Some(queue) = &mut otlp.sending_queue
            {
                queue.storage = None;
            }
        }
        self
    }

    /// What no key alone shows to be wrong.
    pub fn check(&self) -> Result<(), Mistake> {
        let mut paths: Vec<(&std::path::Path, &str)> = Vec::new();
        for (id, exporter) in &self.0 {
            let at = path(["exporters", &id.name]);
            match exporter {
                Exporter::Otlp(otlp) => otlp.check(id, &at)?,
                Exporter::Console => {}
                Exporter::File(file) => {
                    file.check(&at)?;
                    if let Some((_, other)) = paths.iter().find(|(path, _)| *path == file.path) {
                        let message = format!(
                            "`{other}` writes to {} already: name one of them in all pipelines, or \
                             give this one a path of its own",
                            file.path.display()
                        );
                        return Err(Mistake::at(&at, ["path"], message));
                    }
                    paths.push((&file.path, &id.name));
                }
            }
        }
        Ok(())
    }
}

impl Exporter {
    /// Reads the settings of an exporter; nothing behind its name is all defaults, as in the
    /// Collector.
    fn read<'de, A: MapAccess<'de>>(id: &Id, map: &mut A) -> Result<Self, A::Error> {
        Ok(match id.kind {
            Kind::Otlp | Kind::OtlpGrpc | Kind::OtlpHttp => {
                let mut otlp = map.next_value::<Option<Otlp>>()?.unwrap_or_default();
                otlp.kind = id.kind;
                Self::Otlp(Box::new(otlp))
            }
            Kind::Console => {
                let _: Option<NoKeys> = map.next_value()?;
                Self::Console
            }
            Kind::File => {
                Self::File(Box::new(map.next_value::<Option<File>>()?.unwrap_or_default()))
            }
        })
    }
}

impl Serialize for Exporters {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter().map(|(name, exporter)| (&**name, exporter)))
    }
}

impl Serialize for Exporter {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Otlp(otlp) => otlp.serialize(to),
            Self::Console => NoKeys {}.serialize(to),
            Self::File(file) => file.serialize(to),
        }
    }
}

impl JsonSchema for Exporters {
    fn schema_name() -> Cow<'static, str> {
        "Exporters".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let otlp = schema::or_nothing::<Otlp>(generator);
        let file = schema::or_nothing::<File>(generator);
        let none = schema::or_nothing::<NoKeys>(generator);
        json_schema!({
            "type": ["object", "null"],
            "patternProperties": {
                "^(otlp|otlp_grpc|otlphttp|otlp_http)(/\\S+)?$": otlp,
                "^(console|debug)(/\\S+)?$": none,
                "^file(/\\S+)?$": file
            },
            "additionalProperties": false
        })
    }
}

/// The settings of an exporter that has none.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

impl<'de> Deserialize<'de> for Exporters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Exporters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of exporters by name")
            }

            fn visit_unit<E>(self) -> Result<Exporters, E> {
                Ok(Exporters::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Exporters, A::Error> {
                let mut found = Vec::new();
                while let Some(id) = map.next_key_seed(NewId(&found))? {
                    let exporter = Exporter::read(&id, &mut map)?;
                    found.push((id, exporter));
                }
                Ok(Exporters(found))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Reads a name that is not among those found before.
struct NewId<'a>(&'a [(Id, Exporter)]);

impl<'de> DeserializeSeed<'de> for NewId<'_> {
    type Value = Id;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Id, D::Error> {
        from.deserialize_str(self)
    }
}

impl de::Visitor<'_> for NewId<'_> {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an exporter, as otlp or otlp/backup")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        let id: Id = text.parse().map_err(de::Error::custom)?;
        if self.0.iter().any(|(known, _)| known.name == id.name) {
            return Err(de::Error::custom(format!("the exporter `{text}` is there twice")));
        }
        Ok(id)
    }
}
