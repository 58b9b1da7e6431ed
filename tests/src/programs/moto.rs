//! moto's server: S3 as somebody else wrote it. What it holds is asked for by curl, over its own
//! protocol.

use std::{
    env, fs,
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

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
    tls: Option<TempDir>,
    process: Process,
}

impl Moto {
    /// Starts it on any port; it takes whoever comes.
    pub fn start() -> Result<Self> {
        Self::start_at(free_port()?, false)
    }

    /// Starts it on `port`; if it is `closed`, it asks for credentials, and knows none.
    pub fn start_at(port: u16, closed: bool) -> Result<Self> {
        let mut server = server(port)?;
        if closed {
            server.env("INITIAL_NO_AUTH_ACTION_COUNT", "0");
        }
        Self { port, tls: None, process: Process::start(server)? }.ready()
    }

    /// Starts it with TLS and a certificate for its address, [`Self::certificate`].
    pub fn start_tls() -> Result<Self> {
        const EXTENSIONS: &str = "[req]\ndistinguished_name=dn\nx509_extensions=ext\n[dn]\n[ext]\n\
            basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1\n";
        let home = tempfile::Builder::new().prefix("tap-moto-").tempdir()?;
        let file = |name| home.path().join(name);
        fs::write(file("config"), EXTENSIONS)?;
        let mut openssl = command("openssl", "openssl")?;
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=moto", "-config"]).arg(file("config"));
        output(openssl.arg("-out").arg(file("cert")).arg("-keyout").arg(file("key")))?;
        let port = free_port()?;
        let mut server = server(port)?;
        server.arg("--ssl-cert").arg(file("cert")).arg("--ssl-key").arg(file("key"));
        Self { port, tls: Some(home), process: Process::start(server)? }.ready()
    }

    fn ready(self) -> Result<Self> {
        wait::until_true("moto to listen", PATIENCE * 3, || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        })
        .with_context(|| self.process.stderr.text())?;
        Ok(self)
    }

    /// Its certificate's file, if it has one.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.tls.as_ref().map(|home| home.path().join("cert"))
    }

    fn curl(&self) -> Result<Command> {
        let mut curl = command("curl", "curl")?;
        curl.args(["--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*"]);
        if let Some(certificate) = self.certificate() {
            curl.arg("--cacert").arg(certificate);
        }
        curl.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "test:hidden"]);
        Ok(curl)
    }

    fn url(&self, rest: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}/{BUCKET}{rest}", self.port)
    }

    /// `http_capture.store` for this server.
    pub fn store(&self) -> String {
        let store = store(self.port);
        if self.tls.is_some() { store.replace("http://", "https://") } else { store }
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

fn server(port: u16) -> Result<Command> {
    let mut server = Command::new(python()?);
    server.args(["-c", include_str!("moto_server.py"), BUCKET]);
    server.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
    Ok(server)
}

/// The interpreter that has what `tests/requirements.txt` names.
fn python() -> Result<PathBuf> {
    let test = env::current_exe()?;
    let target = test.ancestors().nth(3).context("a test outside of a target directory")?;
    let python = target.join("tools/python/bin/python");
    ensure!(
        sys::is_executable(&python),
        "{} is missing: cargo xtask setup --tests",
        python.display()
    );
    Ok(python)
}
