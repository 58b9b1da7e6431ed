//! The processor `redaction`: takes attributes out that are not allowed, and masks what is blocked. Comes in: items;
//! goes out: the same, with the Collector's results and its summary attributes.
//!
//! Looked through are the attributes of resources, scopes, spans, span events, log records and data points, and the
//! bodies of log records. Beyond the Collector, lists and maps inside attributes are looked through as in a
//! body, but that the list of allowed keys is for the first level alone. Names of spans and the attributes
//! of links are not looked through.
#![forbid(unsafe_code)]

pub mod detect;

use std::time::Instant;

use hashbrown::HashSet;
use hmac::{KeyInit as _, Mac as _};
use md5::Digest as _;

use self::detect::Detector;
use super::{
    actions::hex,
    data::{Attributes, LogRecord, Record, Resource, Scope, Source, Span, Value},
    metrics::{Metric, OfMetrics, Point},
    pattern::{Pattern, TEXT_MAX},
    processor::{Processor, Tally},
    redact,
    sources::Memo,
};
use crate::config::processors::redaction::{Mask, Redaction as Settings, Summary};

/// A running `redaction`.
#[derive(Debug)]
pub struct Redaction {
    rules: Rules,
    resources: Memo<Resource>,
    scopes: Memo<Scope>,
}

impl Redaction {
    /// With these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { rules: Rules::new(settings), resources: Memo::default(), scopes: Memo::default() }
    }

    fn source(&mut self, source: &mut Source) {
        let rules = &self.rules;
        self.resources.change(&mut source.resource, |it| rules.attributes(&mut it.attributes));
        self.scopes.change(&mut source.scope, |it| rules.attributes(&mut it.attributes));
    }
}

impl Processor<Span> for Redaction {
    fn process(&mut self, batch: &mut Vec<Span>, _now: Instant, _tally: &mut Tally) {
        for span in batch {
            self.source(span.source_mut());
            self.rules.attributes(&mut span.attributes);
            for event in &mut span.events {
                self.rules.attributes(&mut event.attributes);
            }
        }
    }
}

impl Processor<LogRecord> for Redaction {
    fn process(&mut self, batch: &mut Vec<LogRecord>, _now: Instant, _tally: &mut Tally) {
        for record in batch {
            self.source(record.source_mut());
            self.rules.attributes(&mut record.attributes);
            self.rules.body(&mut record.body, &mut record.attributes);
        }
    }
}

impl OfMetrics for Redaction {
    fn resource(&mut self, resource: &mut Resource) {
        self.rules.attributes(&mut resource.attributes);
    }

    fn scope(&mut self, scope: &mut Scope, _resource: &Resource) {
        self.rules.attributes(&mut scope.attributes);
    }

    fn point(&mut self, point: &mut Point, _metric: &Metric, _source: &Source) -> bool {
        self.rules.attributes(&mut point.attributes);
        true
    }
}

