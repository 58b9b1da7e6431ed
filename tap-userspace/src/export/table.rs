//! A connection, or an exchange, as one row of a table, for people at a terminal.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use super::line::{append, clock, is_plain};
use crate::{
    connection::{
        model::{Connection, Role},
        transaction::Transaction,
    },
    enrich::process::Process,
    protocol::{Protocol, exchange::Message},
    telemetry::{attributes, log},
};

/// The table's head.
pub fn head(out: &mut Vec<u8>) {
    append(
        out,
        format_args!(
            "{:<12}  {:<20}  {:<21}    {:<28}  {:<10}  {:<11}  {:>19}  {:>8}\n",
            "TIME (UTC)", "PROCESS", "LOCAL", "PEER", "PROTOCOL", "STATE", "SENT/RECEIVED", "TIME"
        ),
    );
}

/// Appends the connection's row.
pub fn row(connection: &Connection, out: &mut Vec<u8>) {
    use tap_common::record::{RECEIVE, TRANSMIT};
    let row = Row {
        times: [connection.start_ns, connection.end_ns],
        process: connection.process.as_deref(),
        role: connection.role,
        ends: [connection.local, connection.peer],
        server: attributes::server_name(connection),
        protocol: connection.protocol.map_or("-", Protocol::event_name),
        state: connection.error_type.unwrap_or(connection.state.name()),
        bytes: [connection.bytes[TRANSMIT], connection.bytes[RECEIVE]],
    };
    row.append(out);
}

/// Appends the row of an exchange: its state is what was asked for and what came of it.
pub fn exchange(transaction: &Transaction, out: &mut Vec<u8>) {
    let Transaction { about, exchange, .. } = transaction;
    let (server, protocol, state) = match &exchange.message {
        Message::Http(http) => {
            let end = match (http.error, http.status) {
                (None, Some(status)) => Cow::Owned(status.to_string()),
                (error, _) => Cow::Borrowed(error.map_or("-", log::trouble)),
            };
            (http.host(), "http", format!("{} {end}", http.method))
        }
        Message::WebSocket(_) => (None, "websocket", "session".to_owned()),
        Message::Query(query) => {
            let end = query.error.as_deref().or(query.trouble.map(log::trouble)).unwrap_or("ok");
            (None, query.system, format!("{} {end}", query.operation))
        }
    };
    let [of_client, of_server] = exchange.bytes;
    let row = Row {
        times: [exchange.began_ns, exchange.ended_ns],
        process: about.process.as_deref(),
        role: about.role,
        ends: [about.local, about.peer],
        server,
        protocol,
        state: &plain(&state),
        bytes: match about.role {
            Role::Client => [of_client, of_server],
            Role::Server => [of_server, of_client],
        },
    };
    row.append(out);
}

/// What a row shows.
struct Row<'a> {
    /// Begin and end, Unix nanoseconds.
    times: [u64; 2],
    process: Option<&'a Process>,
    role: Role,
    /// This host's and the peer's.
    ends: [(IpAddr, u16); 2],
    /// The server's name, where it is known.
    server: Option<&'a str>,
    protocol: &'a str,
    state: &'a str,
    /// Sent and received.
    bytes: [u64; 2],
}

impl Row<'_> {
    fn append(&self, out: &mut Vec<u8>) {
        let [start_ns, end_ns] = self.times;
        let (hour, minute, second) = clock(end_ns / 1_000_000_000);
        let millis = end_ns / 1_000_000 % 1_000;
        // The server's end is shown by its name.
        let (arrow, local_name, peer_name) = match self.role {
            Role::Client => ("→", None, self.server),
            Role::Server => ("←", self.server, None),
        };
        let bytes = format!("{}/{}", human_bytes(self.bytes[0]), human_bytes(self.bytes[1]));
        append(
            out,
            format_args!(
                "{hour:02}:{minute:02}:{second:02}.{millis:03}  {:<20}  {:<21}  {arrow} {:<28}  {:<10}  {:<11}  {bytes:>19}  {:>8}\n",
                process(self.process),
                end(self.ends[0], local_name),
                end(self.ends[1], peer_name),
                self.protocol,
                self.state,
                human_duration(end_ns.saturating_sub(start_ns)),
            ),
        );
    }
}

fn process(process: Option<&Process>) -> String {
    let Some(process) = process else { return "-".into() };
    let name = if process.name.is_empty() { "?" } else { &process.name };
    let pid = format!("[{}]", process.pid);
    plain(name).chars().take(20usize.saturating_sub(pid.len())).chain(pid.chars()).collect()
}

fn end((address, port): (IpAddr, u16), name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{}:{port}", plain(name)),
        None => SocketAddr::new(address, port).to_string(),
    }
}

/// Text from the wire without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if is_plain(c) { c } else { '\u{fffd}' }).collect()
}

fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    // 999.95 would be written as 1000.0.
    while value >= 999.95 {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

fn human_duration(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    match ns {
        0..1_000_000 => format!("{:.0} µs", seconds * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", seconds * 1e3),
        1_000_000_000..60_000_000_000 => format!("{seconds:.2} s"),
        60_000_000_000..3_600_000_000_000 => {
            format!("{}m {}s", ns / 60_000_000_000, ns / 1_000_000_000 % 60)
        }
        _ => format!("{}h {}m", ns / 3_600_000_000_000, ns / 60_000_000_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_999, "1.0 MB"),
            (1 << 40, "1.1 TB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
        for (ns, text) in [
            (0, "0 µs"),
            (999_499, "999 µs"),
            (1_000_000, "1.0 ms"),
            (1_500_000_000, "1.50 s"),
            (61_000_000_000, "1m 1s"),
            (7_260_000_000_000, "2h 1m"),
        ] {
            assert_eq!(human_duration(ns), text);
        }
    }

    #[test]
    fn a_name_moves_no_cursor() {
        assert_eq!(plain("a\x1b[2J\u{202e}b"), "a\u{fffd}[2J\u{fffd}b");
    }
}
