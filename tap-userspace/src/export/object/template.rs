//! Names of objects. Comes in: a template of the configuration, `{field}` in any text, and of each
//! object its [`Fields`]. Goes out: a key that is safe in every store, or a URL.
//!
//! What peers chose (host, request id, method) is brought to letters, digits, `.`, `_` and `-`, at
//! most 128 of them, and is no `.` or `..`: it can neither leave its folder nor open another.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// Longest template.
const SOURCE_MAX: usize = 512;
/// Longest value of a field.
const VALUE_MAX: usize = 128;
/// Longest key: S3 and GCS take 1024 bytes, Azure as many characters.
pub const KEY_MAX: usize = 1024;

/// What a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// An object's key.
    Key,
    /// The URL that names it.
    Url,
}

/// A part of a name that differs between objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    ConnectionId,
    Number,
    RequestId,
    Host,
    Method,
    Status,
    Direction,
    Digest,
    Key,
    Bucket,
    Region,
    Endpoint,
}

use Field::{
    Bucket, ConnectionId, Day, Digest, Direction, Endpoint, Host, Hour, Key, Method, Minute, Month,
    Number, Region, RequestId, Status, Year,
};

const NAMES: [(&str, Field); 17] = [
    ("year", Year),
    ("month", Month),
    ("day", Day),
    ("hour", Hour),
    ("minute", Minute),
    ("connection_id", ConnectionId),
    ("number", Number),
    ("request_id", RequestId),
    ("host", Host),
    ("method", Method),
    ("status", Status),
    ("direction", Direction),
    ("digest", Digest),
    // In a URL only.
    ("key", Key),
    ("bucket", Bucket),
    ("region", Region),
    ("endpoint", Endpoint),
];
/// Fields of [`NAMES`] that a key may have.
const OF_KEY: usize = 13;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Field(Field),
}

/// A template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

/// What one object's name is made of.
#[derive(Clone, Debug, Default)]
pub struct Fields<'a> {
    /// When the request began, Unix time.
    pub began_ns: u64,
    /// `connection.id`.
    pub connection_id: &'a str,
    /// The transaction's number on its connection.
    pub number: u32,
    /// The program's own id, or tap's.
    pub request_id: &'a str,
    /// Host as the request names it.
    pub host: &'a str,
    /// Method.
    pub method: &'a str,
    /// Status; none where there was no response.
    pub status: Option<u16>,
    /// `egress` or `ingress`.
    pub direction: &'a str,
    /// SHA-256 of the object in hex.
    pub digest: &'a str,
    /// The object's key.
    pub key: &'a str,
    /// The store's bucket or container.
    pub bucket: &'a str,
    /// The bucket's region.
    pub region: &'a str,
    /// The store's address.
    pub endpoint: &'a str,
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let name = |field: &Field| NAMES.iter().find(|(_, known)| known == field);
        let part = |part: &Part| match part {
            Part::Text(text) => text.to_string(),
            Part::Field(field) => format!("{{{}}}", name(field).map_or("", |(name, _)| name)),
        };
        to.serialize_str(&self.0.iter().map(part).collect::<String>())
    }
}

impl Template {
    /// Reads a template; an error says what is wrong in it.
    pub fn parse(source: &str, used: Use) -> Result<Self, String> {
        if source.is_empty() || source.len() > SOURCE_MAX {
            return Err(format!("a template has 1 to {SOURCE_MAX} bytes"));
        }
        let names = if used == Use::Key { &NAMES[..OF_KEY] } else { &NAMES };
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, behind)) = rest.split_once('{') {
            let closed = behind.split_once('}');
            let (name, behind) =
                closed.ok_or_else(|| format!("`{source}` has a `{{` without its `}}`"))?;
            let Some((_, field)) = names.iter().find(|(known, _)| *known == name) else {
                let known: Vec<_> = names.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "`{name}` is no field of a name: there are {}",
                    known.join(", ")
                ));
            };
            if !text.is_empty() {
                parts.push(Part::Text(text.into()));
            }
            parts.push(Part::Field(*field));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let template = Self(parts);
        if used == Use::Key {
            template.check_key(source)?;
        }
        Ok(template)
    }

    fn check_key(&self, source: &str) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=+@".contains(c);
        let texts = self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(text),
            Part::Field(_) => None,
        });
        if !texts.into_iter().all(|text| text.chars().all(plain)) {
            return Err(format!("`{source}`: a key has letters, digits and `/._-=+@`"));
        }
        // With a letter for each field, what is left of a segment shows.
        let shown: String = self
            .0
            .iter()
            .map(|part| match part {
                Part::Text(text) => text,
                Part::Field(_) => "x",
            })
            .collect();
        if shown.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return Err(format!("`{source}`: no part of a key is empty, `.` or `..`"));
        }
        let has = |field| self.0.contains(&Part::Field(field));
        let unique = has(Digest) || (has(ConnectionId) && has(Number));
        if !unique {
            return Err(format!(
                "`{source}` gives different objects one key: use {{digest}}, or {{connection_id}} \
                 with {{number}}"
            ));
        }
        Ok(())
    }

    /// `http_capture.key` where the configuration has none.
    pub fn default_key() -> Self {
        let field = |field| Part::Field(field);
        let slash = || Part::Text("/".into());
        let mut parts = Vec::new();
        for part in [Year, Month, Day, Hour] {
            parts.extend([field(part), slash()]);
        }
        let dash = Part::Text("-".into());
        parts.extend([field(ConnectionId), dash, field(Number), Part::Text(".json".into())]);
        Self(parts)
    }

    /// `http_capture.url` where the configuration has none: `prefix` and the key.
    pub fn of_key(prefix: &str) -> Self {
        Self(vec![Part::Text(prefix.into()), Part::Field(Key)])
    }

    /// What every key begins with: up to its first field, and no further than its last `/`.
    pub fn folder(&self) -> &str {
        let Some(Part::Text(text)) = self.0.first() else { return "" };
        text.rfind('/').map_or("", |at| &text[..=at])
    }

    /// A name; a key is at most [`KEY_MAX`] bytes.
    pub fn fill(&self, fields: &Fields<'_>) -> String {
        let mut name = String::with_capacity(96);
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field(field) => field.fill(fields, &mut name),
            }
        }
        name
    }
}

