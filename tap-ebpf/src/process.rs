//! Process life, so that programs that live for milliseconds keep their name.
//!
//! * `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`
//! * `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
//! * `sched_process_exit(struct task_struct *p)` (include/trace/events/sched.h)
//!
//! Raw tracepoints: they load on every kernel and need no tracefs.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{
        bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid,
        generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str, bpf_probe_read_user},
    },
    macros::raw_tracepoint,
    programs::RawTracePointContext,
};
use tap_common::{
    limits::{ARGS_MAX, COMM_LEN, FILENAME_MAX},
    record::{Header, Kind, Lane, Process},
    settings::Executable,
};

use crate::{admit::TASKS, read, ring::Ring, state::setting};

/// A process record with room for a file name and, right behind it wherever it ends, arguments:
/// the room is twice what is written, as the verifier checks place and length apart.
#[repr(C)]
struct Named {
    process: Process,
    text: [u8; FILENAME_MAX + ARGS_MAX],
}

/// The current process runs another program now.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
fn tap_exec(ctx: RawTracePointContext) -> i32 {
    let task: *const c_void = ctx.arg(0);
    let bprm: *const c_void = ctx.arg(2);
    let filename: Option<*const c_void> = read::field(bprm, setting!(offsets.binprm_filename));
    let arguments = arguments(task).unwrap_or((0, 0));
    let mut process = current(Kind::Exec);
    note(&mut process, bprm);
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Named>(Kind::Exec) else { return 0 };
    let to = slot.as_mut_ptr();
    // SAFETY: the slot is a whole `Named`; the file name takes at most FILENAME_MAX bytes of the
    // text, the arguments behind it at most ARGS_MAX.
    unsafe {
        (&raw mut (*to).process).write(process);
        let room = (&raw mut (*to).text).cast::<u8>();
        let from = filename.unwrap_or(core::ptr::null());
        // The length counts the NUL; a failure is negative.
        let len = bpf_probe_read_kernel_str(room.cast(), FILENAME_MAX as u32, from);
        if len <= 0 {
            room.write(0);
        }
        // Or kernels up to 6.12 at least refuse the place behind it: "R1 min value is negative".
        let len = u64::from(read::length::<FILENAME_MAX>(if len > 0 { len as u32 } else { 1 }));
        let (start, wanted) = arguments;
        let wanted = if wanted > ARGS_MAX as u64 { ARGS_MAX as u64 } else { wanted };
        let place = room.add(len as usize).cast();
        // The pages were just written, so they are there; if not, there are no arguments.
        let failed = bpf_probe_read_user(place, wanted as u32, start as *const c_void);
        let whole = if failed == 0 { len + wanted } else { len };
        (&raw mut (*to).process.header.payload_len).write(whole as u32);
    }
    ring.submit(slot);
    0
}

/// Keeps which file the current process runs now. A function of its own: within [`tap_exec`] the
/// length below goes to the stack and back, and before 6.12 the verifier then forgets its bounds.
#[inline(never)]
fn note(process: &mut Process, bprm: *const c_void) {
    match read::executable_of(bprm) {
        Some(executable) => {
            process.executable = executable;
            let _ = TASKS.insert(&process.tgid, &executable, 0);
        }
        None => drop(TASKS.remove(&process.tgid)),
    }
}

/// Where the new program's arguments stand in its memory, and how long they are.
#[inline(always)]
fn arguments(task: *const c_void) -> Option<(u64, u64)> {
    let mm: *const c_void = read::field(task, setting!(offsets.task_mm))?;
    let start: u64 = read::field(mm, setting!(offsets.mm_arg_start))?;
    let end: u64 = read::field(mm, setting!(offsets.mm_arg_end))?;
    Some((start, end.wrapping_sub(start)))
}

/// The current process forks.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
fn tap_fork(ctx: RawTracePointContext) -> i32 {
    let _ = try_fork(&ctx);
    0
}

#[inline(always)]
fn try_fork(ctx: &RawTracePointContext) -> Option<()> {
    let child: *const c_void = ctx.arg(1);
    let tgid: u32 = read::field(child, setting!(offsets.task_tgid))?;
    let pid: u32 = read::field(child, setting!(offsets.task_pid))?;
    if tgid != pid {
        return None; // a thread
    }
    let mut process = current(Kind::Fork);
    process.parent = process.tgid;
    process.tgid = tgid;
    // SAFETY: entries are replaced as a whole.
    match unsafe { TASKS.get(&process.parent) } {
        Some(executable) => drop(TASKS.insert(&tgid, executable, 0)),
        None => drop(TASKS.remove(&tgid)),
    }
    send(process, Kind::Fork);
    Some(())
}

/// A thread exits; the process does when its first thread has.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
fn tap_exit(_ctx: RawTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    if id as u32 == (id >> 32) as u32 {
        let process = current(Kind::Exit);
        let _ = TASKS.remove(&process.tgid);
        send(process, Kind::Exit);
    }
    0
}

#[inline(always)]
fn send(process: Process, kind: Kind) {
    let ring = Ring::life();
    let Some(mut slot) = ring.reserve::<Process>(kind) else { return };
    slot.write(process);
    ring.submit(slot);
}

#[inline(always)]
fn current(kind: Kind) -> Process {
    let header = Header {
        kind: kind as u8,
        lane: Lane::Life as u8,
        flags: 0,
        payload_len: 0,
        cookie: 0,
        generation: 0,
        number: 0,
        // SAFETY: takes nothing.
        time_ns: unsafe { bpf_ktime_get_ns() },
    };
    let comm: [u8; COMM_LEN] = bpf_get_current_comm().unwrap_or_default();
    Process {
        header,
        tgid: (bpf_get_current_pid_tgid() >> 32) as u32,
        parent: 0,
        comm,
        executable: Executable::UNKNOWN,
        uid: bpf_get_current_uid_gid() as u32,
        pad: 0,
    }
}
