//! The configuration file (SPEC §6), as far as this release uses it. Every key is optional; what is
//! not known is an error with its place.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tap_common::settings::Settings;

pub use super::{
    blocks::{
        Connections, Detector, Detectors, EventStore, Exchanges, Rings, Trace, TraceIdentity,
    },
    capture::{Capture, Cidr, DbPayload, Direction, HttpPayload, Payload, Ports},
    load::{ConfigError, DEFAULT_PATH, Loaded},
    values::Secret,
};
use super::{
    exporters::Exporters,
    http_capture::HttpCapture,
    place::{Mistake, path},
    processors::Processors,
    service::Service,
};
use crate::{policy::admission::Rules, probe::load::Wanted};

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
            rules: Arc::new(Rules::new(capture).unwrap_or_default()),
        }
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
