//! The configuration file (SPEC §6), as far as this release uses it. Every key is optional; what is
//! not known is an error with its place.

use std::{net::IpAddr, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tap_common::{
    limits,
    settings::{Admission, Prefix, RULE_EXCLUDE, RULE_INCLUDE, Settings},
};

pub use super::{
    blocks::{
        Connections, Detector, Detectors, EventStore, Exchanges, Rings, Trace, TraceIdentity,
    },
    load::{ConfigError, DEFAULT_PATH, Loaded},
    values::Secret,
};
use super::{
    exporters::Exporters,
    http_capture::HttpCapture,
    place::{Mistake, path},
    processors::Processors,
    schema,
    service::Service,
    values::{Scalar, size, write_size},
};
use crate::probe::load::Wanted;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
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

/// Block `capture`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "RuleKeys", into = "RuleKeys")]
pub enum Rule {
    /// `port: 443` or `port: "8000-8100"`.
    Port(Ports),
    /// `cidr: 10.0.0.0/8`.
    Cidr(Cidr),
}

/// A rule as it is written: a map of one key.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RuleKeys {
    /// A port (443) or a range of ports (8000-8100) of either end.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<Ports>,
    /// A prefix that one end is in: 10.0.0.0/8, fd00::/8.
    #[serde(skip_serializing_if = "Option::is_none")]
    cidr: Option<Cidr>,
}

impl From<Rule> for RuleKeys {
    fn from(rule: Rule) -> Self {
        match rule {
            Rule::Port(ports) => Self { port: Some(ports), cidr: None },
            Rule::Cidr(cidr) => Self { port: None, cidr: Some(cidr) },
        }
    }
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Payload {
    /// Bytes captured at the head of each direction.
    #[serde(deserialize_with = "head_bytes", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub head_bytes: u32,
    /// What is read of the exchanges inside, where log records or spans of them are exported.
    pub http: HttpPayload,
    /// What is told of statements, where exchanges are read.
    pub db: DbPayload,
    /// Most bytes captured of each turn where exchanges are read.
    #[serde(deserialize_with = "max_bytes", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub max_bytes: u32,
}

/// `capture.payload.http`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
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

impl Config {
    /// Everything that no key alone shows to be wrong: of each block the first mistake.
    pub(super) fn check(&self) -> Vec<Mistake> {
        let retry = self.http_capture.retry_on_failure.as_ref();
        [
            self.capture.check(),
            self.exporters.check(),
            self.service.check(&self.processors, &self.exporters),
            retry.map_or(Ok(()), |retry| retry.check(&path(["http_capture"]))),
        ]
        .into_iter()
        .filter_map(Result::err)
        .collect()
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

impl Capture {
    /// Whether the kernel side's tables hold the rules.
    fn check(&self) -> Result<(), Mistake> {
        const MAX: usize = limits::ADMISSION_ENTRIES as usize;
        let (mut ports, mut prefixes) = (0_usize, 0_usize);
        for rule in self.include.iter().chain(&self.exclude) {
            match rule {
                Rule::Port(range) => ports += usize::from(range.last - range.first) + 1,
                Rule::Cidr(_) => prefixes += 1,
            }
        }
        for (what, count, instead) in [
            ("ports", ports, "fewer or narrower ranges"),
            ("prefixes", prefixes, "fewer, or shorter ones that hold several"),
        ] {
            if count > MAX {
                let why = format!(
                    "the rules name {count} {what}; the kernel side holds {MAX}: use {instead}"
                );
                let key = if self.include.is_empty() { "exclude" } else { "include" };
                return Err(Mistake::at(&path(["capture"]), [key], why));
            }
        }
        Ok(())
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

fn parsed<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Scalar::deserialize(from)?.0.parse().map_err(de::Error::custom)
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => to.serialize_u16(self.first),
            false => to.serialize_str(&format!("{}-{}", self.first, self.last)),
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}/{}", self.address, self.bits))
    }
}

schema::by_hand!(Ports, {
    "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 65535 },
        { "type": "string", "pattern": "^ *[0-9]{1,5} *(- *[0-9]{1,5} *)?$" }
    ]
});
schema::by_hand!(Cidr, { "type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$" });

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
    use std::path::Path;

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
            ("captur: {}\n", "1:1: unknown field `captur`; did you mean `capture`?"),
            ("capture:\n  direction: both\n", "2:14: capture.direction: `both` is not known here"),
            ("capture:\n  include:\n    - port: 0\n", "no port"),
            ("capture:\n  include:\n    - port: 70000\n", "no port"),
            ("capture:\n  include:\n    - cidr: 10.0.0.0/33\n", "no address prefix"),
            ("connection: { max_age: 10 }\n", "no duration"),
            ("connection: { max_age: 10ms }\n", "no duration"),
            ("rings: { life: 3MiB }\n", "power of two"),
            ("rings: { data: -1 }\n", "1:16: rings.data: `-1` is no ring size"),
            ("capture: { payload: { head_bytes: 1MiB } }\n", "64KiB"),
            ("capture: { payload: { db: all } }\n", "expected `summary` or `statement`"),
            ("http: { spans: yes }\n", "expected a boolean"),
            ("db: { span: true }\n", "unknown field `span`"),
            ("trace: { identity: w3c }\n", "w3c"),
            ("capture: [\n", "not YAML"),
        ];
        for (text, wanted) in rows {
            let error = Config::parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text:?}: {error}");
        }
    }

    #[test]
    fn more_rules_than_the_kernel_side_holds_are_refused() {
        let wrong = |text: &str| Config::parse(text).unwrap_err().to_string();
        let told = wrong("capture:\n  exclude:\n    - port: 1-2000\n");
        assert!(told.starts_with("3:5: capture.exclude: the rules name 2000 ports"), "{told}");
        let rule = |n: usize| format!("    - cidr: 10.{}.{}.0/24\n", n / 256, n % 256);
        let rules: String = (0..1025).map(rule).collect();
        let told = wrong(&format!("capture:\n  include:\n{rules}"));
        assert!(told.contains("1025 prefixes"), "{told}");
    }
}
