//! `include` and `exclude` of the processor `attributes`: which items it changes. Keys and meaning are the
//! Collector's: an item matches if it matches every list that is there; of `services`, `span_names`,
//! `span_kinds`, `log_bodies`, `log_severity_texts` and `metric_names` one entry, of `attributes`, `resources`
//! and `libraries` each.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::made_of;
use crate::{
    config::environment::Signal,
    policy::{
        data::Value,
        matching::{Attribute, Library, Properties as Rules, Severity, Text},
        pattern::Pattern,
    },
};

/// What is to be true of an item.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(into = "Written")]
#[schemars(with = "Written")]
pub struct Properties {
    /// As they are asked.
    pub rules: Rules,
    written: Written,
}

impl From<Properties> for Written {
    fn from(of: Properties) -> Self {
        of.written
    }
}

/// The same as it is written.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Written {
    match_type: MatchType,
    /// How the Collector keeps results; tap keeps none.
    regexp: Option<Cache>,
    #[serde(default)]
    services: Vec<String>,
    #[serde(default)]
    span_names: Vec<String>,
    #[serde(default)]
    span_kinds: Vec<String>,
    #[serde(default)]
    log_bodies: Vec<String>,
    #[serde(default)]
    log_severity_texts: Vec<String>,
    log_severity_number: Option<WrittenSeverity>,
    #[serde(default)]
    metric_names: Vec<String>,
    #[serde(default)]
    attributes: Vec<WrittenAttribute>,
    #[serde(default)]
    resources: Vec<WrittenAttribute>,
    #[serde(default)]
    libraries: Vec<WrittenLibrary>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum MatchType {
    Strict,
    Regexp,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cache {
    #[serde(default)]
    cacheenabled: bool,
    #[serde(default)]
    cachemaxnumentries: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenSeverity {
    #[serde(default)]
    min: u32,
    #[serde(default)]
    match_undefined: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenAttribute {
    key: String,
    value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WrittenLibrary {
    name: String,
    version: Option<String>,
}

impl MatchType {
    fn text(self, source: &str) -> Result<Text, String> {
        Ok(match self {
            Self::Strict => Text::Strict(source.into()),
            Self::Regexp => Text::Pattern(Pattern::new(source).map_err(|error| error.to_string())?),
        })
    }

    fn texts(self, sources: &[String]) -> Result<Vec<Text>, String> {
        sources.iter().map(|source| self.text(source)).collect()
    }

    fn attributes(
        self,
        written: Vec<WrittenAttribute>,
    ) -> Result<Vec<(String, Attribute)>, String> {
        let of = |WrittenAttribute { key, value }| {
            let wanted = match (self, value) {
                _ if key.is_empty() => return Err("an attribute to match needs a `key`".to_owned()),
                (_, None) => Attribute::There,
                (Self::Strict, Some(value)) => Attribute::Is(value),
                (Self::Regexp, Some(Value::Text(source))) => {
                    Attribute::Matches(self.text(&source)?)
                }
                (Self::Regexp, Some(_)) => {
                    return Err(format!(
                        "`{key}` is matched by a pattern, which is a text: put it into quotes"
                    ));
                }
            };
            Ok((key, wanted))
        };
        written.into_iter().map(of).collect()
    }
}

impl Written {
    fn rules(self) -> Result<Rules, String> {
        let by = self.match_type;
        let libraries = self.libraries.into_iter().map(|library| {
            let version = library.version.map(|version| by.text(&version)).transpose()?;
            Ok::<_, String>(Library { name: by.text(&library.name)?, version })
        });
        if by == MatchType::Strict
            && let Some(kind) = self.span_kinds.iter().find(|kind| !KINDS.contains(&&***kind))
        {
            return Err(format!("`{kind}` is no kind of span: there are {}", KINDS.join(", ")));
        }
        Ok(Rules {
            services: by.texts(&self.services)?,
            span_names: by.texts(&self.span_names)?,
            span_kinds: by.texts(&self.span_kinds)?,
            log_bodies: by.texts(&self.log_bodies)?,
            log_severity_texts: by.texts(&self.log_severity_texts)?,
            log_severity_number: self
                .log_severity_number
                .map(|of| Severity { min: of.min, undefined: of.match_undefined }),
            metric_names: by.texts(&self.metric_names)?,
            attributes: by.attributes(self.attributes)?,
            resources: by.attributes(self.resources)?,
            libraries: libraries.collect::<Result<_, _>>()?,
        })
    }
}

const KINDS: [&str; 5] = [
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

impl<'de> Deserialize<'de> for Properties {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        made_of(from, |written: Written| Ok(Self { rules: written.clone().rules()?, written }))
    }
}

impl Properties {
    /// Why they cannot be asked of items of this signal, if they cannot.
    pub(super) fn refuses(&self, signal: Signal) -> Option<&'static str> {
        let Rules {
            services,
            span_names,
            span_kinds,
            log_bodies,
            log_severity_texts,
            log_severity_number,
            metric_names,
            attributes,
            resources,
            libraries,
        } = &self.rules;
        let of_spans = !(services.is_empty() && span_names.is_empty() && span_kinds.is_empty());
        let of_logs = !(log_bodies.is_empty() && log_severity_texts.is_empty())
            || log_severity_number.is_some();
        let of_metrics = !metric_names.is_empty();
        let of_all = !(attributes.is_empty() && resources.is_empty() && libraries.is_empty());
        match signal {
            Signal::Traces if of_logs || of_metrics => Some(
                "of spans it matches `services`, `span_names`, `span_kinds`, `attributes`, `resources` \
                 and `libraries`",
            ),
            Signal::Traces if !(of_spans || of_all) => Some(
                "it needs one of `services`, `span_names`, `span_kinds`, `attributes`, `resources` and \
                 `libraries` to match spans by",
            ),
            Signal::Logs if of_spans || of_metrics => Some(
                "of log records it matches `log_bodies`, `log_severity_texts`, `log_severity_number`, \
                 `attributes`, `resources` and `libraries`",
            ),
            Signal::Logs if !(of_logs || of_all) => Some(
                "it needs one of `log_bodies`, `log_severity_texts`, `log_severity_number`, \
                 `attributes`, `resources` and `libraries` to match log records by",
            ),
            Signal::Metrics
                if of_spans || of_logs || !(attributes.is_empty() && libraries.is_empty()) =>
            {
                Some("of metrics it matches `metric_names` and `resources`")
            }
            Signal::Metrics if !of_metrics && resources.is_empty() => {
                Some("it needs `metric_names` or `resources` to match metrics by")
            }
            _ => None,
        }
    }
}
