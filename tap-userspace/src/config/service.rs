//! Block `service` of the configuration file: which exporters a signal goes to. Blocks, nesting and
//! keys are the Collector's.

use serde::Deserialize;

use super::{
    environment::Signal,
    exporters::Exporters,
    place::{Mistake, Step, closest, path},
};

/// Block `service`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Service {
    /// By signal. Without it every exporter of the file serves every signal that it can.
    pub pipelines: Option<Pipelines>,
}

/// `service.pipelines`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipelines {
    /// Spans.
    #[serde(deserialize_with = "there")]
    pub traces: Option<Pipeline>,
    /// Log records.
    #[serde(deserialize_with = "there")]
    pub logs: Option<Pipeline>,
    /// Metrics.
    #[serde(deserialize_with = "there")]
    pub metrics: Option<Pipeline>,
}

/// One signal's way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pipeline {
    /// What is done to items, in this order.
    pub processors: Vec<String>,
    /// Where they go: to each of these.
    pub exporters: Vec<String>,
}

/// A pipeline with nothing behind its name is there, and lacks its exporters.
fn there<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Pipeline>, D::Error> {
    Option::deserialize(from).map(|pipeline| Some(pipeline.unwrap_or_default()))
}

impl Service {
    /// What the file says of a signal's exporters: `None` where it has no pipelines at all.
    pub fn exporters(&self, signal: Signal) -> Option<&[String]> {
        let pipelines = self.pipelines.as_ref()?;
        let pipeline = match signal {
            Signal::Traces => &pipelines.traces,
            Signal::Logs => &pipelines.logs,
            Signal::Metrics => &pipelines.metrics,
        };
        Some(pipeline.as_ref().map_or(&[], |pipeline| &pipeline.exporters))
    }

    /// What no key alone shows to be wrong; pipelines lead to `exporters`.
    pub fn check(&self, exporters: &Exporters) -> Result<(), Mistake> {
        let Some(pipelines) = &self.pipelines else { return Ok(()) };
        for (signal, pipeline) in [
            ("traces", &pipelines.traces),
            ("logs", &pipelines.logs),
            ("metrics", &pipelines.metrics),
        ] {
            if let Some(pipeline) = pipeline {
                pipeline.check(exporters, &path(["service", "pipelines", signal]))?;
            }
        }
        Ok(())
    }
}

impl Pipeline {
    fn check(&self, exporters: &Exporters, at: &[Step]) -> Result<(), Mistake> {
        let wrong = |list: &str, index: usize, why: String| {
            Err(Mistake::at(at, [Step::from(list), index.into()], why))
        };
        if let Some(processor) = self.processors.first() {
            let why = format!(
                "this release has no processors, so no `{processor}`: leave the list out, or have a \
                 Collector do it"
            );
            return wrong("processors", 0, why);
        }
        if self.exporters.is_empty() {
            let why = "a pipeline needs an exporter, as `exporters: [otlp]`; to switch a signal off \
                       leave its pipeline out";
            return Err(Mistake::at(at, ["exporters"], why));
        }
        for (index, name) in self.exporters.iter().enumerate() {
            if exporters.find(name).is_none() {
                let known: Vec<&str> = exporters.iter().map(|(name, _)| &**name).collect();
                let more = match closest(name, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None if known.is_empty() => "there are none".to_owned(),
                    None => format!("there are {}", known.join(", ")),
                };
                let why = format!("`{name}` is not among the `exporters` of this file: {more}");
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
