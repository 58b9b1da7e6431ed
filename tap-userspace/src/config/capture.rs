//! Block `capture`: which connections are looked at, and how much of them. Comes in: YAML; goes out:
//! rules as they are written. What they mean is [`crate::policy::admission`]'s.

use std::{fmt, net::IpAddr, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use tap_common::{limits, settings::Prefix};

use super::{
    place::{Mistake, Step, path},
    schema,
    values::{Scalar, size, write_size},
};
use crate::policy::{admission::Rules, connection::Condition, glob::Glob};

/// Block `capture`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Which connections, by who opened them.
    pub direction: Direction,
    /// Whether connections inside the loopback net are looked at.
    pub loopback: bool,
    /// Whether tap's own connections are looked at.
    #[serde(rename = "self")]
    pub own: bool,
    /// If not empty, only what one of these rules holds of is looked at.
    pub include: Vec<Rule>,
    /// What one of these rules holds of is not looked at, included or not.
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

impl Capture {
    /// What no key alone shows to be wrong: a rule that says nothing, or more rules than the kernel
    /// side's tables hold.
    pub(super) fn check(&self) -> Result<(), Mistake> {
        let at = path(["capture"]);
        for (key, list) in [("include", &self.include), ("exclude", &self.exclude)] {
            if let Some(empty) = list.iter().position(|rule| *rule == Rule::default()) {
                let why = "a rule names something: `port: 443`, `cidr: 10.0.0.0/8`, `exe: curl`, …";
                return Err(Mistake::at(&at, [Step::from(key), Step::from(empty)], why));
            }
        }
        let key = if self.include.is_empty() { "exclude" } else { "include" };
        let found = Rules::new(self).map_err(|error| Mistake::at(&at, [key], error.to_string()));
        found.map(drop)
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

/// One rule: holds of a connection of which everything that it names holds.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct Rule {
    /// Port of either end: `443` or `8000-8100`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Ports>,
    /// Port of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_port: Option<Ports>,
    /// Port of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_port: Option<Ports>,
    /// Prefix that the address of one end is in: `10.0.0.0/8`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cidr: Option<Cidr>,
    /// Prefix that this host's address is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_cidr: Option<Cidr>,
    /// Prefix that the peer's address is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_cidr: Option<Cidr>,
    /// Real user of the process, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Executable of the process: its path where the pattern has a `/`, else its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exe: Option<Glob>,
    /// Begin of the container's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerPrefix>,
    /// Path of the socket's cgroup, or of one that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Glob>,
    /// Who opened it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Way>,
    /// What the other keys cannot say, in CEL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<Condition>,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sep = "";
        let mut put = |name: &str, value: Option<&dyn fmt::Display>| -> fmt::Result {
            let Some(value) = value else { return Ok(()) };
            write!(f, "{sep}{name} {value}")?;
            sep = " and ";
            Ok(())
        };
        fn of<T: fmt::Display>(value: &Option<T>) -> Option<&dyn fmt::Display> {
            value.as_ref().map(|value| value as &dyn fmt::Display)
        }
        put("port", of(&self.port))?;
        put("local_port", of(&self.local_port))?;
        put("remote_port", of(&self.remote_port))?;
        put("cidr", of(&self.cidr))?;
        put("local_cidr", of(&self.local_cidr))?;
        put("remote_cidr", of(&self.remote_cidr))?;
        put("uid", of(&self.uid))?;
        put("exe", of(&self.exe))?;
        put("container", of(&self.container))?;
        put("cgroup", of(&self.cgroup))?;
        put("direction", of(&self.direction))?;
        put("condition", of(&self.condition))
    }
}

/// Which end opened a connection, in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// Accepted by this host.
    Ingress,
    /// Opened by this host.
    Egress,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// The begin of a container's id: hexadecimal digits in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPrefix(pub Box<str>);

impl fmt::Display for ContainerPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if (4..=64).contains(&text.len()) && text.bytes().all(is_hex) {
            return Ok(Self(text.into()));
        }
        Err(format!(
            "`{text}` is no container: write 4 to 64 digits of its id, as `docker ps` shows"
        ))
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

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "{}", self.first),
            false => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn parsed<'de, T: FromStr<Err = String>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Scalar::deserialize(from)?.0.parse().map_err(de::Error::custom)
}

