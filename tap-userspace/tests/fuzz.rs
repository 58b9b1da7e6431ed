//! Every reader of raw input against a short, fixed number of mutations of real bytes. `cargo xtask
//! fuzz` goes on for as long as one likes.

#[path = "../examples/fuzz.rs"]
#[expect(dead_code, reason = "its main goes by time")]
mod fuzz;

/// Inputs of each reader: seconds in all, without optimisation.
const RUNS: u64 = 1000;

#[test]
fn no_reader_panics() {
    fuzz::feed(|runs, _| runs < RUNS);
}
