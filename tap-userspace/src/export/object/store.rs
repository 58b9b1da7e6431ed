//! Object stores. Comes in: what the configuration says of one; goes out: a store that takes an
//! object, and tells what became of an attempt: an [`Outcome`].
//!
//! The stores' protocols are `object_store`'s. Its retries are off: tap's own queue has them. Its
//! transport is tap's hyper and rustls with ring (`transport`), which also notes the status of the
//! last response: that says more than the errors do.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use object_store::{
    Attribute, ClientOptions, ObjectStore, ObjectStoreExt as _, PutOptions, RetryConfig,
    aws::AmazonS3Builder, azure::MicrosoftAzureBuilder, gcp::GoogleCloudStorageBuilder,
    local::LocalFileSystem, path::Path,
};

use super::transport::{Answer, CONTENTS, Transport};
use crate::{
    config::http_capture::{Azure, Gcs, S3, Store as Config},
    export::transport::Outcome,
};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS.
    #[error(
        "http_capture.store: this system's root certificates cannot be read: {0}; install ca-certificates"
    )]
    Roots(std::io::Error),
    /// The folder.
    #[error("http_capture.store: {path} cannot be used as a folder: {cause}")]
    Folder {
        /// Which.
        path: String,
        /// Why.
        cause: std::io::Error,
    },
    /// What the configuration says is not enough.
    #[error("http_capture.store: {0}")]
    Settings(object_store::Error),
}

/// A store.
#[derive(Debug)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// Longest time of one attempt.
    pub timeout: Duration,
    /// Its type.
    pub name: &'static str,
    /// Where it is, for people.
    pub place: String,
}

impl Store {
    /// The store that `config` describes. Nobody is asked anything yet.
    pub fn new(config: &Config, timeout: Duration) -> Result<Self, Error> {
        let (inner, place): (Arc<dyn ObjectStore>, _) = match config {
            Config::S3(s3) => (Arc::new(amazon(s3)?), at(&s3.endpoint, "s3", &s3.bucket)),
            Config::Gcs(gcs) => (Arc::new(google(gcs)?), at(&gcs.endpoint, "gs", &gcs.bucket)),
            Config::Azure(azure) => {
                (Arc::new(microsoft(azure)?), at(&azure.endpoint, "az", &azure.bucket))
            }
            Config::Local(path) => {
                let place = path.display().to_string();
                let unusable = |cause| Error::Folder { path: place.clone(), cause };
                std::fs::create_dir_all(path).map_err(unusable)?;
                let folder = LocalFileSystem::new_with_prefix(path).map_err(Error::Settings)?;
                (Arc::new(folder), format!("file://{place}"))
            }
        };
        Ok(Self { inner, timeout, name: config.name(), place })
    }

    /// One attempt to store an object.
    pub async fn put(&self, key: &Path, bytes: Bytes) -> Outcome {
        let put = self.inner.put_opts(key, bytes.into(), self.options());
        match Answer::of(put).await {
            // It is there, even if `object_store` misses something in the answer, an ETag for example.
            (_, Answer { stored: true, .. }) | (Ok(_), _) => {
                Outcome::Taken { rejected: 0, message: String::new() }
            }
            (Err(error), answer) => judge(&error, answer, self.name == "local"),
        }
    }

    fn options(&self) -> PutOptions {
        let mut options = PutOptions::default();
        // A file has no type.
        if self.name != "local" {
            options.attributes.insert(Attribute::ContentType, CONTENTS.into());
        }
        options
    }

    /// Takes an object away.
    pub async fn delete(&self, key: &Path) -> Result<(), String> {
        let delete = tokio::time::timeout(self.timeout, self.inner.delete(key)).await;
        match delete {
            Ok(result) => result.map_err(|error| told(&error)),
            Err(_) => Err(format!("no answer within {:?}", self.timeout)),
        }
    }
}

/// What to do about a store that refuses.
const REMEDY: &str = "check the bucket and what its credentials may do";

