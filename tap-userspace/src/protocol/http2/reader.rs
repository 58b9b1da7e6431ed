//! Pieces of a direction → frames. In: bytes cut anywhere, and how many are missing. Out: headers of
//! frames, the payloads that are read, and the progress of DATA.
#![forbid(unsafe_code)]

use super::frame::{self, Fault, HEAD, Head};
use super::half::{self, BLOCK_MAX, Data, Half, State};
use super::{Http2, PREFACE};
use crate::protocol::exchange::{Exchange, Side};

/// Longest payload that is believed where frames are looked for. Larger ones are rare even where
/// they are allowed, and any bytes taken for one would hide what follows; a head comes soon.
const SEEK_FRAME_MAX: u32 = frame::DEFAULT_MAX;

impl Http2 {
    /// Bytes of a direction.
    pub(super) fn bytes(
        &mut self,
        side: Side,
        mut rest: &[u8],
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Result<(), Fault> {
        while !rest.is_empty() {
            match self.half(side).state {
                State::Preface => rest = self.preface(rest)?,
                State::Head => {
                    let half = self.half(side);
                    if half.have == 0 {
                        half.began_ns = at_ns;
                    }
                    let head;
                    (head, rest) = gather_head(half, rest);
                    if let Some(head) = head {
                        self.begin(side, head, at_ns, out)?;
                    }
                }
                State::Data(data) => rest = self.data(side, data, rest, at_ns, out)?,
                State::Read(head) => {
                    let half = self.half(side);
                    let wanted = (head.length as usize).saturating_sub(half.held.len());
                    let (now, after) = rest.split_at_checked(wanted).unwrap_or((rest, &[]));
                    rest = after;
                    if half.held.is_empty() && now.len() == wanted {
                        half.state = State::Head;
                        self.frame(side, head, Some(now), at_ns, out)?;
                        continue;
                    }
                    // Fits: `begin` does not read what is longer.
                    half::append(&mut half.held, now);
                    if now.len() == wanted {
                        half.state = State::Head;
                        let held = std::mem::take(&mut half.held);
                        let result = self.frame(side, head, Some(&held), at_ns, out);
                        self.half(side).held = half::emptied(held);
                        result?;
                    }
                }
                State::Skip(left) => {
                    let now = left.min(rest.len() as u64);
                    rest = rest.get(now as usize..).unwrap_or_default();
                    self.skipped(side, left, now);
                }
                State::Seek => match self.seek(side, rest, at_ns) {
                    Some((Some(head), after)) => {
                        rest = after;
                        self.begin(side, head, at_ns, out)?;
                    }
                    Some((None, after)) => rest = after,
                    None => return Ok(()),
                },
            }
        }
        Ok(())
    }

    fn preface<'a>(&mut self, rest: &'a [u8]) -> Result<&'a [u8], Fault> {
        let half = self.half(Side::Client);
        let wanted = PREFACE.get(half.have..).unwrap_or_default();
        let len = wanted.len().min(rest.len());
        let (now, after) = rest.split_at(len);
        if !wanted.starts_with(now) {
            return Err(Fault::Protocol);
        }
        half.have += len;
        if half.have == PREFACE.len() {
            half.have = 0;
            half.state = State::Head;
        }
        Ok(after)
    }

    fn skipped(&mut self, side: Side, left: u64, now: u64) {
        self.half(side).state = if now == left { State::Head } else { State::Skip(left - now) };
    }

    /// Looks for a frame's header at the beginning of a piece, or across pieces that are shorter
    /// than one. It is told with what follows it, or only where to go on from; nothing where the
    /// piece is of no use.
    fn seek<'a>(
        &mut self,
        side: Side,
        rest: &'a [u8],
        at_ns: u64,
    ) -> Option<(Option<Head>, &'a [u8])> {
        let half = self.half(side);
        let max = half.limits.frame.min(SEEK_FRAME_MAX);
        let short = rest.len() < HEAD;
        if half.have > 0 || short {
            if half.have == 0 {
                half.began_ns = at_ns;
            }
            let (head, after) = gather_head(half, rest);
            let head = head?;
            let next = after.get(head.length as usize..).unwrap_or_default();
            if frame::begins_frames(&half.head, max) == Some(true)
                && frame::begins_frames(next, max) != Some(false)
            {
                half.state = State::Head;
                return Some((Some(head), after));
            }
            if short {
                // The next byte may be the first of a header.
                half.head.rotate_left(1);
                half.have = HEAD - 1;
                return Some((None, after));
            }
        }
        if frame::begins_frames(rest, max) != Some(true) {
            return None;
        }
        half.state = State::Head;
        Some((None, rest))
    }

    // === Missing ===

    /// Bytes that nobody kept.
    pub(super) fn missing(
        &mut self,
        side: Side,
        mut missing: u64,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Result<(), Fault> {
        while missing > 0 {
            match self.half(side).state {
                State::Data(mut data) => {
                    if data.padding.is_none() {
                        // How much of it was padding is not known.
                        data.padding = Some(0);
                        if let Some(stream) = self.streams.get_mut(&data.head.stream) {
                            stream.gap();
                        }
                    }
                    let now = missing.min(u64::from(data.left)) as u32;
                    missing -= u64::from(now);
                    self.pass(side, data, now, &[], at_ns, out);
                }
                State::Skip(left) => {
                    let now = left.min(missing);
                    missing -= now;
                    self.skipped(side, left, now);
                }
                State::Read(head) => {
                    let half = self.half(side);
                    let left = u64::from(head.length).saturating_sub(half.held.len() as u64);
                    half.held = Vec::new();
                    half.state = State::Skip(left);
                    self.frame(side, head, None, at_ns, out)?;
                }
                State::Preface | State::Head => {
                    self.lose(side);
                    return Ok(());
                }
                State::Seek => {
                    self.half(side).have = 0;
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    // === Frames ===

    /// A frame's header is there.
    fn begin(
        &mut self,
        side: Side,
        head: Head,
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Result<(), Fault> {
        let half = self.half(side);
        // Nothing may come between the frames of a header block (§6.10).
        let fits = match &half.block {
            Some(block) => head.kind == frame::CONTINUATION && head.stream == block.stream,
            None => head.kind != frame::CONTINUATION,
        };
        let fits = fits
            && match (side, head.kind) {
                (Side::Client, frame::PUSH_PROMISE) => false,
                (Side::Client, frame::DATA | frame::HEADERS) => head.stream % 2 == 1,
                _ => true,
            };
        if !fits {
            return Err(Fault::Protocol);
        }
        let checked = head.check(half.limits.frame);
        if checked.is_err() && !(head.is_minor() && head.length <= half.limits.frame) {
            return checked;
        }
        if head.kind == frame::DATA {
            if let Some(stream) = self.streams.get_mut(&head.stream) {
                stream.wire(side, HEAD as u64, at_ns);
            }
            let padding = if head.padded() { None } else { Some(0) };
            let data = Data { head, left: head.length, padding };
            if head.length == 0 {
                self.pass(side, data, 0, &[], at_ns, out);
            } else {
                self.half(side).state = State::Data(data);
            }
            return Ok(());
        }
        let read = head.is_read() && checked.is_ok();
        half.state = match head.length {
            0 => State::Head,
            length if read && length as usize <= BLOCK_MAX => State::Read(head),
            length => State::Skip(u64::from(length)),
        };
        match half.state {
            State::Head if read => self.frame(side, head, Some(&[]), at_ns, out),
            State::Skip(_) if read => self.frame(side, head, None, at_ns, out),
            _ => Ok(()),
        }
    }

    fn data<'a>(
        &mut self,
        side: Side,
        mut data: Data,
        mut rest: &'a [u8],
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) -> Result<&'a [u8], Fault> {
        if data.padding.is_none()
            && let Some((first, after)) = rest.split_first()
        {
            data.padding = Some(frame::data_padding(&data.head, *first)?);
            data.left = data.left.saturating_sub(1);
            rest = after;
            if let Some(stream) = self.streams.get_mut(&data.head.stream) {
                stream.wire(side, 1, at_ns);
            }
        }
        let now = rest.len().min(data.left as usize);
        let (bytes, rest) = rest.split_at(now);
        self.pass(side, data, now as u32, bytes, at_ns, out);
        Ok(rest)
    }

    /// So many bytes of a DATA frame went by; `bytes`: these, where they were seen.
    fn pass(
        &mut self,
        side: Side,
        mut data: Data,
        now: u32,
        bytes: &[u8],
        at_ns: u64,
        out: &mut Vec<Exchange>,
    ) {
        let body = data.left.saturating_sub(data.padding.unwrap_or(0)).min(now);
        data.left = data.left.saturating_sub(now);
        if let Some(stream) = self.streams.get_mut(&data.head.stream) {
            stream.wire(side, u64::from(now), at_ns);
            if let Some(collect) = &self.collect {
                let room = collect.connection.saturating_sub(self.contents);
                let payload = bytes.get(..body as usize).unwrap_or_default();
                self.contents += stream.keep(side, payload, room);
            }
            stream.body(side, u64::from(body));
        }
        if data.left > 0 {
            self.half(side).state = State::Data(data);
            return;
        }
        self.half(side).state = State::Head;
        if data.head.ends_stream() {
            self.end(side, data.head.stream, at_ns, out);
        }
    }
}

/// A frame's header, whole in `rest` or gathered piece by piece; and what follows.
fn gather_head<'a>(half: &mut Half, rest: &'a [u8]) -> (Option<Head>, &'a [u8]) {
    if half.have == 0
        && let Some((head, after)) = rest.split_first_chunk()
    {
        half.head = *head;
        return (Some(Head::parse(*head)), after);
    }
    let mut taken = 0;
    for (to, from) in half.head.iter_mut().skip(half.have).zip(rest) {
        *to = *from;
        taken += 1;
    }
    half.have += taken;
    let after = rest.get(taken..).unwrap_or_default();
    if half.have < HEAD {
        return (None, after);
    }
    half.have = 0;
    (Some(Head::parse(half.head)), after)
}
