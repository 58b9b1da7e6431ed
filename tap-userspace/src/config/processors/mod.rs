//! Block `processors` of the configuration file: a map of `type` or `type/name` to that processor's
//! settings. Types, keys, nesting and defaults are the Collector's; what differs is said at the key.

pub mod actions;
pub mod batch;
pub mod filter;
pub mod group;
pub mod matching;
pub mod memory_limiter;
pub mod probabilistic_sampler;
pub mod redaction;
pub mod tail_sampling;
pub mod transform;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeSeed, MapAccess},
};

pub use self::{
    batch::Batch, filter::Filter, group::Group, memory_limiter::MemoryLimiter,
    probabilistic_sampler::ProbabilisticSampler, redaction::Redaction, tail_sampling::TailSampling,
    transform::Transform,
};
use super::{environment::Signal, place::closest, schema};

/// Block `processors`, in the file's order; no name is there twice.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Processors(Vec<(Id, Processor)>);

/// One processor of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Processor {
    /// Changes attributes.
    Attributes(Box<actions::Attributes>),
    /// How items are brought together for the exporters.
    Batch(Batch),
    /// Takes items out.
    Filter(Box<Filter>),
    /// Moves attributes to the resource.
    Group(Group),
    /// Takes out and masks what is secret.
    Redaction(Box<Redaction>),
    /// Changes the resource's attributes.
    Resource(Box<actions::Resource>),
    /// Changes items by statements.
    Transform(Box<Transform>),
    /// Refuses items while memory is short.
    MemoryLimiter(MemoryLimiter),
    /// Lets a share through.
    ProbabilisticSampler(Box<ProbabilisticSampler>),
    /// Decides on whole traces.
    TailSampling(Box<TailSampling>),
}

/// `type` or `type/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// As it is written.
    pub name: Arc<str>,
    kind: Kind,
}

/// What the part before the slash says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Attributes,
    Batch,
    Filter,
    Group,
    MemoryLimiter,
    ProbabilisticSampler,
    Redaction,
    Resource,
    TailSampling,
    Transform,
}

const KINDS: [(&str, Kind); 11] = [
    ("attributes", Kind::Attributes),
    ("batch", Kind::Batch),
    ("filter", Kind::Filter),
    ("group_by_attrs", Kind::Group),
    ("groupbyattrs", Kind::Group),
    ("memory_limiter", Kind::MemoryLimiter),
    ("probabilistic_sampler", Kind::ProbabilisticSampler),
    ("redaction", Kind::Redaction),
    ("resource", Kind::Resource),
    ("tail_sampling", Kind::TailSampling),
    ("transform", Kind::Transform),
];

/// Processors of the Collector (core and contrib) that tap has no counterpart of, and what to use.
const COLLECTORS: &[(&str, &str)] = &[
    ("cumulativetodelta", "set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=delta"),
    ("deltatocumulative", "set OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE=cumulative"),
    ("deltatorate", ELSEWHERE),
    ("geoip", ELSEWHERE),
    ("groupbytrace", "`tail_sampling` keeps the spans of a trace together"),
    ("interval", "set OTEL_METRIC_EXPORT_INTERVAL"),
    ("k8sattributes", "tap names pods by itself"),
    ("logdedup", ELSEWHERE),
    ("logstransform", ELSEWHERE),
    ("metricsgeneration", ELSEWHERE),
    ("metricstransform", ELSEWHERE),
    ("remotetap", ELSEWHERE),
    ("resourcedetection", "name the detectors under `resource`"),
    ("routing", ELSEWHERE),
    ("schema", ELSEWHERE),
    ("span", "use `transform`"),
    ("sumologic", ELSEWHERE),
    ("unroll", ELSEWHERE),
];

const ELSEWHERE: &str = "send to a Collector by an `otlp` exporter, and have it do this";

/// Longest name of a processor: it is a label.
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
            return Err(format!("`{text}` is no name: write {kind} or {kind}/other"));
        }
        if text.len() > LONGEST_NAME {
            return Err(format!("a name of more than {LONGEST_NAME} bytes: write {kind}/other"));
        }
        Ok(Self { name: text.into(), kind: *found })
    }
}

/// What is said of a type that tap does not have.
fn unknown(kind: &str) -> String {
    if let Some((_, instead)) = COLLECTORS.iter().find(|(known, _)| *known == kind) {
        return format!("tap has no processor of type `{kind}`: {instead}");
    }
    let known = KINDS.map(|(name, _)| name);
    match closest(kind, &known) {
        Some(meant) => format!("`{kind}` is no type of processor; did you mean `{meant}`?"),
        None => format!("`{kind}` is no type of processor; there are {}", known.join(", ")),
    }
}

impl Processors {
    /// Name and settings of each.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Processor)> {
        self.0.iter().map(|(id, processor)| (&id.name, processor))
    }

    /// Takes all of `from` in place of what is there, but for `batch` and what `keeps` says.
    pub fn replace(&mut self, from: &Self, keeps: impl Fn(&str) -> bool) {
        let is_batch = |processor: &Processor| matches!(processor, Processor::Batch(_));
        self.0.retain(|(id, processor)| is_batch(processor) || keeps(&id.name));
        for (id, processor) in &from.0 {
            if !is_batch(processor) && self.find(&id.name).is_none() {
                self.0.push((id.clone(), processor.clone()));
            }
        }
    }

    /// The one of this name.
    pub fn find(&self, name: &str) -> Option<(&Arc<str>, &Processor)> {
        self.iter().find(|(known, _)| &***known == name)
    }
}

