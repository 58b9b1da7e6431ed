//! Two daemons on one host.

use tests::{
    receiver::{Protocol, Receiver},
    stage::{Session, apart},
    tap::Launch,
    workload::Connected,
};

/// Starts a second daemon beside `first`, and gives both spans of a connection from both.
fn beside(launch: &Launch, takeover: bool) -> anyhow::Result<()> {
    let first = Session::start()?;
    let receiver = Receiver::start()?;
    let second = launch.clone().exporting(&receiver, Protocol::Grpc).start()?;
    let warned = second.log().with("nother tap");
    assert!(!warned.is_empty(), "{}", second.log().text());
    assert!(first.tap.log().with("nother tap").is_empty());

    let mut connected = Connected::new()?;
    connected.send(100)?;
    connected.answer(200)?;
    let ends = connected.close()?;
    let (one, two) = (first.receiver.both(ends)?, receiver.both(ends)?);
    for both in [&one, &two] {
        both.assert_bytes(100, 200);
        both.assert_state("closed");
        both.assert_whole();
    }
    one.assert_tied();
    assert_eq!(one.client.trace_id, two.client.trace_id);
    let same = one.client.span_id == two.client.span_id;
    assert_eq!(same, takeover, "{} and {}", one.client.span_id, two.client.span_id);
    assert_ne!(one.client.str("connection.id"), two.client.str("connection.id"));
    first.finish()?;
    Session { tap: second, receiver }.finish().map(drop)
}

#[test]
fn the_second_says_so_and_takes_span_ids_of_its_own() {
    apart(|| beside(&Launch::new(), false));
}

#[test]
fn a_takeover_derives_the_same_span_ids() {
    apart(|| beside(&Launch::of(&["run", "--takeover"]), true));
}
