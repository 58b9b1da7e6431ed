//! `redaction`: attributes that are not on a list are taken out, values that match a pattern are masked. The
//! keys are the Collector's, with its results; `detect`, `header_keys` and `query_keys` are tap's own.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::made_of;
use crate::config::values::Secret;
use crate::policy::{pattern::Pattern, redaction::detect::Detector};

/// Settings of a `redaction` processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(into = "Written")]
#[schemars(with = "Written")]
pub struct Redaction {
    /// Every key is allowed.
    pub allow_all_keys: bool,
    /// Attributes with other keys are taken out.
    pub allowed_keys: Vec<String>,
    /// Attributes with these stay as they are.
    pub ignored_keys: Vec<String>,
    /// The same by pattern.
    pub ignored_key_patterns: Vec<Pattern>,
    /// Values of keys that match are masked whole.
    pub blocked_key_patterns: Vec<Pattern>,
    /// What matches in a value is masked.
    pub blocked_values: Vec<Pattern>,
    /// Values that match stay as they are.
    pub allowed_values: Vec<Pattern>,
    /// Also numbers, lists and so on, as texts.
    pub redact_all_types: bool,
    /// What masks.
    pub mask: Mask,
    /// What is told of it.
    pub summary: Summary,
    /// Parts of values that are found without a pattern; tap's own.
    pub detect: Vec<Detector>,
    /// HTTP header fields whose attributes are masked whole, beside those that always hold secrets;
    /// `None`: none. tap's own.
    pub header_keys: Option<Vec<String>>,
    /// Query keys whose values are replaced in URLs and queries, beside those that always hold
    /// secrets; `None`: none. tap's own.
    pub query_keys: Option<Vec<String>>,
}

/// `hash_function` with its `hmac_key`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// `****`.
    #[default]
    Stars,
    /// The hash of what is masked, in hex.
    Md5,
    /// The same.
    Sha1,
    /// The same: SHA3-256.
    Sha3,
    /// The same, with a key.
    HmacSha256(Secret),
    /// The same, with a key.
    HmacSha512(Secret),
}

/// `summary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Summary {
    /// Nothing.
    #[default]
    #[serde(alias = "")]
    Silent,
    /// How many.
    Info,
    /// How many, and which keys.
    Debug,
}

/// The settings as they are written.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Written {
    allow_all_keys: bool,
    allowed_keys: Vec<String>,
    ignored_keys: Vec<String>,
    ignored_key_patterns: Vec<Pattern>,
    blocked_key_patterns: Vec<Pattern>,
    blocked_values: Vec<Pattern>,
    allowed_values: Vec<Pattern>,
    redact_all_types: bool,
    hash_function: HashFunction,
    #[serde(skip_serializing_if = "is_empty")]
    hmac_key: Secret,
    summary: Summary,
    detect: Vec<Detector>,
    header_keys: Option<Vec<String>>,
    query_keys: Option<Vec<String>>,
    #[serde(alias = "url_sanitization", deserialize_with = "url_sanitizer", skip_serializing)]
    #[schemars(skip)]
    url_sanitizer: (),
    #[serde(deserialize_with = "db_sanitizer", skip_serializing)]
    #[schemars(skip)]
    db_sanitizer: (),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
enum HashFunction {
    #[default]
    #[serde(rename = "")]
    None,
    #[serde(rename = "md5")]
    Md5,
    #[serde(rename = "sha1")]
    Sha1,
    #[serde(rename = "sha3")]
    Sha3,
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
}

fn url_sanitizer<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    de::IgnoredAny::deserialize(from)?;
    Err(de::Error::custom(
        "the Collector guesses here which parts of a URL are names, tap does not: use \
         `replace_pattern` of a `transform`, or `query_keys`",
    ))
}

fn db_sanitizer<'de, D: Deserializer<'de>>(from: D) -> Result<(), D::Error> {
    de::IgnoredAny::deserialize(from)?;
    Err(de::Error::custom(
        "the Collector has `db_sanitizer` here, tap does not, as it replaces the values of statements \
         by itself (`capture.payload.db`): leave it out",
    ))
}

impl<'de> Deserialize<'de> for Redaction {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        made_of(from, Self::of)
    }
}

impl Redaction {
    fn of(of: Written) -> Result<Self, String> {
        let key = |least: usize, name: &str| match of.hmac_key.0.len() {
            len if len < least => Err(format!(
                "`hash_function: {name}` needs an `hmac_key` of at least {least} bytes; it has {len}"
            )),
            _ => Ok(of.hmac_key.clone()),
        };
        let mask = match of.hash_function {
            HashFunction::None => Mask::Stars,
            HashFunction::Md5 => Mask::Md5,
            HashFunction::Sha1 => Mask::Sha1,
            HashFunction::Sha3 => Mask::Sha3,
            HashFunction::HmacSha256 => Mask::HmacSha256(key(32, "hmac-sha256")?),
            HashFunction::HmacSha512 => Mask::HmacSha512(key(64, "hmac-sha512")?),
        };
        Ok(Self {
            allow_all_keys: of.allow_all_keys,
            allowed_keys: of.allowed_keys,
            ignored_keys: of.ignored_keys,
            ignored_key_patterns: of.ignored_key_patterns,
            blocked_key_patterns: of.blocked_key_patterns,
            blocked_values: of.blocked_values,
            allowed_values: of.allowed_values,
            redact_all_types: of.redact_all_types,
            mask,
            summary: of.summary,
            detect: of.detect,
            header_keys: of.header_keys,
            query_keys: of.query_keys,
        })
    }
}

fn is_empty(key: &Secret) -> bool {
    key.0.is_empty()
}

impl From<Redaction> for Written {
    fn from(of: Redaction) -> Self {
        let (hash_function, hmac_key) = match of.mask {
            Mask::Stars => (HashFunction::None, Secret::default()),
            Mask::Md5 => (HashFunction::Md5, Secret::default()),
            Mask::Sha1 => (HashFunction::Sha1, Secret::default()),
            Mask::Sha3 => (HashFunction::Sha3, Secret::default()),
            Mask::HmacSha256(key) => (HashFunction::HmacSha256, key),
            Mask::HmacSha512(key) => (HashFunction::HmacSha512, key),
        };
        Self {
            allow_all_keys: of.allow_all_keys,
            allowed_keys: of.allowed_keys,
            ignored_keys: of.ignored_keys,
            ignored_key_patterns: of.ignored_key_patterns,
            blocked_key_patterns: of.blocked_key_patterns,
            blocked_values: of.blocked_values,
            allowed_values: of.allowed_values,
            redact_all_types: of.redact_all_types,
            hash_function,
            hmac_key,
            summary: of.summary,
            detect: of.detect,
            header_keys: of.header_keys,
            query_keys: of.query_keys,
            url_sanitizer: (),
            db_sanitizer: (),
        }
    }
}
