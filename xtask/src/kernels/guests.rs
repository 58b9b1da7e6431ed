//! The matrix: which kernels, where Debian has them, and what happens in each guest.

/// What a guest does after it has booted, each with a daemon of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Twenty connections over the loopback, both ends seen.
    Loopback,
    /// The same with the daemon in a cgroup namespace and a cgroup2 mount of its own, as Docker
    /// gives a container, and the connections made in another cgroup.
    Namespace,
    /// Larger transfers between two network namespaces over a link that loses, reorders and
    /// duplicates.
    Netem,
}

impl Phase {
    /// As the guest's init calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Namespace => "namespace",
            Self::Netem => "netem",
        }
    }

    /// Connections made; each has two ends here.
    pub fn connections(self) -> usize {
        match self {
            Self::Loopback | Self::Namespace => 20,
            Self::Netem => 8,
        }
    }
}

/// One row of the matrix.
pub struct Guest {
    /// What to call it on the command line.
    pub series: &'static str,
    /// The suite of `debian-security` that has it.
    pub suite: &'static str,
    /// The package that depends on the newest image of the series.
    pub package: &'static str,
    /// What it does.
    pub phases: &'static [Phase],
    /// Modules that this takes; `tcp_diag` is what other machines load when `ss` or tap asks.
    pub modules: &'static [&'static str],
}

impl Guest {
    /// The phases, as init takes them.
    pub fn phases_list(&self) -> String {
        let names: Vec<_> = self.phases.iter().map(|phase| phase.name()).collect();
        names.join(",")
    }
}

/// All have cgroup v2 only: nothing in the guest mounts version 1.
pub const GUESTS: &[Guest] = &[
    Guest {
        series: "5.10",
        suite: "bullseye-security",
        package: "linux-image-amd64",
        phases: &[Phase::Loopback],
        modules: &["tcp_diag"],
    },
    Guest {
        series: "6.1",
        suite: "bookworm-security",
        package: "linux-image-amd64",
        phases: &[Phase::Loopback, Phase::Namespace],
        modules: &["tcp_diag"],
    },
    Guest {
        series: "6.12",
        suite: "bookworm-security",
        package: "linux-image-6.12-amd64",
        phases: &[Phase::Loopback, Phase::Netem],
        modules: &["tcp_diag", "veth", "sch_netem"],
    },
];
