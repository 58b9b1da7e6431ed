//! Start and end of the daemon.

use std::{net::TcpListener, time::Duration};

use anyhow::Result;
use tests::{
    bpf::census::{Objects, attached},
    receiver::{Protocol, Receiver},
    span::Status,
    stage::{Session, apart},
    tap::{Launch, free_port},
    wait::{PATIENCE, until_true},
    workload::Connected,
};

/// SPEC §2: it leaves within 5 s.
const LEAVE: Duration = Duration::from_secs(5);

#[test]
fn sigterm_flushes_open_connections_with_their_bytes_so_far() {
    apart(|| {
        for signal in [libc::SIGTERM, libc::SIGINT] {
            let Session { tap, receiver } = Session::start()?;
            let mut open: Vec<Connected> =
                (0..20).map(|_| Connected::new()).collect::<Result<_>>()?;
            for (number, connected) in open.iter_mut().enumerate() {
                connected.send(1000 + number)?;
                connected.answer(number * 70_000)?;
            }
            let ended = tap.stop_by(signal)?;
            ended.check()?;
            assert!(ended.took < LEAVE, "{:?}", ended.took);
            for (number, connected) in open.iter().enumerate() {
                let both = receiver.both(connected.ends)?;
                both.assert_bytes(1000 + number as u64, number as u64 * 70_000);
                both.assert_state("open");
                both.assert_whole();
                both.assert_tied();
                assert_eq!(both.client.status, Status::Unset);
            }
        }
        Ok(())
    });
}

#[test]
fn kill_leaves_no_program_link_or_attachment() {
    apart(|| {
        let Session { tap, receiver } = Session::start()?;
        receiver.both(Connected::new()?.close()?)?;
        let objects = Objects::of_process(tap.pid())?;
        assert!(!objects.programs.is_empty() && !objects.links.is_empty(), "{objects:?}");
        assert!(!objects.programs.is_disjoint(&attached()?), "nothing at the cgroup root");
        tap.kill()?;
        until_true("tap's programs to go", PATIENCE, || {
            objects.alive().is_empty()
                && attached().is_ok_and(|left| left.is_disjoint(&objects.programs))
        })
    });
}

#[test]
fn an_orderly_end_leaves_nothing_either() {
    apart(|| {
        let Session { tap, receiver: _receiver } = Session::start()?;
        let objects = Objects::of_process(tap.pid())?;
        tap.stop()?.check()?;
        until_true("tap's programs to go", PATIENCE, || objects.alive().is_empty())
    });
}

#[test]
fn a_taken_admin_port_ends_it_before_anything_is_attached() {
    apart(|| {
        let taken = TcpListener::bind("127.0.0.1:0")?;
        let before = attached()?;
        let ended = Launch::new().admin(&taken.local_addr()?.to_string()).run()?;
        assert_eq!(ended.code(), 1, "{}", ended.log());
        assert!(ended.log().contains("--admin"), "{}", ended.log());
        assert!(attached()?.is_subset(&before));
        Ok(())
    });
}

#[test]
fn the_admin_server_can_be_a_unix_socket() {
    apart(|| {
        let session = Session::with(&Launch::new().admin_on_unix())?;
        assert_eq!(session.tap.get("/livez")?.status, 200);
        session.finish().map(drop)
    });
}

#[test]
fn mistakes_in_the_command_line_are_exit_2() {
    apart(|| {
        for arguments in [&["run", "--no-such-flag"][..], &["walk"], &["replay"]] {
            let ended = Launch::of(arguments).run()?;
            assert_eq!(ended.code(), 2, "{arguments:?}: {}", ended.log());
        }
        assert_eq!(Launch::of(&["--version"]).run()?.code(), 0);
        Ok(())
    });
}

#[test]
fn check_finds_this_host_fit() {
    apart(|| {
        let ended = Launch::of(&["check"]).run()?;
        let said = ended.stdout.join("\n");
        assert_eq!(ended.code(), 0, "{said}\n{}", ended.log());
        for word in ["cgroup", "BTF", "sock_ops"] {
            assert!(said.contains(word), "{word} is not in:\n{said}");
        }
        Ok(())
    });
}

#[test]
fn check_tells_whether_each_endpoint_is_reachable() {
    apart(|| {
        let receiver = Receiver::start()?;
        let there = receiver.endpoint(Protocol::HttpProtobuf);
        let gone = format!("http://127.0.0.1:{}", free_port()?);
        for (endpoint, code, word) in
            [(&there, 0, "is reachable at"), (&gone, 1, "is not reachable")]
        {
            let launch = Launch::of(&["check"])
                .env("OTEL_TRACES_EXPORTER", "otlp")
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
            let ended = launch.run()?;
            let said = ended.stdout.join("\n");
            assert_eq!(ended.code(), code, "{said}\n{}", ended.log());
            assert!(said.contains(word), "{word} is not in:\n{said}");
        }
        Ok(())
    });
}
