//! The command line (SPEC §2): one module per command, flags and their environment variables here.

use std::{fmt, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub mod check;
pub mod config;
pub mod log;
pub mod replay;
pub mod rules;
pub mod run;

/// Watches every TCP connection of this host from inside the kernel and emits each as an
/// OpenTelemetry span.
///
/// Without OTEL_* variables and exporters, finished connections are printed to standard output: a
/// table on a terminal, JSON lines otherwise.
#[derive(Debug, Parser)]
#[command(name = "tap", version, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file [default: /etc/tap/tap.yaml where there is one].
    #[arg(long, global = true, env = "TAP_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where health and metrics are served: ADDR:PORT, unix:PATH or off.
    #[arg(long, global = true, env = "TAP_ADMIN", default_value = "127.0.0.1:10001")]
    pub admin: crate::admin::Address,
    /// What is logged to standard error: a level or RUST_LOG directives.
    #[arg(long, global = true, env = "TAP_LOG", value_name = "DIRECTIVES")]
    pub log_level: Option<String>,
    /// How it is logged.
    #[arg(long, global = true, env = "TAP_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Form of tap's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace until SIGINT or SIGTERM, then flush what is open (the default).
    Run(run::RunArguments),
    /// Tell whether this host can run tap, and what is missing.
    Check,
    /// Check the configuration, show what is in force of it, or print its schema.
    Config(config::ConfigArguments),
    /// Trace, and store the raw kernel records in FILE; exports only where OTEL_* says so.
    Record(run::RecordArguments),
    /// Run everything behind the kernel over a recording again; needs no privileges.
    Replay(replay::ReplayArguments),
}

/// Why the command failed, and with which exit code: 1 failure at run time, 2 usage or
/// configuration, 3 this host cannot run it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    message: String,
}

impl Failure {
    /// A failure at run time.
    pub fn runtime(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }

    /// A mistake in arguments, environment, configuration or input file.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// This host, or this user on it, cannot run tap.
    pub fn host(message: impl fmt::Display) -> Self {
        Self { code: 3, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Runs the command.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let global = arguments.global;
    log::start(&global)?;
    match arguments.command.unwrap_or(Command::Run(run::RunArguments::default())) {
        Command::Run(arguments) => run::run(&global, &arguments, None),
        Command::Check => check::check(&global),
        Command::Config(arguments) => config::config(&global, &arguments),
        Command::Record(record) => run::run(&global, &record.run, Some(&record.file)),
        Command::Replay(arguments) => replay::replay(&global, &arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_is_run() {
        let arguments = Arguments::parse_from(["tap", "--admin", "off"]);
        assert!(arguments.command.is_none());
    }
}
