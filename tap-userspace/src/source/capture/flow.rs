//! One TCP connection: its segments → what the socket of its local end would have told. Follows
//! the states of RFC 9293 §3.3.2 as that socket goes through them, with Linux's errors and its
//! moment of CLOSE (TIME-WAIT is not waited for).
#![forbid(unsafe_code)]

mod handshake;

use tap_common::record::{Close, RECEIVE, TRANSMIT, flags};

use super::{
    Counts, Item, Settings, Sink, Wall,
    link::{Endpoint, Segment, flag},
    reassembly::{Brought, Deliver, Piece, Stream},
    record::{Bytes, Facts, Socket},
};

/// An end of a connection, as an index.
pub const CLIENT: usize = 0;
/// The other.
pub const SERVER: usize = 1;

/// `sk_err` values (include/uapi/asm-generic/errno.h); those of the machine that replays may be
/// others.
mod errno {
    pub const EPIPE: u16 = 32;
    pub const ECONNRESET: u16 = 104;
    pub const ETIMEDOUT: u16 = 110;
    pub const ECONNREFUSED: u16 = 111;
}

/// TCP states (include/net/tcp_states.h).
mod tcp {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const CLOSING: u8 = 11;
}

/// What a flow works with and does not own.
pub struct Context<'a, 'b> {
    /// What is wanted.
    pub settings: &'a Settings,
    /// What happened besides.
    pub counts: &'a mut Counts,
    /// Bytes held by all streams.
    pub held: &'a mut usize,
    /// Time of the packet.
    pub time_ns: u64,
    /// Time of the newest packet.
    pub now: Wall,
    /// Takes the records.
    pub sink: &'a mut Sink<'b>,
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// A SYN was seen.
    Connecting,
    /// It was answered.
    Answered,
    /// The client has taken the answer.
    Established,
    /// Its end was reported.
    Closed,
}

/// A connection.
#[derive(Debug)]
pub struct Flow {
    phase: Phase,
    /// The client's end and the server's.
    ends: [Endpoint; 2],
    /// `CLIENT` or `SERVER`.
    local: usize,
    socket: Socket,
    /// What the client sends, and the server.
    streams: [Stream; 2],
    /// Initial sequence number of the client, where its SYN was seen.
    client_isn: Option<u32>,
    /// When the first SYN went, and its answer.
    syn_ns: u64,
    answer_ns: u64,
    /// A segment of the handshake was sent twice, so it measures no round trip (Karn).
    repeated: bool,
    rtt_us: u32,
    retransmits: [u32; 2],
    /// State of the local end.
    state: u8,
    /// The local end's FIN was first.
    is_active_close: bool,
    /// When its newest packet came.
    pub last_ns: u64,
}

impl Flow {
    /// A connection whose first packet comes now. `ends` are the client's and the server's.
    pub fn new(cookie: u64, ends: [Endpoint; 2], settings: &Settings, time_ns: u64) -> Self {
        let local = local(&ends, settings);
        Self {
            phase: Phase::Connecting,
            ends,
            local,
            socket: Socket::new(cookie, ends[local], ends[1 - local], settings),
            streams: Default::default(),
            client_isn: None,
            syn_ns: time_ns,
            answer_ns: time_ns,
            repeated: false,
            rtt_us: 0,
            retransmits: [0; 2],
            state: if local == CLIENT { tcp::SYN_SENT } else { tcp::SYN_RECV },
            is_active_close: false,
            last_ns: time_ns,
        }
    }

    /// Its number.
    pub const fn cookie(&self) -> u64 {
        self.socket.cookie()
    }

    /// Its socket.
    pub const fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Which end sent a packet from `from`.
    pub fn side(&self, from: &Endpoint) -> usize {
        if self.ends[CLIENT] == *from { CLIENT } else { SERVER }
    }

    /// Whether its end was reported.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether both ends have sent a FIN, so that nothing more may come.
    pub fn is_ending(&self) -> bool {
        self.phase == Phase::Established && self.streams.iter().all(|way| way.fin_at.is_some())
    }

    /// Whether no answer has come to its SYN.
    pub fn is_connecting(&self) -> bool {
        self.phase == Phase::Connecting
    }

    /// Takes in a segment that `side` sent.
    pub fn segment(&mut self, side: usize, segment: &Segment<'_>, context: &mut Context<'_, '_>) {
        self.last_ns = self.last_ns.max(context.time_ns);
        if self.phase == Phase::Closed {
            return;
        }
        if segment.has(flag::RST) {
            self.reset(side, segment, context);
        } else if segment.has(flag::SYN) {
            self.synchronise(side, segment, context);
        } else {
            if self.phase != Phase::Established && !self.confirm(side, segment, context) {
                return;
            }
            self.data(side, segment, context);
        }
    }

    /// Counts a segment without new bytes, if it was sent again and not captured again.
    fn count_repeated(&mut self, side: usize, segment: &Segment<'_>) -> bool {
        let stream = &mut self.streams[side];
        if stream.is_copy(segment, self.last_ns) {
            return false;
        }
        stream.mark(segment, self.last_ns);
        self.retransmits[side] = self.retransmits[side].saturating_add(1);
        true
    }

