//! The configuration file. In: YAML. Out: a [`Config`] in which every value is in range, or an
//! error that names file, line, column and key; nothing is half applied.
//!
//! Ranges are checked by the types that read the values, so that an error has the place of the
//! value and there is no second pass to forget.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    fmt,
    io::Read,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use tap_common::{
    limits::{ADMISSION_ENTRIES, DATA_RING_DEFAULT, HEAD_DEFAULT, LIFE_RING_DEFAULT},
    settings::{Admission, Prefix, RULE_EXCLUDE, RULE_INCLUDE},
};

use crate::{connection::identity::TraceIdentity, protocol::head::LIMIT_MAX};

/// Largest file that is read.
const FILE_MAX: u64 = 1 << 20;

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the kernel looks at.
    #[serde(deserialize_with = "section")]
    pub capture: Capture,
    /// The daemon's connection table.
    #[serde(deserialize_with = "section")]
    pub connection: Connection,
    /// The rings between kernel and daemon.
    #[serde(deserialize_with = "section")]
    pub rings: Rings,
    /// Trace and span ids.
    #[serde(deserialize_with = "section")]
    pub trace: Trace,
    /// Metrics for a scraper.
    #[serde(deserialize_with = "section")]
    pub metrics: Metrics,
}

/// `capture`: decided once per connection, in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Which connections, by who opened them.
    pub direction: CaptureDirection,
    /// Whether connections between loopback addresses are traced.
    pub loopback: bool,
    /// Whether tap traces its own connections.
    #[serde(rename = "self")]
    pub own: bool,
    /// Where there are any, only what one of them names is traced.
    #[serde(deserialize_with = "section")]
    pub include: Rules,
    /// What one of these names is not traced, whatever `include` says.
    #[serde(deserialize_with = "section")]
    pub exclude: Rules,
    /// Payload that is captured.
    #[serde(deserialize_with = "section")]
    pub payload: Payload,
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            direction: CaptureDirection::All,
            loopback: true,
            own: false,
            include: Rules::default(),
            exclude: Rules::default(),
            payload: Payload::default(),
        }
    }
}

/// `capture.direction`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CaptureDirection {
    /// Both.
    #[default]
    All,
    /// Connections that this host accepts.
    Ingress,
    /// Connections that this host opens.
    Egress,
}

/// `capture.payload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Payload {
    /// Bytes captured at the begin of each direction: none, or 512 B to 64 KiB.
    #[serde(deserialize_with = "head_bytes")]
    pub head_bytes: u32,
}

impl Default for Payload {
    fn default() -> Self {
        Self { head_bytes: HEAD_DEFAULT }
    }
}

/// `connection`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// A connection older than this gives a span for each such piece of its life: 1 s to 7 days.
    #[serde(deserialize_with = "max_age")]
    pub max_age: Duration,
    /// Connections that are held at a time: 1,024 to 4,194,304.
    #[serde(deserialize_with = "table_size")]
    pub table_size: u32,
}

impl Default for Connection {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), table_size: 65_536 }
    }
}

/// `rings`: bytes, powers of two, 64 KiB to 1 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rings {
    /// Opens, owners, closes and process life.
    #[serde(deserialize_with = "ring_size")]
    pub life: u32,
    /// Turns and payload.
    #[serde(deserialize_with = "ring_size")]
    pub data: u32,
}

impl Default for Rings {
    fn default() -> Self {
        Self { life: LIFE_RING_DEFAULT, data: DATA_RING_DEFAULT }
    }
}

/// `trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    /// How connections get their ids.
    pub identity: TraceIdentity,
    /// The fleet's secret: 32 hexadecimal digits.
    pub key: Option<Key>,
}

/// `trace.key`. Its `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// `metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Where `/metrics` and the health pages are served besides the admin address.
    pub listen: Option<SocketAddr>,
}

impl Config {
    /// Reads the file at `path`.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > FILE_MAX {
            return Err(ConfigError::TooLong { path: path.to_owned() });
        }
        Self::parse(&text, path)
    }

    /// Reads `text`, which is that of the file at `path`. An empty one is the default.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        serde_yaml::from_str::<Option<Self>>(text).map(Option::unwrap_or_default).map_err(|error| {
            let (line, column) =
                error.location().map_or((0, 0), |place| (place.line(), place.column()));
            ConfigError::Invalid { path: path.to_owned(), line, column, problem: problem(&error) }
        })
    }
}

