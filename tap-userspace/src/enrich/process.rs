//! Processes: what `/proc` said of them when they were first seen. Comes in: ids, and the kernel
//! side's word on exec, fork and exit. Goes out: shared [`Process`]es that outlive what they name.
//!
//! `/proc` is other people's data: every read is bounded.

use std::{
    collections::{HashMap, VecDeque},
    fs::{self, File},
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// A process that owns a connection's local end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// `process.pid`.
    pub pid: u32,
    /// `process.executable.path`; empty where it could not be learned.
    pub executable: Box<str>,
    /// `process.executable.name`.
    pub name: Box<str>,
    /// `process.command_args`.
    pub args: Box<[Box<str>]>,
    /// `process.owner`: user name, else uid; empty where it could not be learned.
    pub owner: Box<str>,
    /// Its real user, where somebody asked ([`Processes::user`]).
    #[serde(default)]
    pub uid: Option<u32>,
}

/// Most processes that are remembered.
const CAPACITY: usize = 16_384;
/// How long an ended process is remembered: records that name it may be under way.
const GRACE_NS: u64 = 10_000_000_000;
/// Bytes of a command line that are kept.
const ARGS_BYTES: u64 = 4096;
/// Arguments that are kept.
const ARGS_MAX: usize = 64;

/// The processes seen so far.
pub struct Processes {
    proc: PathBuf,
    /// Who each is, and its number: a pid that is used again, or runs another file, gets another.
    known: HashMap<u32, (u64, Option<Arc<Process>>)>,
    /// Ended processes in the order of their ends: (when, pid, number).
    ended: VecDeque<(u64, u32, u64)>,
    /// Pids and numbers in the order in which they came, to let the oldest go.
    order: VecDeque<(u32, u64)>,
    number: u64,
    users: Users,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new(PathBuf::from("/proc"), PathBuf::from("/etc/passwd"))
    }
}

impl Processes {
    /// Reads `proc` and names users by `passwd`.
    pub fn new(proc: PathBuf, passwd: PathBuf) -> Self {
        Self {
            proc,
            known: HashMap::new(),
            ended: VecDeque::new(),
            order: VecDeque::new(),
            number: 0,
            users: Users { passwd, names: HashMap::new(), modified: None },
        }
    }

    /// Reads every process that runs now: a child that one of them makes, and that is gone before
    /// it is asked for, runs what its parent ran.
    pub fn scan(&mut self) {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        for pid in pids.take(CAPACITY).collect::<Vec<u32>>() {
            drop(self.lookup(pid, ""));
        }
    }

    /// Who `pid` is; `/proc` is asked at once if it was not seen before. `comm` names a process
    /// that has ended meanwhile.
    pub fn lookup(&mut self, pid: u32, comm: &str) -> Option<Arc<Process>> {
        if pid == 0 {
            return None;
        }
        if let Some((_, known)) = self.known.get(&pid) {
            return known.clone();
        }
        let process = self.read(pid).or_else(|| named(pid, comm, "", &[]));
        self.remember(pid, process.clone());
        process
    }

    /// `pid` runs another file now. A process that has ended already keeps the file's name, as far
    /// as that is a path; for a script it is the script.
    pub fn exec(&mut self, pid: u32, comm: &str, filename: &str, args: &[u8]) {
        let process = self.read(pid).or_else(|| named(pid, comm, filename, args));
        self.remember(pid, process);
    }

    /// Learns the real user of `pid` as it is now: a server's worker may have become another than its
    /// parent without executing a file. `exec` is what the kernel said of it when it did.
    pub fn user(&mut self, pid: u32, exec: Option<u32>) {
        let Some((_, Some(process))) = self.known.get_mut(&pid) else { return };
        let status = bounded(&self.proc.join(pid.to_string()).join("status"), 4096);
        let uid = status.and_then(|text| real_user(&String::from_utf8_lossy(&text)));
        let uid = uid.or(exec).or(process.uid);
        if process.uid != uid {
            *process = Arc::new(Process { uid, ..Process::clone(process) });
        }
    }

    /// `parent` made `child`, which runs the same file.
    pub fn fork(&mut self, child: u32, parent: u32) {
        let Some((_, Some(process))) = self.known.get(&parent) else { return };
        let child_process = Process { pid: child, ..Process::clone(process) };
        self.remember(child, Some(Arc::new(child_process)));
    }

