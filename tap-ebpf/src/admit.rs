//! Which connections are looked at; decided once per connection, at its open.
//!
//! A look-up for each field that rules ask for; what they say is put together bit by bit
//! (`tap_common::settings::Admission`). What is not known here (the process behind an accepted
//! connection, an executable or cgroup that the daemon has not met) counts as if it might fit: such
//! a connection is looked at, and the daemon decides.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, lpm_trie::Key},
};
use tap_common::{
    counters::Event,
    limits,
    record::flags,
    settings::{
        Admission, CgroupKey, Ends, Executable, ExecutableKey, PREFIX_KEY, field, port_key,
        user_key,
    },
    state::{Socket, undecided},
};

use crate::{ring, state::setting};

/// Two generations of rules.
#[map]
static ADMISSION: Array<Admission> = Array::with_max_entries(2, 0);

/// Which of them is in force.
#[map]
static ADMISSION_SLOT: Array<u32> = Array::with_max_entries(1, 0);

/// What is said of a port (`port_key`).
#[map]
static PORTS: HashMap<u32, Ends> = HashMap::with_max_entries(2 * limits::ADMISSION_ENTRIES, 1);

/// What is said of a prefix.
#[map]
static PREFIXES: LpmTrie<[u8; PREFIX_KEY], Ends> =
    LpmTrie::with_max_entries(2 * limits::ADMISSION_ENTRIES + 2, 0);

/// What is said of a user (`user_key`).
#[map]
static USERS: HashMap<u64, u64> = HashMap::with_max_entries(2 * limits::ADMISSION_ENTRIES, 1);

/// What is said of an executable.
#[map]
static EXECUTABLES: LruHashMap<ExecutableKey, u64> =
    LruHashMap::with_max_entries(limits::ADMISSION_KNOWN, 0);

/// What is said of a cgroup.
#[map]
static CGROUPS: LruHashMap<CgroupKey, u64> =
    LruHashMap::with_max_entries(limits::ADMISSION_KNOWN, 0);

/// What each process runs, by thread group id.
#[map]
pub static TASKS: LruHashMap<u32, Executable> = LruHashMap::with_max_entries(limits::TASKS, 0);

/// Whether the rules in force ask for cgroups: finding one out costs three reads.
#[inline(always)]
pub fn asks_cgroup() -> bool {
    rules().is_some_and(|(_, rules)| rules.fields & field::CGROUP != 0)
}

/// Whether the connection that has begun in `state` is looked at. Its process and user are those in
/// `state`, if known; `cgroup` is 0 if not known. A refusal is counted.
#[inline(always)]
pub fn admit(state: &mut Socket, cgroup: u64) -> bool {
    if state.tgid != 0 && state.tgid == setting!(self_tgid) {
        ring::count_event(Event::Own);
        return false;
    }
    let Some((slot, rules)) = rules() else { return true };
    if slot != 0 {
        state.flags |= flags::SECOND_RULES;
    }
    // Who opened a connection that is older than tap is for the daemon to find out.
    let old = state.flags & flags::PREEXISTING != 0;
    let active = state.flags & flags::ACTIVE != 0;
    let wanted = if active { rules.egress } else { rules.ingress };
    if wanted == 0 && !old {
        ring::count_event(Event::Direction);
        return false;
    }
    if rules.loopback == 0 && is_loopback(&state.remote) {
        ring::count_event(Event::Loopback);
        return false;
    }
    if rules.include | rules.exclude == 0 {
        return true;
    }
    let mut said = if active { rules.of_egress } else { rules.of_ingress };
    let mut unsure = rules.partial;
    if old {
        said = rules.of_egress | rules.of_ingress;
        unsure |= rules.of_egress ^ rules.of_ingress;
    }
    if rules.fields & field::PORT != 0 {
        let local = of_port(slot, state.local_port).unwrap_or(&rules.no_port);
        let remote = of_port(slot, state.remote_port).unwrap_or(&rules.no_port);
        said &= (local.either | remote.either) & local.local & remote.remote;
    }
    if rules.fields & field::PREFIX != 0 {
        let local = of_address(slot, &state.local).unwrap_or(&rules.no_prefix);
        let remote = of_address(slot, &state.remote).unwrap_or(&rules.no_prefix);
        said &= (local.either | remote.either) & local.local & remote.remote;
    }
    if rules.fields & field::USER != 0 {
        if state.tgid == 0 {
            unsure |= !rules.no_user;
        } else {
            // SAFETY: entries of a generation in force do not change.
            let of_user = unsafe { USERS.get(&user_key(slot, state.uid)) };
            said &= of_user.copied().unwrap_or(rules.no_user);
        }
    }
    if rules.fields & field::EXECUTABLE != 0 {
        match of_executable(state.tgid, rules.generation) {
            Some(of_executable) => said &= *of_executable,
            None => unsure |= !rules.no_executable,
        }
    }
    if rules.fields & field::CGROUP != 0 {
        let key = CgroupKey { id: cgroup, generation: u64::from(rules.generation) };
        // SAFETY: as above.
        match unsafe { CGROUPS.get(&key) } {
            Some(of_cgroup) => said &= *of_cgroup,
            None => unsure |= !rules.no_cgroup,
        }
    }
    if said & rules.exclude & !unsure != 0 {
        ring::count_event(Event::Excluded);
        return false;
    }
    if rules.include != 0 && said & rules.include == 0 {
        ring::count_event(Event::NotIncluded);
        return false;
    }
    if said & unsure != 0 {
        state.undecided |= undecided::ADMISSION;
    }
    true
}

/// The rules in force, and in which slot they stand.
#[inline(always)]
fn rules() -> Option<(u32, &'static Admission)> {
    let slot = *ADMISSION_SLOT.get(0)? & 1;
    Some((slot, ADMISSION.get(slot)?))
}

#[inline(always)]
fn of_port(slot: u32, port: u16) -> Option<&'static Ends> {
    // SAFETY: entries of a generation in force do not change.
    unsafe { PORTS.get(&port_key(slot, port)) }
}

#[inline(always)]
fn of_address(slot: u32, address: &[u8; 16]) -> Option<&'static Ends> {
    let mut data = [0; PREFIX_KEY];
    let [first, rest @ ..] = &mut data;
    *first = slot as u8;
    *rest = *address;
    PREFIXES.get(Key::new(8 * PREFIX_KEY as u32, data))
}

#[inline(always)]
fn of_executable(tgid: u32, generation: u32) -> Option<&'static u64> {
    // SAFETY: entries are replaced as a whole.
    let executable = *unsafe { TASKS.get(&tgid) }?;
    let key = ExecutableKey { executable, generation: u64::from(generation) };
    // SAFETY: entries of a generation in force do not change but for the daemon's correction.
    unsafe { EXECUTABLES.get(&key) }
}

/// 127.0.0.0/8 (mapped) or ::1.
#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    let zeros = a | b | c | d | e | f | g | h | i | j;
    zeros == 0 && ((k == 0xff && l == 0xff && m == 127) || (k | l | m | n | o == 0 && p == 1))
}
