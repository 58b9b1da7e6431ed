//! Which connections the kernel side looks at, while its programs run. Comes in: [`Rules`], and the
//! executables and cgroups that connections bring up. Goes out: the tables of `tap-ebpf`'s `admit`.
//!
//! Rules stand in one of two places; [`Control::apply`] fills the other and then turns one number
//! over, which every connection reads once at its open. So each is decided by the old rules or by the
//! new ones, never by half of both. What rules say of executables and cgroups is kept under the number
//! of their generation, in tables that forget by age: what is not there, the daemon decides.

use std::{
    collections::HashMap as Known,
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, lpm_trie::Key},
};
use tap_common::{
    limits::{ADMISSION_KNOWN, TASKS},
    settings::{
        Admission, CgroupKey, Ends, Executable, ExecutableKey, PREFIX_KEY, Prefix, field, port_key,
        user_key,
    },
};

use super::{
    cgroup::Root,
    load::{LoadError, Plain},
    sys,
};
use crate::policy::admission::{Rulebook, Rules};

/// Changes which connections are looked at; a handle that any thread may use.
#[derive(Clone)]
pub struct Control {
    rulebook: Rulebook,
    kernel: Arc<Mutex<Kernel>>,
}

/// Why new rules are not in force; the old ones are.
#[derive(Debug, thiserror::Error)]
#[error("the kernel side's table {table} does not take the rules: {error}")]
pub struct ApplyError {
    table: &'static str,
    error: MapError,
}

struct Kernel {
    /// The place whose rules are in force.
    slot: u32,
    generation: u32,
    admission: Array<MapData, Plain<Admission>>,
    chosen: Array<MapData, u32>,
    ports: HashMap<MapData, u32, Plain<Ends>>,
    prefixes: LpmTrie<MapData, [u8; PREFIX_KEY], Plain<Ends>>,
    users: HashMap<MapData, u64, u64>,
    executables: HashMap<MapData, Plain<ExecutableKey>, u64>,
    cgroups: HashMap<MapData, Plain<CgroupKey>, u64>,
    tasks: HashMap<MapData, u32, Plain<Executable>>,
    /// Keys that stand in each place.
    filled: [Filled; 2],
    /// Paths of executables that were met.
    paths: Known<Executable, Box<str>>,
    /// Paths of cgroups that were met. No number is given twice.
    cgroup_paths: Known<u64, Arc<str>>,
    root: Option<File>,
}

#[derive(Default)]
struct Filled {
    ports: Vec<u32>,
    prefixes: Vec<Key<[u8; PREFIX_KEY]>>,
    users: Vec<u64>,
}

