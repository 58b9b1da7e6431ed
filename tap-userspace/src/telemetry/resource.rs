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
            ("container.id", own_container()),
        ] {
            resource.set(key, value);
        }
        let release = ["/proc/1/root/etc/os-release", "/etc/os-release"];
        let release = release.iter().find_map(|path| fs::read_to_string(path).ok());
        for (key, name) in [("os.name", "NAME"), ("os.description", "PRETTY_NAME")] {
            resource.set(key, of_release(release.as_deref().unwrap_or_default(), name).to_owned());
        }
        for (key, variables) in DOWNWARD {
            let value = variables.iter().find_map(|name| std::env::var(name).ok());
            resource.set(key, value.unwrap_or_default());
        }
        resource.name(environment);
        resource
    }

    /// What the environment says, over everything else.
    pub fn name(&mut self, environment: &Environment) {
        for (key, value) in environment.resource() {
            self.set(key, value.clone());
        }
        if let Some(name) = environment.service_name() {
            self.set("service.name", name.to_owned());
        }
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

/// What a manifest tells by the downward API, in the names that manifests use.
const DOWNWARD: [(&str, &[&str]); 5] = [
    ("k8s.node.name", &["K8S_NODE_NAME", "NODE_NAME"]),
    ("k8s.namespace.name", &["K8S_NAMESPACE_NAME", "POD_NAMESPACE"]),
    ("k8s.pod.name", &["K8S_POD_NAME", "POD_NAME"]),
    ("k8s.pod.uid", &["K8S_POD_UID", "POD_UID"]),
    ("k8s.container.name", &["K8S_CONTAINER_NAME"]),
];

/// A value of os-release(5), without its quotes.
fn of_release<'a>(text: &'a str, name: &str) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_default().trim_matches(['"', '\''])
}

/// The container that tap itself runs in; empty where it runs in none.
fn own_container() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    container_of(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo")).to_owned()
}

/// A container's id: the last part of a cgroup's path that is one, else, where the cgroup
/// namespace hides the path, the folder of files that the engine mounts into every container.
fn container_of<'a>(cgroup: &'a str, mountinfo: &'a str) -> &'a str {
    let parts = |text: &'a str| text.split(|c: char| !c.is_ascii_hexdigit());
    let id = |part: &&str| part.len() == 64;
    if let Some(found) = parts(cgroup).rfind(id) {
        return found;
    }
    let engine = |line: &&str| line.contains("/containers/") && line.contains("/hostname ");
    mountinfo.lines().find(engine).and_then(|line| parts(line).find(id)).unwrap_or_default()
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
    fn the_own_container_is_found() {
        let id = "0123456789abcdef".repeat(4);
        let cgroup = |path: &str| format!("0::/{path}\n");
        let mount = format!(
            "640 625 254:1 /var/lib/docker/containers/{id}/hostname /etc/hostname rw - ext4 /dev/vda1 rw\n"
        );
        let pods = cgroup(&format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{id}.scope"));
        for (cgroup, mountinfo, expected) in [
            (cgroup(&format!("system.slice/docker-{id}.scope")), "", &*id),
            (pods, "", &id),
            (cgroup(&format!("docker/{id}/init.scope")), "", &id),
            (cgroup(""), &mount, &id),
            (cgroup("user.slice/user-0.slice/session-1.scope"), "", ""),
            (cgroup(""), "29 1 254:1 / / rw - ext4 /dev/vda1 rw\n", ""),
        ] {
            assert_eq!(container_of(&cgroup, mountinfo), expected, "{cgroup}");
        }
    }

    #[test]
    fn os_release_is_unquoted() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='Debian'\nID=debian\n";
        assert_eq!(of_release(text, "PRETTY_NAME"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(of_release(text, "NAME"), "Debian");
        assert_eq!((of_release(text, "ID"), of_release(text, "VERSION")), ("debian", ""));
    }

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
