//! The progress lines: what is being done and why, with the time since the start.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Instant;

static START: OnceLock<Instant> = OnceLock::new();

/// One line on stderr: `[ 12.3s] what`.
pub fn step(what: impl Display) {
    let elapsed = START.get_or_init(Instant::now).elapsed().as_secs_f32();
    eprintln!("[{elapsed:6.1}s] {what}");
}

/// A further line that belongs to the step above.
pub fn detail(what: impl Display) {
    eprintln!("{:10} {what}", "");
}
