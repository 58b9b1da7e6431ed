//! Which connections are looked at; decided once per connection, at its open.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
};
use tap_common::{
    counters::Event,
    limits,
    record::Tuple,
    settings::{Admission, RULE_EXCLUDE, RULE_INCLUDE},
};

use crate::{ring, state::setting};

/// Entry 0 is the rule in force.
#[map]
static ADMISSION: Array<Admission> = Array::with_max_entries(1, 0);

/// What is said of a port, local or remote.
#[map]
static PORTS: HashMap<u16, u8> = HashMap::with_max_entries(limits::ADMISSION_ENTRIES, 1);

/// What is said of a prefix, local or remote; IPv4 is IPv4-mapped.
#[map]
static PREFIXES: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(limits::ADMISSION_ENTRIES, 0);

/// Whether the connection between these ends, opened by this host (`active`) and process `tgid`
/// (0 where not known), is looked at. A refusal is counted.
#[inline(always)]
pub fn admit(tuple: &Tuple, active: bool, tgid: u32) -> bool {
    let admitted = decide(tuple, active, tgid);
    if !admitted {
        ring::count_event(Event::NotAdmitted);
    }
    admitted
}

#[inline(always)]
fn decide(tuple: &Tuple, active: bool, tgid: u32) -> bool {
    if tgid != 0 && tgid == setting!(self_tgid) {
        return false;
    }
    let Some(rule) = ADMISSION.get(0) else {
        return true;
    };
    let wanted = if active { rule.egress } else { rule.ingress };
    if wanted == 0 || (rule.loopback == 0 && is_loopback(&tuple.remote)) {
        return false;
    }
    let mut said = 0;
    if rule.ports != 0 {
        said |= of_port(tuple.local_port) | of_port(tuple.remote_port);
    }
    if rule.prefixes != 0 {
        said |= of_address(&tuple.local) | of_address(&tuple.remote);
    }
    if said & RULE_EXCLUDE != 0 {
        return false;
    }
    rule.default_deny == 0 || said & RULE_INCLUDE != 0
}

#[inline(always)]
fn of_port(port: u16) -> u8 {
    // SAFETY: a byte; it cannot tear.
    unsafe { PORTS.get(&port) }.copied().unwrap_or(0)
}

#[inline(always)]
fn of_address(address: &[u8; 16]) -> u8 {
    PREFIXES.get(Key::new(128, *address)).copied().unwrap_or(0)
}

/// 127.0.0.0/8 (mapped) or ::1.
#[inline(always)]
fn is_loopback(address: &[u8; 16]) -> bool {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    let zeros = a | b | c | d | e | f | g | h | i | j;
    zeros == 0 && ((k == 0xff && l == 0xff && m == 127) || (k | l | m | n | o == 0 && p == 1))
}
