//! `tap record` and `tap replay`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::{
    receiver::{Protocol, Receiver},
    span::Span,
    stage::{Session, apart},
    sys,
    tap::{Ended, Launch},
    workload::{Connected, client_hello, deaf_port},
};

/// A recording of some connections, and the spans that tap made of them live.
struct Recorded {
    file: PathBuf,
    live: Vec<Arc<Span>>,
    home: TempDir,
}

fn record() -> Result<Recorded> {
    let home = tempfile::tempdir()?;
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
    let file = home.path().join("recording");
    let older = Connected::new()?;
    let receiver = Receiver::start()?;
    let launch = Launch::of(&["record", &file.display().to_string()]);
    let tap = launch.exporting(&receiver, Protocol::Grpc).start()?;
    let kept_open = traffic(older)?;
    let receiver = Session { tap, receiver }.finish()?;
    drop(kept_open);
    let mode = fs::metadata(&file)?.permissions().mode();
    ensure!(mode & 0o077 == 0, "others may read the payload in the recording: {mode:o}");
    Ok(Recorded { file, live: receiver.spans(), home })
}

/// Connections of many kinds; gives those that stay open.
fn traffic(mut older: Connected) -> Result<Connected> {
    use std::io::{Read, Write};
    older.send(50)?;
    older.close()?;
    for round in 1..=10 {
        let mut connected = Connected::new()?;
        connected.send(100 * round)?;
        connected.answer(70_000)?;
        connected.close()?;
    }
    let hello = client_hello("recorded.example", &["h2"], 1500);
    let mut connected = Connected::new()?;
    connected.client.write_all(&hello)?;
    connected.server.read_exact(&mut vec![0; hello.len()])?;
    connected.close()?;
    ensure!(std::net::TcpStream::connect(deaf_port()?).is_err());
    let mut reset = Connected::new()?;
    reset.send(10)?;
    sys::reset_on_close(&reset.server)?;
    drop(reset);
    let mut open = Connected::new()?;
    open.send(1234)?;
    open.answer(4321)?;
    Ok(open)
}

fn replay(file: &Path, receiver: &Receiver) -> Result<Ended> {
    let launch = Launch::of(&["replay", &file.display().to_string()]);
    launch.exporting(receiver, Protocol::HttpProtobuf).run()
}

/// Spans without what is made anew at each start: `connection.id`, ids that are not derived (of
/// connections whose handshake was not seen, which link nobody), and the resource's instance.
fn comparable(spans: &[Arc<Span>]) -> Vec<Span> {
    let mut spans: Vec<Span> = spans.iter().map(|span| (**span).clone()).collect();
    for span in &mut spans {
        span.attributes.0.remove("connection.id");
        if span.links.is_empty() {
            span.trace_id.clear();
            span.span_id.clear();
        }
        span.resource = Arc::default();
    }
    spans.sort_by_key(|span| (span.start_ns, span.local(), span.peer()));
    spans
}

#[test]
fn a_replay_gives_the_spans_of_the_live_run() {
    apart(|| {
        let recorded = record()?;
        let receiver = Receiver::start()?;
        let ended = replay(&recorded.file, &receiver)?;
        assert_eq!(ended.code(), 0, "{}", ended.log());
        let (live, again) = (comparable(&recorded.live), comparable(&receiver.spans()));
        let only = |these: &[Span], those: &[Span]| -> Vec<Span> {
            these.iter().filter(|span| !those.contains(span)).cloned().collect()
        };
        let (lost, new) = (only(&live, &again), only(&again, &live));
        assert!(lost.is_empty() && new.is_empty(), "only live: {lost:#?}, only replayed: {new:#?}");
        let states: Vec<_> = live.iter().map(Span::state).collect();
        for state in ["closed", "reset", "refused", "open"] {
            assert!(states.contains(&state), "{state} is not among {states:?}");
        }
        Ok(())
    });
}

#[test]
fn a_replay_needs_no_rights() {
    apart(|| {
        let recorded = record()?;
        fs::set_permissions(&recorded.file, fs::Permissions::from_mode(0o644))?;
        let receiver = Receiver::start()?;
        let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
        let ended = Launch::of(&["replay", &recorded.file.display().to_string()])
            .exporting(&receiver, Protocol::Grpc)
            .copied()
            .under(&nobody)
            .run()?;
        assert_eq!(ended.code(), 0, "{}", ended.log());
        assert!(!receiver.spans().is_empty());
        Ok(())
    });
}

/// Replays `bytes`, which are no whole recording: exit 2 and an offset. Gives it and the spans.
fn replay_bad(home: &Path, bytes: &[u8]) -> Result<(u64, Vec<Arc<Span>>)> {
    let file = home.join("bad");
    fs::write(&file, bytes)?;
    let receiver = Receiver::start()?;
    let ended = replay(&file, &receiver)?;
    ensure!(ended.code() == 2, "exit {}: {}", ended.code(), ended.log());
    let log = ended.log();
    let rest = log.split("offset ").nth(1).unwrap_or_default();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    ensure!(!digits.is_empty(), "no offset in: {log}");
    Ok((digits.parse()?, receiver.spans()))
}

#[test]
fn a_bad_recording_is_exit_2_with_the_offset_and_its_good_part() {
    apart(|| {
        let recorded = record()?;
        let home = recorded.home.path();
        let whole = fs::read(&recorded.file)?;

        // Cut off in its second half: most of the connections were over by then.
        let cut = whole.len() - whole.len() / 8;
        let (offset, spans) = replay_bad(home, &whole[..cut])?;
        assert!(offset <= cut as u64 && !spans.is_empty(), "{offset} of {cut}, {}", spans.len());

        // One bit of the last quarter.
        let mut damaged = whole.clone();
        let at = whole.len() * 3 / 4;
        damaged[at] ^= 4;
        let (offset, spans) = replay_bad(home, &damaged)?;
        assert!(offset <= at as u64 && !spans.is_empty(), "{offset} of {at}, {}", spans.len());

        // Of another version, and no recording at all.
        let mut other = whole;
        other[8] ^= 0x7f;
        assert_eq!(replay_bad(home, &other)?.1.len(), 0);
        assert_eq!(replay_bad(home, b"#!/bin/sh\necho no recording\n")?, (0, vec![]));
        assert_eq!(replay_bad(home, b"")?, (0, vec![]));
        Ok(())
    });
}

#[test]
fn a_recording_that_is_not_there_is_an_error_that_names_it() {
    apart(|| {
        let receiver = Receiver::start()?;
        let ended = replay(Path::new("/nonexistent/recording"), &receiver)?;
        assert_ne!(ended.code(), 0);
        assert!(ended.log().contains("/nonexistent/recording"), "{}", ended.log());
        Ok(())
    });
}
