//! The configuration file (SPEC §6), as far as this release uses it. Every key is optional; what is
//! not known is an error with its place.

use std::{
    fmt, fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use tap_common::{
    limits,
    settings::{Admission, Prefix, RULE_EXCLUDE, RULE_INCLUDE, Settings},
};

use super::{
    exporters::Exporters, http_capture::HttpCapture, place, processors::Processors,
    service::Service,
};
use crate::probe::load::Wanted;

/// Where the file is looked for if none is named.
pub const DEFAULT_PATH: &str = "/etc/tap/tap.yaml";

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the kernel looks at.
    pub capture: Capture,
    /// Connections in the daemon.
    pub connection: Connections,
    /// Memory of the rings.
    pub rings: Rings,
    /// Trace and span ids.
    pub trace: Trace,
    /// Whom telemetry is about.
    pub resource: Detectors,
    /// Where what is exported goes, and how it waits and is tried again.
    pub exporters: Exporters,
    /// What is done to items on their way there.
    pub processors: Processors,
    /// Which signals go to which exporters.
    #[serde(deserialize_with = "or_default")]
    pub service: Service,
    /// Exchanges of HTTP, gRPC and WebSocket.
    pub http: Exchanges,
    /// Exchanges of databases and brokers.
    pub db: Exchanges,
    /// Objects of HTTP transactions in an object store.
    pub http_capture: HttpCapture,
    /// Writes to backends.
    pub eventstore: EventStore,
}

/// Block `eventstore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventStore {
    /// Whether each write to a backend has a span, where spans are exported.
    pub spans: bool,
}

impl Default for EventStore {
    fn default() -> Self {
        Self { spans: true }
    }
}

/// Blocks `http` and `db`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Exchanges {
    /// Whether each exchange has a span of its own, a child of its connection's.
    pub spans: bool,
}

/// Block `capture`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Which connections, by who opened them.
    pub direction: Direction,
    /// Whether connections inside the loopback net are looked at.
    pub loopback: bool,
    /// Whether tap's own connections are looked at.
    #[serde(rename = "self")]
    pub own: bool,
    /// If not empty, only what one of these rules names is looked at.
    pub include: Vec<Rule>,
    /// What one of these rules names is not looked at, included or not.
    pub exclude: Vec<Rule>,
    /// What is captured of the bytes.
    pub payload: Payload,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            direction: Direction::All,
            loopback: true,
            own: false,
            include: Vec::new(),
            exclude: Vec::new(),
            payload: Payload::default(),
        }
    }
}

/// `capture.direction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both.
    #[default]
    All,
    /// Accepted by this host.
    Ingress,
    /// Opened by this host.
    Egress,
}

/// One rule: a port or range, or a prefix; of either end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "RuleKeys")]
pub enum Rule {
    /// `port: 443` or `port: "8000-8100"`.
    Port(Ports),
    /// `cidr: 10.0.0.0/8`.
    Cidr(Cidr),
}

/// A rule as it is written: a map of one key.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RuleKeys {
    port: Option<Ports>,
    cidr: Option<Cidr>,
}

impl TryFrom<RuleKeys> for Rule {
    type Error = &'static str;

    fn try_from(keys: RuleKeys) -> Result<Self, Self::Error> {
        match (keys.port, keys.cidr) {
            (Some(ports), None) => Ok(Self::Port(ports)),
            (None, Some(cidr)) => Ok(Self::Cidr(cidr)),
            _ => Err("a rule has one key: `port: 443` or `cidr: 10.0.0.0/8`"),
        }
    }
}

/// A port or an inclusive range of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    bits: u8,
}

/// Block `capture.payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payload {
    /// Bytes captured at the head of each direction.
    #[serde(deserialize_with = "head_bytes")]
    pub head_bytes: u32,
    /// What is read of the exchanges inside, where log records or spans of them are exported.
    pub http: HttpPayload,
    /// What is told of statements, where exchanges are read.
    pub db: DbPayload,
    /// Most bytes captured of each turn where exchanges are read.
    #[serde(deserialize_with = "max_bytes")]
    pub max_bytes: u32,
}

