//! Commands that wait for their reply, what answers them, and the exchanges that follow.
#![forbid(unsafe_code)]

use super::replies::Value;
use super::resp::{self, Command, WORD_MAX, Word};
use super::{Kind, LOSSES_MAX, Mute, PIPELINE_MAX, Pending, Sight, State, TEXT_MAX, TEXTS_MAX};
use crate::protocol::exchange::{Exchange, Message, Query, Side, Trouble};

impl State {
    /// A direction makes no sense.
    pub(super) fn lose(&mut self, side: Side) {
        self.losses += 1;
        // Nothing was ever understood, and nothing is missing that could be the reason.
        self.lost |= self.losses > LOSSES_MAX || !(self.known || self.gap);
        self.gap = true;
        match side {
            Side::Client => {
                self.client = Sight::Turn;
                self.database = None;
            }
            Side::Server => self.server = Sight::Turn,
        }
    }

    pub(super) fn pending(&mut self, command: &Command) -> Pending {
        let operation = operation(command);
        let name = command.words[0].bytes();
        let argument = || std::str::from_utf8(command.words[1].bytes()).ok()?.parse().ok();
        let arguments = u32::try_from(command.arguments).unwrap_or(u32::MAX);
        let mut left = 1;
        let kind = match operation.as_bytes() {
            b"SELECT" => argument().map_or(Kind::Plain, Kind::Select),
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE"
            | b"SUNSUBSCRIBE" => {
                left = arguments.saturating_sub(1).max(1);
                Kind::Subscribe
            }
            b"EXEC" => Kind::Exec,
            b"DISCARD" => Kind::Discard,
            b"MONITOR" => Kind::Monitor,
            b"RESET" => Kind::Reset,
            b"SYNC" | b"PSYNC" => Kind::Replicate,
            _ => Kind::Plain,
        };
        let mut text = None;
        if self.text && !command.cut && self.texts < TEXTS_MAX - TEXT_MAX {
            let named = if operation.len() > name.len() && operation.contains(' ') { 2 } else { 1 };
            let room = TEXT_MAX.saturating_sub(operation.len()) / 2;
            let marks =
                usize::try_from(command.arguments).unwrap_or(usize::MAX).saturating_sub(named);
            let mut out = String::with_capacity(operation.len() + 2 * marks.min(room));
            out.push_str(&operation);
            (0..marks.min(room)).for_each(|_| out.push_str(" ?"));
            self.texts += out.capacity();
            text = Some(out);
        }
        Pending {
            began_ns: command.began_ns,
            bytes: [command.bytes, 0],
            operation,
            text,
            kind,
            left,
            commands: 1,
            error: None,
            gap: self.gap || command.cut,
        }
    }

    pub(super) fn command(&mut self, command: &Command, at_ns: u64, out: &mut Vec<Exchange>) {
        let [name, subcommand, argument] = &command.words;
        if name.bytes().eq_ignore_ascii_case(b"CLIENT")
            && subcommand.bytes().eq_ignore_ascii_case(b"REPLY")
        {
            if argument.bytes().eq_ignore_ascii_case(b"ON") {
                self.mute = Mute::No;
            } else {
                let skip = argument.bytes().eq_ignore_ascii_case(b"SKIP") && self.mute == Mute::No;
                let pending = self.pending(command);
                self.mute = if skip { Mute::One } else { Mute::All };
                return self.tell(pending, at_ns, None, out);
            }
        } else if self.mute != Mute::No {
            if self.mute == Mute::One {
                self.mute = Mute::No;
            }
            let pending = self.pending(command);
            return self.tell(pending, at_ns, None, out);
        }
        if self.pending.len() < PIPELINE_MAX {
            let pending = self.pending(command);
            self.pending.push_back(pending);
            return;
        }
        if let Some(last) = self.pending.back_mut()
            && last.kind == Kind::Many
        {
            last.left = last.left.saturating_add(1);
            last.commands = last.commands.saturating_add(1);
            last.bytes[0] = last.bytes[0].saturating_add(command.bytes);
            return;
        }
        // The last place is for all that follow.
        if let Some(last) = self.pending.back_mut() {
            let text = last.text.take().map_or(0, |text| text.capacity());
            self.texts = self.texts.saturating_sub(text);
            last.kind = Kind::Many;
            last.operation = "PIPELINE".to_owned();
            last.left = last.left.saturating_add(1);
            last.commands = 2;
            last.bytes[0] = last.bytes[0].saturating_add(command.bytes);
        }
    }

    /// A value of the server's: the reply to the first pending command, part of it, or a push.
    pub(super) fn value(&mut self, value: &Value, at_ns: u64, out: &mut Vec<Exchange>) {
        if value.kind == b'|' {
            self.attributes = self.attributes.saturating_add(value.bytes);
            return;
        }
        let bytes = value.bytes.saturating_add(std::mem::take(&mut self.attributes));
        if self.is_push(value, bytes, at_ns, out) {
            return;
        }
        let Some(first) = self.pending.front_mut() else {
            // A greeting of refusal, or what was due before tap came.
            return;
        };
        first.bytes[1] = first.bytes[1].saturating_add(bytes);
        let failed = matches!(value.kind, b'-' | b'!');
        if failed && first.error.is_none() {
            first.error = Some(error_word(value.word.bytes()));
        }
        first.left = match first.kind {
            Kind::Subscribe => 0,
            _ => first.left.saturating_sub(1),
        };
        if first.left > 0 {
            return;
        }
        let Some(first) = self.pop() else { return };
        if !failed {
            self.follow(first.kind, value);
        }
        self.tell(first, at_ns, None, out);
        self.gap &= !self.pending.is_empty();
    }

