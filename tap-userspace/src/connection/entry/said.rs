//! What the ends of a connection say to one another, on its way out.

use std::sync::Arc;

use tap_common::record::{self, Close};

use super::{Entry, Terms};
use crate::{
    connection::{
        batches::Batches,
        life::{Life, Moment},
        model::{Event, Role, State, What},
        table::Exchanges,
        transaction::{About, Transaction},
    },
    protocol::{
        Protocol,
        conversation::{self, Conversation, DnsMessage, Found, Interest},
        exchange::{Exchange, Message},
        tls::ClientHello,
    },
};

/// What entries tell besides connections.
#[derive(Default)]
pub struct Told {
    /// Exchanges that are over.
    pub transactions: Batches<Transaction>,
    /// Connections that opened.
    pub lives: Batches<Life>,
    /// What became of exchanges.
    pub exchanges: Exchanges,
    /// Connections that ended without their protocol being known.
    pub unknown: u64,
}

impl Entry {
    /// What the ends have said to one another since the last time, and whether the kernel side
    /// should capture otherwise from now on. Under load data may come before its open; then
    /// exchanges wait for it, as it tells whose they are.
    pub fn transactions(&mut self, terms: &Terms<'_>, out: &mut Told) -> Option<Interest> {
        let conversation = self.conversation.as_deref_mut()?;
        let interest = conversation.interest();
        let wait = (!self.known || self.judging.is_some())
            && conversation.waiting() <= conversation::WAITING_MAX;
        let exchanges = if wait { Vec::new() } else { conversation.exchanges() };
        let crowded_out = conversation.crowded_out();
        for found in conversation.found() {
            self.found(found);
        }
        if !terms.parse {
            return None;
        }
        out.exchanges.crowded_out += crowded_out;
        if self.known {
            self.tell(exchanges, terms, out);
        } else {
            out.exchanges.nameless += exchanges.len() as u64;
        }
        let changed = interest != self.interest;
        self.interest = interest;
        changed.then_some(interest)
    }

    /// Takes in what the bytes so far have told of the protocol.
    pub fn learn_protocol(&mut self) {
        let found = self.conversation.as_deref_mut().map(Conversation::found);
        found.into_iter().flatten().for_each(|found| self.found(found));
    }

    /// The innermost protocol known, once all is known that rules may ask of it, and the ClientHello.
    pub fn spoken(&self) -> (Option<&'static str>, Option<&ClientHello>) {
        let hello = self.conversation.as_deref().and_then(Conversation::client_hello);
        let known = self.protocol.filter(|it| *it != Protocol::Tls || hello.is_some());
        (known.map(Protocol::network_name), hello)
    }

    /// Tells exchanges, whose ends are known by now.
    fn tell(&mut self, exchanges: Vec<Exchange>, terms: &Terms<'_>, out: &mut Told) {
        out.exchanges.told += exchanges.len() as u64;
        for mut exchange in exchanges {
            exchange.began_ns = self.wall(exchange.began_ns);
            exchange.ended_ns = self.wall(exchange.ended_ns).max(exchange.began_ns);
            if self.host.is_none()
                && let Message::Http(http) = &exchange.message
            {
                self.host = http.host().map(Box::from);
            }
            out.exchanges.fields_dropped += exchange.fields_dropped();
            let about = self.about(terms);
            out.transactions.push(Transaction {
                about,
                number: self.transactions,
                exchange,
                object: None,
            });
            self.transactions += 1;
        }
    }

    /// Exchanges that nobody will ever know whose they are.
    fn forget_nameless(&mut self, out: &mut Told) {
        if let Some(conversation) = &mut self.conversation
            && !self.known
        {
            out.exchanges.nameless += conversation.exchanges().len() as u64;
        }
    }

    /// The connection is over as far as its exchanges are concerned.
    pub(super) fn end_conversation(&mut self, close: &Close, terms: &Terms<'_>, out: &mut Told) {
        let mut client = match self.role_by_flags() {
            Some(Role::Server) => record::RECEIVE,
            _ => record::TRANSMIT,
        };
        if let Some(conversation) = &mut self.conversation {
            conversation.end(close.bytes, close.last_ns, close.header.time_ns);
            client = conversation.client().unwrap_or(client);
            self.transactions(terms, out);
            self.forget_nameless(out);
            out.unknown += u64::from(self.is_unknown());
        }
        // What is unknown may have been anything.
        let is_read = self.is_unknown() || self.protocol.is_some_and(conversation::is_read);
        if terms.parse && is_read && self.lost {
            let turns = u64::from(close.turns[client]);
            out.exchanges.turns_untold += turns.saturating_sub(self.transactions.into());
        }
    }

    /// Nobody hears any more of the connection, which may go on: exchanges under way are told.
    pub fn leave(&mut self, now_ns: u64, terms: &Terms<'_>, out: &mut Told) {
        let Some(conversation) = &mut self.conversation else { return };
        out.exchanges.open += conversation.leave(now_ns);
        self.transactions(terms, out);
        self.forget_nameless(out);
        out.unknown += u64::from(self.is_unknown());
    }

    /// Whether nobody knows what is spoken.
    fn is_unknown(&self) -> bool {
        self.protocol.is_none_or(|protocol| protocol == Protocol::Unknown)
    }

    /// Whose exchanges these are.
    fn about(&mut self, terms: &Terms<'_>) -> Arc<About> {
        let known =
            self.about.as_ref().filter(|about| about.process.is_some() || self.process.is_none());
        if let Some(about) = known {
            return about.clone();
        }
        let (local, peer) = self.ends();
        let role = self.role(local, peer, terms);
        let about = Arc::new(About {
            id: self.id,
            identity: self.identity(role, terms),
            role,
            local,
            peer,
            process: self.process.clone(),
        });
        self.identity = Some(about.identity);
        self.about = Some(about.clone());
        about
    }

    /// Tells once that it has opened, if that is still to be told.
    pub fn announce(&mut self, terms: &Terms<'_>, out: &mut Told) {
        if !std::mem::take(&mut self.unannounced) {
            return;
        }
        let about = self.about(terms);
        let opened_ns = self.wall(self.connection.opened_ns);
        out.lives.push(Life {
            moment: Moment::Opened,
            at_ns: opened_ns,
            opened_ns,
            id: about.id,
            identity: about.identity,
            role: about.role,
            local: about.local,
            peer: about.peer,
            server: self.peer_name.clone(),
            state: State::Open,
            error_type: None,
            protocol: None,
            bytes: [0; 2],
            segment: self.segment,
            process: about.process.clone(),
        });
    }

    /// DNS messages that went over this connection since the last time.
    pub fn dns(&mut self) -> Vec<DnsMessage> {
        self.conversation.as_deref_mut().map(Conversation::dns).unwrap_or_default()
    }

    fn found(&mut self, found: Found) {
        let what = match found.what {
            // Looked at anew after a forged segment, or the same inside a tunnel.
            conversation::What::Protocol(protocol) if self.protocol == Some(protocol) => return,
            conversation::What::Protocol(protocol) => {
                // Bytes that were forged told nothing.
                let unknown = What::Protocol(Protocol::Unknown);
                self.found.retain(|event| event.what != unknown);
                self.protocol = Some(protocol);
                What::Protocol(protocol)
            }
            conversation::What::ClientHello => {
                // One that was told before was forged.
                self.found.retain(|event| !matches!(event.what, What::ClientHello { .. }));
                let since_open_ns = found.at_ns.saturating_sub(self.connection.opened_ns);
                What::ClientHello { since_open_ns }
            }
        };
        self.found.push(Event { time_ns: self.wall(found.at_ns), what });
    }
}
