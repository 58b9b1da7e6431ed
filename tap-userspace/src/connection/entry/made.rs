//! An entry becomes a [`Connection`].

use std::net::IpAddr;

use tap_common::record::{self, Close, flags};

use super::{Entry, Terms, address};
use crate::{
    connection::{
        ending::Ending,
        model::{Connection, Event, Identity, Quality, Role, What},
    },
    protocol::conversation::Conversation,
};

impl Entry {
    pub(super) fn make(&mut self, close: &Close, ending: Ending, terms: &Terms<'_>) -> Connection {
        let (local, peer) = self.ends();
        let role = self.role(local, peer, terms);
        let start_ns = self.wall(self.since_ns);
        let end_ns = self.wall(close.header.time_ns).max(start_ns);
        let (events, dropped_events) = self.events(close, ending, start_ns, end_ns, terms);
        let mut quality = self.quality;
        self.judge(&mut quality, dropped_events);
        let said = self.conversation.as_deref();
        Connection {
            id: self.id,
            cookie: close.header.cookie,
            identity: self.identity(role, terms),
            role,
            state: ending.state,
            reset_by: ending.reset_by,
            error_type: ending.error_type,
            quality,
            local,
            peer,
            opened_ns: self.wall(self.connection.opened_ns).min(start_ns),
            start_ns,
            end_ns,
            bytes: [0, 1].map(|way| close.bytes[way].saturating_sub(self.base.bytes[way])),
            segment: self.segment,
            rtt_us: close.srtt_us,
            retransmits: close.retransmits,
            protocol: self.protocol,
            protocol_version: said.and_then(Conversation::version),
            client_hello: said.and_then(Conversation::client_hello).cloned().map(Box::new),
            server_hello: said.and_then(Conversation::server_hello).cloned().map(Box::new),
            tls_established: said.is_some_and(Conversation::is_established),
            tls_resumed: said.and_then(Conversation::is_resumed),
            tls_handshake_ns: said.and_then(Conversation::handshake_ns),
            host: self.host.clone(),
            peer_name: self.peer_name.clone(),
            process: self.process.clone(),
            events,
            dropped_events,
        }
    }

    fn judge(&self, quality: &mut Quality, dropped_events: u32) {
        if self.connection.flags & flags::PREEXISTING != 0 {
            quality.add(Quality::PREEXISTING);
        }
        if self.process.is_none() {
            quality.add(Quality::NO_OWNER);
        }
        if dropped_events > 0 {
            quality.add(Quality::EVENT_LIMIT);
        }
        if self.conversation.as_ref().is_some_and(|said| said.has_gap()) {
            quality.add(Quality::GAP);
        }
        if self.conversation.as_ref().is_some_and(|said| said.is_truncated()) {
            quality.add(Quality::TRUNCATED);
        }
    }

    /// The ids: derived where both sequence numbers are the wire's, else those drawn. A later
    /// segment keeps the trace and has a span id of its own.
    pub(super) fn identity(&self, role: Role, terms: &Terms<'_>) -> Identity {
        if let Some(identity) = self.identity {
            return identity;
        }
        let connection = &self.connection;
        let whole = connection.flags & flags::ESTABLISHED != 0
            && connection.flags & flags::PREEXISTING == 0;
        let (client, server) = match role {
            Role::Client => (connection.local_isn, connection.remote_isn),
            Role::Server => (connection.remote_isn, connection.local_isn),
        };
        let derived = if whole { terms.derive(client, server, role) } else { None };
        let mut identity = derived.unwrap_or(self.drawn);
        if self.segment > 0 {
            let salt = u64::from(self.segment).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let id = u64::from_be_bytes(identity.span_id) ^ salt;
            identity.span_id = id.max(1).to_be_bytes();
        }
        identity
    }

    /// This host's address and port, and the peer's.
    pub fn ends(&self) -> ((IpAddr, u16), (IpAddr, u16)) {
        let tuple = self.connection.tuple;
        ((address(tuple.local), tuple.local_port), (address(tuple.remote), tuple.remote_port))
    }

    pub(super) fn role_by_flags(&self) -> Option<Role> {
        match self.connection.flags {
            set if set & flags::ACTIVE != 0 => Some(Role::Client),
            set if set & flags::PREEXISTING == 0 => Some(Role::Server),
            _ => None,
        }
    }

    /// Which end this host is. Of a connection older than tap the sockets that listen tell, then
    /// who spoke first as a client; that servers have the lower port is the last resort.
    pub fn role(&self, local: (IpAddr, u16), peer: (IpAddr, u16), terms: &Terms<'_>) -> Role {
        if let Some(role) = self.role_by_flags() {
            return role;
        }
        if terms.listens(local.0, local.1) {
            return Role::Server;
        }
        match self.conversation.as_ref().and_then(|said| said.client()) {
            Some(record::TRANSMIT) => Role::Client,
            Some(_) => Role::Server,
            None if terms.listens(peer.0, peer.1) => Role::Client,
            None if local.1 > peer.1 => Role::Client,
            None => Role::Server,
        }
    }

    /// The segment's events in order of time, and how many were left out. The open is there for
    /// the first segment, the close for all.
    fn events(
        &mut self,
        close: &Close,
        ending: Ending,
        start_ns: u64,
        end_ns: u64,
        terms: &Terms<'_>,
    ) -> (Vec<Event>, u32) {
        let mut events = Vec::with_capacity(self.turns.len() + self.found.len() + 3);
        if self.segment == 0 {
            events.push(Event { time_ns: start_ns, what: What::Open });
        }
        events.append(&mut self.found);
        let recorded = self.data_events(close, &mut events);
        for event in &mut events {
            // What came with the handshake's last segment was seen before the socket was there.
            event.time_ns = event.time_ns.clamp(start_ns, end_ns);
        }
        events.sort_by_key(|event| event.time_ns);
        if ending.error_type.is_some() {
            events.push(Event { time_ns: end_ns, what: What::Error });
        }
        let room = terms.event_limit.saturating_sub(1);
        let mut dropped = self.turns_not_recorded(close, recorded).saturating_add(self.unkept);
        if events.len() > room {
            dropped = dropped.saturating_add((events.len() - room) as u32);
            events.truncate(room);
        }
        events.push(Event { time_ns: end_ns, what: What::Close });
        (events, dropped)
    }

    /// One event per turn that has bytes; says how many turns were recorded. A turn of no bytes is
    /// one that a forged or repeated segment seemed to begin.
    fn data_events(&mut self, close: &Close, events: &mut Vec<Event>) -> u32 {
        let turns = std::mem::take(&mut self.turns);
        let mut ends =
            [0, 1].map(|way| close.bytes[way].min(close.cut_at[way]).min(self.cut_at[way]));
        for turn in turns.iter().rev() {
            let end = &mut ends[turn.direction.index()];
            let bytes = end.saturating_sub(turn.position);
            *end = turn.position.min(*end);
            if bytes > 0 {
                let what = What::Data { direction: turn.direction, bytes };
                events.push(Event { time_ns: self.wall(turn.time_ns), what });
            }
        }
        let carried = if self.segment > 0 { 2 } else { 0 };
        (turns.len() as u32 + self.unkept).saturating_sub(carried)
    }

    /// Turns that the kernel only counted, after the connection had its number of records.
    fn turns_not_recorded(&self, close: &Close, recorded: u32) -> u32 {
        if close.cut_at == [u64::MAX; 2] {
            return 0;
        }
        let all = [0, 1].map(|way| close.turns[way].saturating_sub(self.base.turns[way]));
        all[0].saturating_add(all[1]).saturating_sub(recorded)
    }
}
