//! Address families and the two views of one connection.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use tests::{netns::Pair, stage::together, workload::Connected};

#[test]
fn both_ends_on_this_host_are_in_one_trace_and_link_each_other() {
    together(|on| {
        let mut connected = Connected::new()?;
        connected.send(11)?;
        connected.answer(7)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_tied();
        both.assert_bytes(11, 7);
        both.assert_whole();
        both.assert_state("closed");
        assert_eq!(both.client.str("connection.direction"), "egress");
        assert_eq!(both.server.str("connection.direction"), "ingress");
        assert_ne!(both.client.str("connection.id"), both.server.str("connection.id"));
        Ok(())
    });
}

#[test]
fn two_connections_are_in_two_traces() {
    together(|on| {
        let first = on.receiver.client(Connected::new()?.close()?)?;
        let second = on.receiver.client(Connected::new()?.close()?)?;
        assert_ne!(first.trace_id, second.trace_id);
        assert_ne!(first.str("connection.id"), second.str("connection.id"));
        Ok(())
    });
}

#[test]
fn ipv6_is_seen_with_its_addresses() {
    together(|on| {
        let mut connected = Connected::over("::1")?;
        connected.send(1234)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(1234, 0);
        both.assert_tied();
        assert_eq!(both.client.str("network.type"), "ipv6");
        assert_eq!(both.server.str("network.peer.address"), "::1");
        Ok(())
    });
}

#[test]
fn ipv4_through_an_ipv6_socket_is_ipv4() {
    together(|on| {
        // A socket of the IPv6 family on both sides; what is on the wire is IPv4.
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
        let mapped = std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped();
        let client = TcpStream::connect(SocketAddr::from((mapped, listener.local_addr()?.port())))?;
        assert!(client.local_addr()?.is_ipv6());
        let mut connected = Connected::accepted(client, &listener)?;
        connected.send(321)?;
        let both = on.receiver.both(connected.close()?)?;
        both.assert_bytes(321, 0);
        both.assert_tied();
        for span in [&both.client, &both.server] {
            assert_eq!(span.str("network.type"), "ipv4");
            assert_eq!(span.str("network.local.address"), "127.0.0.1");
        }
        Ok(())
    });
}

#[test]
fn connections_between_network_namespaces_are_seen_at_both_ends() {
    together(|on| {
        let pair = Pair::new()?;
        for address in [pair.address(2).to_string(), format!("fd77:{}::2", pair.number)] {
            let listener = pair.right.run(|| Ok(TcpListener::bind((address.as_str(), 0))?))?;
            let to = listener.local_addr()?;
            let client = pair.left.run(|| Ok(TcpStream::connect(to)?))?;
            let mut connected = Connected::accepted(client, &listener)?;
            connected.send(5000)?;
            connected.answer(6000)?;
            let both = on.receiver.both(connected.close()?)?;
            both.assert_bytes(5000, 6000);
            both.assert_tied();
            both.assert_whole();
        }
        Ok(())
    });
}
