//! Whether every HTTP transaction is told or accounted for at the rate that nginx and wrk reach,
//! by nginx's own count of requests.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{Collector, Tap, load::Nginx};

/// One load of some seconds, with log records exported by OTLP.
pub fn run(seconds: usize) -> Result<()> {
    let (nginx, collector) = (Nginx::start()?, Collector::start()?);
    let home = tempfile::tempdir()?;
    let config = home.path().join("tap.yaml");
    // No connections but nginx's: this program asks tap for its numbers over HTTP too.
    let [port, _] = nginx.ports();
    std::fs::write(&config, format!("capture: {{ include: [ {{ port: {port} }} ] }}\n"))?;
    let tap = Tap::log(&collector, &config)?;
    let (cpu, _) = tap.cpu_and_spans()?;
    let before = nginx.requests()?;
    let load = nginx.keep_alive(seconds)?;
    let after = nginx.requests()?;
    std::thread::sleep(crate::SETTLE);
    let cpu = tap.cpu_and_spans()?.0 - cpu;
    let books = tap.accounting()?;
    let term = |pointer: &str| books.pointer(pointer).and_then(Value::as_u64);
    let count = |pointer: &str| term(pointer).with_context(|| format!("{pointer} in {books}"));
    let told = count("/exchanges/told")?;
    let untold = count("/exchanges/turns_untold")?;
    let items = books.pointer("/items/logs/otlp").context("no log records accounted for")?;
    let dropped: u64 =
        items["dropped"].as_object().into_iter().flatten().filter_map(|it| it.1.as_u64()).sum();
    // Both ends of each, the last look at nginx's count and, if tap was there in time, the first.
    let requests = after - before;
    println!(
        "nginx: {requests} requests, {:.0} a second by wrk\n\
         tap: {told} transactions of both ends told, {untold} not told as their bytes were shed; of \
         the told {} exported, {dropped} dropped\n\
         daemon: {:.2} us of CPU a transaction, export included",
        load.requests_per_s,
        items["exported"],
        cpu.as_secs_f64() * 1e6 / told.max(1) as f64,
    );
    let seen = told + untold;
    ensure!(
        (2 * requests..=2 * requests + 2).contains(&seen),
        "{seen} transactions are accounted for, of {} that were",
        2 * requests
    );
    Ok(())
}
