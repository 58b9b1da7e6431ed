//! Processes: what `/proc` says of them. In: births, execs and ends from the kernel side, and
//! lookups by the stage that finishes connections. Out: [`Process`], shared.
//!
//! Everything in `/proc` is written by the processes themselves or changes while it is read: each
//! read is bounded, nothing is trusted, and what cannot be learned stays empty.
#![forbid(unsafe_code)]

use std::{
    collections::VecDeque,
    fs::File,
    io::Read,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

/// Arguments of a command line that are kept.
const ARGS_MAX: usize = 64;
/// Bytes of a command line that are kept.
const ARGS_BYTES: u64 = 4096;
/// Bytes of an executable's path that are kept (`PATH_MAX`).
const PATH_BYTES: usize = 4096;
/// Bytes of `/etc/passwd` that are read.
const PASSWD_BYTES: u64 = 1 << 20;
/// Processes that the cache holds unless told otherwise.
pub const CACHE_DEFAULT: usize = 16_384;
/// How long a process that ended is remembered: its last connections are finished after it.
pub const GRACE_NS: u64 = 10_000_000_000;

/// A process that owns a connection's local end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable.path`; empty where it could not be learned.
    pub executable: Box<str>,
    /// `process.executable.name`.
    pub name: Box<str>,
    /// `process.command_args`; control characters are as the process wrote them.
    pub args: Box<[Box<str>]>,
    /// `process.owner`: user name, else uid.
    pub owner: Box<str>,
    /// When it started, in clock ticks since boot: the same pid with another value is another
    /// process. 0 where not known.
    pub start_ticks: u64,
}

/// The processes of this host that tap has met, at most `capacity` of them; the one not used for
/// longest goes first.
#[derive(Debug)]
pub struct Processes {
    proc_root: PathBuf,
    users: Users,
    capacity: usize,
    cache: HashMap<u32, Entry>,
    /// When each use happened: (use, tgid). Of a process used again only the latest counts.
    uses: VecDeque<(u64, u32)>,
    now_use: u64,
    /// Processes that ended: when to forget them. In order of time.
    ended: VecDeque<(u64, u32)>,
}

#[derive(Debug)]
struct Entry {
    process: Arc<Process>,
    last_use: u64,
    /// When it is to be forgotten, once it has ended.
    forget_at: Option<u64>,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new(CACHE_DEFAULT)
    }
}

impl Processes {
    /// A cache of the processes in `/proc`, with user names of the host (those of pid 1's root: tap
    /// may run in a container).
    pub fn new(capacity: usize) -> Self {
        let host = Path::new("/proc/1/root/etc/passwd");
        let passwd = if host.exists() { host } else { Path::new("/etc/passwd") };
        Self::with_roots(capacity, "/proc", passwd)
    }

    /// A cache of the processes below `proc_root`, with the user names of `passwd`.
    pub fn with_roots(
        capacity: usize,
        proc_root: impl Into<PathBuf>,
        passwd: impl Into<PathBuf>,
    ) -> Self {
        Self {
            proc_root: proc_root.into(),
            users: Users { passwd: passwd.into(), read_at: None, names: HashMap::new() },
            capacity: capacity.max(1),
            cache: HashMap::new(),
            uses: VecDeque::new(),
            now_use: 0,
            ended: VecDeque::new(),
        }
    }

    /// The process `tgid`; one not met before is read from `/proc` at once. `comm_hint` is its
    /// name as the kernel side saw it, empty without: it stands in where `/proc` has the process
    /// no more. `None` for 0 and where nothing at all is known.
    pub fn lookup(&mut self, tgid: u32, comm_hint: &[u8]) -> Option<Arc<Process>> {
        if tgid == 0 {
            return None;
        }
        if let Some(entry) = self.cache.get_mut(&tgid) {
            self.now_use += 1;
            entry.last_use = self.now_use;
            self.uses.push_back((self.now_use, tgid));
            let process = Arc::clone(&entry.process);
            self.tidy_uses();
            return Some(process);
        }
        let process = match self.read(tgid) {
            Some(process) => process,
            None if comm_hint.is_empty() || comm_hint[0] == 0 => return None,
            None => Process { pid: tgid, name: comm(comm_hint), ..Process::default() },
        };
        Some(self.insert(process))
    }

