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
