//! A connection as one row of a table, for people at a terminal.

use std::net::SocketAddr;

use super::line::{append, clock, is_plain};
use crate::{
    connection::model::{Connection, Role},
    protocol::Protocol,
    telemetry::attributes,
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
    let (hour, minute, second) = clock(connection.end_ns / 1_000_000_000);
    let millis = connection.end_ns / 1_000_000 % 1_000;
    let name = attributes::server_name(connection);
    // The server's end is shown by its name.
    let (arrow, local_name, peer_name) = match connection.role {
        Role::Client => ("→", None, name),
        Role::Server => ("←", name, None),
    };
    let bytes = format!(
        "{}/{}",
        human_bytes(connection.bytes[TRANSMIT]),
        human_bytes(connection.bytes[RECEIVE])
    );
    append(
        out,
        format_args!(
            "{hour:02}:{minute:02}:{second:02}.{millis:03}  {:<20}  {:<21}  {arrow} {:<28}  {:<10}  {:<11}  {bytes:>19}  {:>8}\n",
            process(connection),
            end(connection.local, local_name),
            end(connection.peer, peer_name),
            protocol(connection),
            connection.error_type.unwrap_or(connection.state.name()),
            human_duration(connection.end_ns.saturating_sub(connection.start_ns)),
        ),
    );
}

fn process(connection: &Connection) -> String {
    let Some(process) = &connection.process else { return "-".into() };
    let name = if process.name.is_empty() { "?" } else { &process.name };
    let pid = format!("[{}]", process.pid);
    plain(name).chars().take(20usize.saturating_sub(pid.len())).chain(pid.chars()).collect()
}

fn end((address, port): (std::net::IpAddr, u16), name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{}:{port}", plain(name)),
        None => SocketAddr::new(address, port).to_string(),
    }
}

fn protocol(connection: &Connection) -> &'static str {
    connection.protocol.map_or("-", Protocol::event_name)
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
