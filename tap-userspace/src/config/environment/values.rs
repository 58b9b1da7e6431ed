//! Reads single variables and keeps what was found about each. Comes in: names and values; goes
//! out: parsed values and [`Finding`]s.

use std::{collections::BTreeMap, ffi::OsString, time::Duration};

/// What one variable does, or why it does nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The variable.
    pub variable: String,
    /// Its value; for headers only their names.
    pub value: String,
    /// What it does, or what is wrong with it.
    pub effect: String,
    warning: bool,
}

impl Finding {
    /// Whether something is wrong with it.
    pub const fn is_warning(&self) -> bool {
        self.warning
    }
}

/// Variables of the specification that tap does not support, by their beginnings, and what does
/// the same.
const NOT_SUPPORTED: &[(&str, &str)] = &[
    ("OTEL_ENTITIES", "set OTEL_RESOURCE_ATTRIBUTES"),
    ("OTEL_EXPORTER_ZIPKIN_", "send OTLP to a collector that exports to Zipkin"),
    ("OTEL_EXPORTER_PROMETHEUS_", "metrics are on /metrics of the address of --admin"),
    ("OTEL_CONFIG_FILE", "tap's own file is named by --config or TAP_CONFIG"),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", "tap's own file is named by --config or TAP_CONFIG"),
];

/// The set variables.
#[derive(Debug, Default)]
pub struct Values {
    /// By name; `true` once it was asked for.
    values: BTreeMap<String, (String, bool)>,
    findings: Vec<Finding>,
}

impl Values {
    /// Those of `variables` that begin with `OTEL_` and are not empty.
    pub fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut this = Self::default();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with("OTEL_") {
                continue;
            }
            match value.into_string() {
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => drop(this.values.insert(name, (value.trim().to_owned(), false))),
                Err(value) => {
                    this.warn(&name, &value.to_string_lossy(), "not UTF-8; ignored");
                }
            }
        }
        this
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        !self.values.is_empty()
    }

    /// The value, if it is set.
    pub fn peek(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|(value, _)| value.clone())
    }

    /// The value as it is.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let (value, asked) = self.values.get_mut(name)?;
        *asked = true;
        Some(value.clone())
    }

    /// The value as `parse` has it; `wrong` says what is allowed where it cannot be parsed.
    pub fn parse<T>(
        &mut self,
        name: &str,
        wrong: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.text(name)?;
        let parsed = parse(&value);
        if parsed.is_none() {
            self.warn(name, &value, wrong);
        }
        parsed
    }

    /// One of some names, in whatever case, as the specification has it of enumerations.
    pub fn one_of<T: Copy>(&mut self, name: &str, allowed: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = allowed.iter().map(|(name, _)| *name).collect();
        let wrong = format!("not known; allowed: {}; ignored", names.join(", "));
        self.parse(name, &wrong, |value| {
            let found = allowed.iter().find(|(name, _)| name.eq_ignore_ascii_case(value));
            found.map(|(_, value)| *value)
        })
    }

    /// A boolean: only `true`, in any case, is true.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let wrong = "neither true nor false; taken as false";
        self.parse(name, wrong, |value| match value.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    /// A whole number, not below `least`.
    pub fn count(&mut self, name: &str, least: usize) -> Option<usize> {
        let wrong = format!("not a number; allowed: whole numbers from {least}; ignored");
        self.parse(name, &wrong, |value| value.parse().ok().filter(|count| *count >= least))
    }

    /// A duration in milliseconds.
    pub fn milliseconds(&mut self, name: &str) -> Option<Duration> {
        let wrong = "not a duration; allowed: whole milliseconds; ignored";
        self.parse(name, wrong, |value| value.parse().ok().map(Duration::from_millis))
    }

    /// A time-out in milliseconds; 0 is without end.
    #[expect(clippy::option_option, reason = "unset, and set to none, differ")]
    pub fn timeout(&mut self, name: &str) -> Option<Option<Duration>> {
        let timeout = self.milliseconds(name)?;
        Some(Some(timeout).filter(|timeout| !timeout.is_zero()))
    }

    /// A list `key=value,…` with percent-encoded values. One wrong entry makes all of it unused,
    /// as the specification says.
    pub fn pairs(&mut self, name: &str, shown: bool) -> Option<Vec<(String, String)>> {
        let value = self.text(name)?;
        let pairs: Option<Vec<_>> = value
            .split(',')
            .filter(|entry| !entry.trim().is_empty())
            .map(|entry| {
                let (key, value) = entry.split_once('=')?;
                let key = percent_decode(key.trim())?;
                (!key.is_empty()).then_some((key, percent_decode(value.trim())?))
            })
            .collect();
        if pairs.is_none() {
            let value = if shown { &value } else { "(hidden)" };
            let what = "not of the form key=value,key=value with percent-encoded values; ignored";
            self.warn(name, value, what);
        }
        pairs
    }

    /// Something is wrong with a variable.
    pub fn warn(&mut self, name: &str, value: &str, what: &str) {
        self.find(name, value, what, true);
    }

    /// What a variable does.
    pub fn note(&mut self, name: &str, value: &str, what: &str) {
        self.find(name, value, what, false);
    }

    fn find(&mut self, name: &str, value: &str, what: &str, warning: bool) {
        let finding = Finding {
            variable: name.to_owned(),
            value: value.to_owned(),
            effect: if warning { format!("{name}={value}: {what}") } else { what.to_owned() },
            warning,
        };
        // A variable for all signals is asked for by each.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// All findings: those made, one for every variable that nobody asked for, and one for every
    /// other that simply holds.
    pub fn into_findings(mut self) -> Vec<Finding> {
        for (name, (value, asked)) in std::mem::take(&mut self.values) {
            if self.findings.iter().any(|finding| finding.variable == name) {
                continue;
            }
            let shown = if name.ends_with("HEADERS") { header_names(&value) } else { value };
            if asked {
                let effect = format!("in force: {shown}");
                self.note(&name, &shown, &effect);
            } else if let Some((_, instead)) =
                NOT_SUPPORTED.iter().find(|(known, _)| name.starts_with(known))
            {
                self.warn(&name, &shown, &format!("not supported: {instead}"));
            } else {
                self.note(&name, &shown, "not a variable that tap reads");
            }
        }
        self.findings.sort_by(|a, b| a.variable.cmp(&b.variable));
        self.findings
    }
}

/// The names in a list of headers; their values are secrets.
fn header_names(list: &str) -> String {
    let names: Vec<_> =
        list.split(',').filter_map(|entry| Some(entry.split_once('=')?.0.trim())).collect();
    names.join(", ")
}

/// Undoes percent-encoding; `None` where it is broken or gives no UTF-8.
pub fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            out.push((high << 4 | low) as u8);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}
