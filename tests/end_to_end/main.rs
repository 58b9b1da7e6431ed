//! The daemon on the live kernel, real programs, and what arrived at a real OTLP receiver.
//!
//! `apart`: tests that start and stop a daemon themselves; each has the host for itself.
//! `together`: tests that share one daemon. [`zz_the_shared_daemon_accounts_for_everything`] comes
//! last by its name and looks at that daemon's books.
//!
//! Without root or eBPF each test says that it was skipped and why.

mod apart;
mod together;

/// The program of this package's own.
const WORKLOAD: &str = env!("CARGO_BIN_EXE_workload");

#[test]
fn zz_the_shared_daemon_accounts_for_everything() {
    // To be apart the shared daemon is stopped, and its books are checked.
    tests::stage::apart(|| Ok(()));
}