fn at(endpoint: &Option<String>, scheme: &str, bucket: &str) -> String {
    match endpoint {
        Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        None => format!("{scheme}://{bucket}"),
    }
}

/// What a failed attempt means: the protocol's status where there was one (RFC 9110; S3's
/// `SlowDown` is 503), else the transport's failure. A folder that refuses is not asked again.
fn judge(error: &object_store::Error, answer: Answer, local: bool) -> Outcome {
    let cause = told(error);
    let refused = |cause, error| Outcome::Refused { cause, remedy: REMEDY, error };
    let Answer { status, retry_after, broke, .. } = answer;
    match status {
        _ if local => refused(cause, "_OTHER".into()),
        None => Outcome::again(cause, broke.unwrap_or("_OTHER")),
        // Of what gives credentials, for example.
        Some(200..=299) => Outcome::again(cause, "broken"),
        Some(status @ (408 | 429 | 500..)) => {
            Outcome::Again { cause, after: retry_after, error: status.to_string().into() }
        }
        Some(status) => refused(cause, status.to_string().into()),
    }
}

/// An error with its causes, in one line, cut: a store's answer may be a page of XML.
fn told(error: &dyn std::error::Error) -> String {
    const MAX: usize = 400;
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text[..text.floor_char_boundary(MAX)].to_owned()
}

fn once() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn is_clear(endpoint: &Option<String>) -> bool {
    endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"))
}

/// Clear text only where the configuration names it.
fn options(endpoint: &Option<String>) -> ClientOptions {
    ClientOptions::new().with_allow_http(is_clear(endpoint))
}

fn transport(endpoint: &Option<String>) -> Result<Transport, Error> {
    Transport::new(is_clear(endpoint)).map_err(Error::Roots)
}

fn amazon(s3: &S3) -> Result<impl ObjectStore + use<>, Error> {
    let mut builder = AmazonS3Builder::from_env()
        .with_http_connector(transport(&s3.endpoint)?)
        .with_retry(once())
        .with_bucket_name(&s3.bucket)
        .with_virtual_hosted_style_request(!s3.path_style);
    if let Some(region) = &s3.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &s3.endpoint {
        builder = builder.with_endpoint(if s3.path_style {
            endpoint.clone()
        } else {
            // The bucket is a part of the name there.
            let (scheme, rest) = endpoint.split_once("://").unwrap_or(("https", endpoint));
            format!("{scheme}://{}.{rest}", s3.bucket)
        });
        builder = builder.with_allow_http(is_clear(&s3.endpoint));
    }
    if let Some((id, secret)) = &s3.credentials {
        builder = builder.with_access_key_id(&id.0).with_secret_access_key(&secret.0);
    }
    if let Some(token) = &s3.session_token {
        builder = builder.with_token(&token.0);
    }
    builder.build().map_err(Error::Settings)
}

fn google(gcs: &Gcs) -> Result<impl ObjectStore + use<>, Error> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_http_connector(transport(&gcs.endpoint)?)
        .with_retry(once())
        .with_client_options(options(&gcs.endpoint))
        .with_bucket_name(&gcs.bucket);
    if let Some(endpoint) = &gcs.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let Some(path) = &gcs.service_account {
        builder = builder.with_service_account_path(path.display().to_string());
    }
    builder.build().map_err(Error::Settings)
}

fn microsoft(azure: &Azure) -> Result<impl ObjectStore + use<>, Error> {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_http_connector(transport(&azure.endpoint)?)
        .with_retry(once())
        .with_client_options(options(&azure.endpoint))
        .with_container_name(&azure.bucket);
    if let Some(account) = &azure.account {
        builder = builder.with_account(account);
    }
    if let Some(key) = &azure.secret_key {
        builder = builder.with_access_key(&key.0);
    }
    if let Some(endpoint) = &azure.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder.build().map_err(Error::Settings)
}
