//! tap's own log: always to standard error.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

use super::{Failure, Global, LogFormat};

/// Starts logging. Directives come from `--log-level` (`TAP_LOG`), else `RUST_LOG`, else
/// `OTEL_LOG_LEVEL` where that is a level, else `info`.
pub fn start(global: &Global) -> Result<(), Failure> {
    let directives = global
        .log_level
        .clone()
        .or_else(|| std::env::var("RUST_LOG").ok())
        .filter(|directives| !directives.is_empty())
        .or_else(|| std::env::var("OTEL_LOG_LEVEL").ok().filter(|level| is_level(level)))
        .unwrap_or_else(|| "info".into());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::usage(format!(
            "--log-level {directives:?} is no level (error, warn, info, debug, trace) and no \
             directive: {error}"
        ))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = match global.log_format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).with_target(false).try_init(),
    };
    // A second start in one process (tests) keeps the first.
    drop(started);
    Ok(())
}

fn is_level(text: &str) -> bool {
    ["error", "warn", "info", "debug", "trace"].contains(&text)
}
