//! Block `service` of the configuration file: which processors and exporters a signal goes to. Blocks, nesting and
//! keys are the Collector's.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess},
};

use super::{
    environment::Signal,
    exporters::Exporters,
    place::{Mistake, Step, closest, path},
    processors::Processors,
    schema,
};

/// Block `service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// By `signal` or `signal/name`. Without it every exporter of the file serves every signal that
    /// it can.
    pub pipelines: Option<Pipelines>,
}

/// `service.pipelines`, in the file's order; no name is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipelines(pub Vec<(Id, Pipeline)>);

/// `signal` or `signal/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// As it is written.
    pub name: Arc<str>,
    /// What goes through it.
    pub signal: Signal,
}

/// One way of a signal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// What is done to items, in this order.
    pub processors: Vec<String>,
    /// Where they go: to each of these.
    pub exporters: Vec<String>,
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        let known = Signal::ALL.map(Signal::lower);
        let Some(signal) = Signal::ALL.into_iter().find(|signal| signal.lower() == kind) else {
            return Err(match closest(kind, &known) {
                Some(meant) => format!("`{kind}` is no signal; did you mean `{meant}`?"),
                None => format!("`{kind}` is no signal; there are {}", known.join(", ")),
            });
        };
        let sound = |name: &str| !name.is_empty() && !name.contains(char::is_whitespace);
        if name.is_some_and(|name| !sound(name) || name.contains(char::is_control)) {
            return Err(format!("`{text}` is no name: write {kind} or {kind}/other"));
        }
        Ok(Self { name: text.into(), signal })
    }
}

impl Serialize for Pipelines {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self.0.iter().map(|(id, pipeline)| (&*id.name, pipeline)))
    }
}

impl JsonSchema for Pipelines {
    fn schema_name() -> Cow<'static, str> {
        "Pipelines".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let pipeline = schema::or_nothing::<Pipeline>(generator);
        json_schema!({
            "type": "object",
            "patternProperties": { "^(traces|logs|metrics)(/\\S+)?$": pipeline },
            "additionalProperties": false
        })
    }
}

impl<'de> Deserialize<'de> for Pipelines {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Pipelines;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of pipelines by signal")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pipelines, A::Error> {
                let mut found: Vec<(Id, Pipeline)> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    let id: Id = name.parse().map_err(de::Error::custom)?;
                    if found.iter().any(|(known, _)| known.name == id.name) {
                        let why = format!("the pipeline `{name}` is there twice");
                        return Err(de::Error::custom(why));
                    }
                    // One with nothing behind its name is there, and lacks its exporters.
                    let pipeline = map.next_value::<Option<Pipeline>>()?.unwrap_or_default();
                    found.push((id, pipeline));
                }
                Ok(Pipelines(found))
            }
        }
        from.deserialize_map(Visitor)
    }
}

impl Pipelines {
    /// Those of a signal.
    pub fn of(&self, signal: Signal) -> impl Iterator<Item = (&Id, &Pipeline)> {
        self.0
            .iter()
            .map(|(id, pipeline)| (id, pipeline))
            .filter(move |(id, _)| id.signal == signal)
    }
}

impl Service {
    /// What no key alone shows to be wrong; pipelines lead through `processors` to `exporters`.
    pub fn check(&self, processors: &Processors, exporters: &Exporters) -> Result<(), Mistake> {
        for (id, pipeline) in self.pipelines.iter().flat_map(|pipelines| &pipelines.0) {
            let at = path(["service", "pipelines", &id.name]);
            pipeline.check(id.signal, processors, exporters, &at)?;
        }
        Ok(())
    }
}

impl Pipeline {
    fn check(
        &self,
        signal: Signal,
        processors: &Processors,
        exporters: &Exporters,
        at: &[Step],
    ) -> Result<(), Mistake> {
        let wrong = |list: &str, index: usize, why: String| {
            Err(Mistake::at(at, [Step::from(list), index.into()], why))
        };
        for (index, name) in self.processors.iter().enumerate() {
            let Some((_, processor)) = processors.find(name) else {
                let known: Vec<&str> = processors.iter().map(|(name, _)| &**name).collect();
                let why = nothing(name, "processors", &known);
                return wrong("processors", index, why);
            };
            if let Some(why) = processor.refuses(signal) {
                return wrong("processors", index, format!("`{name}` cannot be here: {why}"));
            }
            if self.processors[..index].contains(name) {
                let why = format!("`{name}` is in this pipeline already: leave it out");
                return wrong("processors", index, why);
            }
        }
        if self.exporters.is_empty() {
            let why = "a pipeline needs an exporter, as `exporters: [otlp]`; to switch a signal off \
                       leave its pipeline out";
            return Err(Mistake::at(at, ["exporters"], why));
        }
        for (index, name) in self.exporters.iter().enumerate() {
            if exporters.find(name).is_none() {
                let known: Vec<&str> = exporters.iter().map(|(name, _)| &**name).collect();
                let why = nothing(name, "exporters", &known);
                return wrong("exporters", index, why);
            }
            if self.exporters[..index].contains(name) {
                let why = format!("`{name}` is in this pipeline already: leave it out");
                return wrong("exporters", index, why);
            }
        }
        Ok(())
    }
}

/// What is said of a name that leads to nothing.
fn nothing(name: &str, block: &str, known: &[&str]) -> String {
    let more = match closest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", known.join(", ")),
    };
    format!("`{name}` is not among the `{block}` of this file: {more}")
}
