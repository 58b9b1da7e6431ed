//! What is measured of traffic: names, units, bounds and attributes. Those of the semantic
//! conventions are as these have them (`tests/fixtures/semconv/attributes.json`, "metrics"); what the
//! conventions lack is named `tap.…`.

use crate::telemetry::{
    metric::{
        Family,
        series::{Group, Instrument},
    },
    semconv::{self as key, Key},
};

/// Seconds, as the conventions advise for HTTP and RPC.
const SECONDS: &[f64] =
    &[0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// Seconds, as the conventions advise for databases.
const DATABASE_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
/// Bytes of a body: the SDK's default bounds end at 10 kB, where bodies only begin.
const BYTES: &[f64] = &[
    0.0,
    128.0,
    512.0,
    2048.0,
    8192.0,
    32_768.0,
    131_072.0,
    524_288.0,
    2_097_152.0,
    8_388_608.0,
    33_554_432.0,
];
/// Seconds of a round trip: loopback to satellite.
const ROUND_TRIP: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
];
/// Seconds of a connection's life.
const LIFE: &[f64] = &[0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 86_400.0];

const HTTP: &str = "tap.http";
const DB: &str = "tap.db";
const CONNECTION: &str = "tap.connection";

/// A histogram of seconds.
const fn seconds(
    scope: &'static str,
    name: &'static str,
    help: &'static str,
    bounds: &'static [f64],
) -> Instrument {
    Instrument::histogram(Family::histogram(name, "s", help).of(scope, "s"), bounds)
}

const fn bytes(name: &'static str, help: &'static str) -> Instrument {
    Instrument::histogram(Family::histogram(name, "By", help).of(HTTP, "By"), BYTES)
}

/// Places in [`HTTP_CLIENT`] and [`HTTP_SERVER`]; the duration is the first of every group of exchanges.
pub const DURATION: usize = 0;
/// See [`DURATION`].
pub const REQUEST_BODY: usize = 1;
/// See [`DURATION`].
pub const RESPONSE_BODY: usize = 2;

/// The server's own name is the request's word, which anybody may choose: the conventions have it
/// only where it is asked for, and here it is of the client's side only.
const HTTP_KEYS: &[&Key] = &[
    &key::HTTP_REQUEST_METHOD,
    &key::HTTP_RESPONSE_STATUS_CODE,
    &key::ERROR_TYPE,
    &key::NETWORK_PROTOCOL_NAME,
    &key::NETWORK_PROTOCOL_VERSION,
    &key::URL_SCHEME,
    &key::SERVER_ADDRESS,
    &key::SERVER_PORT,
    &key::PROCESS_EXECUTABLE_NAME,
];

/// HTTP as the client's side sees it.
pub static HTTP_CLIENT: Group = Group {
    keys: HTTP_KEYS,
    instruments: &[
        seconds(HTTP, "http.client.request.duration", "Duration of HTTP client requests.", SECONDS),
        bytes("http.client.request.body.size", "Size of HTTP client request bodies."),
        bytes("http.client.response.body.size", "Size of HTTP client response bodies."),
    ],
};

/// HTTP as the server's side sees it.
pub static HTTP_SERVER: Group = Group {
    keys: HTTP_KEYS,
    instruments: &[
        seconds(HTTP, "http.server.request.duration", "Duration of HTTP server requests.", SECONDS),
        bytes("http.server.request.body.size", "Size of HTTP server request bodies."),
        bytes("http.server.response.body.size", "Size of HTTP server response bodies."),
    ],
};

const RPC_KEYS: &[&Key] = &[
    &key::RPC_SYSTEM_NAME,
    &key::RPC_METHOD,
    &key::RPC_STATUS_CODE,
    &key::ERROR_TYPE,
    &key::SERVER_ADDRESS,
    &key::SERVER_PORT,
    &key::PROCESS_EXECUTABLE_NAME,
];

/// Calls, by side.
pub static RPC_CLIENT: Group = Group {
    keys: RPC_KEYS,
    instruments: &[seconds(
        HTTP,
        "rpc.client.call.duration",
        "Duration of outgoing remote procedure calls.",
        SECONDS,
    )],
};

/// See [`RPC_CLIENT`].
pub static RPC_SERVER: Group = Group {
    keys: RPC_KEYS,
    instruments: &[seconds(
        HTTP,
        "rpc.server.call.duration",
        "Duration of incoming remote procedure calls.",
        SECONDS,
    )],
};