    /// `pid` ended.
    pub fn exit(&mut self, pid: u32, now_ns: u64) {
        if let Some((number, _)) = self.known.get(&pid) {
            self.ended.push_back((now_ns, pid, *number));
        }
        while let Some(&(when, pid, number)) = self.ended.front() {
            if now_ns.saturating_sub(when) < GRACE_NS && self.ended.len() <= CAPACITY {
                break;
            }
            self.ended.pop_front();
            self.forget(pid, number);
        }
    }

    fn remember(&mut self, pid: u32, process: Option<Arc<Process>>) {
        self.number += 1;
        self.known.insert(pid, (self.number, process));
        self.order.push_back((pid, self.number));
        while self.known.len() > CAPACITY
            && let Some((oldest, number)) = self.order.pop_front()
        {
            self.forget(oldest, number);
        }
        // What has left otherwise still stands in the order.
        if self.order.len() > 2 * CAPACITY {
            let Self { known, order, .. } = self;
            order.retain(|(pid, number)| known.get(pid).is_some_and(|(now, _)| now == number));
        }
    }

    /// Lets a process go, unless its pid is somebody else's by now.
    fn forget(&mut self, pid: u32, number: u64) {
        if self.known.get(&pid).is_some_and(|(now, _)| *now == number) {
            self.known.remove(&pid);
        }
    }

    fn read(&mut self, pid: u32) -> Option<Arc<Process>> {
        let folder = self.proc.join(pid.to_string());
        // A process that has ended and was not waited for still has a name, but no file.
        let executable = Some(fs::read_link(folder.join("exe")).ok()?);
        let comm = bounded(&folder.join("comm"), 64)?;
        let comm = String::from_utf8_lossy(&comm);
        let executable = executable.map(|path| path.to_string_lossy().into_owned());
        // The kernel says so of a file that was replaced or removed (d_path).
        let executable =
            executable.map(|path| path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned());
        let name = match executable.as_deref().and_then(|path| path.rsplit('/').next()) {
            Some(name) if !name.is_empty() => name.into(),
            _ => comm.trim_end().into(),
        };
        let owner = fs::metadata(&folder).map(|folder| self.users.name(folder.uid()));
        Some(Arc::new(Process {
            pid,
            executable: executable.unwrap_or_default().into(),
            name,
            args: arguments(&bounded(&folder.join("cmdline"), ARGS_BYTES).unwrap_or_default()),
            owner: owner.unwrap_or_default(),
            uid: None,
        }))
    }
}

/// What can be said of a process that `/proc` does not have any more.
fn named(pid: u32, comm: &str, filename: &str, args: &[u8]) -> Option<Arc<Process>> {
    let executable = if filename.starts_with('/') { filename } else { "" };
    let name = executable.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(comm);
    if name.is_empty() {
        return None;
    }
    Some(Arc::new(Process {
        pid,
        executable: executable.into(),
        name: name.into(),
        args: arguments(args),
        ..Process::default()
    }))
}

/// NUL-separated arguments.
fn arguments(cmdline: &[u8]) -> Box<[Box<str>]> {
    let cmdline = cmdline.strip_suffix(&[0]).unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Box::default();
    }
    let text = |argument: &[u8]| String::from_utf8_lossy(argument).into_owned().into();
    cmdline.split(|&byte| byte == 0).take(ARGS_MAX).map(text).collect()
}

