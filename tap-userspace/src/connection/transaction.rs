//! An exchange of a connection, ready to become a log record and a span: what was said, and who
//! said it.

use std::{net::IpAddr, sync::Arc};

use super::{
    identity::Xid,
    model::{Identity, Role},
};
use crate::{enrich::process::Process, protocol::exchange::Exchange};

/// What is the same for all exchanges of one connection.
#[derive(Clone, Debug)]
pub struct About {
    /// `connection.id`.
    pub id: Xid,
    /// Trace and span of the connection.
    pub identity: Identity,
    /// This host's part.
    pub role: Role,
    /// This host's address and port.
    pub local: (IpAddr, u16),
    /// The peer's.
    pub peer: (IpAddr, u16),
    /// Owner of the local end.
    pub process: Option<Arc<Process>>,
}

/// An object of an exchange in an object store, as its log record names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// SHA-256 of its bytes, in hex.
    pub digest: String,
    /// Where it is, by the configuration's template.
    pub url: String,
}

/// One exchange.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Whose it is.
    pub about: Arc<About>,
    /// Its number on the connection, from 0.
    pub number: u32,
    /// What was said; times are Unix nanoseconds.
    pub exchange: Exchange,
    /// Where more of it is kept, if it is.
    pub object: Option<Arc<Object>>,
}
