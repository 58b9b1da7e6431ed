//! `curl`, and its own account of what it did.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{command, find, output, resolved};

/// What curl says of a transfer.
#[derive(Clone, Debug)]
pub struct Transfer(Value);

impl Transfer {
    /// A number of `curl --write-out '%{json}'`.
    fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or(0)
    }

    /// Its port.
    pub fn local_port(&self) -> u16 {
        self.number("local_port") as u16
    }

    /// HTTP status of the answer.
    pub fn status(&self) -> u64 {
        self.number("http_code")
    }

    /// Bytes of the request: head and body.
    pub fn sent(&self) -> u64 {
        self.number("size_request") + self.number("size_upload")
    }

    /// Bytes of the answer: head and body (as long as it is not chunked).
    pub fn received(&self) -> u64 {
        self.number("size_header") + self.number("size_download")
    }
}

/// A curl that says what it did when it is done.
pub fn curl(arguments: &[&str]) -> Result<Command> {
    let mut curl = command("curl", "curl")?;
    curl.args(["--silent", "--show-error", "--max-time", "60", "--noproxy", "*"]);
    curl.args(["--output", "/dev/null"]);
    curl.args(["--write-out", "%{json}"]).args(arguments);
    Ok(curl)
}

/// Runs it.
pub fn fetch(mut curl: Command) -> Result<Transfer> {
    let said = output(&mut curl)?;
    Ok(Transfer(serde_json::from_str(&said).with_context(|| said.clone())?))
}

/// Its file.
pub fn executable() -> Result<String> {
    resolved(&find("curl", "curl")?)
}
