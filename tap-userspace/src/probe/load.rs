//! Loading and attaching: one loop over the plan. Comes in: what the configuration wants of the
//! kernel side. Goes out: [`Probes`], which own every link; dropping them detaches everything, and
//! so does the end of the process, however it comes: nothing is pinned.

use std::sync::Arc;

use aya::{
    Btf, Ebpf, EbpfLoader, Pod,
    maps::{HashMap, MapData, MapError, PerCpuArray, RingBuf},
    programs::{CgroupAttachMode, CgroupSkbAttachType, Program, ProgramError},
};
use aya_log::EbpfLogger;
use tap_common::{
    counters,
    settings::{Admission, CgroupKey, Ends, Executable, ExecutableKey, Settings, Verdict},
};

use super::{
    admission::Control,
    cgroup::Root,
    kernel_btf,
    plan::{Hook, Need, PLAN, Row, Way},
    snapshot::Snapshot,
    sys,
    usage::Usage,
};

use crate::policy::admission::Rules;

/// The object, embedded; empty in a build without kernel programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tap.bpf.o"));

/// A shared type as a map value or key: plain data, whole and padded, by `tap_common::layout`.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

// SAFETY: each is `repr(C)` with explicit padding and holds integers only.
unsafe impl Pod for Plain<Settings> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Admission> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Verdict> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Ends> {}
// SAFETY: as above.
unsafe impl Pod for Plain<Executable> {}
// SAFETY: as above.
unsafe impl Pod for Plain<ExecutableKey> {}
// SAFETY: as above.
unsafe impl Pod for Plain<CgroupKey> {}

/// What the kernel side shall do.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Read-only settings; offsets are filled in here.
    pub settings: Settings,
    /// Bytes of the life ring.
    pub life_ring: u32,
    /// Bytes of the data ring.
    pub data_ring: u32,
    /// Which connections are looked at.
    pub rules: Arc<Rules>,
}

/// Why the kernel side does not run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Built without the kernel programs.
    #[error("this tap was built without its kernel programs: build it with `cargo xtask build`")]
    Stub,
    /// The object as a whole was refused.
    #[error(
        "the kernel refused tap's maps: {0}; tap needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or root"
    )]
    Object(String),
    /// A required program was refused.
    #[error("the kernel refused program {program}, without which {without}: {why}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What is lost.
        without: &'static str,
        /// The kernel's word.
        why: String,
    },
    /// A map is not in the object.
    #[error("the kernel object has no map {0}: it is of another version; run `cargo xtask build`")]
    NoMap(&'static str),
    /// A map could not be filled.
    #[error("map {0} could not be filled: {1}")]
    Fill(&'static str, MapError),
}

/// What became of one row of the plan.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The row.
    pub row: Row,
    /// In use, or why not.
    pub state: Use,
}

/// Whether a program is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    /// Loaded and attached.
    Attached,
    /// What it stands in for is attached.
    NotNeeded,
    /// Refused, with the kernel's word.
    Refused(String),
}

/// The running kernel side.
pub struct Probes {
    /// Opens, owners, closes, process life.
    pub life: RingBuf<MapData>,
    /// Turns and payload.
    pub data: RingBuf<MapData>,
    /// `tap_common::counters`.
    pub counters: Counters,
    /// Words to the kernel side about single connections.
    pub verdicts: HashMap<MapData, u64, Plain<Verdict>>,
    /// Which connections are looked at, to be changed while the programs run.
    pub admission: Control,
    /// The walk over open connections, where it loads.
    pub snapshot: Option<Snapshot>,
    /// Lines that the programs write, where debugging wants them.
    pub lines: Option<EbpfLogger<&'static dyn log::Log>>,
    /// What became of each program.
    pub outcomes: Vec<Outcome>,
    /// What all of it takes.
    pub usage: Usage,
    /// Holds every program on its hook.
    pub attached: Attached,
}

