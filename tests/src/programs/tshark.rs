//! `tshark`'s reading of a packet capture, in the words of [`crate::record`].

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{command, output, statement_word};

/// A capture and the port whose protocol is to be read.
#[derive(Clone, Copy, Debug)]
pub struct Tshark<'a> {
    /// The capture.
    pub file: &'a Path,
    /// The server's port.
    pub port: u16,
}

/// A packet: the client's port, whether the client sent it, and the fields asked for.
struct Packet {
    client: u16,
    from_client: bool,
    fields: Vec<String>,
}

/// Between several values of a field in one packet.
const BETWEEN: char = '\u{1f}';

impl Tshark<'_> {
    /// Packets that `filter` names, read as `protocol`.
    fn packets(&self, protocol: &str, filter: &str, fields: &[&str]) -> Result<Vec<Packet>> {
        let mut tshark = self.reading(protocol, filter)?;
        tshark.args(["-T", "fields", "-E", "separator=/t", "-E"]);
        tshark.arg(format!("aggregator={BETWEEN}")).args([
            "-e",
            "tcp.srcport",
            "-e",
            "tcp.dstport",
        ]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        let text = output(&mut tshark)?;
        let packet = |line: &str| {
            let mut values = line.split('\t').map(str::to_owned);
            let from: u16 = values.next()?.parse().ok()?;
            let to: u16 = values.next()?.parse().ok()?;
            let from_client = to == self.port;
            let client = if from_client { from } else { to };
            Some(Packet { client, from_client, fields: values.collect() })
        };
        text.lines().map(|line| packet(line).with_context(|| line.to_owned())).collect()
    }

    fn reading(&self, protocol: &str, filter: &str) -> Result<std::process::Command> {
        let mut tshark = command("tshark", "tshark")?;
        tshark
            .arg("-r")
            .arg(self.file)
            .arg("-d")
            .arg(format!("tcp.port=={},{protocol}", self.port));
        tshark.arg("-Y").arg(format!("tcp.port=={} and ({filter})", self.port));
        Ok(tshark)
    }

    /// HTTP/1 transactions, as [`crate::record::http`] has them: the responses of a connection
    /// answer its requests in order.
    pub fn http1(&self) -> Result<Vec<String>> {
        let fields = ["http.request.method", "http.request.uri", "http.response.code"];
        let mut asked: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        let mut answered: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for packet in self.packets("http", "http", &fields)? {
            let [methods, targets, codes] = [0, 1, 2].map(|at| values(&packet.fields[at]));
            let requests =
                methods.iter().zip(&targets).map(|(it, target)| format!("{it} {target}"));
            asked.entry(packet.client).or_default().extend(requests);
            let finals = codes.iter().filter(|code| !code.starts_with('1') || **code == "101");
            answered.entry(packet.client).or_default().extend(finals.map(|it| (*it).to_owned()));
        }
        let told = asked.iter().flat_map(|(client, requests)| {
            let codes = answered.get(client).into_iter().flatten();
            requests
                .iter()
                .zip(codes)
                .map(move |(request, code)| format!("{client} {request} {code}"))
        });
        Ok(told.collect())
    }

    /// HTTP/2 transactions, as [`crate::record::http`] has them.
    pub fn http2(&self) -> Result<Vec<String>> {
        let told = self.streams()?.into_iter().filter_map(|((client, _), fields)| {
            let [method, path, status] =
                [":method", ":path", ":status"].map(|name| fields.get(name));
            Some(format!("{client} {} {} {}", method?, path?, status?))
        });
        Ok(told.collect())
    }

    /// gRPC calls, as [`crate::record::grpc`] has them.
    pub fn grpc(&self) -> Result<Vec<String>> {
        let told = self.streams()?.into_iter().filter_map(|((client, _), fields)| {
            let status = fields.get("grpc-status").map_or("-", String::as_str);
            Some(format!("{client} {} {status}", fields.get(":path")?))
        });
        Ok(told.collect())
    }

    /// Header and trailer fields of HTTP/2 streams, by the client's port and the stream.
    fn streams(&self) -> Result<BTreeMap<(u16, u64), BTreeMap<String, String>>> {
        let mut tshark = self.reading("http2", "http2.type==1")?;
        tshark.args(["-T", "json", "--no-duplicate-keys", "-J", "http2"]);
        // The ports of the same packets, which that leaves out.
        let ports = self.packets("http2", "http2.type==1", &[])?;
        let text = output(&mut tshark)?;
        let packets: Vec<Value> = serde_json::from_str(&text).context("tshark's JSON")?;
        anyhow::ensure!(ports.len() == packets.len(), "tshark reads it in two ways");
        let mut streams: BTreeMap<_, BTreeMap<String, String>> = BTreeMap::new();
        for (packet, value) in ports.iter().zip(&packets) {
            frames(value, &mut |stream, name, value| {
                let fields = streams.entry((packet.client, stream)).or_default();
                fields.insert(name.to_owned(), value.to_owned());
            });
        }
        Ok(streams)
    }

    /// WebSocket sessions, as [`crate::record::websocket`] has them.
    pub fn websocket(&self) -> Result<Vec<String>> {
        let fields = ["websocket.opcode", "websocket.fin", "websocket.payload.close.status_code"];
        let mut sessions: BTreeMap<u16, ([u64; 2], String)> = BTreeMap::new();
        for packet in self.packets("http", "websocket", &fields)? {
            let [opcodes, last, codes] = [0, 1, 2].map(|at| values(&packet.fields[at]));
            let (messages, code) =
                sessions.entry(packet.client).or_insert_with(|| ([0; 2], "-".into()));
            for (opcode, last) in opcodes.iter().zip(&last) {
                let data = opcode.parse::<u8>().is_ok_and(|opcode| opcode < 8);
                let last = ["1", "True"].contains(last);
                messages[usize::from(!packet.from_client)] += u64::from(data && last);
            }
            if let (Some(first), "-") = (codes.first(), code.as_str()) {
                (*first).clone_into(code);
            }
        }
        let told = sessions
            .into_iter()
            .map(|(client, ([mine, theirs], code))| format!("{client} {mine} {theirs} {code}"));
        Ok(told.collect())
    }

    /// Redis: `port COMMAND` of each array that a client sent.
    pub fn redis(&self) -> Result<Vec<String>> {
        let fields = ["resp.bulk_string.value", "resp.array.length"];
        let mut told = Vec::new();
        for packet in self.packets("resp", "resp", &fields)?.iter().filter(|it| it.from_client) {
            let (words, lengths) = (values(&packet.fields[0]), values(&packet.fields[1]));
            let mut at = 0;
            for length in lengths {
                let word = words.get(at).map(|it| unhex(it)).unwrap_or_default();
                told.push(format!("{} {}", packet.client, word.to_ascii_uppercase()));
                at += length.parse::<usize>()?;
            }
        }
        Ok(told)
    }

    /// Kafka, as [`crate::record::message`] has it. A response belongs to the request with its
    /// correlation id; of several errors in it the first counts.
    pub fn kafka(&self) -> Result<Vec<String>> {
        let fields = ["kafka.api_key", "kafka.correlation_id", "kafka.error"];
        let mut asked: Vec<(u16, String, String)> = Vec::new();
        let mut ends: BTreeMap<(u16, String), String> = BTreeMap::new();
        for packet in self.packets("kafka", "kafka", &fields)? {
            let [keys, ids, errors] = [0, 1, 2].map(|at| values(&packet.fields[at]));
            if packet.from_client {
                let requests = keys.iter().zip(&ids);
                asked.extend(
                    requests.map(|(key, id)| {
                        (packet.client, api_name(key).to_owned(), (*id).to_owned())
                    }),
                );
                continue;
            }
            let error = errors.into_iter().find(|error| *error != "0").unwrap_or("ok");
            anyhow::ensure!(error == "ok" || ids.len() == 1, "whose error is {error}?");
            ends.extend(ids.iter().map(|id| ((packet.client, (*id).to_owned()), error.to_owned())));
        }
        let told = asked.into_iter().map(|(client, name, id)| {
            let end = ends.get(&(client, id)).map_or("no_response", String::as_str);
            format!("{client} {name} {end}")
        });
        Ok(told.collect())
    }

    /// PostgreSQL, as [`crate::record::query`] has it.
    pub fn postgres(&self) -> Result<Vec<String>> {
        let fields = ["pgsql.type", "pgsql.query", "pgsql.code"];
        let mut told: Vec<(u16, String, String)> = Vec::new();
        // What was parsed last, and whether nothing executed it yet.
        let mut parsed: BTreeMap<u16, String> = BTreeMap::new();
        let mut alone = BTreeSet::new();
        for packet in self.packets("pgsql", "pgsql", &fields)? {
            let client = packet.client;
            let mut queries = values(&packet.fields[1]).into_iter();
            let mut codes = values(&packet.fields[2]).into_iter();
            for kind in values(&packet.fields[0]) {
                match (packet.from_client, kind) {
                    (true, "Simple query") => {
                        let word = statement_word(queries.next().unwrap_or_default());
                        told.push((client, word, "ok".into()));
                    }
                    (true, "Parse") => {
                        let word = statement_word(queries.next().unwrap_or_default());
                        parsed.insert(client, word);
                        alone.insert(client);
                    }
                    (true, "Execute") => {
                        alone.remove(&client);
                        let word = parsed.get(&client).cloned().unwrap_or_default();
                        told.push((client, word, "ok".into()));
                    }
                    (true, "Sync") if alone.remove(&client) => {
                        told.push((client, "PREPARE".into(), "ok".into()));
                    }
                    (false, "Error") => {
                        let code = codes.next().context("an error without a code")?;
                        let last = told.iter_mut().rfind(|it| it.0 == client);
                        code.clone_into(&mut last.context("an error of nothing")?.2);
                    }
                    _ => {}
                }
            }
        }
        Ok(told.into_iter().map(|(client, word, end)| format!("{client} {word} {end}")).collect())
    }

    /// MySQL, as [`crate::record::query`] has it.
    pub fn mysql(&self) -> Result<Vec<String>> {
        let fields = ["mysql.command", "mysql.query", "mysql.error_code"];
        let mut told: Vec<(u16, String, String)> = Vec::new();
        let mut prepared: BTreeMap<u16, String> = BTreeMap::new();
        for packet in self.packets("mysql", "mysql", &fields)? {
            let client = packet.client;
            let text = statement_word(values(&packet.fields[1]).first().unwrap_or(&""));
            for command in values(&packet.fields[0]) {
                let word = match command {
                    "2" => "USE".into(),
                    "3" => text.clone(),
                    "9" => "STATISTICS".into(),
                    "14" => "PING".into(),
                    "22" => {
                        prepared.insert(client, text.clone());
                        "PREPARE".into()
                    }
                    "23" => prepared.get(&client).cloned().unwrap_or_default(),
                    "26" => "STMT_RESET".into(),
                    // QUIT, STMT_CLOSE: nothing answers.
                    _ => continue,
                };
                told.push((client, word, "ok".into()));
            }
            if let Some(code) = values(&packet.fields[2]).first() {
                let last = told.iter_mut().rfind(|it| it.0 == client);
                (*code).clone_into(&mut last.context("an error of nothing")?.2);
            }
        }
        Ok(told.into_iter().map(|(client, word, end)| format!("{client} {word} {end}")).collect())
    }
}

