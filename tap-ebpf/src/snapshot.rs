//! `iter/bpf_sk_storage_map`: walks the socket storage of every network namespace and writes one
//! close record, marked `SNAPSHOT`, per traced connection. The daemon reads it at its end, at the
//! border of a connection's segments, and to find connections whose close was lost.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use tap_common::{
    record::{Close, flags},
    state::{Socket, phase},
};

use crate::{close, witness};

/// `struct bpf_iter__bpf_sk_storage_map` (net/core/bpf_sk_storage.c).
#[repr(C)]
struct Context {
    meta: *const Meta,
    map: *const c_void,
    sk: *const c_void,
    value: *const Socket,
}

/// `struct bpf_iter_meta`, its first field.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// One socket's state.
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
#[unsafe(no_mangle)]
fn tap_snapshot(ctx: *const Context) -> i32 {
    // SAFETY: the context as the iterator passes it; `sk` and `value` are null at its end.
    unsafe {
        let sk = (*ctx).sk;
        let value = (*ctx).value;
        if sk.is_null() || value.is_null() || (*value).phase != phase::TRACED {
            return 0;
        }
        let seq = (*(*ctx).meta).seq;
        let mut record = MaybeUninit::<Close>::uninit();
        let facts = witness::facts(sk, 0, flags::SNAPSHOT);
        close::fill(record.as_mut_ptr(), &*value, &facts, 0);
        bpf_seq_write(seq, record.as_ptr().cast(), size_of::<Close>() as u32);
    }
    0
}