const DB_KEYS: &[&Key] = &[
    &key::DB_SYSTEM_NAME,
    &key::DB_NAMESPACE,
    &key::DB_COLLECTION_NAME,
    &key::DB_OPERATION_NAME,
    &key::DB_RESPONSE_STATUS_CODE,
    &key::ERROR_TYPE,
    &key::SERVER_ADDRESS,
    &key::SERVER_PORT,
    &key::PROCESS_EXECUTABLE_NAME,
];

/// Operations of databases, by side; the conventions know the client's only.
pub static DB_CLIENT: Group = Group {
    keys: DB_KEYS,
    instruments: &[seconds(
        DB,
        "db.client.operation.duration",
        "Duration of database client operations.",
        DATABASE_SECONDS,
    )],
};

/// See [`DB_CLIENT`].
pub static DB_SERVER: Group = Group {
    keys: DB_KEYS,
    instruments: &[seconds(
        DB,
        "tap.db.server.operation.duration",
        "Duration of database operations at the server.",
        DATABASE_SECONDS,
    )],
};

const MESSAGING_KEYS: &[&Key] = &[
    &key::MESSAGING_SYSTEM,
    &key::MESSAGING_DESTINATION_NAME,
    &key::MESSAGING_OPERATION_NAME,
    &key::ERROR_TYPE,
    &key::SERVER_ADDRESS,
    &key::SERVER_PORT,
    &key::PROCESS_EXECUTABLE_NAME,
];

/// Requests to a message broker, by side.
pub static MESSAGING_CLIENT: Group = Group {
    keys: MESSAGING_KEYS,
    instruments: &[seconds(
        DB,
        "tap.messaging.client.operation.duration",
        "Duration of requests to a message broker.",
        SECONDS,
    )],
};

/// See [`MESSAGING_CLIENT`].
pub static MESSAGING_SERVER: Group = Group {
    keys: MESSAGING_KEYS,
    instruments: &[seconds(
        DB,
        "tap.messaging.server.operation.duration",
        "Duration of requests at a message broker.",
        SECONDS,
    )],
};

const fn io(direction: &'static str) -> Instrument {
    let help = "Payload bytes of connections, each once however often it was sent.";
    let family = Family::counter("tap.connection.io", help).of(CONNECTION, "By");
    Instrument {
        extra: Some((&key::NETWORK_IO_DIRECTION, direction)),
        ..Instrument::counter(family)
    }
}

/// Connections and their segments.
pub static CONNECTIONS: Group = Group {
    keys: &[&key::CONNECTION_DIRECTION, &key::NETWORK_PROTOCOL_NAME, &key::PROCESS_EXECUTABLE_NAME],
    instruments: &[
        io("receive"),
        io("transmit"),
        Instrument::counter(
            Family::counter("tap.tcp.retransmits", "Segments sent again.")
                .of(CONNECTION, "{segment}"),
        ),
        seconds(
            CONNECTION,
            "tap.tcp.rtt",
            "Smoothed round-trip time when the connection ended.",
            ROUND_TRIP,
        ),
        seconds(
            CONNECTION,
            "tap.tls.handshake.duration",
            "From the ClientHello to the end of the TLS handshake.",
            SECONDS,
        ),
        seconds(CONNECTION, "tap.connection.duration", "From open to close.", LIFE),
    ],
};

/// Places in [`CONNECTIONS`]; bytes are first, by their direction's index.
pub const RETRANSMITS: usize = 2;
/// See [`RETRANSMITS`].
pub const RTT: usize = 3;
/// See [`RETRANSMITS`].
pub const HANDSHAKE: usize = 4;
/// See [`RETRANSMITS`].
pub const LIFETIME: usize = 5;

/// Ends of connections, failed connects included.
pub static ENDS: Group = Group {
    keys: &[
        &key::CONNECTION_DIRECTION,
        &key::CONNECTION_STATE,
        &key::ERROR_TYPE,
        &key::NETWORK_PROTOCOL_NAME,
        &key::PROCESS_EXECUTABLE_NAME,
    ],
    instruments: &[Instrument::counter(
        Family::counter(
            "tap.connection.closed",
            "Connections that ended, and connects that failed.",
        )
        .of(CONNECTION, "{connection}"),
    )],
};

/// All groups.
pub static ALL: [&Group; 10] = [
    &HTTP_CLIENT,
    &HTTP_SERVER,
    &RPC_CLIENT,
    &RPC_SERVER,
    &DB_CLIENT,
    &DB_SERVER,
    &MESSAGING_CLIENT,
    &MESSAGING_SERVER,
    &CONNECTIONS,
    &ENDS,
];
