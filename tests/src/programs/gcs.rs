//! A server that is to objects what Google Cloud Storage is: it checks who asks, and tells what for.
//! Ours, since none of those that the registries have takes such a request: `fake-gcs-server` wants
//! signed URLs, `gcp-storage-emulator` takes no JSON this way, the others have no XML API.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    command, output,
    scripts::{Server, python},
};

/// The account that it knows.
pub const ACCOUNT: &str = "tap@project.iam.gserviceaccount.com";
/// The name of its key.
pub const KEY: &str = "key-7";

/// The server, and an account.
#[derive(Debug)]
pub struct Gcs {
    server: Server,
    home: TempDir,
}

impl Gcs {
    /// Meets requests with `fates` one after the other, and all that follow with the last of them: a
    /// status, or `bare` for a 200 without an ETag.
    pub fn start(fates: &[&str]) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("tap-gcs-").tempdir()?;
        let path = |name: &str| home.path().join(name);
        let mut openssl = command("openssl", "openssl")?;
        openssl.args([
            "genpkey",
            "-quiet",
            "-algorithm",
            "RSA",
            "-pkeyopt",
            "rsa_keygen_bits:2048",
        ]);
        output(openssl.arg("-out").arg(path("key")))?;
        let mut openssl = command("openssl", "openssl")?;
        openssl.args(["pkey", "-pubout", "-in"]).arg(path("key"));
        output(openssl.arg("-out").arg(path("public")))?;
        let account = json!({
            "type": "service_account",
            "client_email": ACCOUNT,
            "private_key_id": KEY,
            "private_key": fs::read_to_string(path("key"))?,
        });
        fs::write(path("account.json"), account.to_string())?;
        let mut script = python(include_str!("gcs_server.py"))?;
        script.arg(path("public")).args(fates);
        Ok(Self { server: Server::start(script)?, home })
    }

    /// The block `http_capture.store` for it.
    pub fn store(&self) -> String {
        let account: PathBuf = self.home.path().join("account.json");
        format!(
            "{{ type: gcs, bucket: captures, endpoint: 'http://127.0.0.1:{}', service_account: {} }}",
            self.server.port,
            account.display()
        )
    }

    /// Every request so far, once there are `count`.
    pub fn requests(&self, count: usize) -> Result<Vec<Value>> {
        let lines = self.server.logged(count)?;
        lines.iter().map(|line| serde_json::from_str(line).context("a line of JSON")).collect()
    }
}
