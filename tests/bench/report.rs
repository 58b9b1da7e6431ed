//! The table and the JSON.

use std::{fs, path::Path};

use anyhow::Result;
use serde_json::{Value, json};

use crate::{
    Measured,
    programs::{EMPTY, Programs},
};

/// A run with tap between two without: what lies between those two is what the machine itself
/// makes of the same load.
#[derive(Debug)]
pub struct Pair {
    pub before: Measured,
    pub with: Measured,
    pub after: Measured,
    pub rss: u64,
}

impl Pair {
    /// The mean of the two runs without tap.
    fn without(&self, figure: Figure) -> f64 {
        f64::midpoint(figure(&self.before), figure(&self.after))
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub pairs: Vec<Pair>,
    pub programs: Programs,
}

/// A figure of one half of a pair.
type Figure = fn(&Measured) -> f64;

const FIGURES: [(&str, Figure); 6] = [
    ("HTTP keep-alive, requests/s", |half| half.keep_alive.requests_per_s),
    ("  CPU of the host per request, µs", |half| half.keep_alive.cpu_us),
    ("one request per connection, connections/s", |half| half.connections.requests_per_s),
    ("  CPU of the host per connection, µs", |half| half.connections.cpu_us),
    ("p50 at 2,000 requests/s, µs", |half| half.latency.p50_us),
    ("p99 at 2,000 requests/s, µs", |half| half.latency.p99_us),
];

impl Report {
    pub fn print(&self) {
        let titles = ["medians of pairs", "without", "with", "ratio", "noise"];
        let [name, without, with, ratio, noise] = titles;
        println!("{name:<44} {without:>10} {with:>10} {ratio:>8} {noise:>8}");
        for (name, figure) in FIGURES {
            let without = self.median(|pair| pair.without(figure));
            let with = self.median(|pair| figure(&pair.with));
            let ratio = self.median(|pair| figure(&pair.with) / pair.without(figure));
            let noise = self.median(|pair| {
                (figure(&pair.before) - figure(&pair.after)).abs() / pair.without(figure)
            });
            println!("{name:<44} {without:>10.1} {with:>10.1} {ratio:>8.3} {noise:>8.3}");
        }
        println!("noise: how far the two runs without tap of one pair lie apart");
        let cpu = self.median(|pair| pair.with.daemon_us_per_span);
        println!("{:<44} {cpu:>30.2}", "daemon CPU per finished span, µs");
        println!(
            "{:<44} {:>30.1}",
            "daemon RSS, MiB",
            self.median(|pair| pair.rss as f64) / 1048576.0
        );
        println!("\n{:<24} {:>24} {:>24}", "ns per run (runs)", "keep-alive", "connections");
        for (name, loads) in &self.programs {
            let cell = |load| {
                loads.get(load).map_or(String::new(), |(runs, each)| format!("{each:.0} ({runs})"))
            };
            println!("{name:<24} {:>24} {:>24}", cell("keep-alive"), cell("connections"));
        }
        println!(
            "{EMPTY} is a cgroup_skb program that returns 1; statistics overhead is in all of them"
        );
    }

    fn median(&self, figure: impl Fn(&Pair) -> f64) -> f64 {
        let mut all: Vec<f64> = self.pairs.iter().map(figure).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let half = |half: &Measured| {
            json!({
                "keep_alive_requests_per_s": half.keep_alive.requests_per_s,
                "keep_alive_cpu_us": half.keep_alive.cpu_us,
                "connections_per_s": half.connections.requests_per_s,
                "connections_cpu_us": half.connections.cpu_us,
                "p50_us": half.latency.p50_us,
                "p99_us": half.latency.p99_us,
                "daemon_us_per_span": half.daemon_us_per_span,
            })
        };
        let pairs: Vec<Value> = self
            .pairs
            .iter()
            .map(|pair| {
                let without = [half(&pair.before), half(&pair.after)];
                json!({ "without": without, "with": half(&pair.with), "rss": pair.rss })
            })
            .collect();
        let programs: Value = self
            .programs
            .iter()
            .map(|(name, loads)| {
                let loads: Value = loads
                    .iter()
                    .map(|(load, (runs, each))| {
                        ((*load).to_owned(), json!({ "runs": runs, "ns_per_run": each }))
                    })
                    .collect::<serde_json::Map<_, _>>()
                    .into();
                (name.clone(), loads)
            })
            .collect::<serde_json::Map<_, _>>()
            .into();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(&json!({ "pairs": pairs, "programs": programs }))?;
        fs::write(path, text)?;
        println!("written to {}", path.display());
        Ok(())
    }
}
