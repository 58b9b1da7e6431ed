//! Under load every transaction is told or accounted for: nginx's own log against log records and
//! counted losses, to the unit. The rate is whatever the machine gives.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use tests::{
    process::Process,
    programs::{command, nginx::Nginx},
    stage::apart,
    tap::{Launch, Tap},
    wait,
};

/// Connections of wrk, a thread each, and requests of each.
const THREADS: usize = 4;
const REQUESTS: usize = 4000;

/// Time for all of them, on a slow machine.
const LOAD: Duration = Duration::from_secs(60);

/// Ends a thread after its last response, so that no request is under way when wrk ends.
const SCRIPT: &str = "local left = LIMIT
function response()
  left = left - 1
  if left == 0 then wrk.thread:stop() end
end
";

/// nginx under keep-alive load, `meanwhile` once it has begun; tap with `config`. Gives how many
/// records were told, of both ends, how many turns came to nothing, and how many records of the
/// kernel were lost.
fn load(config: &str, meanwhile: impl FnOnce(&Tap) -> Result<()>) -> Result<[u64; 3]> {
    let nginx = Nginx::start()?;
    fs::write(nginx.root().join("small"), "hello")?;
    let home = tempfile::tempdir()?;
    let script = home.path().join("stop.lua");
    fs::write(&script, SCRIPT.replace("LIMIT", &REQUESTS.to_string()))?;
    let launch = Launch::new().config(config);
    let tap = launch
        .env("OTEL_LOGS_EXPORTER", "console")
        .env("OTEL_TRACES_EXPORTER", "none")
        .env("OTEL_BLRP_MAX_QUEUE_SIZE", "1000000")
        .start()?;
    let mut wrk = command("wrk", "wrk")?;
    let threads = THREADS.to_string();
    wrk.args(["-t", &threads, "-c", &threads, "-d", &format!("{}s", LOAD.as_secs()), "-s"]);
    wrk.arg(&script).arg(format!("http://{}/small?a=1", nginx.http));
    let mut wrk = Process::start(wrk)?;
    meanwhile(&tap)?;
    let requests = THREADS * REQUESTS;
    let logged = wait::until("nginx to log every request", LOAD, || {
        Some(nginx.count()).filter(|logged| *logged >= requests)
    })?;
    // Its threads have ended; it sleeps.
    wrk.signal(libc::SIGINT)?;
    wrk.wait(LOAD)?;
    // nginx sees the connections end.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!((logged, nginx.count()), (requests, requests));
    let ended = tap.stop()?;
    let accounting = ended.check()?;
    let port = format!("\"server.port\":{}", nginx.http.port());
    let of_nginx = ended.stdout.iter().filter(|line| line.contains(&port)).count() as u64;
    let logs = accounting.items.get("logs/console").context("no log records accounted for")?;
    // What the exporter has dropped has no port: nothing was.
    assert_eq!(logs["dropped"], 0, "{accounting:?}");
    assert_eq!(logs["produced"], accounting.exchange("told"), "{accounting:?}");
    let lost = accounting.record("data", "dropped") + accounting.kernel_event("payload_shed");
    Ok([of_nginx, accounting.exchange("turns_untold"), lost])
}

/// Both ends of each request.
const EXPECTED: u64 = 2 * (THREADS * REQUESTS) as u64;

#[test]
fn every_request_under_load_is_told_or_accounted_for() {
    apart(|| {
        let [told, untold, lost] = load("", |_| Ok(()))?;
        assert_eq!(told + untold, EXPECTED, "{told} told, {untold} not");
        assert!(lost > 0 || untold == 0, "{untold} not told, though nothing was lost");
        Ok(())
    });
}

#[test]
fn requests_that_a_daemon_could_not_take_are_counted_to_the_unit() {
    apart(|| {
        let [told, untold, lost] = load("rings: { data: 64KiB }\n", |tap| {
            // Some connections are known by then, and some may not be.
            std::thread::sleep(Duration::from_millis(200));
            tap.signal(libc::SIGSTOP)?;
            std::thread::sleep(Duration::from_millis(300));
            tap.signal(libc::SIGCONT)
        })?;
        assert!(untold > 0 && lost > 0, "{told} told, {untold} not, {lost} records lost");
        assert_eq!(told + untold, EXPECTED, "{told} told, {untold} not, {lost} records lost");
        Ok(())
    });
}