/// `capture.payload.http`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HttpPayload {
    /// Exchanges are not read.
    Off,
    /// A record of each, without its header fields.
    Summary,
    /// With its header fields, secrets taken out.
    #[default]
    Headers,
}

/// `capture.payload.db`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DbPayload {
    /// Operation and target.
    #[default]
    Summary,
    /// The statement too, without its values (`db.query.text`).
    Statement,
}

impl Default for Payload {
    fn default() -> Self {
        Self {
            head_bytes: limits::HEAD_DEFAULT,
            http: HttpPayload::default(),
            db: DbPayload::default(),
            max_bytes: limits::TURN_PAYLOAD_DEFAULT,
        }
    }
}

/// Block `connection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connections {
    /// After this long a connection's span is exported and its next segment begins.
    #[serde(deserialize_with = "duration")]
    pub max_age: Duration,
    /// Whether log records tell when a connection opens, goes on for so long, and is over.
    pub logs: bool,
    /// Most connections that are open at a time; the oldest goes.
    pub table_size: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), logs: false, table_size: 262_144 }
    }
}

/// Block `rings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rings {
    /// Bytes for opens, closes and process life, which must not be lost.
    #[serde(deserialize_with = "ring_size")]
    pub life: u32,
    /// Bytes for turns and payload, which may be shed.
    #[serde(deserialize_with = "ring_size")]
    pub data: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self { life: limits::LIFE_RING_DEFAULT, data: limits::DATA_RING_DEFAULT }
    }
}

/// Block `trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// How trace ids are made.
    pub identity: TraceIdentity,
    /// Fleet secret mixed into shared ids.
    pub key: Option<Secret>,
}

/// `trace.identity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TraceIdentity {
    /// Derived from the initial sequence numbers, so both ends agree.
    #[default]
    Shared,
    /// Random.
    Random,
    /// Random, the first 32 bits the time, as AWS X-Ray wants.
    Xray,
}

/// Block `resource`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Detectors {
    /// Clouds whose metadata service is asked at the start; nobody is asked by default.
    pub detectors: Vec<Detector>,
    /// Longest wait for each.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for Detectors {
    fn default() -> Self {
        Self { detectors: Vec::new(), timeout: Duration::from_secs(5) }
    }
}

/// Of `resource.detectors`, named as the Collector's resource detection processor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detector {
    /// Amazon EC2.
    Ec2,
    /// Google Compute Engine.
    Gcp,
    /// Azure.
    Azure,
}

impl Detector {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Gcp => "gcp",
            Self::Azure => "azure",
        }
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {path}: {error}", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is wrong.
    #[error(
        "{path}:{place}{told}", path = .path.display(), place = place(.error),
        told = place::told(.error)
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What and where.
        error: serde_yaml::Error,
    },
    /// The rules are more than the kernel side's tables hold.
    #[error(
        "{path}: capture rules name {count} {what}; the kernel side holds {max}: use {instead}",
        path = .path.display(), max = limits::ADMISSION_ENTRIES
    )]
    TooManyRules {
        /// The file.
        path: PathBuf,
        /// Of what.
        what: &'static str,
        /// How many are named.
        count: usize,
        /// The remedy.
        instead: &'static str,
    },
}

/// A text that no log shows.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Line and column of a mistake, where the parser knows them.
fn place(error: &serde_yaml::Error) -> String {
    error.location().map_or_else(|| " ".into(), |at| format!("{}:{}: ", at.line(), at.column()))
}

