//! A self-signed certificate, made anew by `openssl` for each test run.

use std::{path::PathBuf, sync::OnceLock};

use anyhow::{Result, anyhow};
use tempfile::TempDir;

use super::{command, output};

/// The server name that the certificate and the tests use.
pub const NAME: &str = "tap-test.example";

/// Certificate and key, PEM.
#[derive(Debug)]
pub struct Certificate {
    /// Path of the certificate.
    pub certificate: PathBuf,
    /// Path of its key.
    pub key: PathBuf,
    _home: TempDir,
}

/// The certificate of this test run.
pub fn certificate() -> Result<&'static Certificate> {
    static MADE: OnceLock<Result<Certificate, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| make().map_err(|error| format!("{error:#}")));
    made.as_ref().map_err(|error| anyhow!("{error}"))
}

fn make() -> Result<Certificate> {
    let home = tempfile::Builder::new().prefix("tap-tls-").tempdir()?;
    let (certificate, key) = (home.path().join("cert.pem"), home.path().join("key.pem"));
    let mut openssl = command("openssl", "openssl")?;
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
    openssl.args(["-nodes", "-days", "2", "-subj", &format!("/CN={NAME}")]);
    openssl.arg("-out").arg(&certificate).arg("-keyout").arg(&key);
    output(&mut openssl)?;
    Ok(Certificate { certificate, key, _home: home })
}
