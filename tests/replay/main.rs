//! Everything behind the kernel, over recordings that no kernel made: the records of lost, late,
//! doubled and senseless events, in the order a test wants. Needs no privileges.

mod film;

use std::{net::Ipv4Addr, sync::Arc};

use anyhow::{Result, ensure};
use tests::{
    expect::sound,
    receiver::{Protocol, Receiver},
    span::Span,
    tap::Launch,
};

use film::{End, Film, OFFSET, SECOND};

/// The spans of a film, sorted by their begin; the replay succeeds.
fn spans(film: Film) -> Result<Vec<Arc<Span>>> {
    let (path, _home) = film.finish()?;
    let receiver = Receiver::start()?;
    let launch = Launch::of(&["replay", &path.display().to_string()]);
    let ended = launch.exporting(&receiver, Protocol::HttpProtobuf).run()?;
    ensure!(ended.code() == 0, "exit {}: {}", ended.code(), ended.log());
    let mut spans = receiver.spans();
    spans.iter().try_for_each(|span| sound(span))?;
    spans.sort_by_key(|span| span.start_ns);
    Ok(spans)
}

/// The only span of a film.
fn span(film: Film) -> Result<Arc<Span>> {
    let spans = spans(film)?;
    ensure!(spans.len() == 1, "{} spans: {spans:#?}", spans.len());
    Ok(Arc::clone(&spans[0]))
}

#[test]
fn a_plain_connection() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.open());
    film.record(&end.sends(2 * SECOND, b"GET / HTTP/1.1\r\n\r\n"));
    film.record(&end.close(3 * SECOND, 18, [2, 0, 1]));
    film.tick();
    let span = span(film)?;
    assert_eq!((span.bytes(), span.state()), ((18, 0), "closed"));
    assert_eq!(span.start_ns, OFFSET as u64 + SECOND);
    assert_eq!(span.end_ns, OFFSET as u64 + 3 * SECOND);
    assert_eq!(span.str("network.protocol.name"), "http");
    assert_eq!(span.quality(), ["no_owner"]);
    Ok(())
}

#[test]
fn a_step_of_the_wall_clock_moves_no_end_before_its_begin() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.open());
    film.tick();
    // An hour back, as NTP may do it.
    film.clock(2 * SECOND, OFFSET - 3600 * SECOND as i64);
    film.record(&end.sends(2 * SECOND, b"late"));
    film.record(&end.close(3 * SECOND, 4, [2, 0, 1]));
    film.tick();
    let span = span(film)?;
    assert_eq!(span.end_ns - span.start_ns, 2 * SECOND);
    assert_eq!(span.turns()[0].time_ns - span.start_ns, SECOND);
    Ok(())
}

#[test]
fn a_lost_open_is_made_up_for_by_the_close() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.sends(2 * SECOND, b"hello"));
    film.record(&end.close(3 * SECOND, 5, [2, 0, 1]));
    film.tick();
    let span = span(film)?;
    assert_eq!((span.bytes(), span.state()), ((5, 0), "closed"));
    assert_eq!(span.start_ns, OFFSET as u64 + SECOND);
    assert!(span.marked("lost_events"), "{span:#?}");
    Ok(())
}

#[test]
fn lost_data_leaves_the_bytes_and_a_mark() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.open());
    film.record(&end.close(3 * SECOND, 5, [2, 0, 1]));
    film.tick();
    // What is missing may only be late: it is waited for a moment.
    film.clock(60 * SECOND, OFFSET);
    film.tick();
    let span = span(film)?;
    assert_eq!(span.bytes(), (5, 0));
    assert!(span.marked("lost_events"), "{span:#?}");
    Ok(())
}

#[test]
fn data_behind_its_close_is_not_lost() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.open());
    film.record(&end.close(3 * SECOND, 5, [2, 0, 1]));
    film.record(&end.sends(2 * SECOND, b"hello"));
    film.tick();
    let span = span(film)?;
    assert_eq!(span.turns().len(), 1);
    assert!(!span.marked("lost_events"), "{span:#?}");
    Ok(())
}

