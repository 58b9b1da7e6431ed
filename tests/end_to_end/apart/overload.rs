//! Many connections, and a daemon that cannot keep up: opens and closes are not lost, data goes
//! first, and what is lost is counted to the unit and marked.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use tests::{
    expect::sound,
    span::Span,
    stage::{Session, apart},
    tap::{Accounting, Ended, Launch},
    wait::{PATIENCE, until_true},
    workload::{Connected, Pace, Quick, quick_connections},
};

/// Time for the exporter to bring what a burst has left.
const BURST: Duration = Duration::from_secs(60);

/// Waits for `count` spans of the server's `port`, and stops the daemon: there are no more.
fn collect(session: Session, port: u16, count: usize) -> Result<(Vec<Arc<Span>>, Accounting)> {
    let of_port = |span: &Span| span.has_port(port);
    session.receiver.wait_for("the burst's spans", count, BURST, of_port)?;
    let Session { tap, receiver } = session;
    let ended: Ended = tap.stop()?;
    let accounting = ended.check()?;
    let spans: Vec<_> = receiver.spans().into_iter().filter(|span| of_port(span)).collect();
    assert_eq!(spans.len(), count);
    assert_eq!(receiver.arrived(), accounting.spans("exported"));
    Ok((spans, accounting))
}

fn assert_no_life_lost(accounting: &Accounting) {
    for kind in ["open", "owner", "close"] {
        assert_eq!(accounting.record(kind, "dropped"), 0, "{kind}: {accounting:?}");
    }
}

/// Each span has its bytes, whatever was lost of its events.
fn assert_bytes(spans: &[Arc<Span>], quick: Quick) -> Result<()> {
    for span in spans {
        sound(span)?;
        let (sent, received) = match span.str("connection.direction") {
            "egress" => span.bytes(),
            _ => (span.bytes().1, span.bytes().0),
        };
        assert_eq!((sent, received), (quick.request as i64, quick.answer as i64), "{span:#?}");
        assert_eq!(span.state(), "closed");
    }
    Ok(())
}

#[test]
fn five_thousand_quick_connections_are_ten_thousand_spans() {
    apart(|| {
        let session = Session::start()?;
        let quick = Quick { count: 5000, pace: Pace::Full, request: 100, answer: 1000 };
        let port = quick_connections(quick)?;
        let (spans, accounting) = collect(session, port, 10_000)?;
        assert_bytes(&spans, quick)?;
        assert_no_life_lost(&accounting);
        assert_eq!(accounting.record("data", "dropped"), 0);
        assert_eq!(accounting.spans("dropped"), 0);
        let pid = i64::from(std::process::id());
        for span in &spans {
            assert!(span.quality().is_empty(), "{span:#?}");
            assert_eq!(span.pid(), Some(pid), "{span:#?}");
            assert_eq!(span.turns().len(), 2);
        }
        Ok(())
    });
}

#[test]
fn a_daemon_stopped_for_five_seconds_loses_no_open_and_no_close() {
    apart(|| {
        let session = Session::start()?;
        session.tap.signal(libc::SIGSTOP)?;
        let quick = Quick { count: 10_000, pace: Pace::PerSecond(2000), request: 50, answer: 50 };
        let port = quick_connections(quick);
        session.tap.signal(libc::SIGCONT)?;
        let (spans, accounting) = collect(session, port?, 20_000)?;
        assert_no_life_lost(&accounting);
        assert_bytes(&spans, quick)
    });
}

/// Every span is whole or says that it is not; how many say so.
fn count_marked(spans: &[Arc<Span>]) -> u64 {
    const LOSS: [&str; 3] = ["lost_events", "gap", "truncated"];
    let marked = |span: &&Arc<Span>| LOSS.iter().any(|mark| span.marked(mark));
    for span in spans.iter().filter(|span| !marked(span)) {
        assert_eq!(span.turns().len(), 2, "{span:#?}");
    }
    spans.iter().filter(marked).count() as u64
}

#[test]
fn payload_is_shed_before_turns_and_every_span_concerned_is_marked() {
    apart(|| {
        let session = Session::start()?;
        // Heads of 4 KiB in both directions at both ends: 64 MB for a data ring of 16 MiB.
        session.tap.signal(libc::SIGSTOP)?;
        let quick = Quick { count: 4000, pace: Pace::PerSecond(2000), request: 5000, answer: 5000 };
        let port = quick_connections(quick);
        session.tap.signal(libc::SIGCONT)?;
        let (spans, accounting) = collect(session, port?, 8000)?;
        assert_no_life_lost(&accounting);
        assert_bytes(&spans, quick)?;
        assert_eq!(accounting.record("data", "dropped"), 0, "the turns had room");
        let shed = accounting.kernel_event("payload_shed");
        let marked = count_marked(&spans);
        assert!(shed > 0 && (1..=shed).contains(&marked), "{shed} shed, {marked} marked");
        Ok(())
    });
}

#[test]
fn turns_are_shed_before_life_and_the_loss_is_counted_to_the_unit() {
    apart(|| {
        let small = "rings: { data: 64KiB }\n";
        let session = Session::with(&Launch::new().config(small))?;
        session.tap.signal(libc::SIGSTOP)?;
        let quick = Quick { count: 2000, pace: Pace::Full, request: 100, answer: 100 };
        let port = quick_connections(quick);
        session.tap.signal(libc::SIGCONT)?;
        let (spans, accounting) = collect(session, port?, 4000)?;
        assert_no_life_lost(&accounting);
        assert_bytes(&spans, quick)?;
        let (lost, marked) = (accounting.record("data", "dropped"), count_marked(&spans));
        let shed = accounting.kernel_event("payload_shed");
        assert!(lost > 0 && (1..=lost + shed).contains(&marked), "{lost} lost, {marked} marked");
        // Two turns at each end, and each either came or is counted.
        assert!(accounting.record("data", "seen") >= 8000, "{accounting:?}");
        Ok(())
    });
}

/// Whether tap tells a new connection as it was.
fn whole_connection(session: &Session) -> Result<bool> {
    let mut connected = Connected::new()?;
    connected.send(1)?;
    let both = session.receiver.both(connected.close()?)?;
    Ok(both.client.quality().is_empty() && both.server.quality().is_empty())
}

#[test]
fn beyond_the_life_ring_the_loss_is_counted_and_what_is_left_is_marked() {
    apart(|| {
        let small = "rings: { life: 64KiB }\n";
        let session = Session::with(&Launch::new().config(small))?;
        session.tap.signal(libc::SIGSTOP)?;
        let quick = Quick { count: 2000, pace: Pace::Full, request: 100, answer: 100 };
        let port = quick_connections(quick);
        session.tap.signal(libc::SIGCONT)?;
        let port = port?;
        // It works on afterwards.
        until_true("a whole connection", PATIENCE, || whole_connection(&session).unwrap_or(false))?;
        let receiver = session.finish_with(|accounting| {
            let lost = |kind: &str| accounting.record(kind, "dropped");
            assert!(lost("open") + lost("close") > 0, "{accounting:?}");
        })?;
        let spans = receiver.spans().into_iter().filter(|span| span.has_port(port));
        for span in spans {
            sound(&span)?;
            let whole = span.turns().len() == 2 && span.pid().is_some();
            assert!(whole || !span.quality().is_empty(), "{span:#?}");
        }
        Ok(())
    });
}