impl Field {
    fn fill(self, fields: &Fields<'_>, name: &mut String) {
        let date = Date::of(fields.began_ns);
        match self {
            Year => name.push_str(&format!("{:04}", date.year)),
            Month => name.push_str(&format!("{:02}", date.month)),
            Day => name.push_str(&format!("{:02}", date.day)),
            Hour => name.push_str(&format!("{:02}", date.hour)),
            Minute => name.push_str(&format!("{:02}", date.minute)),
            Number => name.push_str(&fields.number.to_string()),
            Status => match fields.status {
                Some(status) => name.push_str(&status.to_string()),
                None => name.push_str("none"),
            },
            ConnectionId => name.push_str(&plain(fields.connection_id)),
            RequestId => name.push_str(&plain(fields.request_id)),
            Host => name.push_str(&plain(fields.host)),
            Method => name.push_str(&plain(fields.method)),
            Direction => name.push_str(fields.direction),
            Digest => name.push_str(fields.digest),
            Key => name.push_str(fields.key),
            Bucket => name.push_str(fields.bucket),
            Region => name.push_str(fields.region),
            Endpoint => name.push_str(fields.endpoint),
        }
    }
}

/// A value as it may stand in a key.
fn plain(value: &str) -> Cow<'_, str> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let dots = |value: &str| value.bytes().all(|byte| byte == b'.');
    if value.len() <= VALUE_MAX && value.bytes().all(fine) && !dots(value) {
        return Cow::Borrowed(value);
    }
    let cut = value.bytes().take(VALUE_MAX);
    let plain: String = cut.map(|byte| if fine(byte) { byte as char } else { '_' }).collect();
    // A value that is missing, or nothing but dots, has a place of its own.
    if dots(&plain) { Cow::Borrowed("_") } else { Cow::Owned(plain) }
}

/// A time in UTC.
pub(super) struct Date {
    pub year: u64,
    pub month: u64,
    pub day: u64,
    pub hour: u64,
    pub minute: u64,
}