    /// `tgid` executed `filename`, an argument of `execve` and not always the executable: `/proc`
    /// knows better. Where it has the process no more, an absolute `filename` is better than
    /// nothing.
    pub fn exec(&mut self, tgid: u32, comm_now: &[u8], filename: &[u8]) {
        if tgid == 0 {
            return;
        }
        let process = self.read(tgid).unwrap_or_else(|| {
            let before = self.cache.get(&tgid).map(|entry| &*entry.process);
            let filename = until_nul(filename);
            let executable =
                if filename.first() == Some(&b'/') { text(filename) } else { "".into() };
            Process {
                pid: tgid,
                executable,
                name: comm(comm_now),
                args: Box::default(),
                owner: before.map(|process| process.owner.clone()).unwrap_or_default(),
                start_ticks: 0,
            }
        });
        self.insert(process);
    }

    /// `parent` forked `child`, which is the same program until it executes another. Without the
    /// parent in the cache nothing is done: the child is read when it is looked up.
    pub fn fork(&mut self, child: u32, parent: u32) {
        if child == 0 || child == parent {
            return;
        }
        // The pid may have been another's before.
        self.cache.remove(&child);
        let Some(entry) = self.cache.get(&parent) else { return };
        let process = Process { pid: child, start_ticks: 0, ..Process::clone(&entry.process) };
        self.insert(process);
    }

    /// `tgid` ended at `now_ns` of the monotonic clock. It is remembered for [`GRACE_NS`].
    pub fn exit(&mut self, tgid: u32, now_ns: u64) {
        if let Some(entry) = self.cache.get_mut(&tgid) {
            let forget_at = now_ns.saturating_add(GRACE_NS);
            entry.forget_at = Some(forget_at);
            self.ended.push_back((forget_at, tgid));
        }
        self.forget(now_ns);
    }

    /// Forgets the processes whose grace is over.
    pub fn forget(&mut self, now_ns: u64) {
        while let Some(&(forget_at, tgid)) = self.ended.front() {
            if forget_at > now_ns && self.ended.len() <= self.capacity {
                break;
            }
            self.ended.pop_front();
            // A pid that was given out again has an entry without, or with another, end.
            if self.cache.get(&tgid).is_some_and(|entry| entry.forget_at == Some(forget_at)) {
                self.cache.remove(&tgid);
            }
        }
    }

    /// Processes in the cache.
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    /// Whether the cache is empty.
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    fn insert(&mut self, process: Process) -> Arc<Process> {
        let tgid = process.pid;
        let process = Arc::new(process);
        self.now_use += 1;
        let last_use = self.now_use;
        self.uses.push_back((last_use, tgid));
        let entry = Entry { process: Arc::clone(&process), last_use, forget_at: None };
        self.cache.insert(tgid, entry);
        while self.cache.len() > self.capacity {
            let Some((used, oldest)) = self.uses.pop_front() else { break };
            if self.cache.get(&oldest).is_some_and(|entry| entry.last_use == used) {
                self.cache.remove(&oldest);
            }
        }
        self.tidy_uses();
        process
    }

    /// Drops the uses that do not count, so that the queue stays in proportion to the cache: each
    /// pass halves it at least, so a use costs a constant on average.
    fn tidy_uses(&mut self) {
        if self.uses.len() > 2 * self.cache.len() + 64 {
            let cache = &self.cache;
            self.uses.retain(|(used, tgid)| {
                cache.get(tgid).is_some_and(|entry| entry.last_use == *used)
            });
        }
    }

    /// What `/proc` says of `tgid`; `None` if there is no such process.
    fn read(&mut self, tgid: u32) -> Option<Process> {
        let dir = self.proc_root.join(tgid.to_string());
        let stat = read_bounded(&dir.join("stat"), 1024)?;
        let (stat_name, start_ticks) = parse_stat(&stat)?;
        let executable = executable(&dir);
        let base = executable.rsplit('/').next().unwrap_or_default();
        // The name of the executable, as the conventions want it, is not cut at 15 bytes as the
        // task's name is.
        let name = if base.is_empty() { text(stat_name) } else { base.into() };
        let owner = std::fs::metadata(&dir).map(|meta| self.users.name(meta.uid()));
        Some(Process {
            pid: tgid,
            name,
            executable,
            args: args(&read_bounded(&dir.join("cmdline"), ARGS_BYTES).unwrap_or_default()),
            owner: owner.unwrap_or_default(),
            start_ticks,
        })
    }
}

/// User names by uid, read again when the file changes.
#[derive(Debug)]
struct Users {
    passwd: PathBuf,
    read_at: Option<SystemTime>,
    names: HashMap<u32, Box<str>>,
}