/// For the fuzzer: any bytes as a file. What is accepted makes tables that fit into the kernel's.
#[doc(hidden)]
pub fn fuzz_config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(config) = Config::parse(text, Path::new("fuzz")) {
        assert!(config.capture.ports().len() <= ADMISSION_ENTRIES as usize);
        assert!(config.capture.prefixes().len() <= ADMISSION_ENTRIES as usize);
    }
}

/// What is wrong, with the key's path, without the place that [`ConfigError`] writes itself.
fn problem(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((text, _)) => text.to_owned(),
        None => text,
    }
}

/// Why a file is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}: {source}; check the path given by --config", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is longer than any configuration.
    #[error("the configuration {} is longer than {FILE_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// A key or value is wrong.
    #[error("{}:{line}:{column}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// From 1; 0 where not known.
        line: usize,
        /// From 1; 0 where not known.
        column: usize,
        /// What is wrong with which key.
        problem: String,
    },
}

// === Rules ===

/// Entries of `capture.include` or `capture.exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// In the order of the file.
    pub rules: Vec<Rule>,
}

/// What a rule names. It is compared with either end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Ports `first..=last`.
    Ports {
        /// The first, not 0.
        first: u16,
        /// The last, not less.
        last: u16,
    },
    /// The addresses of a network.
    Cidr(Cidr),
}

impl Rules {
    fn ports(&self) -> impl Iterator<Item = u16> {
        self.rules.iter().flat_map(|rule| match rule {
            Rule::Ports { first, last } => *first..=*last,
            // An empty range.
            #[expect(clippy::reversed_empty_ranges, reason = "a rule without ports")]
            Rule::Cidr(_) => 1..=0,
        })
    }

    fn networks(&self) -> impl Iterator<Item = Cidr> {
        self.rules.iter().filter_map(|rule| match rule {
            Rule::Cidr(cidr) => Some(*cidr),
            Rule::Ports { .. } => None,
        })
    }
}

impl Capture {
    /// The kernel's switches.
    pub fn admission(&self) -> Admission {
        Admission {
            egress: u8::from(self.direction != CaptureDirection::Ingress),
            ingress: u8::from(self.direction != CaptureDirection::Egress),
            loopback: u8::from(self.loopback),
            default_deny: u8::from(!self.include.rules.is_empty()),
            ports: u8::from(!self.ports().is_empty()),
            prefixes: u8::from(!self.prefixes().is_empty()),
            pad: [0; 2],
        }
    }

    /// The entries of the kernel's port table: bits of [`RULE_INCLUDE`] and [`RULE_EXCLUDE`].
    pub fn ports(&self) -> BTreeMap<u16, u8> {
        let mut ports = BTreeMap::new();
        for (rules, bit) in [(&self.include, RULE_INCLUDE), (&self.exclude, RULE_EXCLUDE)] {
            for port in rules.ports() {
                *ports.entry(port).or_insert(0) |= bit;
            }
        }
        ports
    }

    /// The entries of the kernel's prefix table, which answers with the longest match only: so
    /// each entry has the bits of all networks that it lies in. An entry without bits keeps a
    /// short IPv6 prefix from matching IPv4, which is IPv4-mapped there.
    pub fn prefixes(&self) -> Vec<(Prefix, u8)> {
        let all: Vec<(Cidr, u8)> = (self.include.networks().map(|cidr| (cidr, RULE_INCLUDE)))
            .chain(self.exclude.networks().map(|cidr| (cidr, RULE_EXCLUDE)))
            .collect();
        let every_ipv4 = Cidr { address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 };
        let mapped = every_ipv4.prefix();
        let shadowed = all.iter().any(|(cidr, _)| {
            let prefix = cidr.prefix();
            prefix.len < mapped.len && starts_with(&mapped.address, prefix)
        });
        let mut table = BTreeMap::new();
        for cidr in all.iter().map(|(cidr, _)| *cidr).chain(shadowed.then_some(every_ipv4)) {
            let bits = all.iter().filter(|(outer, _)| outer.covers(cidr)).fold(0, |a, b| a | b.1);
            let Prefix { len, address } = cidr.prefix();
            table.insert((len, address), bits);
        }
        table.into_iter().map(|((len, address), bits)| (Prefix { len, address }, bits)).collect()
    }
}

