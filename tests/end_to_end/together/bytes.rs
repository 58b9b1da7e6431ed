//! The bytes on a span are those that really crossed, however the program moved them.

use std::{
    fs::File,
    io::{Seek, Write, pipe},
    net::{Shutdown, TcpListener, TcpStream},
    os::fd::AsFd,
    thread,
};

use anyhow::Result;
use tests::{
    stage::together,
    sys,
    workload::{Connected, Ends, drain, exchange_by_io_uring, read_pattern, write_pattern},
};

#[test]
fn no_byte_gives_a_span_without_turns() {
    together(|on| {
        let both = on.receiver.both(Connected::new()?.close()?)?;
        both.assert_bytes(0, 0);
        assert_eq!(both.client.event_names(), ["OpenEvent", "CloseEvent"]);
        both.assert_tied();
        Ok(())
    });
}

#[test]
fn sendfile_counts() {
    together(|on| {
        const SIZE: usize = 3_000_001;
        let mut file: File = tempfile::tempfile()?;
        write_pattern(&mut file, SIZE)?;
        file.rewind()?;
        let mut connected = Connected::new()?;
        connected.send(10)?;
        thread::scope(|scope| -> Result<()> {
            let sending = scope.spawn(|| sys::send_file(&connected.server, &file, SIZE));
            read_pattern(&mut connected.client, SIZE)?;
            Ok(sending.join().expect("no panic")?)
        })?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(10, SIZE as u64);
        both.assert_whole();
        Ok(())
    });
}

#[test]
fn splice_counts_on_both_connections_of_a_proxy() {
    together(|on| {
        const SIZE: usize = 1_000_003;
        let mut front = Connected::new()?;
        let mut back = Connected::new()?;
        front.client.set_write_timeout(None)?;
        thread::scope(|scope| -> Result<()> {
            let source = scope.spawn(|| -> Result<()> {
                write_pattern(&mut front.client, SIZE)?;
                Ok(front.client.shutdown(Shutdown::Write)?)
            });
            let proxy = scope.spawn(|| splice_all(&front.server, &back.client));
            assert_eq!(drain(&mut back.server)?, SIZE as u64);
            source.join().expect("no panic")?;
            proxy.join().expect("no panic")
        })?;
        let ends = [front.ends, back.ends];
        drop((front, back));
        for ends in ends {
            on.receiver.both(ends)?.assert_bytes(SIZE as u64, 0);
        }
        Ok(())
    });
}

/// All of one socket into another through a pipe, and its end.
fn splice_all(from: &TcpStream, to: &TcpStream) -> Result<()> {
    const MOST: usize = 60_000;
    let (out, into) = pipe()?;
    loop {
        let mut held = sys::splice(from.as_fd(), into.as_fd(), MOST)?;
        if held == 0 {
            return Ok(to.shutdown(Shutdown::Write)?);
        }
        while held > 0 {
            held -= sys::splice(out.as_fd(), to.as_fd(), held)?;
        }
    }
}

#[test]
fn io_uring_counts_and_has_its_owner() {
    together(|on| {
        let both = on.receiver.both(exchange_by_io_uring(70_000, 200_000)?)?;
        both.assert_bytes(70_000, 200_000);
        both.assert_whole();
        for span in [&both.client, &both.server] {
            assert_eq!(span.pid(), Some(i64::from(std::process::id())));
        }
        Ok(())
    });
}

#[test]
fn two_hundred_megabytes_each_way_at_once_are_exact() {
    together(|on| {
        const SIZE: usize = 200_000_000;
        let Connected { client, server, ends } = Connected::new()?;
        thread::scope(|scope| -> Result<()> {
            let mut running = Vec::new();
            for stream in [&client, &server] {
                stream.set_write_timeout(None)?;
                running.push(scope.spawn(move || write_pattern(&mut &*stream, SIZE)));
                running.push(scope.spawn(move || read_pattern(&mut &*stream, SIZE)));
            }
            running.into_iter().try_for_each(|it| it.join().expect("no panic"))
        })?;
        Connected { client, server, ends }.close()?;
        on.receiver.both(ends)?.assert_bytes(SIZE as u64, SIZE as u64);
        Ok(())
    });
}

#[test]
fn an_mptcp_connection_is_a_subflow_with_its_bytes() {
    together(|on| {
        let mut connected = mptcp(true)?;
        connected.send(20_000)?;
        connected.answer(30_000)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(20_000, 30_000);
        both.assert_tied();
        Ok(())
    });
}

#[test]
fn an_mptcp_listener_takes_a_plain_client() {
    together(|on| {
        // What a Go program's listener is by default.
        let mut connected = mptcp(false)?;
        connected.send(2000)?;
        connected.answer(3000)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(2000, 3000);
        both.assert_whole();
        both.assert_tied();
        Ok(())
    });
}

/// A connection to an MPTCP listener, from an MPTCP client or a plain one.
fn mptcp(client_too: bool) -> Result<Connected> {
    use socket2::{Domain, Protocol, Socket, Type};
    let protocol = Protocol::from(sys::IPPROTO_MPTCP);
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))?;
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
    listener.listen(8)?;
    let listener = TcpListener::from(listener);
    if !client_too {
        return Connected::to(&listener);
    }
    let client = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))?;
    client.connect(&listener.local_addr()?.into())?;
    Connected::accepted(client.into(), &listener)
}

#[test]
fn a_server_that_sends_first_and_never_reads_is_seen() {
    together(|on| {
        let Connected { mut client, mut server, ends } = Connected::new()?;
        server.write_all(b"220 hello\r\n")?;
        drop(server);
        assert_eq!(drain(&mut client)?, 11);
        drop(client);
        let both = on.receiver.both(ends)?;
        both.assert_bytes(0, 11);
        assert_eq!(both.server.pid(), Some(i64::from(std::process::id())));
        Ok(())
    });
}

#[test]
fn many_connections_at_once_keep_their_bytes_apart() {
    together(|on| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let ends: Vec<(Ends, usize)> = thread::scope(|scope| {
            let talks: Vec<_> = (1..=24)
                .map(|number: usize| {
                    let connected = Connected::to(&listener);
                    scope.spawn(move || -> Result<_> {
                        let mut connected = connected?;
                        for _ in 0..20 {
                            connected.send(number * 1000)?;
                            connected.answer(number)?;
                        }
                        Ok((connected.close()?, number))
                    })
                })
                .collect();
            talks.into_iter().map(|talk| talk.join().expect("no panic")).collect::<Result<_>>()
        })?;
        for (ends, number) in ends {
            let both = on.receiver.both(ends)?;
            both.assert_bytes(number as u64 * 20_000, number as u64 * 20);
            both.assert_whole();
        }
        Ok(())
    });
}