impl Users {
    fn name(&mut self, uid: u32) -> Box<str> {
        let changed_at = std::fs::metadata(&self.passwd).and_then(|meta| meta.modified()).ok();
        if changed_at != self.read_at {
            let file = read_bounded(&self.passwd, PASSWD_BYTES).unwrap_or_default();
            self.names = parse_passwd(&file);
            self.read_at = changed_at;
        }
        self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into())
    }
}

// === Reading /proc ===

/// At most `limit` bytes of a file.
fn read_bounded(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The link `exe`. Empty for kernel threads, and where reading it takes a capability that tap has
/// not.
fn executable(dir: &Path) -> Box<str> {
    let Ok(link) = std::fs::read_link(dir.join("exe")) else { return Box::default() };
    let path = link.as_os_str().as_bytes();
    // The kernel appends it where the file was replaced or removed (fs/d_path.c).
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    text(&path[..path.len().min(PATH_BYTES)])
}

/// Name and start time of `stat`. The name stands in parentheses and may hold any byte, also `)`,
/// so its end is the last of them (proc_pid_stat(5)).
fn parse_stat(stat: &[u8]) -> Option<(&[u8], u64)> {
    const START_TIME_AFTER_NAME: usize = 19;
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = stat.get(open + 1..close)?;
    let start_time = stat[close + 1..]
        .split(|byte| *byte == b' ')
        .filter(|field| !field.is_empty())
        .nth(START_TIME_AFTER_NAME)?;
    Some((name, std::str::from_utf8(start_time).ok()?.parse().ok()?))
}

/// The arguments of `cmdline`, each ended by a NUL. The last one may be cut.
fn args(cmdline: &[u8]) -> Box<[Box<str>]> {
    let cmdline = cmdline.strip_suffix(&[0]).unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Box::default();
    }
    cmdline.split(|byte| *byte == 0).take(ARGS_MAX).map(text).collect()
}

/// Names by uid; the first line of a uid counts, as in `getpwuid`.
fn parse_passwd(file: &[u8]) -> HashMap<u32, Box<str>> {
    let mut names = HashMap::new();
    for line in file.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b':');
        let (Some(name), Some(uid)) = (fields.next(), fields.nth(1)) else { continue };
        let uid = std::str::from_utf8(uid).ok().and_then(|uid| uid.parse().ok());
        if let (Some(uid), false) = (uid, name.is_empty()) {
            names.entry(uid).or_insert_with(|| text(name));
        }
    }
    names
}

/// For the fuzzer: any bytes as each of the files that are read.
#[doc(hidden)]
pub fn fuzz_process_files(bytes: &[u8]) {
    if let Some((name, _)) = parse_stat(bytes) {
        assert!(name.len() < bytes.len());
    }
    assert!(args(bytes).len() <= ARGS_MAX);
    parse_passwd(bytes);
    assert!(!comm(bytes).contains('\0'));
}

