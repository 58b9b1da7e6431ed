//! What the kernel side looks at (`capture`), and a configuration file that is wrong.

use std::net::{TcpListener, TcpStream};

use anyhow::Result;
use tests::{
    netns::Pair,
    receiver::{Protocol, Receiver},
    span::Span,
    stage::{Session, apart},
    tap::Launch,
    wait::PATIENCE,
    workload::{Connected, Ends},
};

/// A connection between two namespaces, so not of the loopback net.
fn across(pair: &Pair) -> Result<Ends> {
    let listener = pair.right.run(|| Ok(TcpListener::bind((pair.address(2), 0))?))?;
    let to = listener.local_addr()?;
    let client = pair.left.run(|| Ok(TcpStream::connect(to)?))?;
    let mut connected = Connected::accepted(client, &listener)?;
    connected.send(10)?;
    connected.close()
}

/// Runs with `config`, makes a loopback connection and one between namespaces, and gives whether
/// the spans of [loopback client, loopback server, client, server] arrived.
fn seen_with(config: &str) -> Result<[bool; 4]> {
    let pair = Pair::new()?;
    let receiver = Receiver::start()?;
    let tap = Launch::new().config(config).exporting(&receiver, Protocol::Grpc).start()?;
    let mut connected = Connected::new()?;
    connected.send(10)?;
    let near = connected.close()?;
    let far = across(&pair)?;
    let spans = Session { tap, receiver }.finish()?.spans();
    let has = |local, peer| spans.iter().any(|span| span.is_between(local, peer));
    Ok([
        has(near.client, near.server),
        has(near.server, near.client),
        has(far.client, far.server),
        has(far.server, far.client),
    ])
}

#[test]
fn directions_and_loopback_are_chosen() {
    apart(|| {
        assert_eq!(seen_with("capture: { direction: all }\n")?, [true, true, true, true]);
        assert_eq!(seen_with("capture: { direction: egress }\n")?, [true, false, true, false]);
        assert_eq!(seen_with("capture: { direction: ingress }\n")?, [false, true, false, true]);
        assert_eq!(seen_with("capture: { loopback: false }\n")?, [false, false, true, true]);
        Ok(())
    });
}

#[test]
fn its_own_connections_are_traced_when_asked_for() {
    apart(|| {
        let receiver = Receiver::start()?;
        let launch = Launch::new().config("capture: { self: true }\n");
        let tap = launch.exporting(&receiver, Protocol::Grpc).start()?;
        receiver.both(Connected::new()?.close()?)?;
        let pid = i64::from(tap.pid());
        let port = receiver.address(Protocol::Grpc).port();
        tap.stop()?.check()?;
        let own = |span: &Span| span.pid() == Some(pid) && span.has_port(port);
        // It is open at the end, and itself the way on which it is told.
        receiver.wait_for("tap's own export connection", 1, PATIENCE, own).map(drop)
    });
}

#[test]
fn a_wrong_configuration_is_exit_2_with_its_place() {
    apart(|| {
        for (config, place) in [
            ("capture:\n  colour: red\n", "tap.yaml:2:3: capture: unknown field `colour`"),
            ("capture:\n  loopback: perhaps\n", "tap.yaml:2:13: capture.loopback: "),
            ("capture: [\n", "tap.yaml:"),
        ] {
            let ended = Launch::new().config(config).run()?;
            assert_eq!(ended.code(), 2, "{config}: {}", ended.log());
            assert!(ended.log().contains("tap.yaml"), "{}", ended.log());
            assert!(ended.log().contains(place), "{place} is not in: {}", ended.log());
        }
        Ok(())
    });
}
