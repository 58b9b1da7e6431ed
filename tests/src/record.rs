//! Log records of exchanges as the daemon prints them (`OTEL_LOGS_EXPORTER=console`), and the words
//! that servers' logs and tshark have for the same.

use serde_json::{Map, Value};

/// One record: a flat JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct Record(Map<String, Value>);

/// What a judge says of an exchange, from a record; `None` where such a judge says nothing of it.
/// The words begin with the client's port, or with `-` where the judge does not know it.
pub type Words = fn(&Record) -> Option<String>;

impl Record {
    /// The records among lines of output, in order.
    pub fn all(lines: &[String]) -> Vec<Self> {
        let parsed = lines.iter().filter_map(|line| serde_json::from_str(line).ok());
        parsed.map(Self).filter(|it| it.0.contains_key("event.type")).collect()
    }

    /// A string attribute; empty where it is absent.
    pub fn str(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// An attribute of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// A number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    /// Whether it is of the end `direction` of a connection to the port `server`.
    pub fn is_of(&self, direction: &str, server: u16) -> bool {
        self.str("connection.direction") == direction
            && self.number("server.port") == Some(server.into())
    }

    /// Whether `tap.exchange.quality` holds `mark`.
    pub fn is_marked(&self, mark: &str) -> bool {
        let marks = self.0.get("tap.exchange.quality").and_then(Value::as_array);
        marks.is_some_and(|marks| marks.iter().any(|it| it == mark))
    }

    /// The client's port.
    pub fn client(&self) -> u64 {
        self.number("client.port").unwrap_or(0)
    }

    /// The same without what differs between two daemons that saw the same bytes: ids that are
    /// made anew, clocks, the process, which a packet capture does not know, and the mark of bytes
    /// that the live one did not capture; and without sizes where they are not counted.
    pub fn comparable(&self, sizes: bool) -> Self {
        let mut it = self.0.clone();
        let own = ["time", "connection.id", "tap.exchange.quality"];
        it.retain(|key, _| !own.contains(&key.as_str()) && !key.starts_with("process."));
        let kept = |key: &str| sizes || !(key.ends_with(".size") || key.contains(".bytes_"));
        it.retain(|key, _| kept(key));
        if let Some(Value::Object(event)) = it.get_mut("event") {
            let own = ["connection_id", "request_id", "duration_ms"];
            event.retain(|key, _| {
                key != "process.exe" && kept(key) && !own.iter().any(|own| key.ends_with(own))
            });
        }
        // The body ends with the duration.
        if let Some(Value::String(body)) = it.get_mut("body") {
            let words: Vec<_> = body.split(' ').collect();
            *body = words[..words.len().saturating_sub(2)].join(" ");
        }
        Self(it)
    }

    fn target(&self) -> String {
        match self.str("url.query") {
            "" => self.str("url.path").to_owned(),
            query => format!("{}?{query}", self.str("url.path")),
        }
    }
}

/// `port GET /path?query 200`: also tshark's words.
pub fn http(record: &Record) -> Option<String> {
    let status = record.number("http.response.status_code")?;
    let method = match record.str("http.request.method_original") {
        "" => record.str("http.request.method"),
        method => method,
    };
    Some(format!("{} {method} {} {status}", record.client(), record.target()))
}

/// The same and the bytes of the response's body.
pub fn http_body(record: &Record) -> Option<String> {
    Some(format!("{} {}", http(record)?, record.number("http.response.body.size")?))
}

/// The same and the bytes of request and response, heads and framing included.
pub fn http_sizes(record: &Record) -> Option<String> {
    let [request, response] =
        ["http.request.size", "http.response.size"].map(|it| record.number(it));
    Some(format!("{} {} {}", http_body(record)?, request?, response?))
}

/// `port GET /path 200` and the bytes of both bodies.
pub fn http_bodies(record: &Record) -> Option<String> {
    let [request, response] =
        ["http.request.body.size", "http.response.body.size"].map(|it| record.number(it));
    Some(format!("{} {} {}", http(record)?, request?, response?))
}

/// `- GET /path 200`, of a server that does not log its clients' ports.
pub fn http_anonymous(record: &Record) -> Option<String> {
    let words = http(record)?;
    Some(format!("- {}", words.split_once(' ')?.1))
}

/// The names of gRPC's status codes, by number (the gRPC documentation, statuscodes.md).
const STATUS_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// `port /package.Service/Method 0`; a call that never got a status has `-`.
pub fn grpc(record: &Record) -> Option<String> {
    (record.str("rpc.system.name") == "grpc").then_some(())?;
    let name = record.str("rpc.status_code");
    let status = match STATUS_NAMES.iter().position(|known| *known == name) {
        Some(number) => number.to_string(),
        None if name.is_empty() => "-".to_owned(),
        None => format!("unknown {name}"),
    };
    Some(format!("{} /{} {status}", record.client(), record.str("rpc.method")))
}

/// `port` and how many messages the client, the server sent, and the close frame's code.
pub fn websocket(record: &Record) -> Option<String> {
    let client = record.number("tap.websocket.client.messages")?;
    let server = record.number("tap.websocket.server.messages")?;
    let code = record.number("tap.websocket.close_code");
    let code = code.map_or_else(|| "-".into(), |code| code.to_string());
    Some(format!("{} {client} {server} {code}", record.client()))
}

/// `port SELECT ok` or `port SELECT 42P01`.
pub fn query(record: &Record) -> Option<String> {
    let operation = operation(record)?;
    let outcome = match record.str("error.type") {
        "" => "ok",
        error => error,
    };
    Some(format!("{} {operation} {outcome}", record.client()))
}

/// The first word of a database's operation, without `BATCH`.
pub fn operation(record: &Record) -> Option<&str> {
    let operation = record.0.get("db.operation.name")?.as_str()?;
    operation.trim_start_matches("BATCH ").split(' ').next()
}

/// `port Fetch ok` or `port Fetch 1`, of a broker's client.
pub fn message(record: &Record) -> Option<String> {
    let operation = record.0.get("messaging.operation.name")?.as_str()?;
    let outcome = match record.str("error.type") {
        "" => "ok",
        error => error,
    };
    Some(format!("{} {operation} {outcome}", record.client()))
}
