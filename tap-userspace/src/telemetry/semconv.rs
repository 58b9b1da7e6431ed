//! Names of everything tap emits. Owns the attribute keys, each with its value type and with the
//! bytes that begin its protobuf `KeyValue`, so that the encoder copies them in one piece.
//!
//! Names and types are those of OpenTelemetry's semantic conventions where these have the
//! attribute (`tests/fixtures/semconv/attributes.json` is held against this table), else `tap.…`.

/// Schema that the names follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Type of an attribute's value, as the conventions write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `string`, enumerations too.
    Text,
    /// `string[]`.
    Texts,
    /// `int`.
    Int,
    /// `boolean`.
    Bool,
    /// `double`.
    Double,
    /// A map of further attributes.
    Map,
}

/// An attribute's name.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Type,
    /// `KeyValue.key` as protobuf, and the tag of `KeyValue.value`.
    pub(super) field: &'static [u8],
}

/// `KeyValue { key: name, value: … }` up to the value's length. `N` is the name's length and 3.
const fn field<const N: usize>(name: &str) -> [u8; N] {
    let name = name.as_bytes();
    assert!(name.len() < 0x80 && N == name.len() + 3);
    let mut out = [0; N];
    out[0] = 0x0a;
    out[1] = name.len() as u8;
    let mut i = 0;
    while i < name.len() {
        out[i + 2] = name[i];
        i += 1;
    }
    out[N - 1] = 0x12;
    out
}

macro_rules! keys {
    ($($constant:ident $name:literal $kind:ident)*) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub const $constant: Key = Key {
                name: $name,
                kind: Type::$kind,
                field: &field::<{ $name.len() + 3 }>($name),
            };
        )*
        /// Every key.
        pub const ALL: &[Key] = &[$($constant),*];
    };
}