/// The values of a field in one packet.
fn values(field: &str) -> Vec<&str> {
    field.split(BETWEEN).filter(|it| !it.is_empty()).collect()
}

/// Bytes as tshark writes them, as text.
fn unhex(digits: &str) -> String {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    };
    let bytes: Vec<u8> = digits.chunks(2).filter_map(byte).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Tells stream, name and value of each field of HEADERS frames, at whatever depth they stand.
fn frames(value: &Value, tell: &mut impl FnMut(u64, &str, &str)) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| frames(value, tell)),
        Value::Object(map) => {
            let stream = map.get("http2.streamid").and_then(Value::as_str);
            let fields = map.get("http2.header");
            if let (Some(stream), Some(fields)) = (stream.and_then(|it| it.parse().ok()), fields) {
                let one = std::slice::from_ref(fields);
                for field in fields.as_array().map_or(one, Vec::as_slice) {
                    let part = |key: &str| field.get(key).and_then(Value::as_str);
                    let name = part("http2.header.name");
                    if let (Some(name), Some(value)) = (name, part("http2.header.value")) {
                        tell(stream, name, value);
                    }
                }
            } else {
                map.values().for_each(|value| frames(value, tell));
            }
        }
        _ => {}
    }
}

/// Names of Kafka's API keys (the protocol's documentation), as far as clients in the tests use
/// them.
fn api_name(key: &str) -> &str {
    match key {
        "0" => "Produce",
        "1" => "Fetch",
        "2" => "ListOffsets",
        "3" => "Metadata",
        "8" => "OffsetCommit",
        "9" => "OffsetFetch",
        "10" => "FindCoordinator",
        "11" => "JoinGroup",
        "12" => "Heartbeat",
        "13" => "LeaveGroup",
        "14" => "SyncGroup",
        "18" => "ApiVersions",
        "22" => "InitProducerId",
        other => other,
    }
}