impl<'de> Deserialize<'de> for Rules {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let rules = Vec::<Rule>::deserialize(deserializer)?;
        let rules = Self { rules };
        // Half of the kernel's tables each, so that include and exclude fit in together.
        let most = ADMISSION_ENTRIES as usize / 2;
        if rules.ports().take(most + 1).count() > most {
            return Err(de::Error::custom(format_args!(
                "the rules name more than {most} ports; name fewer, or networks instead"
            )));
        }
        // One place is for the entry that keeps IPv4 apart.
        if rules.networks().count() > most - 1 {
            return Err(de::Error::custom(format_args!(
                "more than {} networks; join some of them into larger ones",
                most - 1
            )));
        }
        Ok(rules)
    }
}

impl<'de> Deserialize<'de> for Rule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            port: Option<PortRange>,
            cidr: Option<Cidr>,
        }
        match Raw::deserialize(deserializer)? {
            Raw { port: Some(PortRange(first, last)), cidr: None } => {
                Ok(Self::Ports { first, last })
            }
            Raw { port: None, cidr: Some(cidr) } => Ok(Self::Cidr(cidr)),
            Raw { port: None, cidr: None } => {
                Err(de::Error::custom("a rule needs `port` or `cidr`"))
            }
            Raw { port: Some(_), cidr: Some(_) } => Err(de::Error::custom(
                "a rule has `port` or `cidr`, not both: write two rules, either of which applies",
            )),
        }
    }
}

struct PortRange(u16, u16);

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ports;
        impl de::Visitor<'_> for Ports {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port (443) or a range of ports (\"8000-8100\"), from 1 to 65535")
            }

            fn visit_u64<E: de::Error>(self, port: u64) -> Result<PortRange, E> {
                let wrong = || E::invalid_value(de::Unexpected::Unsigned(port), &self);
                let port = u16::try_from(port).ok().filter(|port| *port > 0).ok_or_else(wrong)?;
                Ok(PortRange(port, port))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let parse = |text: &str| text.trim().parse().ok().filter(|port| *port > 0u16);
                match (parse(first), parse(last)) {
                    (Some(first), Some(last)) if first <= last => Ok(PortRange(first, last)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Ports)
    }
}

/// A network: an address and how many of its bits count; the others are zero. IPv4-mapped IPv6
/// networks are IPv4 ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that count.
    pub len: u8,
}

impl Cidr {
    /// As the kernel's prefix table has it.
    pub const fn prefix(self) -> Prefix {
        match self.address {
            IpAddr::V4(address) => {
                Prefix { len: 96 + self.len as u32, address: address.to_ipv6_mapped().octets() }
            }
            IpAddr::V6(address) => Prefix { len: self.len as u32, address: address.octets() },
        }
    }

    /// Whether `inner` lies in it. An IPv4 network lies in no IPv6 one.
    fn covers(self, inner: Self) -> bool {
        let prefix = self.prefix();
        self.address.is_ipv4() == inner.address.is_ipv4()
            && prefix.len <= inner.prefix().len
            && starts_with(&inner.prefix().address, prefix)
    }
}

fn starts_with(address: &[u8; 16], prefix: Prefix) -> bool {
    // A shift by 128 gives None: no bit counts.
    let differ = u128::from_be_bytes(*address) ^ u128::from_be_bytes(prefix.address);
    differ.checked_shr(128 - prefix.len.min(128)).unwrap_or(0) == 0
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr =
            address.parse().map_err(|_| format!("`{text}` is no network like 10.0.0.0/8"))?;
        let most: u8 = if address.is_ipv4() { 32 } else { 128 };
        let len = match len {
            None => most,
            Some(len) => len
                .parse()
                .ok()
                .filter(|bits| *bits <= most && !len.starts_with('+'))
                .ok_or_else(|| format!("`{text}`: the prefix length is 0 to {most}"))?,
        };
        let (address, len) = match address {
            IpAddr::V6(six) if len >= 96 => match six.to_ipv4_mapped() {
                Some(four) => (IpAddr::V4(four), len - 96),
                None => (address, len),
            },
            _ => (address, len),
        };
        let cidr = Self { address, len };
        let Prefix { len: significant, address: octets } = cidr.prefix();
        let bits = u128::from_be_bytes(octets);
        let kept = bits & u128::MAX.checked_shl(128 - significant).unwrap_or(0);
        if kept != bits {
            let first = Ipv6Addr::from(kept);
            let first = match address {
                IpAddr::V4(_) => first.to_ipv4_mapped().map_or(IpAddr::V6(first), IpAddr::V4),
                IpAddr::V6(_) => IpAddr::V6(first),
            };
            return Err(format!(
                "`{text}` has bits beyond its prefix; the network is {first}/{len}"
            ));
        }
        Ok(cidr)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        parsed(deserializer, "a network like 10.0.0.0/8 or an address", str::parse)
    }
}

