//! The configuration file's settings that change spans.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tests::{
    expect::Both,
    stage::{Session, apart},
    tap::Launch,
    wait::PATIENCE,
    workload::{Connected, client_hello, silence},
};

fn with(config: &str) -> Result<Session> {
    Session::with(&Launch::new().config(config))
}

/// Both spans of one connection under `config`.
fn one_with(config: &str) -> Result<Both> {
    let session = with(config)?;
    let mut connected = Connected::new()?;
    connected.send(10)?;
    let both = session.receiver.both(connected.close()?)?;
    session.finish()?;
    Ok(both)
}

#[test]
fn random_trace_ids_tie_nothing() {
    apart(|| {
        let both = one_with("trace: { identity: random }\n")?;
        assert_ne!(both.client.trace_id, both.server.trace_id);
        assert!(both.client.links.is_empty() && both.server.links.is_empty());
        Ok(())
    });
}

#[test]
fn xray_trace_ids_begin_with_the_time() {
    apart(|| {
        let both = one_with("trace: { identity: xray }\n")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        for span in [&both.client, &both.server] {
            let time = u64::from_str_radix(&span.trace_id[..8], 16)?;
            assert!(now.abs_diff(time) < 120, "{} at {now}", span.trace_id);
        }
        Ok(())
    });
}

#[test]
fn a_key_changes_the_ids_and_ties_all_the_same() {
    apart(|| {
        // The same connection under two daemons, one with a key.
        let plain = Session::start()?;
        let keyed = with("trace: { key: secret }\n")?;
        let ends = Connected::new()?.close()?;
        let (plain_spans, keyed_spans) = (plain.receiver.both(ends)?, keyed.receiver.both(ends)?);
        assert_ne!(plain_spans.client.trace_id, keyed_spans.client.trace_id);
        assert_eq!(keyed_spans.client.trace_id, keyed_spans.server.trace_id);
        keyed.finish()?;
        plain.finish().map(drop)
    });
}

/// Which of two connections, the first to a port of its own, are seen under rules about that
/// port.
fn seen_with_rules(rules: impl Fn(SocketAddr) -> String) -> Result<[bool; 2]> {
    let listeners = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0"));
    let [first, second] = listeners;
    let (first, second) = (first?, second?);
    let session = with(&rules(first.local_addr()?))?;
    let first = Connected::to(&first)?.close()?;
    let second = Connected::to(&second)?.close()?;
    let spans = session.finish()?.spans();
    Ok([first, second].map(|ends| {
        let seen = |local, peer| spans.iter().any(|span| span.is_between(local, peer));
        let (client, server) = (seen(ends.client, ends.server), seen(ends.server, ends.client));
        assert_eq!(client, server, "one end only");
        client
    }))
}

#[test]
fn rules_on_ports_and_prefixes_choose_connections() {
    apart(|| {
        let only =
            |at: SocketAddr| format!("capture: {{ include: [{{ port: {} }}] }}\n", at.port());
        assert_eq!(seen_with_rules(only)?, [true, false]);
        let not = |at: SocketAddr| format!("capture: {{ exclude: [{{ port: {} }}] }}\n", at.port());
        assert_eq!(seen_with_rules(not)?, [false, true]);
        let both = |at: SocketAddr| {
            format!(
                "capture: {{ include: [{{ cidr: 127.0.0.0/8 }}], exclude: [{{ port: {} }}] }}\n",
                at.port()
            )
        };
        assert_eq!(seen_with_rules(both)?, [false, true]);
        let none = |_| "capture: { include: [{ cidr: 192.0.2.0/24 }] }\n".to_owned();
        assert_eq!(seen_with_rules(none)?, [false, false]);
        Ok(())
    });
}

#[test]
fn a_longer_head_reads_a_longer_hello() {
    apart(|| {
        use std::io::{Read, Write};
        let session = with("capture: { payload: { head_bytes: 16KiB } }\n")?;
        let hello = client_hello("long.example", &["h2"], 9000);
        let mut connected = Connected::new()?;
        // Of one segment no more than 4 KiB is copied, and on the loopback a segment has 64.
        for piece in hello.chunks(4000) {
            connected.client.write_all(piece)?;
            connected.server.read_exact(&mut vec![0; piece.len()])?;
        }
        let both = session.receiver.both(connected.close()?)?;
        both.assert_whole();
        assert_eq!(both.server.str("server.address"), "long.example", "{:#?}", both.server);
        session.finish().map(drop)
    });
}

#[test]
fn a_long_connection_is_told_in_segments_of_one_trace() {
    apart(|| {
        let session = with("connection: { max_age: 2s }\n")?;
        let mut connected = Connected::new()?;
        connected.send(100)?;
        // Segments end when the daemon next looks at all that is open, every ten seconds.
        let ends = connected.ends;
        let first = session.receiver.wait_for("the first segment", 2, 2 * PATIENCE, |span| {
            span.is_between(ends.client, ends.server) || span.is_between(ends.server, ends.client)
        })?;
        connected.send(30)?;
        connected.answer(40)?;
        connected.close()?;
        silence(Duration::from_millis(300));
        let spans = session.finish()?.spans();
        let mut of_client: Vec<_> =
            spans.iter().filter(|span| span.is_between(ends.client, ends.server)).collect();
        of_client.sort_by_key(|span| span.int("tap.connection.segment"));
        assert_eq!(first[0].state(), "open");
        assert!(of_client.len() >= 2);
        for (number, span) in of_client.iter().enumerate() {
            tests::expect::sound(span)?;
            assert_eq!(span.int("tap.connection.segment"), number as i64);
            assert_eq!(span.trace_id, of_client[0].trace_id);
            assert_eq!(span.str("connection.id"), of_client[0].str("connection.id"));
        }
        assert_ne!(of_client[0].span_id, of_client[1].span_id);
        let sent: i64 = of_client.iter().map(|span| span.bytes().0).sum();
        let received: i64 = of_client.iter().map(|span| span.bytes().1).sum();
        assert_eq!((sent, received), (130, 40), "{of_client:#?}");
        assert_eq!(of_client[of_client.len() - 1].state(), "closed");
        Ok(())
    });
}

#[test]
fn a_full_table_lets_the_oldest_go_and_counts_it() {
    apart(|| {
        let session = with("connection: { table_size: 16 }\n")?;
        let mut open: Vec<Connected> = (0..20).map(|_| Connected::new()).collect::<Result<_>>()?;
        for connected in &mut open {
            connected.send(10)?;
        }
        // Forty ends in a table for sixteen: the first ones were exported as they were.
        let ends = open[0].ends;
        let span = session.receiver.client(ends)?;
        assert_eq!(span.state(), "open", "{span:#?}");
        assert!(!span.quality().is_empty(), "{span:#?}");
        drop(open);
        session.finish().map(drop)
    });
}