impl Date {
    /// Of Unix time (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
    /// `civil_from_days`: years begin in March, so that a leap day is the last of its year).
    pub const fn of(ns: u64) -> Self {
        let minutes = ns / 60_000_000_000;
        let days = minutes / 1440 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let from_march = (5 * of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: year + era * 400 + (month <= 2) as u64,
            month,
            day: of_year - (153 * from_march + 2) / 5 + 1,
            hour: minutes / 60 % 24,
            minute: minutes % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> Fields<'static> {
        Fields {
            // 2024-02-29T23:59:59Z
            began_ns: 1_709_251_199_000_000_000,
            connection_id: "cm0d7a8h0000g8k1abcd",
            number: 3,
            request_id: "r-1",
            host: "example.com",
            method: "GET",
            status: Some(200),
            direction: "egress",
            digest: "00ff",
            key: "a/b.json",
            bucket: "tap",
            region: "eu-west-1",
            endpoint: "https://s3.example",
        }
    }

    #[test]
    fn templates_are_filled() {
        use Use::{Key, Url};
        for (used, template, wanted) in [
            (Key, "{digest}", "00ff"),
            (
                Key,
                "{year}/{month}/{day}/{hour}/{minute}/{digest}.json",
                "2024/02/29/23/59/00ff.json",
            ),
            (Key, "tap/{host}/{connection_id}-{number}", "tap/example.com/cm0d7a8h0000g8k1abcd-3"),
            (Key, "{method}_{status}_{direction}_{request_id}_{digest}", "GET_200_egress_r-1_00ff"),
            (Url, "s3://{bucket}/{key}", "s3://tap/a/b.json"),
            (
                Url,
                "{endpoint}/{bucket}/{key}?r={region}#{digest}",
                "https://s3.example/tap/a/b.json?r=eu-west-1#00ff",
            ),
            (Url, "https://console/", "https://console/"),
        ] {
            let template = Template::parse(template, used).unwrap();
            assert_eq!(template.fill(&fields()), wanted);
        }
        let default = "{year}/{month}/{day}/{hour}/{connection_id}-{number}.json";
        assert_eq!(Template::parse(default, Key), Ok(Template::default_key()));
    }

    #[test]
    fn wrong_templates_are_told() {
        let long = format!("{{digest}}{}", "x".repeat(SOURCE_MAX));
        for (template, wanted) in [
            ("", "1 to 512"),
            (long.as_str(), "1 to 512"),
            ("{digest", "without its"),
            ("{digst}", "`digst` is no field"),
            ("{key}", "`key` is no field"),
            ("/{digest}", "empty"),
            ("{digest}/", "empty"),
            ("a//{digest}", "empty"),
            ("../{digest}", "`..`"),
            ("a/./{digest}", "`.`"),
            ("a b{digest}", "letters, digits"),
            ("a%2e{digest}", "letters, digits"),
            ("{host}/{connection_id}.json", "one key"),
            ("fixed", "one key"),
        ] {
            let error = Template::parse(template, Use::Key).unwrap_err();
            assert!(error.contains(wanted), "{template}: {error}");
        }
    }

    #[test]
    fn no_value_leaves_its_place_in_a_key() {
        let template =
            Template::parse("a/{host}/{method}/{request_id}/{digest}", Use::Key).unwrap();
        let long = "h".repeat(5000);
        for (value, wanted) in [
            ("..", "_"),
            (".", "_"),
            ("", "_"),
            ("........", "_"),
            ("../../etc/passwd", ".._.._etc_passwd"),
            ("a/b\\c", "a_b_c"),
            ("a\0b\r\nc\x1b", "a_b__c_"),
            ("%2e%2e%2f", "_2e_2e_2f"),
            ("münchen", "m__nchen"),
            ("[::1]:80", "___1__80"),
            (long.as_str(), &long[..VALUE_MAX]),
        ] {
            let fields = Fields { host: value, method: value, request_id: value, ..fields() };
            let key = template.fill(&fields);
            assert_eq!(key, format!("a/{wanted}/{wanted}/{wanted}/00ff"));
            // The store's own check takes it as it is.
            let path = object_store::path::Path::parse(&key).unwrap();
            assert_eq!(path.as_ref(), key);
            assert_eq!(object_store::path::Path::from(key.as_str()).as_ref(), key);
        }
    }

    #[test]
    fn the_longest_key_fits_every_store() {
        let every: String = NAMES[..OF_KEY].iter().map(|(name, _)| format!("{{{name}}}")).collect();
        let text = "x".repeat(SOURCE_MAX - every.len() - 1);
        let template = Template::parse(&format!("{text}{every}"), Use::Key).unwrap();
        let long = "h".repeat(VALUE_MAX);
        let fields = Fields {
            request_id: &long,
            host: &long,
            method: &long,
            digest: &long[..64],
            number: u32::MAX,
            status: None,
            ..fields()
        };
        assert!(template.fill(&fields).len() <= KEY_MAX);
    }

    #[test]
    fn dates_are_utc() {
        for (seconds, wanted) in [
            (0, (1970, 1, 1, 0, 0)),
            (951_782_399, (2000, 2, 28, 23, 59)),
            (951_782_400, (2000, 2, 29, 0, 0)),
            (1_709_251_199, (2024, 2, 29, 23, 59)),
            (1_735_689_599, (2024, 12, 31, 23, 59)),
            (4_107_542_400, (2100, 3, 1, 0, 0)),
        ] {
            let date = Date::of(seconds * 1_000_000_000);
            assert_eq!((date.year, date.month, date.day, date.hour, date.minute), wanted);
        }
    }

    #[test]
    fn the_folder_of_all_keys() {
        for (template, folder) in [
            ("{digest}", ""),
            ("tap/{digest}", "tap/"),
            ("a/b/c-{digest}", "a/b/"),
            ("a-{digest}", ""),
        ] {
            assert_eq!(Template::parse(template, Use::Key).unwrap().folder(), folder);
        }
    }
}
