//! Where in the configuration file a mistake is, and what was meant. Comes in: what the reader or a
//! check says; goes out: the same with line, column, the way there and a remedy.

use std::fmt;

use super::tree::{Node, Place};

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

/// What is wrong: where, and why. A parser's and a check's are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistake {
    path: Vec<Step>,
    message: String,
    place: Option<Place>,
    /// A key below the path that is not known, and those that are.
    unknown: Option<Box<(String, &'static [&'static str])>>,
    /// A key below the path that cannot be one.
    key: Option<String>,
}

impl std::error::Error for Mistake {}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place.filter(|place| place.line > 0) {
            write!(f, "{place}: ")?;
        }
        let way = self.way();
        if !way.is_empty() {
            write!(f, "{way}: ")?;
        }
        match self.unknown.as_deref() {
            Some((key, known)) => f.write_str(&unknown_key(&way, key, known)),
            None => f.write_str(&self.message),
        }
    }
}

impl Mistake {
    /// Of a file, at a place.
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { message: message.into(), place: Some(place), ..Self::default() }
    }

    /// At `steps` below `path`.
    pub fn at<S: Into<Step>>(
        path: &[Step],
        steps: impl IntoIterator<Item = S>,
        message: impl Into<String>,
    ) -> Self {
        let path = path.iter().cloned().chain(steps.into_iter().map(Into::into)).collect();
        Self { path, message: message.into(), ..Self::default() }
    }

    /// The same, at a place that was found out.
    pub fn placed(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }

    /// Where it is, as far as that is known.
    pub const fn place(&self) -> Option<Place> {
        self.place
    }

    /// With its place in the file that `root` is. The place of what is not there is that of the last
    /// thing on the way to it.
    pub fn locate(self, root: &Node) -> Self {
        match self.place {
            Some(_) => self,
            None => {
                let place = root.along(&self.path).place;
                self.placed(place)
            }
        }
    }

    /// What to take out of the file to find more.
    pub(super) fn culprit(&self) -> Vec<Step> {
        let key = self.unknown.as_ref().map(|unknown| &unknown.0).or(self.key.as_ref());
        let key = key.map(|key| Step::Key(key.clone()));
        self.path.iter().cloned().chain(key).collect()
    }

    /// The way there in a line: `exporters.otlp.tls`, `capture.include[2]`.
    fn way(&self) -> String {
        let mut way = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if way.is_empty() => way.push_str(key),
                Step::Key(key) => way.extend([".", key]),
                Step::Index(index) => way.push_str(&format!("[{index}]")),
            }
        }
        way
    }

    /// One step further down than it was told.
    pub(super) fn below(mut self, step: Step) -> Self {
        self.path.insert(0, step);
        self
    }

    /// With the place of `node`, unless it is known better. What came from elsewhere is not shown,
    /// but how it is written.
    pub(super) fn of(mut self, node: &Node) -> Self {
        self.place = self.place.or(Some(node.place));
        if let (Some(expanded), Some(text)) = (&node.expanded, node.text()) {
            let written = format!("`{}`", expanded.written);
            for text in [Some(text), expanded.original.as_deref()].into_iter().flatten() {
                self.message = self.message.replace(&format!("`{text}`"), &written);
            }
        }
        self
    }

    /// Of the key itself, not of what is behind it.
    pub(super) fn of_key(self, key: &Node) -> Self {
        let name = key.text().map(str::to_owned);
        Self { key: name, ..self.of(key) }
    }

    /// Of a key that is not known among others.
    pub(super) fn unknown(key: &str, known: &'static [&'static str]) -> Self {
        Self { unknown: Some(Box::new((key.to_owned(), known))), ..Self::default() }
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

/// What is said of a key that is not known, in place of all that are.
fn unknown_key(way: &str, key: &str, known: &[&str]) -> String {
    let block = kind_of(way);
    let refused = REFUSED.iter().find(|(place, name, _)| *place == block && *name == key);
    if let Some((_, _, instead)) = refused {
        return format!("the Collector has `{key}` here, tap does not: {instead}");
    }
    match closest(key, known) {
        Some(meant) => format!("unknown field `{key}`; did you mean `{meant}`?"),
        None => format!("unknown field `{key}`, expected {}", any_of(known)),
    }
}

/// These names as a choice.
pub(super) fn any_of(known: &[&str]) -> String {
    match known {
        [] => "none".to_owned(),
        [one] => format!("`{one}`"),
        [one, other] => format!("`{one}` or `{other}`"),
        many => format!("one of `{}`", many.join("`, `")),
    }
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
    fn a_mistake_says_where_it_is() {
        let at = |steps: &[Step]| Mistake::at(steps, [] as [Step; 0], "wrong");
        let tree = crate::config::tree::parse("a:\n  b: [x, y]\n").unwrap();
        let path = [Step::from("a"), "b".into(), 1.into()];
        assert_eq!(at(&path).locate(&tree).to_string(), "2:10: a.b[1]: wrong");
        assert_eq!(at(&[]).locate(&tree).to_string(), "1:1: wrong");
        let unknown = Mistake::unknown("endpont", &["endpoint", "tls"]);
        assert_eq!(unknown.to_string(), "unknown field `endpont`; did you mean `endpoint`?");
    }
}
