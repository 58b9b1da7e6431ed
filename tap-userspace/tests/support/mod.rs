//! What the tests of telemetry and export share: connections to send, and collectors to send to.
#![allow(dead_code, reason = "each test uses its part")]

pub mod collector;

use std::sync::Arc;

use tap_userspace::{
    config::{environment::Environment, file::Config, pipelines::Pipelines},
    connection::{
        identity::Xid,
        model::{Connection, Direction, Event, Identity, Quality, Role, State, What},
    },
    enrich::process::Process,
    export::{self, Exporters},
    protocol::{
        Protocol,
        tls::{ClientHello, ServerHello},
    },
    telemetry::{log::Terms, resource::Resource},
};
use tokio::runtime::Handle;

/// A configuration with these exporters and pipelines; without any of these the environment alone
/// says which signals are on.
pub fn configuration(exporters: &str, pipelines: &str) -> Config {
    processing(exporters, "", pipelines)
}

/// The same with these processors.
pub fn processing(exporters: &str, processors: &str, pipelines: &str) -> Config {
    let yaml = format!(
        "exporters: {{ {exporters} }}\nprocessors: {{ {processors} }}\n\
         service: {{ pipelines: {{ {pipelines} }} }}\n"
    );
    Config::parse(&yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"))
}

/// Starts what the configuration and these variables say.
pub fn try_start(config: &Config, variables: &[(&str, &str)]) -> Result<Exporters, export::Error> {
    let environment = Environment::read_over(variables.iter().copied(), config).unwrap();
    let pipelines = Pipelines::resolve(config, &environment).unwrap();
    let resource = Resource::detect(&environment);
    let (handle, terms) = (Handle::current(), Terms::default());
    Exporters::start(&environment, &pipelines, resource, &handle, false, &terms)
}

pub const START: u64 = 1_700_000_000_123_456_789;

/// The `n`th of many plain connections, told apart by cookie and ids.
pub fn plain(n: u64) -> Connection {
    let mut id = [0; 12];
    id[4..].copy_from_slice(&n.to_be_bytes());
    let mut trace_id = [0xab; 16];
    trace_id[8..].copy_from_slice(&(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    let event = |after, what| Event { time_ns: START + after, what };
    Connection {
        id: Xid(id),
        cookie: n,
        identity: Identity { trace_id, span_id: (n + 1).to_be_bytes(), peer_span_id: None },
        role: Role::Client,
        state: State::Closed,
        reset_by: None,
        error_type: None,
        quality: Quality::default(),
        local: ("10.1.2.3".parse().unwrap(), 45_678),
        peer: ("192.168.100.200".parse().unwrap(), 443),
        opened_ns: START,
        start_ns: START,
        end_ns: START + 12_345_678,
        bytes: [123_456, 789],
        segment: 0,
        rtt_us: 250,
        retransmits: 1,
        protocol: Some(Protocol::Http2),
        protocol_version: Some("2"),
        server_hello: None,
        client_hello: None,
        tls_established: false,
        tls_resumed: None,
        tls_handshake_ns: None,
        host: None,
        peer_name: None,
        #[allow(clippy::needless_update, reason = "what is known of processes grows")]
        process: Some(Arc::new(Process {
            pid: 4_242,
            executable: "/usr/bin/curl".into(),
            name: "curl".into(),
            args: ["curl", "-s", "https://example.org/"].map(Into::into).into(),
            owner: "root".into(),
            ..Process::default()
        })),
        events: vec![
            event(0, What::Open),
            event(1_000, What::Protocol(Protocol::Http2)),
            event(1_000, What::Data { direction: Direction::Transmit, bytes: 789 }),
            event(2_000, What::Data { direction: Direction::Receive, bytes: 123_456 }),
            event(12_345_678, What::Close),
        ],
        dropped_events: 0,
    }
}

/// A connection with everything that a connection can have.
pub fn full() -> Connection {
    let mut connection = plain(7);
    connection.role = Role::Server;
    connection.state = State::Reset;
    connection.reset_by = Some(tap_userspace::connection::model::ResetBy::Peer);
    connection.error_type = Some("reset");
    connection.quality.add(Quality::TRUNCATED);
    connection.quality.add(Quality::EVENT_LIMIT);
    connection.identity.peer_span_id = Some([9; 8]);
    connection.local = ("2001:db8::1".parse().unwrap(), 443);
    connection.peer = ("2001:db8::2".parse().unwrap(), 50_000);
    connection.segment = 2;
    connection.protocol = Some(Protocol::Tls);
    connection.protocol_version = None;
    let mut answer = ServerHello::default();
    answer.version = Some("1.3");
    answer.cipher = Some("TLS_AES_128_GCM_SHA256");
    answer.group = Some("x25519");
    answer.alpn = Some("h2".into());
    answer.ja3s = "15af977ce25de452b96affa2addb1036".into();
    connection.server_hello = Some(Box::new(answer));
    connection.tls_established = true;
    connection.tls_resumed = Some(false);
    connection.tls_handshake_ns = Some(1_234_567);
    connection.client_hello = Some(Box::new(ClientHello {
        server_name: Some("bücher.example".into()),
        alpn: vec!["h2".into(), "http/1.1".into()],
        version: Some("1.3"),
        ciphers: vec!["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"],
        ech: true,
        ja3: "cd08e31494f9531f560d64c695473da9".into(),
        ja4: "t13d1516h2_8daaf6152771_e5627efa2ab1".into(),
        ..ClientHello::default()
    }));
    let hello = Event { time_ns: START + 500, what: What::ClientHello { since_open_ns: 500 } };
    connection.events.insert(1, hello);
    let error = Event { time_ns: START + 12_345_678, what: What::Error };
    connection.events.insert(connection.events.len() - 1, error);
    connection.dropped_events = 3;
    connection
}