fn comm(bytes: &[u8]) -> Box<str> {
    text(until_nul(bytes))
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> Box<str> {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::symlink,
        process::{Command, Stdio},
    };

    use tempfile::TempDir;

    use super::*;

    /// A `/proc` with what the test puts there.
    struct Fixture {
        dir: TempDir,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = TempDir::new().expect("a directory");
            fs::write(dir.path().join("passwd"), "root:x:0:0:root:/root:/bin/sh\n")
                .expect("written");
            Self { dir }
        }

        fn process(&self, pid: u32, exe: &str, cmdline: &[u8], start: u64) {
            let dir = self.dir.path().join(pid.to_string());
            fs::create_dir_all(&dir).expect("made");
            let stat =
                format!("{pid} (na) me) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 {start} 9 9\n");
            fs::write(dir.join("stat"), stat).expect("written");
            fs::write(dir.join("cmdline"), cmdline).expect("written");
            let _gone = fs::remove_file(dir.join("exe"));
            symlink(exe, dir.join("exe")).expect("linked");
        }

        fn gone(&self, pid: u32) {
            fs::remove_dir_all(self.dir.path().join(pid.to_string())).expect("removed");
        }

        fn processes(&self, capacity: usize) -> Processes {
            let root = self.dir.path();
            Processes::with_roots(capacity, root, root.join("passwd"))
        }
    }

    #[test]
    fn a_process_is_read_and_kept() {
        let fixture = Fixture::new();
        fixture.process(7, "/usr/bin/app (deleted)", b"app\0--x=\xff\0\0last\0", 4711);
        let mut processes = fixture.processes(10);
        let process = processes.lookup(7, b"").expect("a process");
        assert_eq!(&*process.executable, "/usr/bin/app");
        assert_eq!(&*process.name, "app");
        let args: Vec<&str> = process.args.iter().map(|arg| &**arg).collect();
        assert_eq!(args, ["app", "--x=\u{fffd}", "", "last"]);
        assert_eq!(process.start_ticks, 4711);
        let uid = fs::metadata(fixture.dir.path()).expect("there").uid();
        let owner = if uid == 0 { "root".to_owned() } else { uid.to_string() };
        assert_eq!(*process.owner, *owner);
        fixture.gone(7);
        assert!(Arc::ptr_eq(&process, &processes.lookup(7, b"").expect("kept")));
        assert_eq!(processes.lookup(0, b"x"), None);
        assert_eq!(processes.lookup(8, b""), None);
        assert_eq!(processes.lookup(8, &[0; 16]), None);
        let hinted = processes.lookup(8, b"curl\0junk").expect("the hint");
        assert_eq!((hinted.pid, &*hinted.name, &*hinted.executable), (8, "curl", ""));
    }

    #[test]
    fn the_command_line_is_bounded() {
        let many: Vec<u8> = b"a\0".repeat(3000);
        assert_eq!(args(&many).len(), ARGS_MAX);
        let fixture = Fixture::new();
        fixture.process(7, "/x", &[b'a'; 100_000], 1);
        let process = fixture.processes(10).lookup(7, b"").expect("a process");
        assert_eq!(process.args.iter().map(|arg| arg.len()).sum::<usize>(), 4096);
        assert!(args(b"").is_empty() && args(b"\0").is_empty());
    }

    #[test]
    fn exec_changes_the_program() {
        let fixture = Fixture::new();
        fixture.process(7, "/bin/sh", b"sh\0", 1);
        let mut processes = fixture.processes(10);
        let shell = processes.lookup(7, b"").expect("a shell");
        fixture.process(7, "/usr/bin/env", b"env\0", 1);
        processes.exec(7, b"env\0", b"./env\0");
        assert_eq!(&*processes.lookup(7, b"").expect("env").executable, "/usr/bin/env");
        assert_eq!(&*shell.executable, "/bin/sh");
        fixture.gone(7);
        processes.exec(7, b"true\0\0\0", b"/bin/true\0");
        let process = processes.lookup(7, b"").expect("true");
        assert_eq!((&*process.executable, &*process.name), ("/bin/true", "true"));
        assert!(!process.owner.is_empty());
        processes.exec(9, b"true", b"bin/true");
        let process = processes.lookup(9, b"").expect("true");
        assert_eq!((&*process.executable, &*process.name), ("", "true"));
    }

    #[test]
    fn a_fork_is_the_same_program() {
        let fixture = Fixture::new();
        fixture.process(7, "/usr/sbin/nginx", b"nginx\0", 1);
        let mut processes = fixture.processes(10);
        let parent = processes.lookup(7, b"").expect("the parent");
        processes.fork(8, 7);
        let child = processes.lookup(8, b"").expect("the child");
        assert_eq!(child.pid, 8);
        assert_eq!(*child, Process { pid: 8, start_ticks: 0, ..Process::clone(&parent) });
        processes.fork(9, 1000);
        assert_eq!(processes.lookup(9, b""), None);
    }

    #[test]
    fn an_ended_process_is_forgotten_after_its_grace() {
        let fixture = Fixture::new();
        fixture.process(7, "/a", b"a\0", 1);
        let mut processes = fixture.processes(10);
        processes.lookup(7, b"").expect("a process");
        fixture.gone(7);
        processes.exit(7, 1000);
        processes.forget(1000 + GRACE_NS - 1);
        assert!(processes.lookup(7, b"").is_some());
        processes.forget(1000 + GRACE_NS);
        assert!(processes.lookup(7, b"").is_none());
        assert!(processes.is_empty());
        // A pid that is given out again within the grace is not forgotten with its first owner.
        fixture.process(7, "/a", b"a\0", 1);
        processes.lookup(7, b"").expect("a process");
        processes.exit(7, 0);
        processes.exec(7, b"b", b"/b");
        processes.forget(u64::MAX);
        assert!(processes.lookup(7, b"").is_some());
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let fixture = Fixture::new();
        let mut processes = fixture.processes(100);
        processes.exec(1, b"init", b"/init");
        for pid in 2..10_000 {
            processes.exec(pid, b"x", b"/x");
            assert!(processes.lookup(1, b"").is_some());
            assert!(processes.len() <= 100);
            assert!(processes.uses.len() <= 300);
            processes.exit(pid, 0);
            assert!(processes.ended.len() <= 101);
        }
        assert_eq!(&*processes.lookup(1, b"").expect("used").executable, "/init");
    }

    #[test]
    fn stat_with_any_name() {
        let rest = b"S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 77 1";
        for name in [&b"x"[..], b"", b") S 1 (", b"a b", b"\xff"] {
            let stat = [b"12 (", name, b") ", rest].concat();
            assert_eq!(parse_stat(&stat), Some((name, 77)));
            for end in 0..stat.len() - 4 {
                parse_stat(&stat[..end]);
            }
        }
        for bad in [
            &b""[..],
            b"1",
            b"(",
            b")",
            b")(",
            b"1 (x) S",
            b"1 (x) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 x",
        ] {
            assert_eq!(parse_stat(bad), None);
        }
    }

    #[test]
    fn noise_is_never_trouble() {
        let mut noise = crate::protocol::noise::Noise::new(0x7461_7006);
        for _ in 0..50_000 {
            let mut bytes =
                b"1 (x) S 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 77 1\nroot:x:0:\0".to_vec();
            noise.stir(&mut bytes);
            fuzz_process_files(&bytes);
        }
    }

    #[test]
    fn users_are_read_again_when_they_change() {
        let fixture = Fixture::new();
        let passwd = fixture.dir.path().join("passwd");
        let mut users = fixture.processes(1).users;
        assert_eq!(&*users.name(0), "root");
        assert_eq!(&*users.name(1000), "1000");
        fs::write(&passwd, "a:x:1000:1::/:\nb:x:1000:1::/:\n:x:5:\nbad\nc:x:-1:\n")
            .expect("written");
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        File::options()
            .append(true)
            .open(&passwd)
            .expect("there")
            .set_modified(later)
            .expect("set");
        assert_eq!(&*users.name(1000), "a");
        assert_eq!(&*users.name(5), "5");
        fs::remove_file(&passwd).expect("removed");
        assert_eq!(&*users.name(1000), "1000");
    }

    #[test]
    fn the_test_itself_in_the_real_proc() {
        let mut processes = Processes::default();
        let process = processes.lookup(std::process::id(), b"").expect("this process");
        let exe = std::env::current_exe().expect("an executable");
        assert_eq!(&*process.executable, exe.to_str().expect("UTF-8"));
        assert_eq!(&*process.args[0], std::env::args().next().expect("an argument"));
        assert!(process.start_ticks > 0);
        assert!(!process.owner.is_empty());
    }

    #[test]
    fn a_short_lived_process_keeps_its_name() {
        let mut processes = Processes::default();
        let mut child = Command::new("/bin/sleep").arg("100").spawn().expect("sleep");
        let pid = child.id();
        // spawn returns in the middle of exec, when the child has given up the parent's memory and
        // not yet set its arguments; the kernel side's record comes after exec is done.
        let cmdline = format!("/proc/{pid}/cmdline");
        while fs::read(&cmdline).expect("readable").is_empty() {
            std::thread::yield_now();
        }
        processes.exec(pid, b"sleep", b"/bin/sleep");
        child.kill().expect("killed");
        child.wait().expect("ended");
        processes.exit(pid, 0);
        let process = processes.lookup(pid, b"").expect("remembered");
        assert_eq!(&*process.name, "sleep");
        assert_eq!(&*process.args[1], "100");
        let mut child = Command::new("/bin/true").stdout(Stdio::null()).spawn().expect("true");
        let pid = child.id();
        child.wait().expect("ended");
        processes.exec(pid, b"true", b"/bin/true");
        assert_eq!(&*processes.lookup(pid, b"").expect("by its file name").executable, "/bin/true");
    }

    #[test]
    fn recordings_carry_processes() {
        let process = Process {
            pid: 7,
            executable: "/a".into(),
            args: ["a".into(), "b\n".into()].into(),
            ..Process::default()
        };
        let json = serde_json::to_string(&process).expect("written");
        assert_eq!(serde_json::from_str::<Process>(&json).expect("read"), process);
    }
}
