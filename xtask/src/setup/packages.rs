//! The table of system packages: what it is called in Debian, how one sees that it is there
//! already (whoever installed it), and why it is needed. The tests' own rows are in
//! `tests/packages.txt`, beside the tests.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::command;
use crate::workspace::Workspace;

/// What is to be set up; the others include the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Build and run tap.
    Build,
    /// Run its tests.
    Test,
    /// Boot other kernels.
    Kernels,
}

/// How a package shows that it is there.
#[derive(Clone, Copy)]
pub enum Sign {
    /// A program on PATH or in the system folders.
    Program(&'static str),
    /// A program of the package's own name.
    ProgramOfThatName,
    /// A file.
    File(&'static str),
}

/// One row.
#[derive(Clone)]
pub struct Package {
    /// Debian's name.
    pub name: Cow<'static, str>,
    sign: Sign,
    /// What it is needed for.
    pub why: Cow<'static, str>,
    scope: Scope,
}

impl Package {
    const fn new(name: &'static str, sign: Sign, scope: Scope, why: &'static str) -> Self {
        Self { name: Cow::Borrowed(name), sign, why: Cow::Borrowed(why), scope }
    }

    /// Whether it, or something that does the same, is there.
    pub fn is_present(&self) -> bool {
        match self.sign {
            Sign::Program(name) => command::find(name).is_some(),
            Sign::ProgramOfThatName => command::find(&self.name).is_some(),
            Sign::File(path) => Path::new(path).exists(),
        }
    }
}

use Scope::{Build, Kernels};
use Sign::{File, Program};

const PACKAGES: &[Package] = &[
    Package::new("gcc", Program("cc"), Build, "links Rust programs, compiles ring's assembly"),
    Package::new("g++", Program("c++"), Build, "links LLVM into bpf-linker"),
    Package::new("qemu-system-x86", Program("qemu-system-x86_64"), Kernels, "boots the kernels"),
    Package::new("busybox-static", Program("busybox"), Kernels, "the guests' userland"),
    Package::new("kmod", Program("depmod"), Kernels, "the order in which modules load"),
    Package::new("iproute2", File("/sbin/tc"), Kernels, "netem inside a guest"),
    Package::new("zstd", Program("zstd"), Kernels, "unpacks kernels and modules"),
    Package::new("xz-utils", Program("xz"), Kernels, "unpacks kernels and modules"),
    Package::new("lz4", Program("lz4"), Kernels, "unpacks kernels"),
];

/// LLVM for bpf-linker, where cargo has to build that.
pub const LLVM: &[Package] = &[
    Package::new(
        "llvm-22-dev",
        File("/usr/lib/llvm-22/bin/llvm-config"),
        Build,
        "bpf-linker's LLVM",
    ),
    Package::new("libzstd-dev", File("/usr/include/zstd.h"), Build, "LLVM links with it"),
    Package::new("zlib1g-dev", File("/usr/include/zlib.h"), Build, "LLVM links with it"),
];

/// Debian's Rust, where rustup cannot give the source of `core`.
pub const DEBIAN_RUST: &[Package] = &[
    Package::new("rustc-web", File("/usr/bin/rustc"), Build, "a rustc with LLVM 22"),
    Package::new("cargo-web", File("/usr/bin/cargo"), Build, "the cargo that goes with it"),
    Package::new("rust-web-src", File(DEBIAN_CORE), Build, "the source of `core`"),
];

const DEBIAN_CORE: &str = "/usr/lib/rustlib/src/rust/library/core/src/lib.rs";

/// The clippy that goes with it.
pub const DEBIAN_CLIPPY: &[Package] = &[Package::new(
    "rust-web-clippy",
    File("/usr/bin/clippy-driver"),
    Build,
    "lints the kernel side with the compiler that builds it",
)];

/// What shows that a package is there, of those that have no program called like them.
const SIGNS: &[(&str, Sign)] = &[
    ("apache2-bin", Program("apache2")),
    ("bind9-dnsutils", Program("dig")),
    ("dnsmasq-base", Program("dnsmasq")),
    ("e2fsprogs", Program("mkfs.ext4")),
    ("iproute2", Program("ip")),
    ("libdbd-mysql-perl", File("/usr/share/doc/libdbd-mysql-perl")),
    ("mariadb-client-core", Program("mariadb")),
    ("mariadb-server-core", Program("mariadbd")),
    ("nghttp2-client", Program("nghttp")),
    ("nginx-light", Program("nginx")),
    ("nodejs", Program("node")),
    // Its server stands in a folder of its version; this comes with every server.
    ("postgresql", Program("pg_ctlcluster")),
    ("python3-grpcio", File("/usr/lib/python3/dist-packages/grpc/__init__.py")),
    ("python3-websockets", File("/usr/lib/python3/dist-packages/websockets/__init__.py")),
    ("python3-venv", File("/usr/share/doc/python3-venv")),
    ("util-linux", Program("setpriv")),
];

/// The rows of a scope.
pub fn needed(workspace: &Workspace, scope: Scope) -> Result<Vec<Package>> {
    let wanted = |package: &&Package| package.scope == Build || package.scope == scope;
    let mut rows: Vec<Package> = PACKAGES.iter().filter(wanted).cloned().collect();
    if scope == Scope::Test {
        let path = workspace.root.join("tests/packages.txt");
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        rows.extend(text.lines().filter_map(row));
    }
    Ok(rows)
}

/// A line `name  # why`.
fn row(line: &str) -> Option<Package> {
    let (name, why) = line.split_once('#').unwrap_or((line, "for the tests"));
    let name = name.trim();
    let known = SIGNS.iter().find(|(package, _)| *package == name);
    (!name.is_empty()).then(|| Package {
        name: Cow::Owned(name.to_owned()),
        sign: known.map_or(Sign::ProgramOfThatName, |(_, sign)| *sign),
        why: Cow::Owned(why.trim().to_owned()),
        scope: Scope::Test,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_tests_list() {
        let package = row("nginx-light   # a server # of ours").unwrap();
        assert_eq!((&*package.name, &*package.why), ("nginx-light", "a server # of ours"));
        assert!(matches!(package.sign, Program("nginx")));
        assert!(matches!(row("curl").unwrap().sign, Sign::ProgramOfThatName));
        assert!(row("# only a comment").is_none() && row("  ").is_none());
    }
}
