//! The daemon's admin server, asked over TCP or a unix socket by a client of our own.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use anyhow::{Context, Result};

use crate::wait::PATIENCE;

/// Where the admin server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// Address and port.
    Tcp(String),
    /// Path of a socket.
    Unix(String),
}

/// What it answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

impl Address {
    /// From the form of `--admin`.
    pub fn new(text: &str) -> Self {
        match text.strip_prefix("unix:") {
            Some(path) => Self::Unix(path.to_owned()),
            None => Self::Tcp(text.to_owned()),
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Result<Answer> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, path)
            }
            Self::Unix(socket) => {
                let stream = UnixStream::connect(socket)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                exchange(stream, path)
            }
        }
    }
}

fn exchange(mut stream: impl Read + Write, path: &str) -> Result<Answer> {
    // HTTP/1.0: the answer is neither chunked nor followed by another.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Answer { status: status.context("no HTTP status")?, body: body.to_owned() })
}

/// Samples in the Prometheus text format.
#[derive(Clone, Debug)]
pub struct Metrics(Vec<(String, String, f64)>);

impl Metrics {
    /// From an exposition; comments and what is no sample are left out.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// Sum of the samples of `name` whose labels hold each of `labels` (`kind="open"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.matching(name, labels).sum()
    }

    /// The same as a whole number.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Whether there is a sample of `name` with `labels`.
    pub fn has(&self, name: &str, labels: &[&str]) -> bool {
        self.matching(name, labels).next().is_some()
    }

    fn matching<'a>(&'a self, name: &'a str, labels: &'a [&str]) -> impl Iterator<Item = f64> + 'a {
        self.0
            .iter()
            .filter(move |(of, with, _)| of == name && labels.iter().all(|it| with.contains(it)))
            .map(|sample| sample.2)
    }
}

fn sample(line: &str) -> Option<(String, String, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    Some((name.to_owned(), labels.trim_end_matches('}').to_owned(), value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples() {
        let metrics = Metrics::parse(
            "# TYPE tap_records_seen_total counter\n\
             tap_records_seen_total{kind=\"open\",cpu=\"0\"} 3\n\
             tap_records_seen_total{kind=\"open\",cpu=\"1\"} 4\n\
             tap_records_seen_total{kind=\"close\"} 9\nup 1\n",
        );
        assert_eq!(metrics.count("tap_records_seen_total", &["kind=\"open\""]), 7);
        assert_eq!(metrics.count("up", &[]), 1);
        assert!(!metrics.has("down", &[]));
    }
}