impl Processor {
    /// Reads the settings of a processor; nothing behind its name is all defaults, as in the
    /// Collector.
    fn read<'de, A: MapAccess<'de>>(id: &Id, map: &mut A) -> Result<Self, A::Error> {
        let bare = || de::Error::custom(format!("`{}` needs settings", id.name));
        Ok(match id.kind {
            Kind::Attributes => Self::Attributes(map.next_value::<Option<_>>()?.ok_or_else(bare)?),
            Kind::Batch => Self::Batch(map.next_value::<Option<_>>()?.unwrap_or_default()),
            Kind::Filter => Self::Filter(map.next_value::<Option<_>>()?.unwrap_or_default()),
            Kind::Group => Self::Group(map.next_value::<Option<_>>()?.unwrap_or_default()),
            Kind::Redaction => Self::Redaction(map.next_value::<Option<_>>()?.unwrap_or_default()),
            Kind::Resource => Self::Resource(map.next_value::<Option<_>>()?.ok_or_else(bare)?),
            Kind::Transform => Self::Transform(map.next_value::<Option<_>>()?.unwrap_or_default()),
            // Without limits it would do nothing.
            Kind::MemoryLimiter => Self::MemoryLimiter(map.next_value()?),
            Kind::ProbabilisticSampler => {
                Self::ProbabilisticSampler(map.next_value::<Option<_>>()?.unwrap_or_default())
            }
            // Without policies it would keep nothing.
            Kind::TailSampling => Self::TailSampling(map.next_value()?),
        })
    }

    /// Why it can be in no pipeline of this signal, if it cannot.
    pub fn refuses(&self, signal: Signal) -> Option<&'static str> {
        match (self, signal) {
            (Self::Attributes(settings), _) => settings.refuses(signal),
            (Self::Group(_), Signal::Metrics) => {
                Some("tap's data points stay under its own resource: have a Collector group them")
            }
            (Self::ProbabilisticSampler(_) | Self::TailSampling(_), Signal::Metrics) => {
                Some("metrics are made of all traffic: leave it out")
            }
            _ => None,
        }
    }
}

impl Serialize for Processors {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.iter().map(|(name, processor)| (&**name, processor)))
    }
}

impl Serialize for Processor {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Attributes(settings) => settings.serialize(to),
            Self::Batch(batch) => batch.serialize(to),
            Self::Filter(filter) => filter.serialize(to),
            Self::Group(settings) => settings.serialize(to),
            Self::MemoryLimiter(settings) => settings.serialize(to),
            Self::ProbabilisticSampler(settings) => settings.serialize(to),
            Self::Redaction(settings) => settings.serialize(to),
            Self::Resource(settings) => settings.serialize(to),
            Self::TailSampling(settings) => settings.serialize(to),
            Self::Transform(settings) => settings.serialize(to),
        }
    }
}

impl JsonSchema for Processors {
    fn schema_name() -> Cow<'static, str> {
        "Processors".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let batch = schema::or_nothing::<Batch>(generator);
        let filter = schema::or_nothing::<Filter>(generator);
        let group = schema::or_nothing::<Group>(generator);
        let limiter = generator.subschema_for::<MemoryLimiter>();
        let sampler = schema::or_nothing::<ProbabilisticSampler>(generator);
        let redaction = schema::or_nothing::<Redaction>(generator);
        let tail = generator.subschema_for::<TailSampling>();
        let transform = schema::or_nothing::<Transform>(generator);
        let attributes = generator.subschema_for::<actions::Attributes>();
        let resource = generator.subschema_for::<actions::Resource>();
        json_schema!({
            "type": ["object", "null"],
            "patternProperties": {
                "^attributes(/\\S+)?$": attributes,
                "^batch(/\\S+)?$": batch,
                "^filter(/\\S+)?$": filter,
                "^group_?by_?attrs(/\\S+)?$": group,
                "^memory_limiter(/\\S+)?$": limiter,
                "^probabilistic_sampler(/\\S+)?$": sampler,
                "^redaction(/\\S+)?$": redaction,
                "^resource(/\\S+)?$": resource,
                "^tail_sampling(/\\S+)?$": tail,
                "^transform(/\\S+)?$": transform
            },
            "additionalProperties": false
        })
    }
}

/// Reads a map as a `W` and makes a `T` of it; a mistake of either has the map's place.
fn made_of<'de, D: Deserializer<'de>, W: Deserialize<'de>, T>(
    from: D,
    make: fn(W) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Visitor<W, T>(fn(W) -> Result<T, String>);
    impl<'de, W: Deserialize<'de>, T> de::Visitor<'de> for Visitor<W, T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            let written = W::deserialize(de::value::MapAccessDeserializer::new(map))?;
            (self.0)(written).map_err(de::Error::custom)
        }
    }
    from.deserialize_map(Visitor(make))
}

impl<'de> Deserialize<'de> for Processors {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Processors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of processors by name")
            }

            fn visit_unit<E>(self) -> Result<Processors, E> {
                Ok(Processors::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Processors, A::Error> {
                let mut found = Vec::new();
                while let Some(id) = map.next_key_seed(NewId(&found))? {
                    let processor = Processor::read(&id, &mut map)?;
                    found.push((id, processor));
                }
                Ok(Processors(found))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// Reads a name that is not among those found before.
struct NewId<'a>(&'a [(Id, Processor)]);

impl<'de> DeserializeSeed<'de> for NewId<'_> {
    type Value = Id;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Id, D::Error> {
        from.deserialize_str(self)
    }
}

impl de::Visitor<'_> for NewId<'_> {
    type Value = Id;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a processor, as filter or filter/noise")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
        let id: Id = text.parse().map_err(de::Error::custom)?;
        if self.0.iter().any(|(known, _)| known.name == id.name) {
            return Err(de::Error::custom(format!("the processor `{text}` is there twice")));
        }
        Ok(id)
    }
}
