//! Hosts and users that cannot run tap: exit 3 and one line that names what is missing.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use tests::{
    bpf::cgroup_root,
    receiver::{Protocol, Receiver},
    stage::{Session, apart},
    tap::{Ended, Launch},
    workload::Connected,
};

const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];

#[track_caller]
fn assert_cannot(ended: &Ended, names: &str) {
    assert_eq!(ended.code(), 3, "{}", ended.log());
    let errors: Vec<_> = ended.stderr.iter().filter(|line| line.contains(names)).collect();
    assert_eq!(errors.len(), 1, "{}", ended.log());
    assert_eq!(ended.stdout, [""; 0]);
}

#[test]
fn a_user_without_rights() {
    apart(|| {
        let ended = Launch::new().copied().under(&NOBODY).run()?;
        assert_cannot(&ended, "CAP_BPF");
        Ok(())
    });
}

#[test]
fn root_without_one_capability() {
    apart(|| {
        for (flag, name) in
            [("-net_admin", "CAP_NET_ADMIN"), ("-perfmon,-sys_admin", "CAP_PERFMON")]
        {
            let bounds = format!("--bounding-set={flag}");
            let ended = Launch::new().under(&["setpriv", &bounds]).run()?;
            assert_cannot(&ended, name);
        }
        Ok(())
    });
}

/// A mask of `/proc/<pid>/task/<tid>/status`.
fn mask(status: &str, name: &str) -> Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    Ok(u64::from_str_radix(line.with_context(|| format!("no {name}"))?.trim(), 16)?)
}

#[test]
fn what_tracing_does_not_need_is_dropped_in_every_thread() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new().exporting(&receiver, Protocol::Grpc).start()?;
        // CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH
        let kept = 1 << 39 | 1 << 38 | 1 << 21 | 1 << 19 | 1 << 2;
        let mut threads = 0;
        for task in fs::read_dir(format!("/proc/{}/task", tap.pid()))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
                assert_eq!(mask(&status, name)? & !kept, 0, "{name} {status}");
            }
            assert!(status.contains("NoNewPrivs:\t1"), "{status}");
            threads += 1;
        }
        assert!(threads > 1, "{threads}");
        // It traces all the same, into other namespaces too.
        let mut connected = Connected::new()?;
        connected.send(10)?;
        receiver.both(connected.close()?)?.assert_bytes(10, 0);
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn with_the_named_capabilities_it_needs_no_root() {
    apart(|| {
        let receiver = Receiver::start()?;
        // Those of the unit that we ship.
        let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/systemd/tap.service");
        let unit = fs::read_to_string(unit)?;
        let named = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities="));
        let named = named.context("the unit names no capabilities")?.to_lowercase();
        let flags: Vec<_> = named.split(' ').map(|it| it.replacen("cap_", "+", 1)).collect();
        let inherited = format!("--inh-caps={}", flags.join(","));
        let ambient = format!("--ambient-caps={}", flags.join(","));
        let mut under = vec!["setpriv", &inherited, &ambient];
        under.extend(&NOBODY[1..]);
        let launch = Launch::new().copied().under(&under);
        let tap = launch.exporting(&receiver, Protocol::Grpc).start()?;
        let mut connected = Connected::new()?;
        connected.send(10)?;
        receiver.both(connected.close()?)?.assert_bytes(10, 0);
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn check_tells_a_user_without_rights_what_is_missing() {
    apart(|| {
        let ended = Launch::of(&["check"]).copied().under(&NOBODY).run()?;
        assert_eq!(ended.code(), 1, "{}", ended.log());
        assert!(ended.stdout.join("\n").contains("CAP_BPF"), "{:?}", ended.stdout);
        Ok(())
    });
}

/// A cgroup below the root, as a container's.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Result<Self> {
        let path = cgroup_root()?.join(format!("tap-test-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    /// A shell command that moves there, takes `namespaces`, mounts the cgroup2 that a container
    /// would see, and executes its arguments.
    fn shell(&self, namespaces: &str) -> Result<String> {
        let (own, root) = (self.0.display(), cgroup_root()?);
        let root = root.display();
        let inner = format!("umount -l {root} && mount -t cgroup2 none {root} && exec \"$@\"");
        Ok(format!(
            "echo $$ > {own}/cgroup.procs && exec unshare {namespaces} --mount --cgroup \
             sh -c '{inner}' sh \"$@\""
        ))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The daemon in it has ended; its last task may take a moment more.
        let gone = || fs::remove_dir(&self.0).is_ok();
        drop(tests::wait::until_true("the cgroup to empty", tests::wait::PATIENCE, gone));
    }
}

#[test]
fn in_a_private_cgroup_namespace_it_finds_the_true_root() {
    apart(|| {
        if let Err(error) = fs::read_dir("/proc/1/root") {
            println!("skipped: process 1 is out of reach even here: {error}");
            return Ok(());
        }
        let cgroup = Cgroup::new()?;
        let script = cgroup.shell("")?;
        let receiver = Receiver::start()?;
        let launch = Launch::new().under(&["sh", "-c", &script, "sh"]);
        let tap = launch.exporting(&receiver, Protocol::Grpc).start()?;
        // This process is outside of tap's cgroup.
        let mut connected = Connected::new()?;
        connected.send(10)?;
        receiver.both(connected.close()?)?.assert_bytes(10, 0);
        Session { tap, receiver }.finish().map(drop)
    });
}

#[test]
fn where_the_true_root_is_out_of_reach_it_does_not_pretend() {
    apart(|| {
        // Its own process 1 as well: nothing of the host's is to be seen.
        let cgroup = Cgroup::new()?;
        let script = cgroup.shell("--pid --fork --kill-child --mount-proc")?;
        let ended = Launch::new().under(&["sh", "-c", &script, "sh"]).run()?;
        assert_cannot(&ended, "cgroup");
        Ok(())
    });
}
