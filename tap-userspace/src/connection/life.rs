//! Moments of a connection's life that log records tell of: it has opened, it goes on, it is over.
//! Comes from the table when a connection opens, and of each [`Connection`] that comes out of it.

use std::{net::IpAddr, sync::Arc};

use super::{
    identity::Xid,
    model::{Connection, Identity, Role, State},
};
use crate::{enrich::process::Process, protocol::Protocol, telemetry::attributes};

/// Which moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It was established.
    Opened,
    /// It goes on: a segment of it has ended (`connection.max_age`), or tap leaves.
    Updated,
    /// It is over.
    Closed,
}

impl Moment {
    /// Its word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }
}

/// A connection at one moment.
#[derive(Clone, Debug)]
pub struct Life {
    /// Which.
    pub moment: Moment,
    /// When, in Unix nanoseconds.
    pub at_ns: u64,
    /// When the connection opened.
    pub opened_ns: u64,
    /// `connection.id`.
    pub id: Xid,
    /// Those of the span that tells of this moment.
    pub identity: Identity,
    /// This host's part.
    pub role: Role,
    /// This host's address and port.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub peer: (IpAddr, u16),
    /// The server's name, where it is known.
    pub server: Option<Box<str>>,
    /// How it stands.
    pub state: State,
    /// `error.type`, where it failed.
    pub error_type: Option<&'static str>,
    /// What is spoken, where that is known.
    pub protocol: Option<Protocol>,
    /// Payload received and sent in this segment.
    pub bytes: [u64; 2],
    /// `tap.connection.segment`.
    pub segment: u32,
    /// Owner of the local end.
    pub process: Option<Arc<Process>>,
}

impl From<&Connection> for Life {
    /// The end of a connection, or of a segment of it.
    fn from(it: &Connection) -> Self {
        Self {
            moment: if it.state == State::Open { Moment::Updated } else { Moment::Closed },
            at_ns: it.end_ns,
            opened_ns: it.opened_ns,
            id: it.id,
            identity: it.identity,
            role: it.role,
            local: it.local,
            peer: it.peer,
            server: attributes::server_name(it).map(Box::from),
            state: it.state,
            error_type: it.error_type,
            protocol: it.protocol,
            bytes: it.bytes,
            segment: it.segment,
            process: it.process.clone(),
        }
    }
}
