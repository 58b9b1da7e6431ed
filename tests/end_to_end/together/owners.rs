//! Who owns a connection: the process that uses it, never a guess.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    thread,
};

use anyhow::Result;
use tests::{
    programs::{output, scripts::Server},
    stage::{Session, together},
    workload::{Connected, Ends},
};

use crate::WORKLOAD;

/// Asks a server that answers with the id of the process that serves.
fn ask(port: u16) -> Result<(Ends, i64)> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(b"who?\n")?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok((Ends::of_client(&client)?, answer.parse()?))
}

/// Several clients of the server `program`: each span names the process that served it.
fn check(on: &Session, program: &str) -> Result<Vec<i64>> {
    let mut command = Command::new(WORKLOAD);
    command.arg(program);
    let server = Server::start(command)?;
    let mut pids = Vec::new();
    for _ in 0..5 {
        let (ends, pid) = ask(server.port)?;
        let both = on.receiver.both(ends)?;
        assert_eq!(both.server.pid(), Some(pid), "{:#?}", both.server);
        assert_eq!(both.server.str("process.executable.path"), WORKLOAD);
        assert_eq!(both.server.str("process.executable.name"), "workload");
        assert_eq!(both.server.attributes.strings("process.command_args"), [WORKLOAD, program]);
        assert_eq!(both.client.pid(), Some(i64::from(std::process::id())));
        both.assert_whole();
        both.assert_bytes(5, pid.to_string().len() as u64);
        pids.push(pid);
    }
    assert!(!pids.contains(&i64::from(server.process.pid())), "the parent served");
    Ok(pids)
}

#[test]
fn a_child_forked_for_each_connection() {
    together(|on| {
        let mut pids = check(on, "fork-per-connection")?;
        pids.dedup();
        assert_eq!(pids.len(), 5);
        Ok(())
    });
}

#[test]
fn children_forked_before_the_accept() {
    together(|on| check(on, "fork-before-accept").map(drop));
}

#[test]
fn a_process_that_was_passed_the_connection() {
    together(|on| check(on, "pass-connections").map(drop));
}

#[test]
fn a_client_that_is_gone_at_once_keeps_its_name() {
    together(|on| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let client = thread::spawn({
            let address = address.clone();
            move || output(Command::new(WORKLOAD).args(["brief", &address]))
        });
        let (mut server, _) = listener.accept()?;
        server.read_exact(&mut [0; 5])?;
        let ends = Ends::of_server(&server)?;
        drop(server);
        client.join().expect("no panic")?;
        let span = on.receiver.client(ends)?;
        assert_eq!(span.str("process.executable.path"), WORKLOAD, "{span:#?}");
        // What only /proc tells may be gone before anybody could read it.
        let arguments = span.attributes.strings("process.command_args");
        assert!(arguments.is_empty() || arguments == [WORKLOAD, "brief", &address], "{span:?}");
        Ok(())
    });
}

#[test]
fn an_accepted_connection_that_nobody_uses_has_no_owner() {
    together(|on| {
        // Accepted and closed without a byte: nothing proves who has it.
        let ends = Connected::new()?.ends;
        let both = on.receiver.both(ends)?;
        assert_eq!(both.client.pid(), Some(i64::from(std::process::id())));
        let server = &both.server;
        match server.pid() {
            None => assert!(server.marked("no_owner"), "{server:#?}"),
            Some(pid) => assert_eq!(pid, i64::from(std::process::id()), "{server:#?}"),
        }
        Ok(())
    });
}
