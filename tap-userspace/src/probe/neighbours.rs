//! Other programs in the kernel: a second tap, and what else sits on the hooks that tap uses.

use aya::programs::loaded_programs;

/// Whether another tap's programs are loaded. To be asked before loading our own.
pub fn another_tap() -> bool {
    loaded_programs().flatten().any(|program| {
        program.name_as_str().is_some_and(|name| name == "tap_sock_ops" || name == "tap_egress")
    })
}
