//! Where in the configuration file a mistake is, and what was meant. Comes in: what the parser or a
//! check says; goes out: the same with line, column and a remedy.

use std::fmt;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess};

/// A step into the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The value behind a key.
    Key(String),
    /// An element of a list.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// The way that these keys show.
pub fn path<'a>(keys: impl IntoIterator<Item = &'a str>) -> Vec<Step> {
    keys.into_iter().map(Step::from).collect()
}

/// What is wrong with a value that can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    path: Vec<Step>,
    message: String,
}

impl Mistake {
    /// At `steps` below `path`.
    pub fn at<S: Into<Step>>(
        path: &[Step],
        steps: impl IntoIterator<Item = S>,
        message: impl Into<String>,
    ) -> Self {
        let path = path.iter().cloned().chain(steps.into_iter().map(Into::into)).collect();
        Self { path, message: message.into() }
    }

    /// As the parser's error, which knows line and column: it is made to fail at this place of
    /// `text`. The place of what is not there is that of the last thing on the way to it.
    pub fn locate(&self, text: &str) -> serde_yaml::Error {
        let seek = Seek { path: &self.path, message: &self.message };
        match seek.deserialize(serde_yaml::Deserializer::from_str(text)) {
            Err(error) => error,
            Ok(()) => de::Error::custom(&self.message),
        }
    }
}

/// Goes along a path and fails at its end.
#[derive(Clone, Copy)]
struct Seek<'a> {
    path: &'a [Step],
    message: &'a str,
}

impl Seek<'_> {
    fn fail<E: de::Error>(self) -> E {
        E::custom(self.message)
    }
}

impl<'de> DeserializeSeed<'de> for Seek<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for Seek<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what was there before")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Some((Step::Key(wanted), rest)) = self.path.split_first() else {
            return Err(self.fail());
        };
        while let Some(key) = map.next_key::<serde_yaml::Value>()? {
            if key.as_str() == Some(wanted) {
                return map.next_value_seed(Seek { path: rest, ..self });
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(self.fail())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some((Step::Index(wanted), rest)) = self.path.split_first() else {
            return Err(self.fail());
        };
        for _ in 0..*wanted {
            if list.next_element::<IgnoredAny>()?.is_none() {
                break;
            }
        }
        match list.next_element_seed(Seek { path: rest, ..self })? {
            Some(()) => Ok(()),
            None => Err(self.fail()),
        }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        Err(self.fail())
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        Err(self.fail())
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        Err(self.fail())
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        Err(self.fail())
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        Err(self.fail())
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Err(self.fail())
    }
}

/// Keys that the Collector has at some place and tap does not: the block (the end of the way to it),
/// the key, and what to do.
const REFUSED: &[(&str, &str, &str)] = &[
    ("", "receivers", "tap is the receiver: leave it out"),
    ("", "extensions", "tap has none: health and metrics are at the address of --admin"),
    ("", "connectors", "tap has none: metrics are made of the traffic itself"),
    ("service", "extensions", "tap has none: health and metrics are at the address of --admin"),
    ("service", "telemetry", "use --log-level and --log-format, and /metrics of --admin"),
    ("pipelines", "receivers", "tap is the receiver: leave it out"),
    ("otlp", "auth", "give the credentials in `headers`, as authorization"),
    (
        "otlp",
        "balancer_name",
        "tap sends to one address: put a load balancer before the collectors",
    ),
    ("otlp", "authority", "the authority is the endpoint's"),
    ("otlp", "keepalive", "tap pings idle HTTP/2 connections every 20 s by itself"),
    (
        "otlp",
        "wait_for_ready",
        "what cannot be sent waits and is tried again: see `retry_on_failure`",
    ),
    ("otlp", "read_buffer_size", "buffers grow by themselves"),
    ("otlp", "write_buffer_size", "buffers grow by themselves"),
    ("otlp", "user_agent", "give it in `headers`, as user-agent"),
    ("otlp", "middlewares", "tap has none"),
    (
        "otlp",
        "proxy_url",
        "tap connects to the endpoint itself: name the proxy there if it takes OTLP",
    ),
    ("otlp", "compression_params", "tap compresses at the fastest level"),
    ("otlp", "max_idle_conns", "connections are as many as `sending_queue.num_consumers`"),
    ("otlp", "max_idle_conns_per_host", "connections are as many as `sending_queue.num_consumers`"),
    ("otlp", "max_conns_per_host", "connections are as many as `sending_queue.num_consumers`"),
    ("otlp", "idle_conn_timeout", "idle connections are closed after 90 s"),
    ("otlp", "disable_keep_alives", "connections are used again"),
    ("otlp", "http2_read_idle_timeout", "tap pings idle HTTP/2 connections every 20 s by itself"),
    ("otlp", "http2_ping_timeout", "a ping that is not answered for 10 s ends the connection"),
    ("otlp", "cookies", "tap keeps no cookies: give one in `headers`"),
    ("otlp", "force_attempt_http2", "HTTP/2 is used where the server offers it"),
    ("otlp", "batcher", "use `sending_queue.batch`"),
    ("otlp", "profiles_endpoint", "tap has no profiles"),
    ("tls", "insecure_skip_verify", "name the server's certificate in `ca_file`"),
    ("tls", "include_system_ca_certs_pool", "put the system's certificates into `ca_file` as well"),
    ("tls", "cipher_suites", "tap uses those of rustls, which are all sound"),
    ("tls", "curve_preferences", "tap uses those of rustls"),
    ("tls", "reload_interval", "files that have changed are read again at each new connection"),
    ("tls", "tpm", "give the key in `key_file`"),
    ("sending_queue", "wait_for_result", "nobody waits for what tap sends"),
    ("sending_queue", "blocking", "use `block_on_overflow`"),
    ("file", "encoding", "tap has no encodings beside `format: json`"),
    ("file", "group_by", "write one file, or several exporters in several pipelines"),
    ("file", "directory_permissions", "tap makes folders for its owner alone (0700)"),
    ("file", "sending_queue", "what cannot be written waits in memory, as OTEL_BSP_* say"),
    (
        "file",
        "retry_on_failure",
        "what cannot be written is tried again, as OTEL_BSP_EXPORT_TIMEOUT says",
    ),
    ("console", "verbosity", "every item is printed whole, as a line of JSON"),
    ("console", "sampling_initial", "every item is printed"),
    ("console", "sampling_thereafter", "every item is printed"),
    ("console", "use_internal_logger", "it prints to standard output"),
    ("console", "output_paths", "it prints to standard output: use `file`"),
    ("console", "sending_queue", "what waits is bounded by OTEL_BSP_* and OTEL_BLRP_*"),
];

