//! How a connection ended, from what the kernel said of the socket at its end.
//!
//! `sk_err` is the kernel's own word for why; where it is silent, the state before CLOSE tells an
//! abort by this host from an orderly end: in `tcp_close` (net/ipv4/tcp.c) the state changes before
//! the RST leaves, so the RST itself is not yet seen.

use tap_common::record::{Close, flags};

use super::model::{ResetBy, State};

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// `connection.state`.
    pub state: State,
    /// `tap.reset.by`.
    pub reset_by: Option<ResetBy>,
    /// `error.type`.
    pub error_type: Option<&'static str>,
}

impl Ending {
    /// Still open.
    pub const OPEN: Self = Self { state: State::Open, reset_by: None, error_type: None };
}

/// How it ended; `unanswered` tells whether the last turn was a request.
pub fn of(close: &Close, unanswered: bool) -> Ending {
    let (state, reset_by) = if has(close, flags::ESTABLISHED) {
        of_established(close)
    } else {
        (of_connect(close), None)
    };
    let failed = match state {
        State::Refused | State::Unreachable | State::TimedOut => true,
        State::Reset => unanswered || close.unacknowledged > 0,
        State::Closed | State::Aborted | State::Open => false,
    };
    Ending { state, reset_by, error_type: failed.then(|| state.name()) }
}

/// A connect that was never answered with a connection.
fn of_connect(close: &Close) -> State {
    match i32::from(close.error) {
        libc::ECONNREFUSED | libc::ECONNRESET => State::Refused,
        libc::ETIMEDOUT => State::TimedOut,
        0 if close.error_known == 0 && has(close, flags::RST_RECEIVED) => State::Refused,
        // The program closed the socket, or somebody destroyed it (`ss -K`).
        0 | libc::ECONNABORTED => State::Aborted,
        // What ICMP errors become (net/ipv4/icmp.c, icmp_err_convert).
        _ => State::Unreachable,
    }
}

fn of_established(close: &Close) -> (State, Option<ResetBy>) {
    let by_rst = if has(close, flags::RST_RECEIVED) { ResetBy::Peer } else { ResetBy::Local };
    match i32::from(close.error) {
        libc::ETIMEDOUT => (State::TimedOut, None),
        libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN | libc::EHOSTDOWN => {
            (State::Unreachable, None)
        }
        // An RST on the wire may be forged; the kernel's word goes before it.
        0 if close.error_known == 0 && has(close, flags::RST_RECEIVED) => {
            (State::Reset, Some(ResetBy::Peer))
        }
        0 if is_abort(close) => (State::Reset, Some(ResetBy::Local)),
        0 => (State::Closed, None),
        _ => (State::Reset, Some(by_rst)),
    }
}

/// Whether a socket without error went to CLOSE from a state that an orderly end does not leave
/// so. The numbers are those of include/net/tcp_states.h.
fn is_abort(close: &Close) -> bool {
    const ESTABLISHED: u8 = 1;
    const SYN_RECV: u8 = 3;
    const FIN_WAIT1: u8 = 4;
    const CLOSE_WAIT: u8 = 8;
    matches!(close.old_state, ESTABLISHED | SYN_RECV | FIN_WAIT1 | CLOSE_WAIT)
}

const fn has(close: &Close, flag: u16) -> bool {
    close.connection.flags & flag != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::entry::without_word;

    const EST: u16 = flags::ESTABLISHED;

    fn ending(set: u16, error: i32, old_state: u8, unanswered: bool) -> Ending {
        let mut close = without_word(super::super::entry::EMPTY, 0);
        close.connection.flags = set;
        close.error = error as u16;
        close.error_known = 1;
        close.old_state = old_state;
        of(&close, unanswered)
    }

    #[test]
    fn every_end_has_its_state() {
        use State::*;
        let (local, peer) = (Some(ResetBy::Local), Some(ResetBy::Peer));
        let rst = flags::RST_RECEIVED;
        // flags, sk_err, state before, request unanswered → state, by whom, error
        let rows = [
            (rst, libc::ECONNREFUSED, 2, false, Refused, None, Some("refused")),
            (0, libc::ETIMEDOUT, 2, false, TimedOut, None, Some("timeout")),
            (0, libc::EHOSTUNREACH, 2, false, Unreachable, None, Some("unreachable")),
            (0, libc::ENETUNREACH, 2, false, Unreachable, None, Some("unreachable")),
            (0, 0, 2, false, Aborted, None, None),
            (EST, 0, 9, true, Closed, None, None),
            (EST, 0, 5, false, Closed, None, None),
            (EST, 0, 11, false, Closed, None, None),
            (EST | rst, libc::ECONNRESET, 1, false, Reset, peer, None),
            (EST | rst, libc::ECONNRESET, 1, true, Reset, peer, Some("reset")),
            (EST | rst, libc::EPIPE, 8, false, Reset, peer, None),
            (EST, libc::ECONNRESET, 4, false, Reset, local, None),
            (EST, 0, 1, false, Reset, local, None),
            (EST, 0, 8, true, Reset, local, Some("reset")),
            (EST, libc::ETIMEDOUT, 1, false, TimedOut, None, Some("timeout")),
            (EST, libc::EHOSTUNREACH, 1, false, Unreachable, None, Some("unreachable")),
        ];
        for (set, error, old, unanswered, state, reset_by, error_type) in rows {
            let wanted = Ending { state, reset_by, error_type };
            assert_eq!(ending(set, error, old, unanswered), wanted, "{set:#x} {error} {old}");
        }
    }

    #[test]
    fn unacknowledged_data_makes_a_reset_an_error() {
        let mut close = without_word(super::super::entry::EMPTY, 0);
        close.connection.flags = EST | flags::RST_RECEIVED;
        close.old_state = 1;
        assert_eq!(of(&close, false).error_type, None);
        close.unacknowledged = 1;
        assert_eq!(of(&close, false).error_type, Some("reset"));
    }
}
