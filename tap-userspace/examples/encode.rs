//! Measures what a span costs to encode, and to export in all (CPU of the exporter's threads, with
//! a receiver that only reads): `cargo run --release --example encode -p tap-userspace`.

#[path = "../tests/support/mod.rs"]
#[allow(unused_imports, missing_docs, reason = "the tests' connections, not their collectors")]
mod support;

use std::{
    fs,
    hint::black_box,
    io::{Read, Write},
    net::TcpListener,
    time::{Duration, Instant},
};

use tap_userspace::{
    config::environment::Environment,
    export::{Exporters, line},
    telemetry::{limits::Limits, log::Terms, resource::Resource, span},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 512;

fn main() {
    let environment = Environment::read(std::iter::empty::<(String, String)>()).unwrap();
    let frame = span::Frame::new(&Resource::detect(&environment), span::SCOPE);
    let limits = Limits::default();
    let plain: Vec<_> = (0..BATCH as u64).map(support::plain).collect();
    let tls: Vec<_> = (0..BATCH).map(|_| support::full()).collect();
    for (name, connections) in [("plain, 29 attributes, 5 events", &plain), ("TLS, IPv6", &tls)] {
        let mut out = Vec::new();
        measure(name, || {
            frame.begin(&mut out);
            for connection in connections {
                span::encode(black_box(connection), &limits, &mut out);
            }
            frame.finish(&mut out);
            out.len()
        });
    }
    let mut out = Vec::new();
    measure("JSON line of a plain one", || {
        out.clear();
        plain.iter().for_each(|connection| line::line(black_box(connection), &limits, &mut out));
        out.len()
    });
    whole();
}

/// CPU time of a task of this process.
fn on_cpu(task: &str) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{task}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// CPU time of this process's exporting threads.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let of_exporter = |path: &std::path::Path| {
        fs::read_to_string(path.join("comm")).is_ok_and(|name| name.starts_with("exporting"))
    };
    let nanos = tasks
        .map(|task| task.path())
        .filter(|path| of_exporter(path))
        .map(|path| fs::read_to_string(path.join("schedstat")).unwrap())
        .map(|stat| stat.split(' ').next().unwrap().parse::<u64>().unwrap());
    Duration::from_nanos(nanos.sum())
}

/// Reads requests and answers each with nothing.
fn receive(listener: TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let (mut stream, mut buffer, mut have) = (stream, vec![0; 1 << 20], Vec::new());
            let mut missing = 0;
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                let mut rest = &buffer[..count];
                if missing == 0 {
                    have.extend_from_slice(rest);
                    let text = String::from_utf8_lossy(&have);
                    let Some(end) = have.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                        continue;
                    };
                    let length = text.split("content-length: ").nth(1).unwrap();
                    missing = length.split('\r').next().unwrap().parse().unwrap();
                    missing -= have.len() - end - 4;
                    have.clear();
                    rest = &[];
                }
                missing -= rest.len();
                if missing == 0 {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                }
            }
        });
    }
}

fn whole() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || receive(listener));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("exporting")
        .enable_all()
        .build()
        .unwrap();
    let variables =
        [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str())];
    let environment = Environment::read(variables).unwrap();
    let resource = Resource::detect(&environment);
    let exporters =
        Exporters::start(&environment, resource, runtime.handle(), false, &Terms::default())
            .unwrap();
    let (sink, rounds) = (exporters.sink(), 2_000);
    let mut offering = Duration::ZERO;
    for round in 0..rounds {
        let batch: Vec<_> = (0..100).map(|n| support::plain(round * 100 + n)).collect();
        let before = on_cpu("thread-self");
        sink.offer(batch);
        offering += on_cpu("thread-self") - before;
        std::thread::sleep(Duration::from_micros(500));
    }
    let items = exporters.counters();
    runtime.block_on(exporters.shutdown(Instant::now() + Duration::from_secs(5)));
    let counts = items.items()[0].counts();
    println!(
        "exported {} of {}: {} ns of the exporter's CPU and {} ns of the offering thread a span",
        counts.exported,
        counts.produced,
        cpu().as_nanos() / u128::from(counts.exported.max(1)),
        offering.as_nanos() / u128::from(counts.produced),
    );
}

fn measure(name: &str, mut batch: impl FnMut() -> usize) {
    let (rounds, mut best, mut bytes) = (400, f64::MAX, 0);
    for _ in 0..rounds {
        let began = Instant::now();
        bytes = black_box(batch());
        best = best.min(began.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    println!("{name}: {best:.0} ns and {} bytes a span (best of {rounds})", bytes / BATCH);
}