/// Owns the programs and their links: dropping it detaches them all.
pub struct Attached(#[expect(dead_code, reason = "held for its drop")] Ebpf);

/// The kernel side's counters.
pub struct Counters(PerCpuArray<MapData, u64>);

impl Counters {
    /// All slots, summed over the CPUs.
    pub fn read(&self) -> Vec<u64> {
        (0..counters::SLOTS)
            .map(|slot| self.0.get(&slot, 0).map_or(0, |cpus| cpus.iter().sum()))
            .collect()
    }
}

/// Loads and attaches everything of the plan that this kernel takes.
pub fn load(root: &Root, mut wanted: Wanted) -> Result<Probes, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::Stub);
    }
    let btf_bytes = std::fs::read(kernel_btf::VMLINUX).unwrap_or_default();
    wanted.settings.offsets = kernel_btf::offsets(&btf_bytes);
    let btf = Btf::from_sys_fs().ok();
    // Whether tracing programs reach socket storage is tried, not guessed from a version; the
    // answer is in the read-only data, so the stand-ins need the object loaded anew.
    let mut object = prepare(&wanted, btf.as_ref())?;
    if try_load(&mut object, "tap_state", Hook::Typed("inet_sock_set_state"), btf.as_ref()).is_err()
    {
        wanted.settings.by_cookie = 1;
        object = prepare(&wanted, btf.as_ref())?;
    }
    // Maps that are taken out of the object are listed before.
    let usage = Usage::of_maps(&object);
    let admission = Control::start(&mut object, root, wanted.rules)?;
    let outcomes = attach_all(&mut object, root, btf.as_ref())?;
    drop(btf);
    // The kernel's BTF takes some 40 MiB while it is parsed; nothing after is of that size, and the
    // allocator would keep it.
    sys::give_memory_back();
    take(object, outcomes, usage, admission)
}

/// Tries every program of the plan without attaching any (`tap check`).
pub fn try_all(wanted: &Wanted) -> Result<Vec<Outcome>, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::Stub);
    }
    let mut wanted = wanted.clone();
    let btf_bytes = std::fs::read(kernel_btf::VMLINUX).unwrap_or_default();
    wanted.settings.offsets = kernel_btf::offsets(&btf_bytes);
    let btf = Btf::from_sys_fs().ok();
    let mut object = prepare(&wanted, btf.as_ref())?;
    Ok(PLAN
        .iter()
        .map(|row| {
            let state = match try_load(&mut object, row.program, row.hook, btf.as_ref()) {
                Ok(()) => Use::Attached,
                Err(why) => Use::Refused(why),
            };
            Outcome { row: *row, state }
        })
        .collect())
}

fn prepare(wanted: &Wanted, btf: Option<&Btf>) -> Result<Ebpf, LoadError> {
    let settings = Plain(wanted.settings);
    let level = if programs_tell() { aya_log::Level::Debug as u8 } else { 0 };
    EbpfLoader::new()
        .override_global(aya_log::LEVEL, &level, true)
        .btf(btf)
        .override_global("SETTINGS", &settings, true)
        .map_max_entries("LIFE", wanted.life_ring)
        .map_max_entries("DATA", wanted.data_ring)
        .load(OBJECT)
        .map_err(|error| LoadError::Object(chain(&error)))
}

/// Whether the log takes the programs' own lines.
fn programs_tell() -> bool {
    tracing::enabled!(target: "tap_ebpf", tracing::Level::DEBUG)
}

fn attach_all(
    object: &mut Ebpf,
    root: &Root,
    btf: Option<&Btf>,
) -> Result<Vec<Outcome>, LoadError> {
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(PLAN.len());
    for row in PLAN {
        let state = if stood_in_for_is_attached(row, &outcomes) {
            Use::NotNeeded
        } else {
            match try_load(object, row.program, row.hook, btf)
                .and_then(|()| attach(object, row, root))
            {
                Ok(()) => Use::Attached,
                Err(why) if row.need == Need::Required => {
                    return Err(LoadError::Program {
                        program: row.program,
                        without: row.without,
                        why,
                    });
                }
                Err(why) => Use::Refused(why),
            }
        };
        outcomes.push(Outcome { row: *row, state });
    }
    Ok(outcomes)
}

fn stood_in_for_is_attached(row: &Row, outcomes: &[Outcome]) -> bool {
    let Need::InsteadOf(other) = row.need else { return false };
    outcomes.iter().any(|outcome| outcome.row.program == other && outcome.state == Use::Attached)
}

