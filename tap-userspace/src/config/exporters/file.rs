//! A `file` exporter of the configuration file, in the words of the Collector's (fileexporter, which
//! rotates by lumberjack).

use std::{path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::queue::duration;
use crate::config::{
    place::{Mistake, Step},
    schema,
    values::{scalar, write_duration},
};

/// The block: requests as lines of OTLP/JSON in a file that its owner alone can read.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The file.
    pub path: PathBuf,
    /// When another one is begun; without it, never.
    pub rotation: Option<Rotation>,
    /// What is written.
    pub format: Format,
    /// `zstd`: each piece that is written is a frame, so that `zstdcat` gives the lines. The
    /// Collector writes lengths between them.
    #[serde(deserialize_with = "compression")]
    pub compression: Option<Zstd>,
    /// What is there stays. The Collector's default is `false`: a restart would lose it.
    pub append: bool,
    /// Longest wait before lines are written.
    #[serde(deserialize_with = "duration", serialize_with = "write_duration")]
    #[schemars(schema_with = "schema::go_duration")]
    pub flush_interval: Duration,
    /// Makes the folder that the file is in.
    pub create_directory: bool,
}

impl Default for File {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            rotation: None,
            format: Format::Json,
            compression: None,
            append: true,
            flush_interval: Duration::from_secs(1),
            create_directory: false,
        }
    }
}

/// `rotation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// A file gets no longer than that; zero is the default, as in lumberjack.
    pub max_megabytes: u64,
    /// A file gets no older than that; nor do those that it was renamed to, which the Collector
    /// holds to it alone. Zero: however old.
    pub max_days: u64,
    /// How many renamed ones stay; zero: all.
    pub max_backups: usize,
    /// Names in local time.
    #[serde(deserialize_with = "utc")]
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_megabytes: 100, max_days: 0, max_backups: 100, localtime: false }
    }
}

impl Rotation {
    /// Most bytes of a file.
    pub fn most_bytes(&self) -> u64 {
        let megabytes = if self.max_megabytes == 0 { 100 } else { self.max_megabytes };
        megabytes.saturating_mul(1 << 20)
    }

    /// The greatest age.
    pub fn most_age(&self) -> Option<Duration> {
        let seconds = self.max_days.saturating_mul(24 * 3600);
        (seconds > 0).then_some(Duration::from_secs(seconds))
    }
}

/// `format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// OTLP/JSON, a request a line.
    Json,
}

/// `compression: zstd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zstd;

impl Serialize for Zstd {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str("zstd")
    }
}

schema::by_hand!(Zstd, { "enum": ["zstd", "none", ""] });
schema::by_hand!(Format, { "const": "json" });

impl File {
    /// What no key alone shows to be wrong.
    pub(super) fn check(&self, at: &[Step]) -> Result<(), Mistake> {
        if self.path.file_name().is_none() {
            let why = "a `file` exporter needs a `path`, as /var/lib/tap/telemetry.jsonl";
            return Err(Mistake::at(at, [] as [Step; 0], why));
        }
        if !self.append && self.rotation.is_some() {
            let why = "with `rotation` what is there stays: leave one of them out";
            return Err(Mistake::at(at, ["append"], why));
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Format {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        scalar(from, |text| match text.unwrap_or("json") {
            "json" => Ok(Self::Json),
            "proto" => {
                Err("tap writes no `proto`: use `json`, with `compression: zstd` where room \
                            is scarce"
                    .into())
            }
            other => Err(format!("`{other}` is no format: write json")),
        })
    }
}

fn compression<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Zstd>, D::Error> {
    scalar(from, |text| match text.unwrap_or("none") {
        "" | "none" => Ok(None),
        "zstd" => Ok(Some(Zstd)),
        other => Err(format!("`{other}` is no compression of files: write zstd or none")),
    })
}

fn utc<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    scalar(from, |text| match text.unwrap_or("false") {
        "false" => Ok(false),
        "true" => Err("tap names files in UTC: leave `localtime` out".into()),
        other => Err(format!("`{other}` is neither true nor false")),
    })
}
