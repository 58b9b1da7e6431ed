//! Socket storage, settings and the smaller maps.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::{btf_map, map},
    maps::HashMap,
};
use tap_common::{
    limits,
    settings::{Settings, Verdict},
    state::Socket,
};

/// Set by the daemon before the programs load.
#[unsafe(no_mangle)]
static SETTINGS: Settings = Settings::DEFAULT;

/// One connection state per socket; the kernel frees it with the socket.
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// What the daemon decided about single connections, by cookie: socket storage cannot be written
/// from outside by cookie.
#[map]
static VERDICTS: HashMap<u64, Verdict> = HashMap::with_max_entries(limits::VERDICTS, 1);

/// Reads one field of the settings; volatile, or the compiler would fold the default in.
macro_rules! setting {
    ($($field:ident).+) => {
        $crate::state::read(&raw const $crate::state::settings().$($field).+)
    };
}
pub(crate) use setting;

/// The settings, for [`setting!`] only.
#[inline(always)]
pub fn settings() -> &'static Settings {
    &SETTINGS
}

/// A volatile read, for [`setting!`] only.
#[inline(always)]
pub fn read<T: Copy>(field: *const T) -> T {
    // SAFETY: the macro passes fields of initialised read-only data.
    unsafe { field.read_volatile() }
}

/// State of `sk`, if it has one.
#[inline(always)]
pub fn get(sk: *mut c_void) -> Option<&'static mut Socket> {
    get_with(sk, 0)
}

/// State of `sk`, made (all zero) if it has none.
#[inline(always)]
pub fn get_or_create(sk: *mut bpf_sock) -> Option<&'static mut Socket> {
    get_with(sk.cast(), u64::from(BPF_SK_STORAGE_GET_F_CREATE))
}

#[inline(always)]
fn get_with(sk: *mut c_void, flags: u64) -> Option<&'static mut Socket> {
    let map = (&raw const SOCKETS).cast_mut().cast::<c_void>();
    // SAFETY: the map is this static; the verifier checks `sk`'s type. The value lives as long as
    // the socket, which outlives the program's run. Other CPUs may write it meanwhile: every
    // field is a plain integer, and who writes which is told at `tap_common::state::Direction`.
    unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags).cast::<Socket>().as_mut() }
}

/// The daemon's word on this connection, if there is a new one; it is taken out of the table.
#[inline(always)]
pub fn take_verdict(state: &Socket) -> Option<Verdict> {
    // SAFETY: the entry is plain integers; a torn read is an older or newer limit.
    let verdict = *unsafe { VERDICTS.get(&state.cookie) }?;
    let _ = VERDICTS.remove(&state.cookie);
    (verdict.generation == u32::from(state.generation)).then_some(verdict)
}
