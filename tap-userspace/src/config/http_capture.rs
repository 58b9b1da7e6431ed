//! Block `http_capture` of the configuration file: which HTTP transactions become objects in an
//! object store, how much of each, where, and under what name.

use std::{fmt, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{
    exporters::{RetryOnFailure, SendingQueue},
    schema,
    values::{Scalar, Secret, size, write_duration, write_size},
};
use crate::{
    export::object::template::{Template, Use},
    policy::condition::Condition,
};

/// Block `http_capture`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpCapture {
    /// Where objects go; without one there are none.
    pub store: Option<Store>,
    /// Name of an object in the store.
    #[serde(deserialize_with = "key")]
    #[schemars(with = "String")]
    pub key: Template,
    /// How its log record names it; by the store's type if it is absent.
    #[serde(deserialize_with = "url")]
    #[schemars(with = "Option<String>")]
    pub url: Option<Template>,
    /// How much of a transaction is stored where no rule holds.
    pub level: Level,
    /// The first whose condition holds says how much; 100 at most.
    #[serde(deserialize_with = "rules")]
    pub rules: Vec<Rule>,
    /// Most bytes of an object, and of a body that is collected for one.
    #[serde(deserialize_with = "max_bytes", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub max_bytes: usize,
    /// Most bytes of bodies that are being collected, and of objects that wait, each.
    #[serde(deserialize_with = "memory_limit", serialize_with = "write_size")]
    #[schemars(schema_with = "schema::size")]
    pub memory_limit: usize,
    /// For one attempt to store an object.
    #[serde(deserialize_with = "timeout", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::duration")]
    pub timeout: Duration,
    /// Where objects wait, in memory.
    #[serde(deserialize_with = "queue")]
    pub sending_queue: SendingQueue,
    /// When an object that could not be stored is tried again.
    pub retry_on_failure: Option<RetryOnFailure>,
}

impl Default for HttpCapture {
    fn default() -> Self {
        Self {
            store: None,
            key: Template::default_key(),
            url: None,
            level: Level::None,
            rules: Vec::new(),
            max_bytes: 256 << 10,
            memory_limit: 64 << 20,
            timeout: Duration::from_secs(30),
            sending_queue: SendingQueue::default(),
            retry_on_failure: None,
        }
    }
}

impl HttpCapture {
    /// Whether any transaction could become an object.
    pub fn is_on(&self) -> bool {
        self.store.is_some() && self.levels().any(|level| level != Level::None)
    }

    /// Whether any object could hold bodies.
    pub fn wants_bodies(&self) -> bool {
        self.store.is_some() && self.levels().any(|level| level == Level::Full)
    }

    fn levels(&self) -> impl Iterator<Item = Level> {
        self.rules.iter().map(|rule| rule.level).chain([self.level])
    }
}

/// How much of a transaction is stored.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Nothing: there is no object.
    #[default]
    None,
    /// Who, what, when: no header fields and no bodies.
    Summary,
    /// Header fields too.
    Headers,
    /// Bodies too, as far as they were captured.
    Full,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// In CEL.
    #[schemars(with = "String")]
    pub condition: Condition,
    /// What holds then.
    pub level: Level,
}

/// A store. What a field means for each type is said at [`StoreKeys`].
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "StoreKeys", into = "StoreKeys")]
pub enum Store {
    /// Amazon S3, or what speaks its protocol.
    S3(S3),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
    /// A folder.
    Local(PathBuf),
}

impl Store {
    /// Its type, as it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::S3(_) => "s3",
            Self::Gcs(_) => "gcs",
            Self::Azure(_) => "azure",
            Self::Local(_) => "local",
        }
    }
}

/// S3. What is absent comes from `AWS_*`; credentials that are nowhere are asked of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3 {
    /// The bucket.
    pub bucket: String,
    /// Its region.
    pub region: Option<String>,
    /// Where, if not at Amazon.
    pub endpoint: Option<String>,
    /// The bucket is in the path, not in the host's name.
    pub path_style: bool,
    /// Access key id and secret.
    pub credentials: Option<(Secret, Secret)>,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// GCS. Credentials that are absent come from `GOOGLE_*` or are asked of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gcs {
    /// The bucket.
    pub bucket: String,
    /// Where, if not at Google.
    pub endpoint: Option<String>,
    /// File with a service account's key.
    pub service_account: Option<PathBuf>,
}

/// Azure. What is absent comes from `AZURE_*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Azure {
    /// The container.
    pub bucket: String,
    /// The storage account.
    pub account: Option<String>,
    /// Its key.
    pub secret_key: Option<Secret>,
    /// Where, if not at Microsoft.
    pub endpoint: Option<String>,
}

/// The block `store` as it is written.
#[derive(Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct StoreKeys {
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#type: Option<Type>,
    /// The bucket; of azure the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<String>,
    /// Of s3.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// Where, if not at the type's own cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// Of s3: the bucket is in the path, not in the host's name; true with an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    path_style: Option<bool>,
    /// Of s3; what is absent is the environment's, else the instance's.
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<Secret>,
    /// Of s3 and azure.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key: Option<Secret>,
    /// Of s3, of temporary credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_token: Option<Secret>,
    /// Of azure: the storage account.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    /// Of gcs: file with a service account's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    service_account: Option<PathBuf>,
    /// Of local: the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Type {
    S3,
    Gcs,
    Azure,
    Local,
}

