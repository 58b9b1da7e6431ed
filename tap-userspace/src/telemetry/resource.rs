//! Whom telemetry is about: this tap on this host. Comes from the environment and the kernel's
//! files; goes out with every OTLP request.

use std::fs;

use super::protobuf;
use crate::config::environment::Environment;

/// Attributes of the resource, each key once; all are strings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    attributes: Vec<(String, String)>,
}

impl Resource {
    /// What this host tells, overridden by `OTEL_RESOURCE_ATTRIBUTES`, overridden by
    /// `OTEL_SERVICE_NAME`.
    pub fn detect(environment: &Environment) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let mut resource = Self::default();
        for (key, value) in [
            ("service.name", "tap".to_owned()),
            ("service.version", version.to_owned()),
            ("service.instance.id", instance_id()),
            ("telemetry.sdk.name", "tap".to_owned()),
            ("telemetry.sdk.language", "rust".to_owned()),
            ("telemetry.sdk.version", version.to_owned()),
            ("host.name", line("/proc/sys/kernel/hostname")),
            ("host.id", line("/etc/machine-id")),
            ("host.arch", arch().to_owned()),
            ("os.type", "linux".to_owned()),
            ("os.version", line("/proc/sys/kernel/osrelease")),
        ] {
            resource.set(key, value);
        }
        for (key, value) in environment.resource() {
            resource.set(key, value.clone());
        }
        if let Some(name) = environment.service_name() {
            resource.set("service.name", name.to_owned());
        }
        resource
    }

    /// Sets an attribute; an empty value leaves it as it is.
    pub fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        match self.attributes.iter_mut().find(|(known, _)| known == key) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((key.to_owned(), value)),
        }
    }

    /// Its attributes.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.attributes
    }

    /// The OTLP message `Resource`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in &self.attributes {
            let (mut pair, mut any) = (Vec::new(), Vec::new());
            protobuf::bytes(&mut any, 1, value.as_bytes());
            protobuf::bytes(&mut pair, 1, key.as_bytes());
            protobuf::bytes(&mut pair, 2, &any);
            protobuf::bytes(&mut out, 1, &pair);
        }
        out
    }
}

/// First line of a file; empty where it cannot be read.
fn line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// A random UUID for this start of tap; empty where the kernel gives no randomness.
fn instance_id() -> String {
    line("/proc/sys/kernel/random/uuid")
}

/// `host.arch` of this build.
const fn arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins() {
        for (variables, name, zone) in [
            (&[][..], "tap", None),
            (&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,zone=x%20y")], "a", Some("x y")),
            (
                &[("OTEL_RESOURCE_ATTRIBUTES", "service.name=a"), ("OTEL_SERVICE_NAME", "b")],
                "b",
                None,
            ),
        ] {
            let environment = Environment::read(variables.iter().copied()).unwrap();
            let resource = Resource::detect(&environment);
            let of = |key: &str| {
                let mut found = resource.attributes().iter().filter(|(known, _)| known == key);
                let value = found.next().map(|(_, value)| value.as_str());
                assert!(found.next().is_none(), "{key} is there twice");
                value
            };
            assert_eq!(of("service.name"), Some(name));
            assert_eq!(of("zone"), zone);
            assert_eq!(of("os.type"), Some("linux"));
        }
    }
}