/// The names of the summary: keys and counts of what was taken out, masked, allowed; the count of
/// what was ignored.
struct Names([&'static str; 7]);

const OF_ATTRIBUTES: Names = Names([
    "redaction.redacted.keys",
    "redaction.redacted.count",
    "redaction.masked.keys",
    "redaction.masked.count",
    "redaction.allowed.keys",
    "redaction.allowed.count",
    "redaction.ignored.count",
]);

const OF_BODIES: Names = Names([
    "redaction.body.redacted.keys",
    "redaction.body.redacted.count",
    "redaction.body.masked.keys",
    "redaction.body.masked.count",
    "redaction.body.allowed.keys",
    "redaction.body.allowed.count",
    "redaction.body.ignored.count",
]);

/// What was found in one place, by the ways to it.
#[derive(Debug, Default)]
struct Found {
    redacted: Vec<String>,
    masked: Vec<String>,
    allowed: Vec<String>,
    ignored: i64,
}

#[derive(Debug)]
struct Rules {
    /// `None`: all.
    allowed_keys: Option<HashSet<String>>,
    ignored_keys: HashSet<String>,
    ignored_key_patterns: Vec<Pattern>,
    blocked_key_patterns: Vec<Pattern>,
    blocked_values: Vec<Pattern>,
    allowed_values: Vec<Pattern>,
    all_types: bool,
    mask: Mask,
    summary: Summary,
    detect: Vec<Detector>,
    headers: Option<redact::Redaction>,
    queries: Option<redact::Redaction>,
    /// Each line, as the Collector masks whole values.
    lines: Option<Pattern>,
}

fn any(patterns: &[Pattern], text: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(text))
}

impl Rules {
    fn new(of: &Settings) -> Self {
        let allowed = || {
            let own = OF_ATTRIBUTES.0.iter().chain(&OF_BODIES.0).map(|name| (*name).to_owned());
            of.allowed_keys.iter().cloned().chain(own).collect()
        };
        let headers = |names: &Vec<String>| redact::Redaction::default().with_headers(names);
        let queries = |keys: &Vec<String>| redact::Redaction::default().with_keys(keys);
        Self {
            allowed_keys: (!of.allow_all_keys).then(allowed),
            ignored_keys: of.ignored_keys.iter().cloned().collect(),
            ignored_key_patterns: of.ignored_key_patterns.clone(),
            blocked_key_patterns: of.blocked_key_patterns.clone(),
            blocked_values: of.blocked_values.clone(),
            allowed_values: of.allowed_values.clone(),
            all_types: of.redact_all_types,
            mask: of.mask.clone(),
            summary: of.summary,
            detect: of.detect.clone(),
            headers: of.header_keys.as_ref().map(headers),
            queries: of.query_keys.as_ref().map(queries),
            lines: Pattern::new(".*").ok(),
        }
    }

    fn ignores(&self, key: &str) -> bool {
        self.ignored_keys.contains(key) || any(&self.ignored_key_patterns, key)
    }

    fn takes_out(&self, key: &str) -> bool {
        self.allowed_keys.as_ref().is_some_and(|allowed| !allowed.contains(key))
    }

    /// Whether a key's value is masked whole.
    fn blocks(&self, key: &str) -> bool {
        let header = || {
            let headers = self.headers.as_ref()?;
            let name = key
                .strip_prefix("http.request.header.")
                .or_else(|| key.strip_prefix("http.response.header."))?;
            let told = headers.header(&name.replace('_', "-"), "x") != "x";
            Some(told || headers.header(name, "x") != "x")
        };
        any(&self.blocked_key_patterns, key) || header() == Some(true)
    }

    fn attributes(&self, attributes: &mut Attributes) {
        let mut found = Found::default();
        attributes.0.retain_mut(|(key, value)| {
            if self.ignores(key) {
                found.ignored += 1;
                return true;
            }
            if self.takes_out(key) {
                found.redacted.push(key.to_string());
                return false;
            }
            let text = match value {
                Value::Text(text) => text.to_string(),
                _ if self.all_types => value.as_text().into_owned(),
                _ => String::new(),
            };
            if any(&self.allowed_values, &text) {
                found.allowed.push(key.to_string());
            } else if self.blocks(key) {
                found.masked.push(key.to_string());
                *value = self.whole(&text).into();
            } else if matches!(value, Value::Array(_) | Value::Map(_)) && !self.all_types {
                self.inside(key, value, false, &mut found);
            } else if let Some(masked) = self.masked(&text) {
                found.masked.push(key.to_string());
                *value = masked.into();
            }
            true
        });
        self.tell(found, attributes, &OF_ATTRIBUTES);
    }

    fn body(&self, body: &mut Value, attributes: &mut Attributes) {
        let mut found = Found::default();
        match body {
            Value::Map(map) => self.map(None, map, true, &mut found),
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    self.inside(&format!("[{index}]"), value, true, &mut found);
                }
            }
            Value::Empty => {}
            _ => {
                let text = body.as_text();
                if any(&self.allowed_values, &text) {
                    // The Collector tells nothing of it.
                    return;
                }
                if let Some(masked) = self.masked(&text) {
                    found.masked.push("body".to_owned());
                    *body = masked.into();
                }
            }
        }
        self.tell(found, attributes, &OF_BODIES);
    }

    /// Looks through a map; `body`: of a log record's.
    fn map(&self, way: Option<&str>, map: &mut Attributes, body: bool, found: &mut Found) {
        let mut redacted = Vec::new();
        map.0.retain_mut(|(key, value)| {
            let way = || way.map_or_else(|| key.to_string(), |way| format!("{way}.{key}"));
            if self.ignores(key) {
                found.ignored += 1;
            } else if body && self.takes_out(key) {
                redacted.push(way());
                return false;
            } else if self.blocks(key) {
                found.masked.push(way());
                *value = self.whole(value.text().unwrap_or_default()).into();
            } else {
                self.inside(&way(), value, body, found);
            }
            true
        });
        found.redacted.append(&mut redacted);
    }

    /// Looks through the value that this way leads to.
    fn inside(&self, way: &str, value: &mut Value, body: bool, found: &mut Found) {
        match value {
            Value::Map(map) => self.map(Some(way), map, body, found),
            Value::Array(values) => {
                for (index, value) in values.iter_mut().enumerate() {
                    self.inside(&format!("{way}.[{index}]"), value, body, found);
                }
            }
            Value::Text(_) => self.leaf(way, value, found),
            _ if body => self.leaf(way, value, found),
            _ => {}
        }
    }

    fn leaf(&self, way: &str, value: &mut Value, found: &mut Found) {
        let text = value.as_text();
        if any(&self.allowed_values, &text) {
            found.allowed.push(way.to_owned());
        } else if let Some(masked) = self.masked(&text) {
            found.masked.push(way.to_owned());
            *value = masked.into();
        }
    }

    /// A text as it may be told; `None` where nothing in it is masked.
    fn masked(&self, text: &str) -> Option<String> {
        let mut out: Option<String> = None;
        for pattern in &self.blocked_values {
            let now = out.as_deref().unwrap_or(text);
            let replaced = pattern.replace(now, |captures, out| {
                out.push_str(&self.mask(captures.get(0).map_or("", |all| all.as_str())));
            });
            match replaced {
                Ok(None) => {}
                Ok(Some(replaced)) => out = Some(replaced),
                // Rather all of it than none.
                Err(_) => return Some(self.mask(text)),
            }
        }
        for detector in &self.detect {
            let now = out.as_deref().unwrap_or(text);
            let (mut replaced, mut copied) = (String::new(), 0);
            for range in detector.find(now) {
                replaced.push_str(&now[copied..range.start]);
                replaced.push_str(&self.mask(&now[range.clone()]));
                copied = range.end;
            }
            if copied > 0 {
                replaced.push_str(&now[copied..]);
                if replaced.len() > TEXT_MAX {
                    return Some(self.mask(text));
                }
                out = Some(replaced);
            }
        }
        if let Some(queries) = &self.queries {
            let now = out.as_deref().unwrap_or(text);
            if now.contains(['=', '@']) {
                let told = if now.contains("://") { queries.url(now) } else { queries.query(now) };
                if told != now {
                    out = Some(told.into_owned());
                }
            }
        }
        out.filter(|out| out != text)
    }

    /// What stands for a whole value: a mask for each of its lines.
    fn whole(&self, text: &str) -> String {
        let mask = |captures: &regex::Captures<'_>, out: &mut String| {
            out.push_str(&self.mask(captures.get(0).map_or("", |all| all.as_str())));
        };
        let masked = self.lines.as_ref().map(|lines| lines.replace(text, mask));
        match masked {
            Some(Ok(Some(masked))) => masked,
            _ => self.mask(text),
        }
    }

    fn mask(&self, text: &str) -> String {
        let bytes = text.as_bytes();
        // A key of any length will do for an HMAC.
        match &self.mask {
            Mask::Stars => "****".to_owned(),
            Mask::Md5 => hex(&md5::Md5::digest(bytes)),
            Mask::Sha1 => hex(&sha1::Sha1::digest(bytes)),
            Mask::Sha3 => hex(&sha3::Sha3_256::digest(bytes)),
            Mask::HmacSha256(key) => hmac::Hmac::<sha2::Sha256>::new_from_slice(key.0.as_bytes())
                .map_or_else(
                    |_| "****".to_owned(),
                    |mac| hex(&mac.chain_update(bytes).finalize().into_bytes()),
                ),
            Mask::HmacSha512(key) => hmac::Hmac::<sha2::Sha512>::new_from_slice(key.0.as_bytes())
                .map_or_else(
                    |_| "****".to_owned(),
                    |mac| hex(&mac.chain_update(bytes).finalize().into_bytes()),
                ),
        }
    }

    /// Adds to the summary in `attributes`.
    fn tell(&self, found: Found, attributes: &mut Attributes, names: &Names) {
        let Found { redacted, masked, allowed, ignored } = found;
        let [redacted_keys, redacted_count, masked_keys, masked_count, ..] = names.0;
        let [.., allowed_keys, allowed_count, ignored_count] = names.0;
        for (ways, keys, count) in [
            (redacted, redacted_keys, redacted_count),
            (masked, masked_keys, masked_count),
            (allowed, allowed_keys, allowed_count),
        ] {
            let more = ways.len() as i64;
            if more > 0 && self.summary == Summary::Debug {
                let told = attributes.get(keys).and_then(Value::text).unwrap_or_default();
                let told = told.split(',').filter(|_| !told.is_empty()).map(str::to_owned);
                let mut all: Vec<String> = ways.into_iter().chain(told).collect();
                all.sort();
                attributes.set(keys, all.join(","));
            }
            self.count(attributes, count, more);
        }
        self.count(attributes, ignored_count, ignored);
    }

    fn count(&self, attributes: &mut Attributes, name: &'static str, more: i64) {
        if more == 0 || self.summary == Summary::Silent {
            return;
        }
        let told = match attributes.get(name) {
            Some(Value::Int(told)) => *told,
            _ => 0,
        };
        attributes.set(name, told.saturating_add(more));
    }
}