fn bounded(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The first number of line `Uid:` of a `/proc/<pid>/status`.
fn real_user(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User names by uid, read anew when the file changes.
struct Users {
    passwd: PathBuf,
    names: HashMap<u32, Box<str>>,
    modified: Option<(i64, i64)>,
}

impl Users {
    fn name(&mut self, uid: u32) -> Box<str> {
        let modified =
            fs::metadata(&self.passwd).ok().map(|file| (file.mtime(), file.mtime_nsec()));
        if modified != self.modified {
            self.modified = modified;
            let text = bounded(&self.passwd, 1 << 20).unwrap_or_default();
            self.names = users(&String::from_utf8_lossy(&text));
        }
        self.names.get(&uid).cloned().unwrap_or_else(|| uid.to_string().into())
    }
}

/// passwd(5).
fn users(passwd: &str) -> HashMap<u32, Box<str>> {
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        Some((fields.nth(1)?.parse().ok()?, name.into()))
    };
    passwd.lines().filter_map(user).collect()
}

/// Reads any bytes as a process's arguments, as passwd(5), and as what the kernel said of an exec.
#[doc(hidden)]
pub fn fuzz_process(bytes: &[u8]) {
    assert!(arguments(bytes).len() <= ARGS_MAX);
    let text = String::from_utf8_lossy(bytes);
    assert!(users(&text).len() <= text.lines().count());
    let (comm, filename) = text.split_at(text.floor_char_boundary(text.len() / 2));
    if let Some(process) = named(1, comm, filename, bytes) {
        assert!(!process.name.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn this_process_is_known() {
        let mut processes = Processes::default();
        let own = processes.lookup(std::process::id(), "").unwrap();
        assert_eq!(*own.executable, *std::env::current_exe().unwrap().to_string_lossy());
        assert!(!own.args.is_empty() && !own.owner.is_empty());
        assert_eq!(real_user("Name:\tx\nUid:\t33\t0\t0\t0\n"), Some(33));
        assert!(Arc::ptr_eq(&own, &processes.lookup(std::process::id(), "").unwrap()));
        processes.user(std::process::id(), None);
        let uid = fs::metadata("/proc/self").unwrap().uid();
        assert_eq!(processes.lookup(std::process::id(), "").unwrap().uid, Some(uid));
    }

    #[test]
    fn a_process_that_is_gone_keeps_what_exec_said() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let mut processes = Processes::default();
        processes.exec(pid, "true", "/usr/bin/true", b"true\0--x\0");
        let gone = processes.lookup(pid, "").unwrap();
        assert_eq!((&*gone.executable, &*gone.name), ("/usr/bin/true", "true"));
        assert_eq!(gone.args.len(), 2);
        processes.fork(pid + 1, pid);
        assert_eq!(processes.lookup(pid + 1, "").unwrap().executable, gone.executable);
        assert_eq!(processes.lookup(4_000_000, ""), None);
        assert_eq!(&*processes.lookup(4_000_001, "worker").unwrap().name, "worker");
    }

    #[test]
    fn the_end_is_remembered_for_a_while() {
        let mut processes = Processes::default();
        processes.exec(4_000_000, "x", "/x", &[]);
        processes.exit(4_000_000, 1);
        assert!(processes.lookup(4_000_000, "").is_some());
        processes.exec(4_000_001, "y", "/y", &[]);
        processes.exit(4_000_001, GRACE_NS + 1);
        assert_eq!(processes.lookup(4_000_000, ""), None);
    }

    #[test]
    fn a_pid_that_is_used_again_is_not_forgotten_with_its_first_process() {
        let mut processes = Processes::default();
        processes.exec(4_000_000, "x", "/x", &[]);
        processes.exit(4_000_000, 1);
        processes.exec(4_000_000, "y", "/y", &[]);
        processes.exec(4_000_001, "z", "/z", &[]);
        processes.exit(4_000_001, GRACE_NS + 1);
        assert_eq!(&*processes.lookup(4_000_000, "").unwrap().name, "y");
    }

    #[test]
    fn memory_is_bounded() {
        let mut processes = Processes::default();
        for pid in 5_000_000..5_000_000 + 3 * CAPACITY as u32 {
            processes.exec(pid, "x", "/x", &[]);
        }
        assert_eq!(processes.known.len(), CAPACITY);
        for pid in 5_000_000..5_000_000 + 3 * CAPACITY as u32 {
            processes.fork(pid, 5_000_000 + 3 * CAPACITY as u32 - 1);
            processes.exit(pid, 1);
        }
        assert!(processes.known.len() <= CAPACITY && processes.ended.len() <= CAPACITY);
        assert!(processes.order.len() <= 2 * CAPACITY);
    }

    #[test]
    fn bad_proc_files_are_survived() {
        let proc = tempfile::tempdir().unwrap();
        let passwd = proc.path().join("passwd");
        fs::write(&passwd, "root:x:0:0\nbad\n:::\nme:x:notanumber:\n").unwrap();
        let folder = proc.path().join("7");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("comm"), b"na\xffme\n").unwrap();
        fs::write(folder.join("cmdline"), [b'a'; 10_000]).unwrap();
        std::os::unix::fs::symlink("/opt/app (deleted)", folder.join("exe")).unwrap();
        let mut processes = Processes::new(proc.path().into(), passwd);
        let process = processes.lookup(7, "").unwrap();
        assert_eq!((&*process.executable, &*process.name), ("/opt/app", "app"));
        assert_eq!(process.args[0].len(), ARGS_BYTES as usize);
        assert_eq!(arguments(b""), Box::default());
        assert_eq!(arguments(b"a\0\0b\0").len(), 3);
    }
}