keys! {
    CONNECTION_ID "connection.id" Text
    CONNECTION_COOKIE "connection.cookie" Int
    CONNECTION_HANDLER "connection.handler" Text
    CONNECTION_STRATEGY "connection.strategy" Text
    CONNECTION_DIRECTION "connection.direction" Text
    CONNECTION_STATE "connection.state" Text
    CONNECTION_QUALITY "connection.quality" Texts
    NETWORK_TRANSPORT "network.transport" Text
    NETWORK_TYPE "network.type" Text
    NETWORK_PROTOCOL_NAME "network.protocol.name" Text
    NETWORK_PROTOCOL_VERSION "network.protocol.version" Text
    NETWORK_PEER_ADDRESS "network.peer.address" Text
    NETWORK_PEER_PORT "network.peer.port" Int
    NETWORK_LOCAL_ADDRESS "network.local.address" Text
    NETWORK_LOCAL_PORT "network.local.port" Int
    NETWORK_IO_DIRECTION "network.io.direction" Text
    CLIENT_ADDRESS "client.address" Text
    CLIENT_PORT "client.port" Int
    SERVER_ADDRESS "server.address" Text
    SERVER_PORT "server.port" Int
    BYTES_SENT "tap.bytes.sent" Int
    BYTES_RECEIVED "tap.bytes.received" Int
    SEGMENT "tap.connection.segment" Int
    RTT_US "tap.tcp.rtt_us" Int
    RETRANSMITS "tap.tcp.retransmits" Int
    RESET_BY "tap.reset.by" Text
    ERROR_TYPE "error.type" Text
    TLS_PROTOCOL_VERSION "tls.protocol.version" Text
    TLS_CIPHER "tls.cipher" Text
    TLS_ESTABLISHED "tls.established" Bool
    TLS_CLIENT_SUPPORTED_CIPHERS "tls.client.supported_ciphers" Texts
    TLS_CURVE "tls.curve" Text
    TLS_NEXT_PROTOCOL "tls.next_protocol" Text
    TLS_RESUMED "tls.resumed" Bool
    TLS_CLIENT_JA3 "tls.client.ja3" Text
    TLS_SERVER_JA3S "tls.server.ja3s" Text
    TAP_TLS_CLIENT_JA4 "tap.tls.client.ja4" Text
    TAP_TLS_CLIENT_ECH "tap.tls.client.ech" Bool
    TAP_TLS_HANDSHAKE_NS "tap.tls.handshake_ns" Int
    TAP_TLS_CLIENT_ALPN "tap.tls.client.alpn" Texts
    TAP_TLS_CLIENT_VERSION "tap.tls.client.version" Text
    PROCESS_PID "process.pid" Int
    PROCESS_EXECUTABLE_PATH "process.executable.path" Text
    PROCESS_EXECUTABLE_NAME "process.executable.name" Text
    PROCESS_COMMAND_ARGS "process.command_args" Texts
    PROCESS_OWNER "process.owner" Text
    DURATION_FROM_OPEN_NS "duration_from_open_ns" Int
    PROTOCOL "protocol" Text
    BYTES "bytes" Int
    EVENT_TYPE "event.type" Text
    EVENT "event" Map
    SUMMARY_CONNECTION_ID "summary.connection_id" Text
    SUMMARY_CONNECTION_EVENT "summary.connection_event" Text
    SUMMARY_REQUEST_ID "summary.request_id" Text
    SUMMARY_REQUEST_METHOD "summary.request_method" Text
    SUMMARY_REQUEST_SCHEME "summary.request_scheme" Text
    SUMMARY_REQUEST_HOST "summary.request_host" Text
    SUMMARY_REQUEST_PATH "summary.request_path" Text
    SUMMARY_REQUEST_QUERY "summary.request_query" Text
    SUMMARY_REQUEST_PROTOCOL "summary.request_protocol" Text
    SUMMARY_RESPONSE_STATUS "summary.response_status" Int
    SUMMARY_DURATION_MS "summary.duration_ms" Double
    SUMMARY_DIRECTION "summary.direction" Text
    SUMMARY_BYTES_SENT "summary.bytes_sent" Int
    SUMMARY_BYTES_RECEIVED "summary.bytes_received" Int
    PROCESS_EXE "process.exe" Text
    OBJECT_TYPE "type" Text
    OBJECT_DIGEST "digest" Text
    OBJECT_URL "url" Text
    HTTP_REQUEST_METHOD "http.request.method" Text
    HTTP_REQUEST_METHOD_ORIGINAL "http.request.method_original" Text
    HTTP_RESPONSE_STATUS_CODE "http.response.status_code" Int
    HTTP_REQUEST_SIZE "http.request.size" Int
    HTTP_REQUEST_BODY_SIZE "http.request.body.size" Int
    HTTP_RESPONSE_SIZE "http.response.size" Int
    HTTP_RESPONSE_BODY_SIZE "http.response.body.size" Int
    URL_FULL "url.full" Text
    URL_SCHEME "url.scheme" Text
    URL_PATH "url.path" Text
    URL_QUERY "url.query" Text
    USER_AGENT_ORIGINAL "user_agent.original" Text
    RPC_SYSTEM_NAME "rpc.system.name" Text
    RPC_METHOD "rpc.method" Text
    RPC_STATUS_CODE "rpc.status_code" Text
    DB_SYSTEM_NAME "db.system.name" Text
    DB_OPERATION_NAME "db.operation.name" Text
    DB_COLLECTION_NAME "db.collection.name" Text
    DB_NAMESPACE "db.namespace" Text
    DB_QUERY_TEXT "db.query.text" Text
    DB_OPERATION_BATCH_SIZE "db.operation.batch.size" Int
    DB_RESPONSE_STATUS_CODE "db.response.status_code" Text
    MESSAGING_SYSTEM "messaging.system" Text
    MESSAGING_OPERATION_NAME "messaging.operation.name" Text
    MESSAGING_DESTINATION_NAME "messaging.destination.name" Text
    TAP_EVENTSTORE_BACKEND "tap.eventstore.backend" Text
    TAP_EVENTSTORE_SIGNAL "tap.eventstore.signal" Text
    TAP_EVENTSTORE_PROTOCOL "tap.eventstore.protocol" Text
    TAP_EVENTSTORE_BATCH_ITEMS "tap.eventstore.batch.items" Int
    TAP_EVENTSTORE_BATCH_BYTES "tap.eventstore.batch.bytes" Int
    TAP_EVENTSTORE_ATTEMPTS "tap.eventstore.attempts" Int
    TAP_EVENTSTORE_RESULT "tap.eventstore.result" Text
    TAP_EVENTSTORE_REJECTED "tap.eventstore.rejected" Int
    TAP_EXCHANGE_QUALITY "tap.exchange.quality" Texts
    TAP_WEBSOCKET_CLIENT_MESSAGES "tap.websocket.client.messages" Int
    TAP_WEBSOCKET_SERVER_MESSAGES "tap.websocket.server.messages" Int
    TAP_WEBSOCKET_CLIENT_FRAMES "tap.websocket.client.frames" Int
    TAP_WEBSOCKET_SERVER_FRAMES "tap.websocket.server.frames" Int
    TAP_WEBSOCKET_CLOSE_CODE "tap.websocket.close_code" Int
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_the_key_in_protobuf() {
        assert_eq!(BYTES.field, b"\x0a\x05bytes\x12");
    }

    #[test]
    fn no_key_is_there_twice() {
        for (i, key) in ALL.iter().enumerate() {
            assert!(ALL[i + 1..].iter().all(|other| other.name != key.name), "{}", key.name);
        }
    }
}
