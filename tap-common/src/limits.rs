//! Every limit of the kernel line, with its reason.

/// Most payload bytes that one data record carries. A GSO segment can hold 64 KiB; what is beyond
/// this is not copied but shows in [`crate::record::Data::segment_len`].
pub const PAYLOAD_MAX: usize = 4096;

/// Middle payload class: the head of a message, and a small body.
pub const PAYLOAD_MEDIUM: usize = 1024;

/// Most data records that one segment may become. A GSO segment holds 64 KiB on the wire, but more
/// before it is cut for its device: 67,289 bytes were seen on the loopback. What is beyond is not
/// copied.
pub const CHUNKS_MAX: u32 = 32;

/// Default number of bytes captured of each turn of a connection whose exchanges are read: the
/// largest head that servers take (8 to 16 KiB), and small bodies whole.
pub const TURN_PAYLOAD_DEFAULT: u32 = 16 << 10;

/// Longest DNS message over UDP that is reported (RFC 6891 §6.2.5 recommends no more).
pub const DNS_MAX: usize = 4096;

/// Smallest payload class. A short request or answer fits, and the ring's memory that it touches
/// stays in the caches.
pub const PAYLOAD_SMALL: usize = 256;

/// Default number of bytes at the head of each direction that are captured. A post-quantum
/// ClientHello is about 2 KiB over two segments (shared with the certificate-bearing answer).
pub const HEAD_DEFAULT: u32 = 4096;

/// Turn records that one connection may send before its turns are only counted
/// (`OTEL_SPAN_EVENT_COUNT_LIMIT` is 128 by default and the open, hello, protocol and close events
/// are among them).
pub const TURNS_DEFAULT: u32 = 128;

/// Payload that came with the handshake's last segment is kept here until the connection is
/// established (`HANDSHAKES` entries of it).
pub const HANDSHAKE_PAYLOAD: usize = 2048;

/// Handshakes whose payload is kept at a time. They live for one softirq; a flood of forged
/// segments only pushes others of its kind out.
pub const HANDSHAKES: u32 = 256;

/// A turn ends after this much silence in its direction (SPEC §3).
pub const TURN_SILENCE_NS: u64 = 50_000_000;

/// A segment this far past the receive position is no segment of this connection: TCP's largest
/// window is 1 GiB (RFC 7323 §2.3).
pub const WINDOW_MAX: u32 = 1 << 30;

/// Bytes of a file name kept at exec.
pub const FILENAME_MAX: usize = 256;

/// Bytes of a program's arguments kept at exec.
pub const ARGS_MAX: usize = 768;

/// Length of a task's `comm`, with its NUL (`TASK_COMM_LEN`, include/linux/sched.h).
pub const COMM_LEN: usize = 16;

/// Default size of the ring of opens, owners, closes and process life: 5 s of a stopped daemon at
/// 2,000 connections a second, both ends on this host (about 1 KiB a connection), with a margin.
pub const LIFE_RING_DEFAULT: u32 = 16 << 20;

/// Default size of the ring of turns and payload.
pub const DATA_RING_DEFAULT: u32 = 16 << 20;

/// The reader is woken when a ring holds this much; below it polls on a timer.
pub const WAKE_BYTES: u64 = 256 << 10;

/// Ports, prefixes and users that rules may name, each. The tables hold two generations of them.
pub const ADMISSION_ENTRIES: u32 = 1024;

/// Rules that the kernel side tells apart: the bits of a mask.
pub const ADMISSION_RULES: usize = 64;

/// Processes whose executable is known; what is pushed out is the daemon's to decide.
pub const TASKS: u32 = 16_384;

/// Executables and cgroups of which is known what the rules say of them; beyond, the daemon decides.
pub const ADMISSION_KNOWN: u32 = 8192;

/// Verdicts that the daemon may have outstanding.
pub const VERDICTS: u32 = 16_384;

/// Sockets remembered by cookie where a tracing program cannot reach socket storage (kernels
/// before 5.11).
pub const WITNESSES: u32 = 65_536;