// === Values ===

/// A section that is named but empty (`rings:` with its keys commented out) is the default.
fn section<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads a string by `parse`, or a number as if it were written as one.
fn parsed<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    expecting: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    struct Text<P>(&'static str, P);
    impl<T, P: Fn(&str) -> Result<T, String>> de::Visitor<'_> for Text<P> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).map_err(|why| E::custom(format_args!("{why}; expected {}", self.0)))
        }
    }
    deserializer.deserialize_any(Text(expecting, parse))
}

fn head_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    parsed(deserializer, "0, or 512B to 64KiB", |text| {
        let bytes = parse_size(text)?;
        match u32::try_from(bytes) {
            Ok(bytes @ (0 | 512..=LIMIT_MAX)) => Ok(bytes),
            _ => Err(format!("{text} is out of range")),
        }
    })
}

fn max_age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    parsed(deserializer, "a duration like 10m, from 1s to 168h", |text| {
        let age = parse_duration(text)?;
        if (Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&age) {
            Ok(age)
        } else {
            Err(format!("{text} is out of range"))
        }
    })
}

fn table_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    parsed(deserializer, "a number from 1024 to 4194304", |text| match text.parse() {
        Ok(entries @ 1024..=4_194_304) => Ok(entries),
        Ok(_) => Err(format!("{text} is out of range")),
        Err(_) => Err(format!("`{text}` is no whole number")),
    })
}