    /// A segment of an established connection.
    fn data(&mut self, side: usize, segment: &Segment<'_>, context: &mut Context<'_, '_>) {
        let now = self.last_ns;
        if segment.has(flag::ACK) {
            self.streams[1 - side].acknowledge(segment.acknowledged);
            self.advance(context);
        }
        let fin = segment.has(flag::FIN);
        if (segment.len > 0 || fin) && self.phase == Phase::Established {
            let stream = &mut self.streams[side];
            stream.join(segment.sequence);
            match stream.offset(segment.sequence) {
                Some(offset) if !fin && stream.is_probe(offset, segment.len) => {}
                Some(offset) => self.payload(side, offset, segment, context),
                None => context.counts.out_of_window += 1,
            }
        }
        for side in [CLIENT, SERVER] {
            if self.streams[side].is_missing() {
                self.deliver(side, context, |stream, held, deliver| {
                    stream.settle(now, held, deliver);
                });
            }
        }
        self.advance(context);
    }

    /// Payload or a FIN at `offset`.
    fn payload(
        &mut self,
        side: usize,
        offset: i64,
        segment: &Segment<'_>,
        context: &mut Context<'_, '_>,
    ) {
        let now = self.last_ns;
        let mut brought = Brought::Old;
        if segment.len > 0 {
            let from = u64::try_from(offset).unwrap_or(0);
            let wanted = self.socket.may_want(from, context.settings);
            let payload = &segment.payload[..segment.payload.len().min(wanted)];
            self.deliver(side, context, |stream, held, deliver| {
                brought = stream.take(offset, (segment.len, payload), now, held, deliver);
            });
        }
        let stream = &mut self.streams[side];
        if segment.has(flag::FIN) && stream.fin_at.is_none() {
            let end = u64::try_from(offset.saturating_add(segment.len.into())).unwrap_or(0);
            if end >= stream.highest {
                stream.fin_at = Some(end);
                brought = Brought::New;
            }
        }
        match brought {
            Brought::New => stream.mark(segment, now),
            Brought::Late | Brought::Old => {
                let is_copy = !self.count_repeated(side, segment) && brought == Brought::Old;
                if is_copy && segment.len > 0 {
                    context.counts.copies += 1;
                }
            }
        }
    }

    /// Runs `work` on a stream, and makes records of what it gives out.
    fn deliver(
        &mut self,
        side: usize,
        context: &mut Context<'_, '_>,
        work: impl FnOnce(&mut Stream, &mut usize, &mut Deliver<'_>),
    ) {
        let Self { streams, socket, local, .. } = self;
        let direction = if side == *local { TRANSMIT } else { RECEIVE };
        let Context { settings, counts, held, now, sink, .. } = context;
        let mut deliver = |piece: Piece<'_>| {
            if piece.is_missing {
                counts.missing_bytes += u64::from(piece.len);
            }
            let bytes = Bytes {
                direction,
                offset: piece.offset,
                len: piece.len,
                payload: piece.payload,
                now: piece.time_ns,
            };
            socket.bytes(&bytes, settings, *now, sink);
        };
        work(&mut streams[side], held, &mut deliver);
    }

    /// Goes on to the state that FINs and acknowledgments have led to.
    fn advance(&mut self, context: &mut Context<'_, '_>) {
        if self.phase != Phase::Established {
            return;
        }
        let (ours, theirs) = (&self.streams[self.local], &self.streams[1 - self.local]);
        let sent = ours.fin_at.is_some();
        let acknowledged = ours.is_fin_acknowledged();
        let is_in_order = theirs.fin_at == Some(theirs.position);
        // What the local end has acknowledged it has, captured or not.
        let received = is_in_order || theirs.is_fin_acknowledged();
        let state = match (sent, acknowledged, received) {
            (false, _, false) => tcp::ESTABLISHED,
            (false, _, true) => tcp::CLOSE_WAIT,
            (true, false, false) => tcp::FIN_WAIT1,
            (true, true, false) => tcp::FIN_WAIT2,
            (true, true, true) if is_in_order => return self.close(0, context),
            // It is over, but a disordered capture may have the rest yet: see `Self::end`.
            (true, true, true) => return,
            (true, false, true) if self.is_active_close => tcp::CLOSING,
            (true, false, true) => tcp::LAST_ACK,
        };
        self.is_active_close |= matches!(state, tcp::FIN_WAIT1 | tcp::FIN_WAIT2);
        self.state = state;
    }

