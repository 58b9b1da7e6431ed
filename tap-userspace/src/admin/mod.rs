//! Health and metrics over HTTP, on loopback unless told otherwise.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

pub mod server;

/// Where the admin server listens (`--admin`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0600.
    Unix(PathBuf),
    /// Nowhere.
    Off,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err("unix: needs a path behind it".into())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            "give ADDR:PORT (127.0.0.1:10001), unix:PATH (unix:/run/tap.sock) or off".into()
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Off => f.write_str("off"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for good in ["127.0.0.1:10001", "[::1]:1", "unix:/run/tap.sock", "off"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in ["", "10001", "localhost:1", "unix:", "on", "1.2.3.4:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