impl Serialize for Ports {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.first == self.last {
            true => to.serialize_u16(self.first),
            false => to.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl Serialize for Glob {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Glob {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

impl Serialize for ContainerPrefix {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ContainerPrefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        parsed(from)
    }
}

schema::by_hand!(Ports, {
    "anyOf": [
        { "type": "integer", "minimum": 1, "maximum": 65535 },
        { "type": "string", "pattern": "^ *[0-9]{1,5} *(- *[0-9]{1,5} *)?$" }
    ]
});
schema::by_hand!(Cidr, { "type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$" });
schema::by_hand!(Glob, { "type": ["string", "number", "boolean"], "minLength": 1 });
// An id of digits alone is a number to YAML.
schema::by_hand!(ContainerPrefix, {
    "anyOf": [{ "type": "string", "pattern": "^[0-9a-f]{4,64}$" }, { "type": "number" }]
});
schema::by_hand!(Condition, { "type": ["string", "boolean"], "minLength": 1 });

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
    use super::{super::file::Config, *};

    fn rules(text: &str) -> Result<Vec<Rule>, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_and_shown() {
        for (text, shown) in [
            ("[{ port: 443 }]", "port 443"),
            ("[{ port: 8000-8100, cidr: 10.0.0.0/8 }]", "port 8000-8100 and cidr 10.0.0.0/8"),
            (
                "[{ local_port: 22, remote_cidr: 'fd00::/8' }]",
                "local_port 22 and remote_cidr fd00::/8",
            ),
            ("[{ uid: 0, exe: '/usr/bin/*' }]", "uid 0 and exe /usr/bin/*"),
            (
                "[{ container: 0123abcd, direction: egress }]",
                "container 0123abcd and direction egress",
            ),
            (
                "[{ cgroup: /system.slice/*, remote_port: 53 }]",
                "remote_port 53 and cgroup /system.slice/*",
            ),
            (
                "[{ condition: 'connection.server.port > 1024' }]",
                "condition connection.server.port > 1024",
            ),
        ] {
            assert_eq!(rules(text).unwrap()[0].to_string(), shown);
        }
    }

    #[test]
    fn mistakes_in_rules_are_told() {
        for (text, told) in [
            ("[{ prot: 1 }]", "unknown field `prot`"),
            ("[{ uid: root }]", "u32"),
            ("[{ uid: -1 }]", "-1"),
            ("[{ container: xyz }]", "no container"),
            ("[{ container: ABCDEF }]", "no container"),
            ("[{ direction: all }]", "expected `ingress` or `egress`"),
            ("[{ exe: '' }]", "no pattern"),
            ("[{ condition: 'process.exee == 1' }]", "process.exee"),
            ("[{ condition: 'connection.server.port' }]", "true or false"),
        ] {
            let error = rules(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_rule_that_names_nothing_is_told_with_its_place() {
        let told = Config::parse("capture:\n  include:\n    - port: 1\n    - {}\n").unwrap_err();
        let told = told.to_string();
        assert!(told.starts_with("4:7: capture.include[1]: a rule names something"), "{told}");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let text = "capture: { include: [ { port: 443, local_port: 8000-8100, remote_port: 1 }, \
                    { cidr: 10.0.0.0/8, local_cidr: '::1', remote_cidr: 'fd00::/8' }, \
                    { uid: 0, exe: '/usr/*/7', container: '00120012', cgroup: '1e5' } ], \
                    exclude: [ { direction: ingress, exe: 'on' }, \
                    { condition: \"process.name == 'a: b' && true\" }, { container: '1e23' } ] }";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.capture.include.len() + config.capture.exclude.len(), 6);
        let shown = super::super::show::yaml(&config).unwrap();
        assert_eq!(Config::parse(&shown).unwrap(), config, "{shown}");
    }
}