    /// An RST.
    fn reset(&mut self, side: usize, segment: &Segment<'_>, context: &mut Context<'_, '_>) {
        let is_ours = side == self.local;
        let offset = self.streams[side].offset(segment.sequence);
        let is_valid = match (self.phase, side) {
            (Phase::Connecting, SERVER) => segment.has(flag::ACK) && self.answers(segment),
            // As far as is known, nothing is in order behind it (RFC 9293 §3.10.7.4).
            (Phase::Established, _) => match offset {
                Some(offset) => offset >= self.streams[side].position.cast_signed(),
                None => self.streams[side].first().is_none(),
            },
            _ => offset.is_some_and(|offset| offset >= 0),
        };
        if !is_valid {
            context.counts.out_of_window += 1;
            return;
        }
        if (self.phase, side) == (Phase::Answered, SERVER) && self.local == CLIENT {
            // The client must have taken the answer, or nobody would reset it.
            self.establish(side, segment, context);
        }
        self.socket.connection.flags |= if is_ours { flags::RST_SENT } else { flags::RST_RECEIVED };
        // `tcp_reset` (net/ipv4/tcp_input.c).
        let error = match self.state {
            _ if is_ours => 0,
            tcp::SYN_SENT => errno::ECONNREFUSED,
            tcp::CLOSE_WAIT => errno::EPIPE,
            _ => errno::ECONNRESET,
        };
        self.close(error, context);
    }

    /// Reports the end.
    fn close(&mut self, error: u16, context: &mut Context<'_, '_>) {
        let now = self.last_ns;
        if self.phase == Phase::Established {
            for side in [CLIENT, SERVER] {
                let all = side == self.local;
                self.deliver(side, context, |stream, held, deliver| {
                    stream.finish(all, now, held, deliver);
                });
            }
        }
        if self.is_told() {
            if self.phase != Phase::Established {
                self.begin_record();
            }
            self.socket.close(&self.facts(error), context.now, context.sink);
        }
        self.phase = Phase::Closed;
        self.streams.iter_mut().for_each(|stream| stream.clear(context.held));
    }

    /// Whether the kernel would tell of it: a server knows nothing of a connection before it is
    /// established.
    fn is_told(&self) -> bool {
        self.phase == Phase::Established || self.local == CLIENT
    }

    /// Its SYN was answered by nobody for so long that the client has given up.
    pub fn time_out(&mut self, at_ns: u64, context: &mut Context<'_, '_>) {
        self.last_ns = self.last_ns.max(at_ns);
        self.close(errno::ETIMEDOUT, context);
    }

    /// A SYN takes its ends for another connection.
    pub fn replaced(&mut self, context: &mut Context<'_, '_>) {
        match self.phase {
            Phase::Closed => {}
            // The program has given up connecting and tries again.
            Phase::Connecting | Phase::Answered => self.close(0, context),
            Phase::Established if self.is_ending() => self.end(context),
            Phase::Established => self.give_up(context),
        }
    }

    /// Both FINs were seen, and nothing for long: the last acknowledgment was not captured, or
    /// bytes before a FIN were not.
    pub fn end(&mut self, context: &mut Context<'_, '_>) {
        self.close(0, context);
    }

    /// It is followed no further: what is known of it is told, as of a connection that is still
    /// open.
    pub fn give_up(&mut self, context: &mut Context<'_, '_>) {
        context.counts.given_up += 1;
        let now = self.last_ns;
        if self.phase == Phase::Established {
            for side in [CLIENT, SERVER] {
                self.deliver(side, context, |stream, held, deliver| {
                    stream.finish(false, now, held, deliver);
                });
            }
        }
        if let Some(close) = self.snapshot(now) {
            (context.sink)(Item::GivenUp { now: context.now, close: &close });
        }
        self.phase = Phase::Closed;
        self.streams.iter_mut().for_each(|stream| stream.clear(context.held));
    }

    /// How it stands at `now`, if it is open.
    pub fn snapshot(&mut self, now: u64) -> Option<Close> {
        if self.phase == Phase::Closed || !self.is_told() {
            return None;
        }
        if self.phase != Phase::Established {
            self.begin_record();
        }
        let facts = Facts { now: now.max(self.last_ns), old_state: 0, ..self.facts(0) };
        Some(self.socket.snapshot(&facts))
    }

    fn facts(&self, error: u16) -> Facts {
        let (ours, theirs) = (&self.streams[self.local], &self.streams[1 - self.local]);
        let fin = u64::from(ours.fin_at.is_some());
        let in_handshake = u32::from(self.phase == Phase::Connecting);
        let unacknowledged = (ours.highest + fin).saturating_sub(ours.acknowledged);
        let mut flags = if fin == 1 { flags::FIN_SENT } else { 0 };
        if theirs.fin_at == Some(theirs.position) {
            flags |= flags::FIN_RECEIVED;
        }
        let mut bytes = [0; 2];
        bytes[RECEIVE] = theirs.position;
        bytes[TRANSMIT] = ours.highest;
        Facts {
            now: self.last_ns,
            bytes,
            rtt_us: self.rtt_us,
            retransmits: self.retransmits[self.local],
            error,
            old_state: self.state,
            unacknowledged: u32::try_from(unacknowledged).unwrap_or(u32::MAX) + in_handshake,
            flags,
        }
    }
}

/// Which end is this host: the one whose address is said to be, else the client.
fn local(ends: &[Endpoint; 2], settings: &Settings) -> usize {
    let is_ours = ends.map(|end| settings.is_local(&end.address));
    if is_ours == [false, true] { SERVER } else { CLIENT }
}