impl Config {
    /// The named file; without a name the default one, if it is there; else all defaults.
    pub fn find(path: Option<&Path>) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::load(path),
            None if Path::new(DEFAULT_PATH).exists() => Self::load(Path::new(DEFAULT_PATH)),
            None => Ok(Self::default()),
        }
    }

    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.into(), error })?;
        let config =
            Self::parse(&text).map_err(|error| ConfigError::Wrong { path: path.into(), error })?;
        for (what, count, instead) in [
            ("ports", config.ports().len(), "fewer or narrower ranges"),
            ("prefixes", config.prefixes().len(), "fewer, or shorter ones that hold several"),
        ] {
            if count > limits::ADMISSION_ENTRIES as usize {
                return Err(ConfigError::TooManyRules { path: path.into(), what, count, instead });
            }
        }
        Ok(config)
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        // A file of nothing but comments is an empty document, not an empty map.
        let config = serde_yaml::from_str::<Option<Self>>(text)?.unwrap_or_default();
        let checked = config.exporters.check();
        let checked =
            checked.and_then(|()| config.service.check(&config.processors, &config.exporters));
        let checked = checked.and_then(|()| match &config.http_capture.retry_on_failure {
            Some(retry) => retry.check(&place::path(["http_capture"])),
            None => Ok(()),
        });
        checked.map(|()| config).map_err(|mistake| mistake.locate(text))
    }

    /// Whether the file has an exporter for a signal.
    pub fn names_exporters_for(&self, signal: super::environment::Signal) -> bool {
        match &self.service.pipelines {
            Some(pipelines) => pipelines.of(signal).next().is_some(),
            None => !self.exporters.is_empty(),
        }
    }

    /// What of it the kernel side does, for a daemon of this process id (0: trace it too).
    /// `parse`: somebody wants the exchanges inside.
    pub fn kernel(&self, self_tgid: u32, parse: bool) -> Wanted {
        let capture = &self.capture;
        let (ports, prefixes) = (self.ports(), self.prefixes());
        Wanted {
            settings: Settings {
                self_tgid,
                head: capture.payload.head_bytes,
                payload: if parse { capture.payload.max_bytes } else { 0 },
                dns: 1,
                shed_above: u64::from(self.rings.data) / 4 * 3,
                wake_above: u64::from(self.rings.life.min(self.rings.data)) / 8,
                ..Settings::DEFAULT
            },
            life_ring: self.rings.life,
            data_ring: self.rings.data,
            admission: Admission {
                egress: u8::from(capture.direction != Direction::Ingress),
                ingress: u8::from(capture.direction != Direction::Egress),
                loopback: u8::from(capture.loopback),
                default_deny: u8::from(!capture.include.is_empty()),
                ports: u8::from(!ports.is_empty()),
                prefixes: u8::from(!prefixes.is_empty()),
                ..Admission::ALL
            },
            ports,
            prefixes,
        }
    }

    /// Rules, each with what it says.
    fn rules(&self) -> impl Iterator<Item = (&Rule, u8)> {
        let include = self.capture.include.iter().map(|rule| (rule, RULE_INCLUDE));
        include.chain(self.capture.exclude.iter().map(|rule| (rule, RULE_EXCLUDE)))
    }

    fn ports(&self) -> Vec<(u16, u8)> {
        let mut said = std::collections::BTreeMap::new();
        for (rule, says) in self.rules() {
            if let Rule::Port(ports) = rule {
                for port in ports.first..=ports.last {
                    *said.entry(port).or_insert(0) |= says;
                }
            }
        }
        said.into_iter().collect()
    }

    /// Prefixes, each with what it and every prefix around it says: the kernel side finds the
    /// longest only. A short IPv6 prefix (`::/0`) is none around IPv4, though IPv4 is IPv4-mapped
    /// there: an entry that says nothing keeps it off.
    fn prefixes(&self) -> Vec<(Prefix, u8)> {
        let cidrs: Vec<(Prefix, u8)> = self
            .rules()
            .filter_map(|(rule, says)| match rule {
                Rule::Cidr(cidr) => Some((cidr.prefix(), says)),
                Rule::Port(_) => None,
            })
            .collect();
        let around = |inner: &Prefix| {
            let says = cidrs.iter().filter(|(outer, _)| {
                contains(outer, inner) && contains(&IPV4, outer) == contains(&IPV4, inner)
            });
            says.fold(0, |all, (_, says)| all | says)
        };
        let hidden = cidrs.iter().any(|(outer, _)| outer.len < IPV4.len && contains(outer, &IPV4));
        let shield = (hidden && !cidrs.iter().any(|(prefix, _)| *prefix == IPV4)).then_some(IPV4);
        cidrs
            .iter()
            .map(|(prefix, _)| *prefix)
            .chain(shield)
            .map(|prefix| (prefix, around(&prefix)))
            .collect()
    }
}

