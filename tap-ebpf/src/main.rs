//! The kernel programs of tap, by hook family: each module holds the entry points of one family,
//! its bodies, and nothing else.
//!
//! | module | hooks | context |
//! | --- | --- | --- |
//! | [`socket`] | `sock_ops` | connect begun, established, closed; under the socket lock |
//! | [`packet`] | `cgroup_skb` both ways | every segment; softirq or process |
//! | [`owner`] | `connect4/6`, `sock_release`, `tcp_rcv_space_adjust` | process |
//! | [`witness`] | `inet_sock_set_state` | the second witness of a close |
//! | [`process`] | `sched_process_{exec,fork,exit}` | process |
//! | [`snapshot`] | `iter/bpf_sk_storage_map` | the daemon's own read |
//!
//! No program here can change, delay or drop anybody's traffic: each returns the one value that
//! lets it pass. The crate is built for `bpfel-unknown-none` by `cargo xtask ebpf`; for the host
//! it is an empty program, so that workspace-wide checks need no BPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::needless_borrows_for_generic_args,
        reason = "map keys and values go by address; passed by value they are copied to the stack"
    )
)]

#[cfg(target_arch = "bpf")]
mod admit;
#[cfg(target_arch = "bpf")]
mod close;
#[cfg(target_arch = "bpf")]
mod dns;
#[cfg(target_arch = "bpf")]
mod handshake;
#[cfg(target_arch = "bpf")]
mod owner;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod read;
#[cfg(target_arch = "bpf")]
mod ring;
#[cfg(target_arch = "bpf")]
mod snapshot;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod state;
#[cfg(target_arch = "bpf")]
mod tell;
#[cfg(target_arch = "bpf")]
mod turn;
#[cfg(target_arch = "bpf")]
mod witness;

/// The licence that GPL-only helpers ask for.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// A panic cannot happen in a loaded program: the verifier refuses the endless loop, so a mistake
/// that lets one in fails at load.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