/// Redacts any text as a value and a key, and panics where a rule that holds for every text is broken.
#[doc(hidden)]
pub fn fuzz_redaction(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let settings = Settings {
        allow_all_keys: true,
        blocked_values: ["4[0-9]{12}(?:[0-9]{3})?", "(?i)secret[^ ]*", "x*"]
            .into_iter()
            .filter_map(|source| Pattern::new(source).ok())
            .collect(),
        blocked_key_patterns: Pattern::new("token").into_iter().collect(),
        detect: vec![Detector::CardNumber, Detector::Email, Detector::Jwt],
        header_keys: Some(Vec::new()),
        query_keys: Some(vec!["pin".to_owned()]),
        summary: Summary::Debug,
        ..Settings::default()
    };
    let rules = Rules::new(&settings);
    let mut attributes = Attributes::default();
    let key: String = text.chars().take(40).collect();
    attributes.set("list", Value::Array(vec![text.clone().into(), 1i64.into()]));
    attributes.set(key, text.clone());
    rules.attributes(&mut attributes);
    let mut body = Value::Map(Attributes(vec![("text".into(), text.clone().into())]));
    rules.body(&mut body, &mut attributes);
    for detector in [Detector::CardNumber, Detector::Email, Detector::Jwt] {
        let mut last = 0;
        for range in detector.find(&text) {
            assert!(range.start >= last && range.end > range.start, "{range:?}");
            assert!(text.get(range.clone()).is_some(), "cut in a character");
            last = range.end;
        }
    }
    let detects = Rules::new(&Settings {
        detect: vec![Detector::CardNumber],
        allow_all_keys: true,
        ..Settings::default()
    });
    if let Some(masked) = detects.masked(&text) {
        assert_eq!(detects.masked(&masked), None, "masked twice");
    }
}

#[cfg(test)]
#[path = "redaction_tests.rs"]
mod tests;