/// All of IPv4, IPv4-mapped.
const IPV4: Prefix =
    Prefix { len: 96, address: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0] };

fn contains(outer: &Prefix, inner: &Prefix) -> bool {
    let bits = u128::from_be_bytes(outer.address) ^ u128::from_be_bytes(inner.address);
    outer.len <= inner.len && bits.checked_shr(128 - outer.len).unwrap_or(0) == 0
}

impl Cidr {
    /// The prefix as the kernel side has it: IPv4 is IPv4-mapped, host bits are zero.
    pub fn prefix(self) -> Prefix {
        let (octets, len) = match self.address {
            IpAddr::V4(four) => (four.to_ipv6_mapped().octets(), 96 + u32::from(self.bits)),
            IpAddr::V6(six) => (six.octets(), u32::from(self.bits)),
        };
        let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
        Prefix { len, address: (u128::from_be_bytes(octets) & mask).to_be_bytes() }
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no address prefix: write 10.0.0.0/8 or fd00::/8");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err(format!("`{text}` is no port (443) and no range of ports (8000-8100)")),
        }
    }
}

/// A scalar of YAML, number or text, as text.
pub(in crate::config) struct Scalar(pub(in crate::config) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or text")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.to_string()))
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(value.to_owned()))
            }
        }
        from.deserialize_any(Visitor)
    }
}

/// A scalar of YAML as `parse` has it; `None` is nothing at all. What is wrong with it is told with
/// its place, which is known only while it is read.
pub(in crate::config) fn scalar<'de, T, D: Deserializer<'de>>(
    from: D,
    parse: impl FnOnce(Option<&str>) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Visitor<F>(F);
    impl<T, F: FnOnce(Option<&str>) -> Result<T, String>> de::Visitor<'_> for Visitor<F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one value")
        }
        fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
            self.visit_str(&value.to_string())
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<T, E> {
            (self.0)(Some(value)).map_err(E::custom)
        }
        fn visit_unit<E: de::Error>(self) -> Result<T, E> {
            (self.0)(None).map_err(E::custom)
        }
    }
    from.deserialize_any(Visitor(parse))
}

/// A block with nothing behind its name is all defaults, as in the Collector.
pub(super) fn or_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn parsed<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Scalar::deserialize(from)?.0.parse().map_err(de::Error::custom)
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

/// A number with one of `units` behind it.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let (_, factor) = units.iter().find(|(unit, _)| *unit == text[digits..].trim())?;
    number.checked_mul(*factor)
}

pub(in crate::config) fn duration<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Duration, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    match with_unit(&text, &units) {
        Some(ms) if ms >= 1000 => Ok(Duration::from_millis(ms)),
        _ => Err(de::Error::custom(format!(
            "`{text}` is no duration of at least 1s: write 30s, 10m or 1h"
        ))),
    }
}

