//! Heads of a connection's directions → what they speak.

pub mod detect;
pub mod head;
#[cfg(test)]
pub(crate) mod noise;
pub mod tls_hello;
pub mod watch;

/// A protocol that tap knows by its first bytes (`ProtocolEvent`'s `protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS, with nothing known of what is inside.
    Tls,
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

impl Protocol {
    /// `protocol` of the `ProtocolEvent`.
    pub const fn event_name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    /// `network.protocol.name`.
    pub const fn network_name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http1 | Self::Http2 => "http",
        }
    }
}
