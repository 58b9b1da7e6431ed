//! The verdicts as a table for people and a file for programs.

use std::fs;

use anyhow::{Context, Result};
use serde_json::json;

use super::judge::Verdict;
use crate::report::step;
use crate::workspace::Workspace;

const HEADINGS: [&str; 9] =
    ["kernel", "run", "load", "attach", "spans", "bytes", "accounting", "seconds", "remarks"];

/// A table with a column for each part of a verdict.
pub fn table(verdicts: &[Verdict]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(verdicts.iter().map(row));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(verdict: &Verdict) -> [String; 9] {
    let word = |good: bool| if good { "yes" } else { "NO" }.to_owned();
    let of = |count: usize| format!("{count}/{}", verdict.ends);
    [
        verdict.kernel.clone(),
        verdict.phase.to_owned(),
        word(verdict.loaded),
        word(verdict.attached),
        of(verdict.spans),
        of(verdict.bytes),
        word(verdict.accounted),
        format!("{:.1}", verdict.seconds),
        remarks(verdict),
    ]
}

/// The first few; the rest is in the report.
fn remarks(verdict: &Verdict) -> String {
    let all: Vec<&str> = verdict.problems.iter().chain(&verdict.notes).map(|s| &**s).collect();
    let shown = all.len().min(4);
    match all.len() - shown {
        0 => all.join("; "),
        more => format!("{}; and {more} more", all[..shown].join("; ")),
    }
}

/// Writes `report.json`.
pub fn write(workspace: &Workspace, verdicts: &[Verdict]) -> Result<()> {
    let path = workspace.kernels().join("report.json");
    let good = verdicts.iter().all(Verdict::is_good);
    let text = serde_json::to_vec_pretty(&json!({ "good": good, "runs": verdicts }))?;
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    step(format_args!("kernels: {} is written", workspace.shown(&path)));
    Ok(())
}
