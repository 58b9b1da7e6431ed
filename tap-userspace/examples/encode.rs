//! Measures what a span costs to encode: `cargo run --release --example encode -p tap-userspace`.

#[path = "../tests/support/mod.rs"]
#[allow(unused_imports, missing_docs, reason = "the tests' connections, not their collectors")]
mod support;

use std::{hint::black_box, time::Instant};

use tap_userspace::{
    config::environment::Environment,
    export::line,
    telemetry::{limits::Limits, resource::Resource, span},
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
