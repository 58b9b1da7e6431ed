//! Heads of a connection's directions → what they speak.

pub mod content;
pub mod conversation;
#[cfg(test)]
mod cuts;
pub mod detect;
pub mod exchange;
mod frames;
pub mod http1;
pub mod http2;
pub mod kafka;
pub mod mysql;
#[cfg(test)]
pub(crate) mod noise;
pub mod postgres;
mod recent;
pub mod redis;
pub mod sql;
pub mod starttls;
pub mod stream;
pub mod tls;
pub mod trace_context;
pub mod websocket;

/// A protocol that tap knows by its first bytes (`ProtocolEvent`'s `protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TLS, with nothing known of what is inside.
    Tls,
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// WebSocket; never by its first bytes, only after an upgrade.
    WebSocket,
    /// Redis, RESP2 or RESP3.
    Redis,
    /// PostgreSQL's frontend/backend protocol.
    Postgresql,
    /// MySQL and MariaDB.
    Mysql,
    /// MongoDB's wire protocol.
    Mongodb,
    /// Kafka.
    Kafka,
    /// AMQP 0-8 to 1.0.
    Amqp,
    /// MQTT.
    Mqtt,
    /// NATS.
    Nats,
    /// Memcached, text or binary.
    Memcached,
    /// Cassandra's native protocol (CQL).
    Cassandra,
    /// SSH.
    Ssh,
    /// SMTP.
    Smtp,
    /// IMAP.
    Imap,
    /// POP3.
    Pop3,
    /// FTP's control connection.
    Ftp,
    /// LDAP.
    Ldap,
    /// RDP.
    Rdp,
    /// SMB1 to SMB3.
    Smb,
    /// DNS over TCP.
    Dns,
    /// BitTorrent's peer protocol.
    Bittorrent,
    /// Nothing of the above, as far as its first bytes tell.
    Unknown,
}

impl Protocol {
    /// `protocol` of the `ProtocolEvent`.
    pub const fn event_name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            other => other.network_name(),
        }
    }

    /// `network.protocol.name`.
    pub const fn network_name(self) -> &'static str {
        match self {
            Self::Tls => "tls",
            Self::Http1 | Self::Http2 => "http",
            Self::WebSocket => "websocket",
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
            Self::Mysql => "mysql",
            Self::Mongodb => "mongodb",
            Self::Kafka => "kafka",
            Self::Amqp => "amqp",
            Self::Mqtt => "mqtt",
            Self::Nats => "nats",
            Self::Memcached => "memcached",
            Self::Cassandra => "cassandra",
            Self::Ssh => "ssh",
            Self::Smtp => "smtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Ldap => "ldap",
            Self::Rdp => "rdp",
            Self::Smb => "smb",
            Self::Dns => "dns",
            Self::Bittorrent => "bittorrent",
            Self::Unknown => "unknown",
        }
    }
}