fn ring_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    // A ring's size must be a power of two and a multiple of the page (BPF_MAP_TYPE_RINGBUF,
    // kernel/bpf/ringbuf.c); pages have 64 KiB at most.
    parsed(deserializer, "a power of two from 64KiB to 1GiB", |text| {
        let bytes = parse_size(text)?;
        match u32::try_from(bytes) {
            Ok(bytes @ 0x1_0000..=0x4000_0000) if bytes.is_power_of_two() => Ok(bytes),
            Ok(bytes @ 0x1_0000..=0x4000_0000) => {
                let (below, above) = (bytes.next_power_of_two() / 2, bytes.next_power_of_two());
                Err(format!("{text} is no power of two (the nearest are {below} and {above})"))
            }
            _ => Err(format!("{text} is out of range")),
        }
    })
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("32 hexadecimal digits in quotes, as `openssl rand -hex 16` makes them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Key, E> {
                // The message must not hold the key.
                let wrong = || E::custom("this is no key; expected 32 hexadecimal digits");
                if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return Err(wrong());
                }
                u128::from_str_radix(text, 16)
                    .map(|key| Key(key.to_be_bytes()))
                    .map_err(|_| wrong())
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Key, E> {
                Err(E::custom("this is no key; expected 32 hexadecimal digits in quotes"))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// `16MiB`, `512B`, `4096`.
fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no size like 16MiB");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

/// `10m`, `1h30m`, `1500ms`: whole numbers with units, as the Collector writes durations.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration like 10m (units: ms, s, m, h)");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let unit_ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(wrong()),
        };
        let ms = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
        let piece = Duration::from_millis(ms.ok_or_else(wrong)?);
        total = total.checked_add(piece).ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("tap.yaml")).map_err(|error| error.to_string())
    }

    #[test]
    fn the_annotated_default_is_the_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/tap.yaml");
        assert_eq!(Config::load(&path).expect("valid"), Config::default());
        // It holds every key, so that a new one is documented there: each key of the types' own
        // list of fields must occur.
        let text = std::fs::read_to_string(&path).expect("read");
        for section in
            ["", "capture", "capture: { payload", "connection", "rings", "trace", "metrics"]
        {
            let closing = "}".repeat(section.matches('{').count());
            let probe = if section.is_empty() {
                "nonsense: 1".to_owned()
            } else {
                format!("{section}: {{ nonsense: 1 }}{closing}")
            };
            let error = parse(&probe).expect_err("an unknown key");
            let (_, fields) = error.split_once("expected").expect("a list of fields");
            let fields: Vec<&str> = fields.split('`').skip(1).step_by(2).collect();
            assert!(!fields.is_empty(), "{error}");
            for field in fields {
                assert!(text.contains(&format!("{field}:")), "{field} of `{section}`");
            }
        }
    }

    #[test]
    fn nothing_is_the_default() {
        for text in ["", "# nothing\n", "{}", "capture:\nrings:\n", "capture: { include: }"] {
            assert_eq!(parse(text), Ok(Config::default()), "{text}");
        }
    }

    #[test]
    fn every_key_is_read() {
        let config = parse(
            "capture:\n  direction: egress\n  loopback: false\n  self: true\n  include:\n  - port: 443\n  - port: \"8000-8002\"\n  exclude:\n  - cidr: 10.0.0.0/8\n  - cidr: ::1\n  payload: { head_bytes: 8KiB }\nconnection: { max_age: 1h30m, table_size: 2048 }\nrings: { life: 1MiB, data: 64KiB }\ntrace: { identity: xray, key: \"000102030405060708090a0b0c0d0e0f\" }\nmetrics: { listen: 0.0.0.0:9464 }\n",
        )
        .expect("valid");
        let rules = &config.capture.include.rules;
        assert_eq!(rules[0], Rule::Ports { first: 443, last: 443 });
        assert_eq!(rules[1], Rule::Ports { first: 8000, last: 8002 });
        assert_eq!(config.capture.exclude.rules.len(), 2);
        assert_eq!(config.capture.direction, CaptureDirection::Egress);
        assert!(!config.capture.loopback && config.capture.own);
        assert_eq!(config.capture.payload.head_bytes, 8192);
        assert_eq!(config.connection.max_age, Duration::from_secs(5400));
        assert_eq!(config.connection.table_size, 2048);
        assert_eq!(config.rings, Rings { life: 1 << 20, data: 1 << 16 });
        assert_eq!(config.trace.identity, TraceIdentity::Xray);
        let key = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        assert_eq!(config.trace.key, Some(Key(key)));
        assert!(!format!("{config:?}").contains("0a"));
        assert_eq!(config.metrics.listen, Some("0.0.0.0:9464".parse().expect("an address")));
    }

    #[test]
    fn errors_name_place_key_and_remedy() {
        for (text, expected) in [
            ("capture:\n  loopbak: true\n", "tap.yaml:2:3: capture: unknown field `loopbak`"),
            ("capturing: {}\n", "tap.yaml:1:1: unknown field `capturing`"),
            (
                "rings:\n  life: 17MiB\n",
                "tap.yaml:2:9: rings.life: 17MiB is no power of two (the nearest are 16777216 and 33554432)",
            ),
            ("rings:\n  data: 2GiB\n", "tap.yaml:2:9: rings.data: 2GiB is out of range"),
            ("rings: { data: 4KiB }", "rings.data: 4KiB is out of range"),
            ("rings: { data: 16MB }", "`16MB` is no size like 16MiB"),
            ("rings: { data: -1 }", "expected a power of two"),
            ("rings: { data: 99999999999GiB }", "no size"),
            ("connection: { max_age: 10 }", "connection.max_age: `10` is no duration like 10m"),
            (
                "connection: { max_age: 10ms }",
                "out of range; expected a duration like 10m, from 1s",
            ),
            ("connection: { max_age: '' }", "is no duration"),
            ("connection: { table_size: 3 }", "connection.table_size: 3 is out of range"),
            (
                "trace: { identity: same }",
                "unknown variant `same`, expected one of `shared`, `random`, `xray`",
            ),
            ("trace: { key: abc }", "trace.key: this is no key; expected 32 hexadecimal digits"),
            ("trace: { key: +0102030405060708090a0b0c0d0e0f0 }", "this is no key"),
            ("metrics: { listen: 9464 }", "metrics.listen"),
            ("capture: { direction: both }", "capture.direction: unknown variant `both`"),
            (
                "capture: { loopback: 3 }",
                "capture.loopback: invalid type: integer `3`, expected a boolean",
            ),
            (
                "capture: { payload: { head_bytes: 100 } }",
                "capture.payload.head_bytes: 100 is out of range",
            ),
            (
                "capture: { payload: { head_bytes: 65537 } }",
                "out of range; expected 0, or 512B to 64KiB",
            ),
            (
                "capture: { include: [ { port: 0 } ] }",
                "capture.include[0].port: invalid value: integer `0`",
            ),
            (
                "capture: { include: [ { port: 9-1 } ] }",
                "invalid value: string \"9-1\", expected a port",
            ),
            ("capture: { include: [ { port: 65536 } ] }", "from 1 to 65535"),
            ("capture: { include: [ {} ] }", "a rule needs `port` or `cidr`"),
            ("capture: { include: [ { port: 1, cidr: '::1' } ] }", "write two rules"),
            ("capture: { include: [ { exe: curl } ] }", "unknown field `exe`"),
            ("capture: { include: [ { port: 1-600 } ] }", "more than 512 ports"),
            ("capture: { exclude: [ { cidr: 10.0.0.1/8 } ] }", "the network is 10.0.0.0/8"),
            ("capture: { exclude: [ { cidr: 2001:db8::1/32 } ] }", "the network is 2001:db8::/32"),
            ("capture: { exclude: [ { cidr: 10.0.0.0/33 } ] }", "the prefix length is 0 to 32"),
            ("capture: { exclude: [ { cidr: host } ] }", "`host` is no network like 10.0.0.0/8"),
            ("rings: {}\nrings: {}\n", "duplicate field `rings`"),
            ("- a\n", "tap.yaml:1:1: invalid type: sequence"),
            ("capture: {\n", "tap.yaml:2:1: "),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with("tap.yaml:"), "{error}");
            assert!(error.contains(expected), "{text}\n gives {error}\n not {expected}");
        }
        let error = Config::load(Path::new("/nowhere/tap.yaml")).expect_err("no file").to_string();
        assert!(error.contains("/nowhere/tap.yaml") && error.contains("--config"), "{error}");
    }

    #[test]
    fn secrets_stay_out_of_errors() {
        let error = parse("trace: { key: 'my-secret-passphrase' }").expect_err("no key");
        assert!(!error.contains("my-secret"), "{error}");
        for text in ["trace: { key: 0102030405 }", "trace: { key: [1] }"] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("32 hexadecimal digits"), "{error}");
        }
    }

    #[test]
    fn the_kernels_tables() {
        let config = parse(
            "capture:\n  include: [ { cidr: 10.0.0.0/8 }, { cidr: 192.168.1.1 }, { port: 80-82 } ]\n  exclude: [ { cidr: 10.1.0.0/16 }, { port: 81 }, { cidr: 10.0.0.0/8 } ]\n",
        )
        .expect("valid");
        let capture = &config.capture;
        assert_eq!(
            capture.admission(),
            Admission { default_deny: 1, ports: 1, prefixes: 1, ..Admission::ALL }
        );
        assert_eq!(Config::default().capture.admission(), Admission::ALL);
        assert_eq!(capture.ports(), BTreeMap::from([(80, 1), (81, 3), (82, 1)]));
        let shown: Vec<(u32, u8)> =
            capture.prefixes().iter().map(|(prefix, bits)| (prefix.len, *bits)).collect();
        assert_eq!(shown, [(104, 3), (112, 3), (128, 1)]);
    }

    #[test]
    fn an_ipv6_network_is_no_ipv4_network() {
        let config =
            parse("capture: { exclude: [ { cidr: '::/0' }, { cidr: '::ffff:10.0.0.0/104' } ] }");
        let prefixes = config.expect("valid").capture.prefixes();
        let shown: Vec<(u32, u8)> =
            prefixes.iter().map(|(prefix, bits)| (prefix.len, *bits)).collect();
        assert_eq!(shown, [(0, 2), (96, 0), (104, 2)]);
        assert_eq!(prefixes[1].0.address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0]);
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = crate::protocol::noise::Noise::new(0x7461_7007);
        let file = b"capture: { include: [ { port: 1-9 }, { cidr: 10.0.0.0/8 } ] }\nrings: { life: 1MiB }\nconnection: { max_age: 1h }\n";
        for _ in 0..20_000 {
            let mut bytes = file.to_vec();
            noise.stir(&mut bytes);
            fuzz_config(&bytes);
        }
    }

    #[test]
    fn networks() {
        for (text, address, len) in [
            ("0.0.0.0/0", "0.0.0.0", 0),
            ("10.0.0.0/8", "10.0.0.0", 8),
            ("10.1.2.3", "10.1.2.3", 32),
            ("::/0", "::", 0),
            ("fe80::/10", "fe80::", 10),
            ("::ffff:1.2.3.4", "1.2.3.4", 32),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(text.parse(), Ok(Cidr { address, len }), "{text}");
        }
        for text in [
            "",
            "/",
            "/8",
            "1.2.3/8",
            "1.2.3.4/",
            "1.2.3.4/-1",
            "1.2.3.4/+1",
            "1.2.3.4/32/1",
            "::1/129",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
