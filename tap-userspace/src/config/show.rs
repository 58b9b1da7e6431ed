//! The configuration as it is in force, written again. Comes in: a [`Config`]; goes out: YAML with
//! every default, or the difference of two in lines. Secrets are masked in both.

use serde_yaml::{Mapping, Value};

use super::{file::Config, values::SECRET};

/// In place of a secret.
const MASK: &str = "(secret)";
/// Longest value that a difference shows, in characters.
const SHOWN_MAX: usize = 200;

/// The whole of it as YAML, which can be loaded again.
pub fn yaml(config: &Config) -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&masked(serde_yaml::to_value(config)?))
}

/// One key that differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The way there: `capture.direction`.
    pub path: String,
    /// What it was; nothing where it was not there.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".into());
        write!(f, "{}: {} → {}", self.path, said(&self.old), said(&self.new))
    }
}

/// What differs, in the file's order.
pub fn difference(old: &Config, new: &Config) -> Result<Vec<Change>, serde_yaml::Error> {
    let mut changes = Vec::new();
    let (old, new) = (serde_yaml::to_value(old)?, serde_yaml::to_value(new)?);
    compare("", Some(&old), Some(&new), &mut changes);
    Ok(changes)
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    if let (Some(Value::Mapping(old)), Some(Value::Mapping(new))) = (old, new) {
        let gone = old.iter().map(|(key, _)| key).filter(|key| !new.contains_key(key));
        for key in new.iter().map(|(key, _)| key).chain(gone) {
            let name = key.as_str().unwrap_or_default();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            compare(&path, old.get(key), new.get(key), changes);
        }
        return;
    }
    let [old, new] = [old, new].map(|value| value.map(|value| line(masked(value.clone()))));
    changes.push(Change { path: path.to_owned(), old, new });
}

/// A value in a line.
fn line(value: Value) -> String {
    let text = match &value {
        Value::String(text) => text.clone(),
        value => serde_json::to_string(value).unwrap_or_default(),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The same without what is secret.
fn masked(value: Value) -> Value {
    match value {
        Value::Tagged(tagged) if tagged.tag == SECRET => MASK.into(),
        Value::Sequence(list) => list.into_iter().map(masked).collect(),
        Value::Mapping(map) => {
            let pairs = map.into_iter().map(|(key, value)| (key, masked(value)));
            Value::Mapping(pairs.collect::<Mapping>())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "
capture: { direction: egress, include: [{ port: 443 }, { port: 8000-8100 }, { cidr: 10.0.0.0/8 }] }
connection: { max_age: 90s, logs: true }
rings: { life: 1MiB }
trace: { identity: xray, key: hush-1 }
resource: { detectors: [ec2, gcp] }
exporters:
  otlp: {}
  otlphttp/all:
    endpoint: https://a:1
    headers: { authorization: Bearer hush-2 }
    compression: zstd
    timeout: 1m30s
    tls: { ca_pem: hush-3, min_version: 1.2 }
    sending_queue: { queue_size: 5, batch: {} }
    retry_on_failure: {}
  console:
  file/x: { path: /x, rotation: {}, compression: zstd }
service: { pipelines: { traces: { exporters: [otlp, file/x] } } }
http_capture:
  store: { type: s3, bucket: b, access_key: hush-4, secret_key: hush-5, session_token: hush-6 }
  level: summary
  rules: [{ condition: 'response.status >= 500', level: full }]
  url: 'https://x/{key}'
";

    #[test]
    fn what_is_shown_can_be_loaded_and_is_the_same() {
        for text in ["", ALL] {
            let config = Config::parse(text).unwrap();
            let shown = yaml(&config).unwrap();
            assert!(!shown.contains("hush"), "{shown}");
            let again = Config::parse(&shown).unwrap_or_else(|error| panic!("{error}\n{shown}"));
            for change in difference(&config, &again).unwrap() {
                assert!(change.to_string().ends_with(": (secret) → (secret)"), "{change}");
            }
        }
    }

    #[test]
    fn the_difference_is_told_by_key_without_secrets() {
        let old = Config::parse(ALL).unwrap();
        assert_eq!(difference(&old, &old).unwrap(), []);
        let text = ALL
            .replace("egress", "all")
            .replace("{ port: 443 }, ", "")
            .replace("hush-2", "other")
            .replace("  console:\n", "")
            .replace("1MiB", "2MiB");
        let new = Config::parse(&text).unwrap();
        let lines: Vec<_> = difference(&old, &new).unwrap().iter().map(Change::to_string).collect();
        assert_eq!(
            lines,
            [
                "capture.direction: egress → all",
                "capture.include: [{\"port\":443},{\"port\":\"8000-8100\"},{\"cidr\":\"10.0.0.0/8\"}] → \
                 [{\"port\":\"8000-8100\"},{\"cidr\":\"10.0.0.0/8\"}]",
                "rings.life: 1MiB → 2MiB",
                "exporters.otlphttp/all.headers.authorization: (secret) → (secret)",
                "exporters.console: {} → (none)",
            ]
        );
    }
}
