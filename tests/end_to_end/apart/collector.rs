//! A collector that is away, slow or unwilling.

use std::time::{Duration, Instant};

use anyhow::Result;
use tests::{
    receiver::{Fault, Protocol, Receiver},
    stage::{Session, apart},
    tap::Launch,
    wait::{PATIENCE, until_true},
    workload::{Connected, Ends, deaf_port, silence},
};

fn connections(count: usize) -> Result<Vec<Ends>> {
    (0..count).map(|_| Connected::new()?.close()).collect()
}

#[test]
fn an_unreachable_collector_stops_nothing_and_is_said_once() {
    apart(|| {
        for protocol in Protocol::ALL {
            let tap = Launch::new()
                .env("OTEL_TRACES_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", deaf_port()?))
                .env("OTEL_BSP_SCHEDULE_DELAY", "50")
                .start()?;
            connections(10)?;
            until_true("the spans in the metrics", PATIENCE, || {
                tap.metrics().is_ok_and(|it| {
                    it.count("tap_items_produced_total", &["signal=\"traces\""]) >= 20
                })
            })?;
            // Long enough for several attempts.
            silence(Duration::from_secs(2));
            connections(10)?;
            assert_eq!(tap.get("/livez")?.status, 200);
            assert_eq!(tap.get("/readyz")?.status, 200);
            let metrics = tap.metrics()?;
            assert_eq!(metrics.count("tap_items_exported_total", &["signal=\"traces\""]), 0);
            let ended = tap.stop()?;
            let accounting = ended.check()?;
            assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
            assert_eq!(accounting.spans("exported"), 0);
            assert!(accounting.spans("dropped") >= 40, "{accounting:?}");
            // Once a minute; the end may say what became of the rest.
            let warnings = ended.stderr.iter().filter(|line| line.contains("WARN")).count();
            assert!((1..=3).contains(&warnings), "{}", ended.log());
        }
        Ok(())
    });
}

#[test]
fn a_collector_that_comes_back_gets_everything_once() {
    apart(|| {
        for protocol in Protocol::ALL {
            let receiver = Receiver::start()?;
            (0..2).for_each(|_| receiver.fail_next(Fault::Unavailable));
            let tap = Launch::new().exporting(&receiver, protocol).start()?;
            for ends in connections(5)? {
                receiver.both(ends)?;
            }
            Session { tap, receiver }.finish()?;
        }
        Ok(())
    });
}

#[test]
fn a_batch_that_is_rejected_is_counted_and_not_sent_again() {
    apart(|| {
        for protocol in Protocol::ALL {
            let receiver = Receiver::start()?;
            let tap = Launch::new().exporting(&receiver, protocol).start()?;
            receiver.fail_next(Fault::Rejected);
            let lost = Connected::new()?.close()?;
            until_true("the rejection to be counted", PATIENCE, || {
                tap.metrics().is_ok_and(|it| {
                    it.count("tap_items_rejected_total", &["signal=\"traces\""]) > 0
                        || it.count("tap_items_dropped_total", &["signal=\"traces\""]) > 0
                })
            })?;
            receiver.both(Connected::new()?.close()?)?;
            let receiver = Session { tap, receiver }.finish()?;
            let again =
                receiver.spans().into_iter().any(|it| it.is_between(lost.client, lost.server));
            assert!(!again, "{protocol:?}: a rejected span was sent again");
        }
        Ok(())
    });
}

#[test]
fn a_partial_success_is_believed() {
    apart(|| {
        let receiver = Receiver::start()?;
        receiver.fail_next(Fault::Partial(1));
        let tap = Launch::new().exporting(&receiver, Protocol::HttpProtobuf).start()?;
        receiver.both(Connected::new()?.close()?)?;
        let accounting = tap.stop()?.check()?;
        assert_eq!(accounting.spans("rejected"), 1, "{accounting:?}");
        let arrived = receiver.arrived();
        assert_eq!(accounting.spans("exported"), arrived - 1);
        Ok(())
    });
}

#[test]
fn a_slow_collector_does_not_hold_the_daemon_at_its_end() {
    apart(|| {
        let receiver = Receiver::start()?;
        let tap = Launch::new().exporting(&receiver, Protocol::Grpc).start()?;
        (0..50).for_each(|_| receiver.fail_next(Fault::Late(Duration::from_secs(30))));
        connections(5)?;
        silence(Duration::from_millis(300));
        let asked = Instant::now();
        let ended = tap.stop()?;
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
        ended.check().map(drop)
    });
}
