//! Names that DNS answers give to the peers of later connections.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, Result};
use tests::{
    netns::Namespace,
    process::Process,
    programs::{find, output},
    stage::{Session, apart},
    wait::PATIENCE,
    workload::Connected,
};

/// dnsmasq on port 53 of `namespace`, which knows `name` to be at `address`.
fn dnsmasq(namespace: &Namespace, name: &str, address: IpAddr) -> Result<Process> {
    let mut dnsmasq = namespace.command(&find("dnsmasq", "dnsmasq-base")?.display().to_string());
    dnsmasq.args(["--conf-file=/dev/null", "--no-daemon", "--no-resolv", "--no-hosts"]);
    dnsmasq.args(["--user=root", "--pid-file", "--port=53"]);
    dnsmasq.args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
    dnsmasq.arg(format!("--address=/{name}/{address}"));
    let dnsmasq = Process::start(dnsmasq)?;
    dnsmasq
        .stderr
        .wait_for("dnsmasq to be up", PATIENCE, |line| line.contains("started").then_some(()))?;
    Ok(dnsmasq)
}

#[test]
fn an_answer_over_tcp_names_the_peer_as_one_over_udp_does() {
    apart(|| {
        let session = Session::start()?;
        for (number, transport) in ["+tcp", "+notcp"].into_iter().enumerate() {
            let namespace = Namespace::new()?;
            let address: IpAddr = format!("198.51.100.{}", number + 1).parse()?;
            namespace.ip(&format!("addr add {address}/32 dev lo"))?;
            let name = format!("peer{number}.example");
            let server = dnsmasq(&namespace, &name, address)?;
            let mut dig = namespace.command(&find("dig", "bind9-dnsutils")?.display().to_string());
            dig.args(["@127.0.0.1", "+short", "+tries=1", transport, &name]);
            assert_eq!(output(&mut dig)?.trim(), address.to_string(), "{}", server.stderr.text());
            let listener = namespace.run(|| Ok(TcpListener::bind((address, 0))?))?;
            let to = listener.local_addr()?;
            let client = namespace.run(|| Ok(TcpStream::connect(to)?))?;
            let mut connected = Connected::accepted(client, &listener)?;
            connected.send(3)?;
            let both = session.receiver.both(connected.close()?)?;
            assert_eq!(both.client.str("server.address"), name, "{transport}: {:#?}", both.client);
            // One that is refused was looked up as well.
            let port = to.port();
            drop(listener);
            let refused = namespace.run(|| Ok(TcpStream::connect(to)))?;
            assert!(refused.is_err());
            let what = "the connect that was refused";
            let refused = session.receiver.wait_for(what, 1, PATIENCE, |span| {
                span.state() == "refused" && span.int("server.port") == i64::from(port)
            })?;
            assert_eq!(refused[0].str("server.address"), name, "{:#?}", refused[0]);
            if transport == "+tcp" {
                let port_53 = SocketAddr::from(([127, 0, 0, 1], 53));
                let lookups = session.receiver.wait_for("the lookup", 2, PATIENCE, |span| {
                    span.peer() == Some(port_53) || span.local() == Some(port_53)
                })?;
                for span in lookups {
                    assert_eq!(span.str("network.protocol.name"), "dns", "{span:#?}");
                    let event = span.event("ProtocolEvent").context("no event")?;
                    assert_eq!(event.attributes.str("protocol"), Some("dns"));
                }
            }
        }
        session.finish().map(drop)
    });
}