impl From<Store> for StoreKeys {
    fn from(store: Store) -> Self {
        let none = Self::default();
        match store {
            Store::S3(s3) => {
                let (access_key, secret_key) = s3.credentials.unzip();
                Self {
                    r#type: Some(Type::S3),
                    bucket: Some(s3.bucket),
                    region: s3.region,
                    endpoint: s3.endpoint,
                    path_style: Some(s3.path_style),
                    access_key,
                    secret_key,
                    session_token: s3.session_token,
                    ..none
                }
            }
            Store::Gcs(gcs) => Self {
                r#type: Some(Type::Gcs),
                bucket: Some(gcs.bucket),
                endpoint: gcs.endpoint,
                service_account: gcs.service_account,
                ..none
            },
            Store::Azure(azure) => Self {
                r#type: Some(Type::Azure),
                bucket: Some(azure.bucket),
                account: azure.account,
                secret_key: azure.secret_key,
                endpoint: azure.endpoint,
                ..none
            },
            Store::Local(path) => Self { r#type: Some(Type::Local), path: Some(path), ..none },
        }
    }
}

impl TryFrom<StoreKeys> for Store {
    type Error = String;

    fn try_from(keys: StoreKeys) -> Result<Self, String> {
        use Type::{Azure as AZ, Gcs as GC, Local, S3 as S};
        let Some(kind) = keys.r#type else {
            return Err("a store has a `type`: s3, gcs, azure or local".into());
        };
        for (key, is_there, of) in [
            ("bucket", keys.bucket.is_some(), &[S, GC, AZ][..]),
            ("region", keys.region.is_some(), &[S]),
            ("endpoint", keys.endpoint.is_some(), &[S, GC, AZ]),
            ("path_style", keys.path_style.is_some(), &[S]),
            ("access_key", keys.access_key.is_some(), &[S]),
            ("secret_key", keys.secret_key.is_some(), &[S, AZ]),
            ("session_token", keys.session_token.is_some(), &[S]),
            ("account", keys.account.is_some(), &[AZ]),
            ("service_account", keys.service_account.is_some(), &[GC]),
            ("path", keys.path.is_some(), &[Local]),
        ] {
            if is_there && !of.contains(&kind) {
                let kind = format!("{kind:?}").to_lowercase();
                return Err(format!("a store of type {kind} has no `{key}`"));
            }
        }
        if let Some(endpoint) = &keys.endpoint {
            let url: Option<http::Uri> = endpoint.parse().ok();
            let good = url.is_some_and(|url| {
                matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()
            });
            if !good {
                return Err(format!("`{endpoint}` is no endpoint: write https://host:port"));
            }
        }
        let bucket = || {
            let bucket = keys.bucket.clone().filter(|bucket| is_bucket(bucket));
            bucket.ok_or("a store needs a `bucket`: letters, digits, `.`, `-` and `_`".to_owned())
        };
        Ok(match kind {
            S => Self::S3(S3 {
                bucket: bucket()?,
                region: keys.region,
                path_style: keys.path_style.unwrap_or(keys.endpoint.is_some()),
                endpoint: keys.endpoint,
                credentials: match (keys.access_key, keys.secret_key) {
                    (Some(id), Some(secret)) => Some((id, secret)),
                    (None, None) => None,
                    _ => return Err("`access_key` and `secret_key` go together".into()),
                },
                session_token: keys.session_token,
            }),
            GC => Self::Gcs(Gcs {
                bucket: bucket()?,
                endpoint: keys.endpoint,
                service_account: keys.service_account,
            }),
            AZ => Self::Azure(Azure {
                bucket: bucket()?,
                account: keys.account,
                secret_key: keys.secret_key,
                endpoint: keys.endpoint,
            }),
            Local => match keys.path {
                Some(path) if path.is_absolute() => Self::Local(path),
                Some(path) => {
                    return Err(format!("`{}` is no absolute path", path.display()));
                }
                None => return Err("a store of type local needs a `path`".into()),
            },
        })
    }
}

fn is_bucket(name: &str) -> bool {
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'$');
    !name.is_empty() && name.len() <= 255 && name.bytes().all(plain)
}

/// Most rules: each is asked of each transaction until one holds.
const RULES_MAX: usize = 100;

fn rules<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Rule>, D::Error> {
    struct Visitor;
    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Vec<Rule>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of rules")
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Rule>, A::Error> {
            let mut rules = Vec::new();
            while let Some(rule) = list.next_element()? {
                // Before the next is compiled, which is not for nothing.
                if rules.len() == RULES_MAX {
                    return Err(de::Error::custom(format!("more than {RULES_MAX} rules")));
                }
                rules.push(rule);
            }
            Ok(rules)
        }
    }
    from.deserialize_seq(Visitor)
}

fn key<'de, D: Deserializer<'de>>(from: D) -> Result<Template, D::Error> {
    Template::parse(&String::deserialize(from)?, Use::Key).map_err(de::Error::custom)
}

fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Template>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| Template::parse(&text, Use::Url)).transpose().map_err(de::Error::custom)
}

fn sized<'de, D: Deserializer<'de>>(from: D, least: u64, most: u64) -> Result<usize, D::Error> {
    let Scalar(text) = Scalar::deserialize(from)?;
    match size(&text) {
        Some(bytes) if (least..=most).contains(&bytes) => Ok(bytes as usize),
        _ => Err(de::Error::custom(format!(
            "`{text}` is no size from {}KiB to {}MiB: write 256KiB or 1MiB",
            least >> 10,
            most >> 20
        ))),
    }
}

fn max_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    sized(from, 64 << 10, 16 << 20)
}

fn memory_limit<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    sized(from, 1 << 20, 4 << 30)
}

fn timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    super::values::duration(from)
}

fn queue<'de, D: Deserializer<'de>>(from: D) -> Result<SendingQueue, D::Error> {
    let queue = SendingQueue::deserialize(from)?;
    if queue.batch.is_some() {
        return Err(de::Error::custom("an object is a request of its own: leave `batch` out"));
    }
    if !queue.enabled || queue.block_on_overflow {
        return Err(de::Error::custom(
            "objects always wait in a queue, and nobody waits for it: leave `enabled` and \
             `block_on_overflow` out",
        ));
    }
    Ok(queue)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HttpCapture, serde_yaml::Error> {
        serde_yaml::from_str(text)
    }

    #[test]
    fn a_store_of_each_type_is_read() {
        let store = |text: &str| parse(&format!("store: {text}")).unwrap().store.unwrap();
        let secret = |text: &str| Secret(text.into());
        let own = "{ type: s3, bucket: b, endpoint: 'http://127.0.0.1:9000', access_key: a, secret_key: s }";
        let Store::S3(own) = store(own) else { panic!() };
        assert_eq!((own.path_style, own.credentials), (true, Some((secret("a"), secret("s")))));
        let Store::S3(amazon) = store("{ type: s3, bucket: b, region: eu-west-1 }") else {
            panic!()
        };
        assert_eq!((amazon.path_style, amazon.credentials), (false, None));
        assert_eq!(store("{ type: gcs, bucket: b }").name(), "gcs");
        assert_eq!(store("{ type: azure, bucket: b, account: a, secret_key: k }").name(), "azure");
        assert_eq!(store("{ type: local, path: /x }"), Store::Local("/x".into()));
        assert!(
            !format!("{:?}", store("{ type: azure, bucket: b, secret_key: hush }"))
                .contains("hush")
        );
    }

    #[test]
    fn it_is_on_where_something_could_be_stored() {
        let store = "store: { type: local, path: /x }";
        for (text, on, bodies) in [
            ("{}".to_owned(), false, false),
            ("level: full".to_owned(), false, false),
            (store.to_owned(), false, false),
            (format!("{store}\nlevel: summary"), true, false),
            (format!("{store}\nlevel: full"), true, true),
            (format!("{store}\nrules: [{{ condition: 'true', level: full }}]"), true, true),
            (format!("{store}\nrules: [{{ condition: 'true', level: none }}]"), false, false),
        ] {
            let capture = parse(&text).unwrap();
            assert_eq!((capture.is_on(), capture.wants_bodies()), (on, bodies), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        for (text, wanted) in [
            ("stores: {}", "unknown field `stores`"),
            ("store: { bucket: b }", "`type`"),
            ("store: { type: ftp }", "ftp"),
            ("store: { type: s3 }", "needs a `bucket`"),
            ("store: { type: s3, bucket: 'a/b' }", "needs a `bucket`"),
            ("store: { type: s3, bucket: b, path: /x }", "s3 has no `path`"),
            ("store: { type: local, path: x }", "absolute"),
            ("store: { type: local, path: /x, region: r }", "local has no `region`"),
            ("store: { type: s3, bucket: b, access_key: a }", "go together"),
            ("store: { type: s3, bucket: b, endpoint: 'x:1' }", "no endpoint"),
            ("level: all", "all"),
            ("level: full\nlevels: 1", "line 2 column 1"),
            ("rules:\n  - condition: 'request.method = 1'\n    level: full", "line 2 column 5"),
            ("rules: [{ condition: 'true' }]", "missing field `level`"),
            ("key: '{connection}.json'", "`connection` is no field"),
            ("max_bytes: 1KiB", "64KiB"),
            ("memory_limit: 1KiB", "1024KiB"),
            ("timeout: 5", "no duration"),
            ("sending_queue: { storage: x }", "absolute"),
            ("sending_queue: { batch: {} }", "a request of its own"),
            ("sending_queue: { enabled: false }", "always wait"),
            ("retry_on_failure: { multiplier: -1 }", "negative"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn the_annotated_file_says_the_defaults() {
        let file = include_str!("../../../config/tap.yaml");
        let (_, block) = file.split_once("\nhttp_capture:\n").unwrap();
        let block = block.split("\n\n").next().unwrap();
        let said = parse(block).unwrap();
        assert_eq!(said, HttpCapture::default());
    }
}