    /// What a command that succeeded changes.
    fn follow(&mut self, kind: Kind, value: &Value) {
        let queued = value.kind == b'+' && value.word.bytes() == b"QUEUED";
        match kind {
            Kind::Select(database) if queued => self.queued_database = Some(database),
            Kind::Select(database) => self.database = Some(database),
            Kind::Exec => {
                let database = self.queued_database.take().filter(|_| !value.null);
                self.database = database.or(self.database);
            }
            Kind::Discard => self.queued_database = None,
            Kind::Monitor if !queued => self.monitor = true,
            Kind::Reset => {
                self.database = Some(0);
                self.queued_database = None;
                self.subscriptions = 0;
                self.monitor = false;
            }
            Kind::Replicate => self.lost = true,
            _ => {}
        }
    }

    /// Takes values that answer no command, and the confirmations of (un)subscribing.
    fn is_push(&mut self, value: &Value, bytes: u64, at_ns: u64, out: &mut Vec<Exchange>) -> bool {
        let word = value.word.bytes();
        match value.kind {
            b'+' => return self.monitor && word.first().is_some_and(u8::is_ascii_digit),
            b'*' | b'>' => {}
            _ => return false,
        }
        let subscribing = self.pending.front().is_some_and(|first| first.kind == Kind::Subscribe);
        let pushed = value.kind == b'>';
        if !pushed && !subscribing && self.subscriptions == 0 {
            return false;
        }
        if matches!(word, b"message" | b"pmessage" | b"smessage") {
            return true;
        }
        let confirmation = word.ends_with(b"subscribe");
        if confirmation && !pushed {
            self.subscriptions = value.integer.unwrap_or(0).max(0);
        }
        if let Some(first) = self.pending.front_mut()
            && confirmation
            && first.kind == Kind::Subscribe
            && first.operation.as_bytes().eq_ignore_ascii_case(word)
        {
            first.bytes[1] = first.bytes[1].saturating_add(bytes);
            first.left = first.left.saturating_sub(1);
            if first.left == 0
                && let Some(first) = self.pop()
            {
                self.tell(first, at_ns, None, out);
                self.gap &= !self.pending.is_empty();
            }
            return true;
        }
        pushed || confirmation
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let first = self.pending.pop_front()?;
        if let Some(text) = &first.text {
            self.texts = self.texts.saturating_sub(text.capacity());
        }
        Some(first)
    }

    /// So many bytes of replies passed unseen until `at_ns`. Where the client asked for more since,
    /// what it asked before is answered, though tap did not see how, and is told.
    pub(super) fn miss_replies(
        &mut self,
        passed: u64,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> bool {
        if let Some(first) = self.pending.front_mut().filter(|first| first.began_ns <= at_ns) {
            first.bytes[1] = first.bytes[1].saturating_add(passed);
        }
        let Some(before) = self.pending.iter().position(|it| it.began_ns > at_ns) else {
            return false;
        };
        for _ in 0..before {
            let Some(mut first) = self.pop() else { break };
            first.gap = true;
            self.tell(first, at_ns, None, out);
        }
        true
    }

    /// Tells all that is pending.
    pub(super) fn flush(&mut self, at_ns: u64, trouble: Option<Trouble>, out: &mut Vec<Exchange>) {
        while let Some(first) = self.pop() {
            let trouble = trouble.map(|trouble| match first.bytes[1] {
                0 => trouble,
                _ => Trouble::Truncated,
            });
            self.tell(first, at_ns, trouble, out);
        }
    }

    pub(super) fn tell(
        &self,
        pending: Pending,
        ended_ns: u64,
        trouble: Option<Trouble>,
        out: &mut Vec<Exchange>,
    ) {
        let query = Query {
            system: "redis",
            operation: pending.operation,
            target: None,
            namespace: self.database.map(|database| database.to_string()),
            text: pending.text,
            batch: if pending.commands > 1 { pending.commands } else { 0 },
            error: pending.error,
            trouble,
        };
        out.push(Exchange {
            began_ns: pending.began_ns,
            ended_ns: ended_ns.max(pending.began_ns),
            bytes: pending.bytes,
            message: Message::Query(Box::new(query)),
            gap: pending.gap || self.gap,
        });
    }
}

/// The command's name in upper case, with the subcommand of those that have one.
fn operation(command: &Command) -> String {
    let plain = |word: &Word| {
        let fine = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-|".contains(byte);
        !word.cut && !word.bytes().is_empty() && word.bytes().iter().all(fine)
    };
    let [name, subcommand, _] = &command.words;
    if !plain(name) || command.cut {
        return "_OTHER".to_owned();
    }
    let two = resp::words(name.bytes()) > 1
        && !name.bytes().eq_ignore_ascii_case(b"SELECT")
        && plain(subcommand);
    let mut operation =
        String::with_capacity(name.bytes().len() + if two { 1 + WORD_MAX } else { 0 });
    let mut push = |word: &Word| {
        operation.extend(word.bytes().iter().map(|byte| char::from(byte.to_ascii_uppercase())));
    };
    push(name);
    if two {
        push(&Word::new(b" "));
        push(subcommand);
    }
    operation
}

/// `WRONGTYPE` of `WRONGTYPE Operation against …`.
fn error_word(line: &[u8]) -> String {
    let word = line.split(|byte| *byte == b' ').next().unwrap_or_default();
    let fine = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let word = if !word.is_empty() && word.iter().all(fine) { word } else { b"ERR" };
    String::from_utf8_lossy(word).into_owned()
}