fn try_load(object: &mut Ebpf, name: &str, hook: Hook, btf: Option<&Btf>) -> Result<(), String> {
    let program = object.program_mut(name).ok_or("not in the object")?;
    let btf = || btf.ok_or_else(|| format!("the kernel has no BTF at {}", kernel_btf::VMLINUX));
    let result = match (program, hook) {
        (Program::SockOps(program), _) => program.load(),
        (Program::CgroupSkb(program), _) => program.load(),
        (Program::CgroupSockAddr(program), _) => program.load(),
        (Program::CgroupSock(program), _) => program.load(),
        (Program::RawTracePoint(program), _) => program.load(),
        (Program::BtfTracePoint(program), Hook::Typed(point)) => program.load(point, btf()?),
        (Program::Iter(program), Hook::Iterator(kind)) => program.load(kind, btf()?),
        _ => return Err("of another kind than planned".into()),
    };
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        other => other.map_err(|error| brief(&error)),
    }
}

fn attach(object: &mut Ebpf, row: &Row, root: &Root) -> Result<(), String> {
    let program = object.program_mut(row.program).ok_or("not in the object")?;
    // A link is always "multi" in the kernel; AllowMultiple is refused on one (aya #1078).
    let mode = CgroupAttachMode::Single;
    let at = &root.directory;
    let attached = match (program, row.hook) {
        (Program::SockOps(program), _) => program.attach(at, mode).map(|_| ()),
        (Program::CgroupSkb(program), Hook::Packets(way)) => {
            let kind = match way {
                Way::In => CgroupSkbAttachType::Ingress,
                Way::Out => CgroupSkbAttachType::Egress,
            };
            program.attach(at, kind, mode).map(|_| ())
        }
        (Program::CgroupSockAddr(program), _) => program.attach(at, mode).map(|_| ()),
        (Program::CgroupSock(program), _) => program.attach(at, mode).map(|_| ()),
        (Program::BtfTracePoint(program), _) => program.attach().map(|_| ()),
        (Program::RawTracePoint(program), Hook::Raw(point)) => program.attach(point).map(|_| ()),
        (Program::Iter(_), _) => Ok(()),
        _ => return Err("of another kind than planned".into()),
    };
    attached.map_err(|error| brief(&error))
}

/// Takes every map once.
fn take(
    mut object: Ebpf,
    outcomes: Vec<Outcome>,
    usage: Usage,
    admission: Control,
) -> Result<Probes, LoadError> {
    let lines = programs_tell().then(|| EbpfLogger::init(&mut object)).transpose();
    let lines = lines.unwrap_or_else(|error| {
        tracing::warn!(%error, "The kernel programs' own lines are not read.");
        None
    });
    let usage = usage.and_programs(&object);
    let mut map = |name| object.take_map(name).ok_or(LoadError::NoMap(name));
    let failed = |name| move |error| LoadError::Fill(name, error);
    let life = RingBuf::try_from(map("LIFE")?).map_err(failed("LIFE"))?;
    let data = RingBuf::try_from(map("DATA")?).map_err(failed("DATA"))?;
    let counters = PerCpuArray::try_from(map("COUNTERS")?).map_err(failed("COUNTERS"))?;
    let verdicts = HashMap::try_from(map("VERDICTS")?).map_err(failed("VERDICTS"))?;
    let storage = match map("SOCKETS")? {
        aya::maps::Map::SkStorage(storage) | aya::maps::Map::Unsupported(storage) => storage,
        _ => return Err(LoadError::NoMap("SOCKETS")),
    };
    let snapshot = match object.program("tap_snapshot") {
        Some(Program::Iter(program)) => program
            .fd()
            .and_then(|fd| fd.try_clone().map_err(ProgramError::IOError))
            .ok()
            .map(|fd| Snapshot::new(fd, storage)),
        _ => None,
    };
    Ok(Probes {
        life,
        data,
        counters: Counters(counters),
        verdicts,
        admission,
        snapshot,
        lines,
        outcomes,
        usage,
        attached: Attached(object),
    })
}

/// The kernel's word on a refusal in one line: the error and the verifier's last lines.
fn brief(error: &ProgramError) -> String {
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        let log = verifier_log.to_string();
        let lines: Vec<_> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let tail = lines.len().saturating_sub(4);
        return format!("{io_error} [{}]", lines[tail..].join(" | "));
    }
    chain(error)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