/// An error of the parser's in words; with what to do, where that is known.
pub fn told(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    unknown_key(&text).unwrap_or(text)
}

/// What is said of a key that is not known, in place of all that are.
fn unknown_key(text: &str) -> Option<String> {
    // The words are serde's (`de::Error::unknown_field`), with the way to the block before them.
    let (way, rest) = text.split_once("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let known: Vec<_> = rest.split('`').skip(1).step_by(2).collect();
    let block = kind_of(way.trim_end_matches(": "));
    let refused = REFUSED.iter().find(|(place, name, _)| *place == block && *name == key);
    if let Some((_, _, instead)) = refused {
        return Some(format!("{way}the Collector has `{key}` here, tap does not: {instead}"));
    }
    let meant = closest(key, &known)?;
    Some(format!("{way}unknown field `{key}`; did you mean `{meant}`?"))
}

/// The block that a way leads to, as [`REFUSED`] has it: an exporter goes by its type.
fn kind_of(way: &str) -> &str {
    let Some(exporter) = way.strip_prefix("exporters.") else {
        return match way.strip_prefix("service.") {
            Some(below) if below.starts_with("pipelines") => "pipelines",
            Some(below) => below,
            None => way,
        };
    };
    if let Some((_, block)) = exporter.rsplit_once('.')
        && ["tls", "sending_queue"].contains(&block)
    {
        return block;
    }
    match exporter.split('/').next().unwrap_or_default() {
        "otlp_grpc" | "otlphttp" | "otlp_http" => "otlp",
        "debug" => "console",
        kind => kind,
    }
}

/// The one of `known` that differs from `name` in a letter or two, if there is one.
pub fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let most = match name.chars().count() {
        0..4 => 1,
        4..9 => 2,
        _ => 3,
    };
    let distances = known.iter().map(|known| (distance(name, known), *known));
    distances.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// Letters to add, take away or change (Levenshtein); of long names the beginnings.
fn distance(a: &str, b: &str) -> usize {
    let letters = |text: &str| -> Vec<char> { text.chars().take(64).collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_close_are_found() {
        let known = ["endpoint", "headers", "tls", "timeout", "otlp"];
        for (name, meant) in [
            ("endpont", Some("endpoint")),
            ("Headers", Some("headers")),
            ("header", Some("headers")),
            ("tsl", None),
            ("tl", Some("tls")),
            ("oltp", Some("otlp")),
            ("otlpp", Some("otlp")),
            ("", None),
            ("something", None),
        ] {
            assert_eq!(closest(name, &known), meant, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn a_mistake_is_found_in_the_text() {
        let text = "a:\n  b: [x, y]\n  c:\nd: { e: 1 }\n";
        for (steps, place) in [
            (vec![Step::from("a"), "b".into(), 1.into()], (2, 10)),
            (vec!["a".into(), "b".into()], (2, 6)),
            (vec!["d".into(), "e".into()], (4, 9)),
            (vec!["d".into(), "f".into()], (4, 4)),
            (vec!["a".into(), "b".into(), 7.into()], (2, 6)),
        ] {
            let mistake = Mistake::at(&[], steps.clone(), "wrong");
            let error = mistake.locate(text);
            let at = error.location().map(|at| (at.line(), at.column()));
            assert_eq!(at, Some(place), "{steps:?}: {error}");
            assert!(error.to_string().contains("wrong"));
        }
    }
}
