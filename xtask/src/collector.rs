//! `cargo xtask collector`: the OpenTelemetry Collector, built from its own source with its OTLP
//! receiver and its file exporter, for the test that exports to it. That takes Go and two to ten
//! minutes, so the tests do not do it by themselves: they leave that test out where it is not there.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::report::step;
use crate::workspace::Workspace;

/// A version of which the module proxy has every module.
const VERSION: &str = "0.158.0";

/// Builds `target/tools/otelcol`.
pub fn run(workspace: &Workspace) -> Result<()> {
    let home = workspace.target.join("otelcol");
    let program = workspace.tools().join("otelcol");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let config = home.join("builder.yaml");
    let wanted = format!(
        "dist:\n  name: otelcol\n  output_path: {source}\n  version: {VERSION}\n\
         receivers:\n  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v{VERSION}\n\
         exporters:\n  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/\
         fileexporter v{VERSION}\n",
        source = home.join("source").display()
    );
    fs::write(&config, wanted).with_context(|| format!("cannot write {}", config.display()))?;
    step("collector: its builder, then the collector; minutes, the first time");
    let builder = format!("go.opentelemetry.io/collector/cmd/builder@v{VERSION}");
    let go = |arguments: &[&str]| {
        let mut go = Command::new("go");
        go.args(arguments).env("GOBIN", home.join("bin")).env("CGO_ENABLED", "0");
        go
    };
    command::run(&mut go(&["install", &builder])).context("Go is needed, 1.25 or later")?;
    let mut generate = Command::new(home.join("bin/builder"));
    generate.args(["--skip-compilation", "--config"]).arg(&config).env("CGO_ENABLED", "0");
    command::run(&mut generate)?;
    let mut build = go(&["build", "-trimpath", "-ldflags=-s -w", "-o"]);
    command::run(build.arg(&program).arg(".").current_dir(home.join("source")))?;
    step(format_args!("collector: {} is ready", workspace.shown(&program)));
    Ok(())
}
