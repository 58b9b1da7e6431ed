//! moto's server: S3 as somebody else wrote it. What it holds is asked for by curl, over its own
//! protocol.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result};

use super::{command, output};
use crate::{
    process::Process,
    sys,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// Its bucket.
const BUCKET: &str = "captures";

/// A running server with one bucket.
#[derive(Debug)]
pub struct Moto {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    _process: Process,
}

impl Moto {
    /// Starts it on any port; it takes whoever comes.
    pub fn start() -> Result<Self> {
        Self::start_at(free_port()?, None)
    }

    /// Starts it on `port`; with `open`, after so many requests it asks for credentials, and knows
    /// none.
    pub fn start_at(port: u16, open: Option<u32>) -> Result<Self> {
        let mut server = Command::new(program()?);
        server.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        if let Some(open) = open {
            server.env("INITIAL_NO_AUTH_ACTION_COUNT", open.to_string());
        }
        let process = Process::start(server)?;
        let moto = Self { port, _process: process };
        wait::until("moto to make a bucket", PATIENCE * 3, || moto.put_bucket().ok())
            .with_context(|| moto._process.stderr.text())?;
        Ok(moto)
    }

    fn put_bucket(&self) -> Result<String> {
        output(self.curl()?.args(["--request", "PUT"]).arg(self.url("")))
    }

    fn curl(&self) -> Result<Command> {
        let mut curl = command("curl", "curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"]);
        curl.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "test:hidden"]);
        Ok(curl)
    }

    fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}/{BUCKET}{rest}", self.port)
    }

    /// `http_capture.store` for this server.
    pub fn store(&self) -> String {
        store(self.port)
    }

    /// Keys of all objects.
    pub fn keys(&self) -> Result<Vec<String>> {
        let list = output(self.curl()?.arg(self.url("?list-type=2&max-keys=1000")))?;
        let parts = list.split("<Key>").skip(1);
        Ok(parts.filter_map(|part| Some(part.split_once("</Key>")?.0.to_owned())).collect())
    }

    /// An object's bytes.
    pub fn object(&self, key: &str) -> Result<Vec<u8>> {
        let home = tempfile::tempdir()?;
        let file = home.path().join("object");
        let mut curl = self.curl()?;
        output(curl.arg("--output").arg(&file).arg(self.url(&format!("/{key}"))))?;
        Ok(fs::read(file)?)
    }
}

/// `http_capture.store` for such a server on `port`.
pub fn store(port: u16) -> String {
    format!(
        "{{ type: s3, bucket: {BUCKET}, endpoint: 'http://127.0.0.1:{port}', access_key: test, \
         secret_key: hidden }}"
    )
}

/// What `cargo xtask setup --tests` has installed, or one that is on PATH.
fn program() -> Result<PathBuf> {
    const NAME: &str = "moto_server";
    let target = env::current_exe()?;
    let own = target.ancestors().nth(3).map(|it| it.join("tools/python/bin").join(NAME));
    let path = env::var_os("PATH").unwrap_or_default();
    own.into_iter()
        .chain(env::split_paths(&path).map(|place| place.join(NAME)))
        .find(|file| sys::is_executable(file))
        .with_context(|| format!("{NAME} is missing: cargo xtask setup --tests"))
}