#[test]
fn a_lost_close_leaves_an_open_span_at_the_end() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    film.record(&end.open());
    film.record(&end.sends(2 * SECOND, b"hello"));
    film.tick();
    let span = span(film)?;
    assert_eq!(span.state(), "open");
    // How long its last turn became nobody told; if it is not said, it must be marked.
    assert!(span.bytes() == (5, 0) || span.marked("lost_events"), "{span:#?}");
    Ok(())
}

#[test]
fn one_socket_twice_is_two_spans() -> Result<()> {
    let mut film = Film::new();
    let first = End::client(7);
    let second = End {
        generation: 1,
        opened_ns: 4 * SECOND,
        numbers: (5, 6),
        local: (Ipv4Addr::new(10, 0, 0, 1), 40_001),
        ..first
    };
    film.record(&first.open());
    film.record(&first.close(3 * SECOND, 0, [2, 0, 0]));
    film.record(&second.open());
    film.record(&second.sends(5 * SECOND, b"again"));
    film.record(&second.close(6 * SECOND, 5, [2, 0, 1]));
    film.tick();
    let spans = spans(film)?;
    let bytes: Vec<_> = spans.iter().map(|span| span.bytes().0).collect();
    assert_eq!(bytes, [0, 5], "{spans:#?}");
    assert_ne!(spans[0].trace_id, spans[1].trace_id);
    assert_eq!(spans[0].int("connection.cookie"), spans[1].int("connection.cookie"));
    Ok(())
}

#[test]
fn senseless_records_harm_no_others() -> Result<()> {
    let (end, mut film) = (End::client(7), Film::new());
    let whole = end.sends(2 * SECOND, b"hello");
    film.record(&[]);
    film.record(&[0xff; 3]);
    film.record(&[0xff; 4096]);
    film.record(&end.open());
    for len in 0..whole.len() {
        film.record(&whole[..len]);
    }
    let mut longer = whole.clone();
    longer[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    film.record(&longer);
    film.record(&whole);
    film.record(&end.close(3 * SECOND, 5, [2, 0, 1]));
    film.tick();
    let span = span(film)?;
    assert_eq!(span.bytes(), (5, 0));
    assert_eq!(span.turns().len(), 1);
    Ok(())
}

#[test]
fn two_hosts_that_never_met_agree_on_the_trace_through_address_translation() -> Result<()> {
    let client = End::client(7);
    // The server sees a gateway's address and port; the sequence numbers are the same.
    let server = End {
        cookie: 99,
        active: false,
        local: (Ipv4Addr::new(192, 168, 7, 7), 8443),
        remote: (Ipv4Addr::new(203, 0, 113, 9), 1025),
        numbers: (client.numbers.1, client.numbers.0),
        opened_ns: 500 * SECOND,
        ..client
    };
    let [client, server] = [client, server].map(|end| {
        let mut film = Film::new();
        film.clock(end.opened_ns, OFFSET);
        film.record(&end.open());
        film.record(&end.close(end.opened_ns + SECOND, 0, [2, 0, 0]));
        film.tick();
        span(film)
    });
    tests::expect::Both { client: client?, server: server? }.assert_tied();
    Ok(())
}

#[test]
fn a_replay_gives_the_same_again() -> Result<()> {
    let film = || {
        let mut film = Film::new();
        for number in 0..500 {
            let end = End { numbers: (number, number + 1), ..End::client(u64::from(number) + 1) };
            film.record(&end.open());
            film.record(&end.close(2 * SECOND, 0, [2, 0, 0]));
        }
        film.tick();
        film
    };
    let ids = |film| -> Result<Vec<_>> {
        let mut ids: Vec<_> =
            spans(film)?.iter().map(|it| (it.trace_id.clone(), it.span_id.clone())).collect();
        ids.sort();
        ids.dedup();
        Ok(ids)
    };
    let first = ids(film())?;
    assert_eq!(first.len(), 500);
    assert_eq!(first, ids(film())?);
    Ok(())
}
