//! `cargo xtask collector`: the OpenTelemetry Collector, built from its own source with its OTLP
//! receiver, its file exporter and the components that tap has counterparts of. The test that exports
//! to it, and the one that holds tap's processors against its own, use it. That takes Go and two to
//! twenty minutes, so the tests do not do it by themselves: where it is not there, the first is left
//! out, and the second has its answers stored.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;
use crate::report::step;
use crate::workspace::Workspace;

/// A version of which the module proxy has every module.
const VERSION: &str = "0.158.0";

/// Components of the Collector's own repository, and of its contributors'.
const COMPONENTS: &[(&str, &[&str])] = &[
    ("receivers", &["go.opentelemetry.io/collector/receiver/otlpreceiver"]),
    (
        "exporters",
        &["github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter"],
    ),
    (
        "processors",
        &[
            "go.opentelemetry.io/collector/processor/batchprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/attributesprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/filterprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/groupbyattrsprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/\
             probabilisticsamplerprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/redactionprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/resourceprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/tailsamplingprocessor",
            "github.com/open-telemetry/opentelemetry-collector-contrib/processor/transformprocessor",
        ],
    ),
    (
        "connectors",
        &[
            "github.com/open-telemetry/opentelemetry-collector-contrib/connector/servicegraphconnector",
            "github.com/open-telemetry/opentelemetry-collector-contrib/connector/spanmetricsconnector",
        ],
    ),
];

/// Builds `target/tools/otelcol`.
pub fn run(workspace: &Workspace) -> Result<()> {
    let home = workspace.target.join("otelcol");
    let program = workspace.tools().join("otelcol");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let config = home.join("builder.yaml");
    let mut wanted = format!(
        "dist:\n  name: otelcol\n  output_path: {}\n  version: {VERSION}\n",
        home.join("source").display()
    );
    for (kind, modules) in COMPONENTS {
        wanted.push_str(&format!("{kind}:\n"));
        for module in *modules {
            wanted.push_str(&format!("  - gomod: {module} v{VERSION}\n"));
        }
    }
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