impl Control {
    /// Takes the tables out of the object and puts the first rules in force.
    pub fn start(object: &mut Ebpf, root: &Root, rules: Arc<Rules>) -> Result<Self, LoadError> {
        fn take<T>(object: &mut Ebpf, name: &'static str) -> Result<T, LoadError>
        where
            T: TryFrom<Map, Error = MapError>,
        {
            let map = object.take_map(name).ok_or(LoadError::NoMap(name))?;
            T::try_from(map).map_err(|error| LoadError::Fill(name, error))
        }
        let kernel = Kernel {
            slot: 1,
            generation: 0,
            admission: take(object, "ADMISSION")?,
            chosen: take(object, "ADMISSION_SLOT")?,
            ports: take(object, "PORTS")?,
            prefixes: take(object, "PREFIXES")?,
            users: take(object, "USERS")?,
            executables: take(object, "EXECUTABLES")?,
            cgroups: take(object, "CGROUPS")?,
            tasks: take(object, "TASKS")?,
            filled: Default::default(),
            paths: Known::new(),
            cgroup_paths: Known::new(),
            root: root.directory.try_clone().ok(),
        };
        let rulebook = Rulebook::new(rules.clone());
        let control = Self { rulebook, kernel: Arc::new(Mutex::new(kernel)) };
        control
            .apply(rules)
            .map_err(|ApplyError { table, error }| LoadError::Fill(table, error))?;
        Ok(control)
    }

    /// Puts `rules` in force. When this returns, every connection that opens is decided by them; one
    /// that is open keeps what it was admitted under. Takes some ten milliseconds, and fails only
    /// where the kernel has no memory; then nothing has changed.
    pub fn apply(&self, rules: Arc<Rules>) -> Result<(), ApplyError> {
        let mut kernel = self.kernel();
        let slot = 1 - kernel.slot;
        kernel.fill(slot, &rules)?;
        // Who judges by this place's rules has them before a connection brings its number up.
        self.rulebook.put(slot as usize, rules);
        kernel.chosen.set(0, slot, 0).map_err(in_table("ADMISSION_SLOT"))?;
        kernel.slot = slot;
        // Programs that run still may have read the old number: the old place is theirs.
        sys::wait_for_programs();
        Ok(())
    }

    /// The rules, by the place that connections name.
    pub const fn rulebook(&self) -> &Rulebook {
        &self.rulebook
    }

    /// The rules in force.
    pub fn rules(&self) -> Arc<Rules> {
        let slot = self.kernel().slot;
        self.rulebook.of(slot as usize)
    }

    /// Learns what the processes that run already execute; the kernel side sees later ones itself.
    pub fn scan(&self) {
        let rules = self.rules();
        let mut numbers: Known<Box<str>, Executable> = Known::new();
        for pid in processes() {
            let Ok(path) = executable(pid) else { continue };
            let next = numbers.len() as u64 + 1;
            let made_up = Executable { inode: next, version: 0, device: Executable::NUMBERED };
            let executable = *numbers.entry(path.clone()).or_insert(made_up);
            let mut kernel = self.kernel();
            kernel.met(executable, &path, &rules);
            // One that has executed a file meanwhile is the kernel side's already.
            let _ = kernel.tasks.insert(pid, Plain(executable), NO_EXIST);
        }
    }

    /// A process has executed a file. Where `/proc` still shows that very file, and it has one name
    /// only, the kernel side can decide by it from now on.
    pub fn executed(&self, pid: u32, executable: Executable) {
        if executable == Executable::UNKNOWN {
            return;
        }
        let Ok(path) = self::executable(pid) else { return };
        let mut kernel = self.kernel();
        if kernel.paths.get(&executable).is_some_and(|known| *known == path) {
            return;
        }
        let is_it = fs::metadata(format!("/proc/{pid}/exe"))
            .is_ok_and(|file| file.ino() == executable.inode && file.nlink() == 1);
        if is_it && self::executable(pid).is_ok_and(|again| again == path) {
            let rules = self.rulebook.of(kernel.slot as usize);
            kernel.met(executable, &path, &rules);
        }
    }

    /// The path of a cgroup, which the kernel side can decide by from now on.
    pub fn cgroup(&self, id: u64) -> Option<Arc<str>> {
        let mut kernel = self.kernel();
        if id == 0 {
            return None;
        }
        if let Some(path) = kernel.cgroup_paths.get(&id) {
            return Some(path.clone());
        }
        let path: Arc<str> = sys::cgroup_path(kernel.root.as_ref()?, id).ok()?.into();
        let rules = self.rulebook.of(kernel.slot as usize);
        kernel.met_cgroup(id, path.clone(), &rules);
        Some(path)
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `BPF_NOEXIST`.
const NO_EXIST: u64 = 1;

impl Kernel {
    /// Fills the place `slot`, which no program reads.
    fn fill(&mut self, slot: u32, rules: &Rules) -> Result<(), ApplyError> {
        self.clear(slot);
        let tables = rules.tables();
        let place = &mut self.filled[slot as usize];
        for (port, said) in tables.ports {
            let key = port_key(slot, port);
            self.ports.insert(key, Plain(said), 0).map_err(in_table("PORTS"))?;
            place.ports.push(key);
        }
        for (prefix, said) in tables.prefixes {
            let key = prefix_key(slot, &prefix);
            self.prefixes.insert(&key, Plain(said), 0).map_err(in_table("PREFIXES"))?;
            place.prefixes.push(key);
        }
        for (uid, said) in tables.users {
            let key = user_key(slot, uid);
            self.users.insert(key, said, 0).map_err(in_table("USERS"))?;
            place.users.push(key);
        }
        self.generation = self.generation.wrapping_add(1);
        let generation = self.generation;
        if rules.asks(field::EXECUTABLE) {
            for (executable, path) in std::mem::take(&mut self.paths) {
                self.met(executable, &path, rules);
            }
        }
        if rules.asks(field::CGROUP) {
            self.find_cgroups();
            for (id, path) in std::mem::take(&mut self.cgroup_paths) {
                self.met_cgroup(id, path, rules);
            }
        }
        let admission = Admission { generation, ..tables.admission };
        self.admission.set(slot, Plain(admission), 0).map_err(in_table("ADMISSION"))
    }

    /// Empties the place `slot`.
    fn clear(&mut self, slot: u32) {
        let Filled { ports, prefixes, users } = std::mem::take(&mut self.filled[slot as usize]);
        for key in ports {
            let _ = self.ports.remove(&key);
        }
        for key in prefixes {
            let _ = self.prefixes.remove(&key);
        }
        for key in users {
            let _ = self.users.remove(&key);
        }
    }

    /// Keeps an executable's path, and tells the kernel side what the rules say of it. What there is
    /// no room for, the daemon decides.
    fn met(&mut self, executable: Executable, path: &str, rules: &Rules) {
        if self.paths.len() >= ADMISSION_KNOWN as usize {
            self.paths.clear();
        }
        if rules.asks(field::EXECUTABLE) {
            let key = ExecutableKey { executable, generation: u64::from(self.generation) };
            let _ = self.executables.insert(Plain(key), rules.of_executable(path), 0);
        }
        self.paths.insert(executable, path.into());
    }

    /// As [`Self::met`], of a cgroup.
    fn met_cgroup(&mut self, id: u64, path: Arc<str>, rules: &Rules) {
        if self.cgroup_paths.len() >= ADMISSION_KNOWN as usize {
            self.cgroup_paths.clear();
        }
        if rules.asks(field::CGROUP) {
            let key = CgroupKey { id, generation: u64::from(self.generation) };
            let _ = self.cgroups.insert(Plain(key), rules.of_cgroup(&path), 0);
        }
        self.cgroup_paths.insert(id, path);
    }

    /// Learns the cgroups that there are: a folder's inode number is the cgroup's.
    fn find_cgroups(&mut self) {
        let Some(root) = &self.root else { return };
        let top = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
        let mut waiting = vec![(top, String::new())];
        while let Some((folder, path)) = waiting.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                if self.cgroup_paths.len() >= ADMISSION_KNOWN as usize {
                    return;
                }
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                let path = format!("{path}/{}", entry.file_name().to_string_lossy());
                self.cgroup_paths.insert(entry.ino(), path.as_str().into());
                waiting.push((entry.path(), path));
            }
        }
        self.cgroup_paths.insert(1, "/".into());
    }
}

fn prefix_key(slot: u32, prefix: &Prefix) -> Key<[u8; PREFIX_KEY]> {
    let mut data = [0; PREFIX_KEY];
    data[0] = slot as u8;
    data[1..].copy_from_slice(&prefix.address);
    Key::new(8 + prefix.len, data)
}

fn in_table(table: &'static str) -> impl Fn(MapError) -> ApplyError {
    move |error| ApplyError { table, error }
}

/// Ids of the processes that run now.
fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.take(TASKS as usize).collect()
}

/// The path of the file that a process runs.
fn executable(pid: u32) -> io::Result<Box<str>> {
    let path = fs::read_link(Path::new("/proc").join(pid.to_string()).join("exe"))?;
    let path = path.to_string_lossy();
    // The kernel says so of a file that was replaced or removed (d_path).
    Ok(path.strip_suffix(" (deleted)").unwrap_or(&path).into())
}
