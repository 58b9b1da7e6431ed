//! Arguments in, exit code out; everything else is the library's.

use std::process::ExitCode;

use clap::Parser as _;
use tap_userspace::cli::{Arguments, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tap: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
