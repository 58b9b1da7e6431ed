//! How a connection begins: its handshake, as far as it was captured, or its middle.
#![forbid(unsafe_code)]

use tap_common::record::flags;

use super::{CLIENT, Context, Flow, Phase, SERVER, tcp};
use crate::source::capture::link::{Segment, flag};

impl Flow {
    /// Whether a SYN of `side` begins another connection.
    pub fn is_reused(&self, side: usize, segment: &Segment<'_>) -> bool {
        let syn = segment.has(flag::SYN) && !segment.has(flag::ACK | flag::RST);
        // A disordered capture may have the SYN after its answer or the first data.
        let known = self.streams[side].begins_at(segment.sequence.wrapping_add(1));
        // Both ends may connect at once (RFC 9293 §3.5).
        let crossed = side == SERVER && matches!(self.phase, Phase::Connecting | Phase::Answered);
        syn && !known && !crossed
    }

    /// The connection was joined in its middle, by this segment of `side`.
    pub fn join(&mut self, side: usize, segment: &Segment<'_>, context: &mut Context<'_, '_>) {
        self.phase = Phase::Established;
        self.state = tcp::ESTABLISHED;
        let connection = &mut self.socket.connection;
        connection.flags |= flags::PREEXISTING | flags::ESTABLISHED;
        connection.opened_ns = context.time_ns;
        let isns = [segment.sequence, segment.acknowledged].map(|next| next.wrapping_sub(1));
        let local = if side == self.local { 0 } else { 1 };
        (connection.local_isn, connection.remote_isn) = (isns[local], isns[1 - local]);
        self.socket.open(context.time_ns, context.now, context.sink);
    }

    /// A SYN, or the answer to one.
    pub(super) fn synchronise(
        &mut self,
        side: usize,
        segment: &Segment<'_>,
        context: &mut Context<'_, '_>,
    ) {
        if self.phase == Phase::Established {
            self.count_repeated(side, segment);
            return;
        }
        let first = segment.sequence.wrapping_add(1);
        let is_new = match side {
            CLIENT => self.client_isn.is_none(),
            _ => self.phase == Phase::Connecting,
        };
        if !is_new {
            self.repeated |= self.count_repeated(side, segment);
            return;
        }
        if side == CLIENT {
            self.client_isn = Some(segment.sequence);
            self.socket.connection.flags |= if self.local == CLIENT { flags::SYN_SENT } else { 0 };
        } else {
            if segment.has(flag::ACK) && !self.answers(segment) {
                context.counts.out_of_window += 1;
                return;
            }
            self.phase = Phase::Answered;
            self.answer_ns = self.last_ns;
        }
        self.streams[side].begin(first);
        self.streams[side].mark(segment, self.last_ns);
        self.streams[side].keep((segment.len, segment.payload), self.last_ns, context.held);
        if segment.has(flag::ACK) {
            self.streams[1 - side].acknowledge(segment.acknowledged);
        }
    }

    /// Whether this segment of the server acknowledges the client's SYN, and no more than it held.
    pub(super) fn answers(&self, segment: &Segment<'_>) -> bool {
        let Some(isn) = self.client_isn else { return true };
        let acknowledged = segment.acknowledged.wrapping_sub(isn.wrapping_add(1));
        u64::from(acknowledged) <= self.streams[CLIENT].highest
    }

    /// A segment after the handshake's first two: the client's acknowledgment, or a sign of it.
    pub(super) fn confirm(
        &mut self,
        side: usize,
        segment: &Segment<'_>,
        context: &mut Context<'_, '_>,
    ) -> bool {
        if !segment.has(flag::ACK) {
            return false;
        }
        if self.phase == Phase::Connecting {
            // The answer was not captured.
            if side == CLIENT {
                self.streams[SERVER].begin(segment.acknowledged);
            } else if self.answers(segment) {
                self.streams[SERVER].begin(segment.sequence);
            } else {
                return false;
            }
            self.repeated = true;
            self.answer_ns = self.last_ns;
        } else if side == SERVER && segment.len == 0 && !segment.has(flag::FIN) {
            return false;
        } else if side == CLIENT && self.streams[SERVER].offset(segment.acknowledged) < Some(0) {
            context.counts.out_of_window += 1;
            return false;
        }
        self.establish(side, segment, context);
        true
    }

    pub(super) fn establish(
        &mut self,
        side: usize,
        segment: &Segment<'_>,
        context: &mut Context<'_, '_>,
    ) {
        self.phase = Phase::Established;
        self.state = tcp::ESTABLISHED;
        if side == CLIENT && !self.repeated && self.client_isn.is_some() {
            let rtt = self.last_ns.saturating_sub(self.syn_ns) / 1000;
            self.rtt_us = u32::try_from(rtt).unwrap_or(u32::MAX);
        }
        self.begin_record();
        self.socket.connection.flags |= flags::ESTABLISHED;
        let time_ns = if self.local == CLIENT { self.answer_ns } else { self.last_ns };
        self.socket.open(time_ns, context.now, context.sink);
        self.streams[1 - side].acknowledge(segment.acknowledged);
        for side in [CLIENT, SERVER] {
            self.deliver(side, context, |stream, held, deliver| stream.open(held, deliver));
        }
    }

    /// What is known of a connection that this end saw begin.
    pub(super) fn begin_record(&mut self) {
        let isn = |side: usize| self.streams[side].first().map_or(0, |first| first.wrapping_sub(1));
        let connection = &mut self.socket.connection;
        connection.opened_ns = self.last_ns;
        if self.local == CLIENT {
            connection.opened_ns = self.syn_ns;
            connection.flags |= flags::ACTIVE;
        }
        if self.client_isn.is_none() {
            connection.flags |= flags::PREEXISTING;
        }
        connection.local_isn = isn(self.local);
        connection.remote_isn = isn(1 - self.local);
    }
}