pub(in crate::config) fn size(text: &str) -> Option<u64> {
    with_unit(text, &[("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)])
}

fn ring_size<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    match size(&text) {
        Some(bytes) if bytes.is_power_of_two() && (1 << 16..=1 << 30).contains(&bytes) => {
            Ok(bytes as u32)
        }
        _ => Err(de::Error::custom(format!(
            "`{text}` is no ring size: write a power of two from 64KiB to 1GiB, as 16MiB"
        ))),
    }
}

fn head_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    match size(&text) {
        Some(bytes) if bytes <= 1 << 16 => Ok(bytes as u32),
        _ => Err(de::Error::custom(format!("`{text}` is no size up to 64KiB: write 4KiB or 4096"))),
    }
}

fn max_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    match size(&text) {
        Some(bytes) if (256..=1 << 24).contains(&bytes) => Ok(bytes as u32),
        _ => Err(de::Error::custom(format!(
            "`{text}` is no size from 256 to 16MiB: write 16KiB or 16384"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotated_file_holds_the_defaults() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tap.yaml");
        assert_eq!(Config::load(&path).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::parse("# only a comment\n").unwrap(), Config::default());
    }

    #[test]
    fn rules_become_tables() {
        let config = Config::parse(
            "capture:\n  direction: egress\n  include:\n    - port: 443\n    - port: 8000-8002\n    \
             - cidr: 10.0.0.0/8\n  exclude:\n    - cidr: 10.1.2.3/16\n    - port: 8001\n",
        )
        .unwrap();
        let wanted = config.kernel(7, false);
        let (inc, exc) = (RULE_INCLUDE, RULE_EXCLUDE);
        assert_eq!(wanted.ports, [(443, inc), (8000, inc), (8001, inc | exc), (8002, inc)]);
        let prefixes: Vec<_> = wanted
            .prefixes
            .iter()
            .map(|(prefix, says)| (prefix.len, prefix.address[13], *says))
            .collect();
        assert_eq!(prefixes, [(104, 0, inc), (112, 1, inc | exc)]);
        assert_eq!((wanted.admission.ingress, wanted.admission.egress), (0, 1));
        assert_eq!((wanted.admission.default_deny, wanted.settings.self_tgid), (1, 7));
    }

    #[test]
    fn an_ipv6_network_is_around_no_ipv4_network() {
        let text = "capture: { exclude: [ { cidr: '::/0' }, { cidr: 10.0.0.0/8 } ] }";
        let shown = |text: &str| -> Vec<(u32, u8)> {
            let prefixes = Config::parse(text).unwrap().kernel(0, false).prefixes;
            prefixes.iter().map(|(prefix, says)| (prefix.len, *says)).collect()
        };
        let (inc, exc) = (RULE_INCLUDE, RULE_EXCLUDE);
        assert_eq!(shown(text), [(0, exc), (104, exc), (96, 0)]);
        let both = "capture: { exclude: [ { cidr: '::/0' } ], include: [ { cidr: 0.0.0.0/0 } ] }";
        assert_eq!(shown(both), [(96, inc), (0, exc)]);
        assert_eq!(shown("capture: { exclude: [ { cidr: 'fd00::/8' } ] }"), [(8, exc)]);
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let rows = [
            ("captur: {}\n", "unknown field `captur`"),
            ("capture:\n  direction: both\n", "line 2 column 14"),
            ("capture:\n  include:\n    - port: 0\n", "no port"),
            ("capture:\n  include:\n    - port: 70000\n", "no port"),
            ("capture:\n  include:\n    - cidr: 10.0.0.0/33\n", "no address prefix"),
            ("connection: { max_age: 10 }\n", "no duration"),
            ("connection: { max_age: 10ms }\n", "no duration"),
            ("rings: { life: 3MiB }\n", "power of two"),
            ("rings: { data: -1 }\n", "line 1"),
            ("capture: { payload: { head_bytes: 1MiB } }\n", "64KiB"),
            ("capture: { payload: { db: all } }\n", "expected `summary` or `statement`"),
            ("http: { spans: yes }\n", "expected a boolean"),
            ("db: { span: true }\n", "unknown field `span`"),
            ("trace: { identity: w3c }\n", "w3c"),
            ("capture: [\n", "line 1 column 10"),
        ];
        for (text, wanted) in rows {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn more_rules_than_the_kernel_side_holds_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tap.yaml");
        fs::write(&path, "capture:\n  exclude:\n    - port: 1-2000\n").unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("2000 ports"));
        let rule = |n: usize| format!("    - cidr: 10.{}.{}.0/24\n", n / 256, n % 256);
        let rules: String = (0..1025).map(rule).collect();
        fs::write(&path, format!("capture:\n  include:\n{rules}")).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("1025 prefixes"));
    }
}
