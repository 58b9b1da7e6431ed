//! The admin server.

use anyhow::Result;
use tests::{
    stage::together,
    wait::{PATIENCE, until_true},
    workload::Connected,
};

#[test]
fn it_lives_and_is_ready() {
    together(|on| {
        assert_eq!(on.tap.get("/livez")?.status, 200);
        assert_eq!(on.tap.get("/readyz")?.status, 200);
        assert_eq!(on.tap.get("/nothing-here")?.status, 404);
        Ok(())
    });
}

#[test]
fn metrics_hold_both_identities() {
    together(|on| {
        on.receiver.both(Connected::new()?.close()?)?;
        // They are published now and then.
        until_true("the connection in the metrics", PATIENCE, || {
            on.tap.metrics().is_ok_and(|it| {
                it.count("tap_records_seen_total", &["kind=\"close\""]) >= 2
                    && it.count("tap_items_exported_total", &["signal=\"traces\""]) >= 2
            })
        })?;
        let metrics = on.tap.metrics()?;
        for kind in ["open", "owner", "data", "close", "exec", "fork", "exit"] {
            let label = [&*format!("kind=\"{kind}\"")];
            let of = |term: &str| metrics.count(&format!("tap_records_{term}_total"), &label);
            assert!(metrics.has("tap_records_seen_total", &label), "{kind}");
            assert_eq!(of("seen"), of("delivered") + of("dropped") + of("in_ring"), "{kind}");
        }
        let of =
            |term: &str| metrics.count(&format!("tap_items_{term}_total"), &["signal=\"traces\""]);
        let parts = ["exported", "filtered", "sampled", "refused", "rejected", "dropped", "held"];
        let sum: u64 = parts.into_iter().map(of).sum();
        assert_eq!(of("produced") + of("recovered"), sum + of("queued"));
        Ok(())
    });
}

#[test]
fn metrics_are_in_the_prometheus_format() {
    together(|on| {
        let text = on.tap.get("/metrics")?.body;
        let families: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(!families.is_empty());
        for family in &families {
            let (name, kind) = family.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{family}");
            assert_eq!(families.iter().filter(|it| it.starts_with(&format!("{name} "))).count(), 1);
            assert!(text.contains(&format!("# HELP {name} ")), "{family}");
        }
        samples_are_numbers(&text)
    });
}

fn samples_are_numbers(text: &str) -> Result<()> {
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (_, value) = line.rsplit_once(' ').expect("a series and a value");
        value.parse::<f64>()?;
    }
    Ok(())
}
