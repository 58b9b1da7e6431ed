//! The connection's begin and the client's packets: which commands now wait for a response.
#![forbid(unsafe_code)]

use std::sync::Arc;

use super::packets::{self, Handshake};
use super::{Due, Entry, LAST_PREPARED, PENDING_MAX, Phase, STATEMENT_SHARED, State};
use crate::protocol::exchange::Outcome;
use crate::protocol::frames::{Frame, LOSSES_MAX};
use crate::protocol::sql::{self, Dialect, Reading, Statement};

impl State {
    /// Both directions are searched for again from the client's next command on.
    pub(super) fn lose(&mut self) -> Outcome {
        self.losses += 1;
        if self.losses > LOSSES_MAX || !(self.known || self.gap) {
            return Outcome::Lost;
        }
        self.gap = true;
        self.blind = [true; 2];
        for entry in &mut self.pending {
            entry.gap = true;
        }
        Outcome::Continue
    }

    /// The server's first packet: it offers, or refuses at once.
    pub(super) fn greeting(&mut self, number: u8, body: &[u8]) -> bool {
        if body.first() == Some(&packets::ERR) {
            return true;
        }
        self.offered = packets::greeting(body);
        number == 0 && self.offered.is_some()
    }

    pub(super) fn handshake(&mut self, body: &[u8]) -> Handshake {
        let Some(answer) = packets::handshake(body) else { return Handshake::Compressed };
        // Where the greeting was not seen, as behind TLS, the client knows what it asks for.
        let agreed = answer.capabilities & self.offered.unwrap_or(u32::MAX);
        if answer.short && agreed & packets::SSL != 0 {
            return Handshake::Tls;
        }
        if agreed & (packets::COMPRESS | packets::ZSTD) != 0 {
            return Handshake::Compressed;
        }
        self.known = true;
        self.agreed = Some(agreed);
        self.namespace = answer.database;
        self.phase = Phase::Login;
        Handshake::Plain
    }

    pub(super) fn login(&mut self, body: &[u8]) {
        // ERR ends the connection; anything else goes on with authentication.
        if body.first() == Some(&packets::OK) {
            self.phase = Phase::Command;
        }
    }
}

// === The client's packets ===

impl Entry {
    pub(super) fn heap(&self) -> usize {
        self.statement.as_ref().map_or(0, |statement| STATEMENT_SHARED + statement.memory())
            + self.enters.as_ref().map_or(0, String::capacity)
    }
}

impl State {
    /// A packet that goes on with a command: a file for LOAD DATA, or authentication.
    pub(super) fn more(&mut self, frame: &Frame<'_>, number: u8) {
        if let Some(first) = self.pending.front_mut() {
            first.bytes[0] = first.bytes[0].saturating_add(frame.len);
            first.number = number.wrapping_add(1);
            // An empty packet ends the file.
            if first.due == Due::File && frame.len == 4 {
                first.due = Due::First;
            }
        }
    }

    /// `false`: what follows is another protocol.
    pub(super) fn command(&mut self, frame: &Frame<'_>, body: &[u8]) -> bool {
        let Some((command, rest)) = body.split_first() else { return true };
        let cut = frame.cut || frame.len > frame.head.len() as u64;
        let mut entry = Entry {
            began_ns: frame.began_ns,
            bytes: [frame.len, 0],
            operation: "",
            statement: None,
            enters: None,
            due: Due::First,
            number: 1,
            error: None,
            gap: self.gap || frame.cut,
        };
        match *command {
            packets::COM_QUIT | packets::COM_STMT_SEND_LONG_DATA => return true,
            packets::COM_STMT_CLOSE => {
                if let Some(id) = rest.first_chunk() {
                    self.statements.remove(&u32::from_le_bytes(*id));
                }
                return true;
            }
            packets::COM_BINLOG_DUMP | packets::COM_BINLOG_DUMP_GTID | packets::COM_TABLE_DUMP => {
                return false;
            }
            packets::COM_QUERY => {
                let attributes = self.agreed.unwrap_or(0) & packets::QUERY_ATTRIBUTES != 0;
                let statement = match packets::query_text(rest, attributes) {
                    Some(query) => self.read(query, cut),
                    None => Statement { operation: "QUERY".to_owned(), ..Statement::default() },
                };
                if statement.operation == "USE" {
                    entry.enters.clone_from(&statement.target);
                }
                entry.statement = Some(Arc::new(statement));
            }
            packets::COM_STMT_PREPARE => {
                let statement = Arc::new(self.read(rest, cut));
                self.last_prepared = Some(Arc::clone(&statement));
                entry.statement = Some(statement);
                entry.operation = "PREPARE";
                entry.due = Due::Prepared;
            }
            packets::COM_STMT_EXECUTE | packets::COM_STMT_BULK_EXECUTE => {
                let id = rest.first_chunk().map(|id| u32::from_le_bytes(*id));
                entry.statement = match id {
                    Some(LAST_PREPARED) => self.last_prepared.clone(),
                    Some(id) => self.statements.get(&id).map(Arc::clone),
                    None => None,
                };
                // It was prepared before tap came, or is forgotten.
                entry.operation = "EXECUTE";
            }
            packets::COM_INIT_DB => {
                entry.operation = "USE";
                entry.enters = Some(packets::name(rest));
            }
            packets::COM_CHANGE_USER => {
                entry.operation = "CHANGE_USER";
                entry.enters = packets::changed_database(rest);
                entry.due = Due::Login;
            }
            packets::COM_FIELD_LIST => {
                entry.operation = "FIELD_LIST";
                entry.due = Due::Fields;
            }
            packets::COM_STMT_FETCH => {
                entry.operation = "FETCH";
                entry.due = Due::Rows;
            }
            packets::COM_STATISTICS => {
                entry.operation = "STATISTICS";
                entry.due = Due::One;
            }
            other => entry.operation = packets::command_name(other),
        }
        if self.pending.len() >= PENDING_MAX {
            // A server that answers nothing, or answers that were missed.
            self.crowded += 1;
            self.gap = true;
            self.blind = [true; 2];
            return true;
        }
        self.pending.push_back(entry);
        true
    }

    fn read(&self, query: &[u8], cut: bool) -> Statement {
        let backslash = !self.no_backslash;
        sql::read(query, cut, Reading { dialect: Dialect::Mysql, backslash, text: self.text })
    }
}
