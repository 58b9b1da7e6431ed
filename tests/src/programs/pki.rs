//! An authority of a test's own, and identities for 127.0.0.1 that it vouches for until a time that
//! the test chooses. By `openssl ca`, which tells times to the second in every version.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Result;
use tempfile::TempDir;

use super::{command, output};

/// The authority.
#[derive(Debug)]
pub struct Authority {
    home: TempDir,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Path of the certificate.
    pub certificate: PathBuf,
    /// Path of its key.
    pub key: PathBuf,
    /// Until when it is good.
    pub until: SystemTime,
}

const CONFIG: &str = "[ca]\ndefault_ca = this\n[this]\ndatabase = HOME/index\nserial = HOME/serial\n\
                      new_certs_dir = HOME\ncertificate = HOME/ca.pem\nprivate_key = HOME/ca.key\n\
                      default_md = sha256\npolicy = any\nx509_extensions = end\nunique_subject = no\n\
                      [any]\ncommonName = supplied\n[end]\nsubjectAltName = IP:127.0.0.1, DNS:localhost\n\
                      basicConstraints = CA:FALSE\n";

impl Authority {
    /// A new one.
    pub fn new() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("tap-pki-").tempdir()?;
        let path = |name: &str| home.path().join(name);
        let config = CONFIG.replace("HOME", &home.path().display().to_string());
        fs::write(path("config"), config)?;
        fs::write(path("index"), "")?;
        fs::write(path("serial"), "01\n")?;
        let mut openssl = command("openssl", "openssl")?;
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-days", "2", "-subj", "/CN=tap's tests"]);
        openssl.arg("-out").arg(path("ca.pem")).arg("-keyout").arg(path("ca.key"));
        output(&mut openssl)?;
        Ok(Self { home })
    }

    /// Its own certificate.
    pub fn roots(&self) -> PathBuf {
        self.home.path().join("ca.pem")
    }

    /// An identity that is good for so long, from an hour ago on.
    pub fn identity(&self, name: &str, good_for: Duration) -> Result<Identity> {
        let path = |end: &str| self.home.path().join(format!("{name}.{end}"));
        let mut openssl = command("openssl", "openssl")?;
        openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        openssl.args(["-nodes", "-subj", &format!("/CN={name}")]);
        openssl.arg("-out").arg(path("csr")).arg("-keyout").arg(path("key"));
        output(&mut openssl)?;
        let until = SystemTime::now() + good_for;
        let mut openssl = command("openssl", "openssl")?;
        openssl.args(["ca", "-batch", "-notext", "-config"]).arg(self.home.path().join("config"));
        openssl.args(["-startdate", &stamp(SystemTime::now() - Duration::from_secs(3600))?]);
        openssl.args(["-enddate", &stamp(until)?]);
        openssl.arg("-in").arg(path("csr")).arg("-out").arg(path("pem"));
        output(&mut openssl)?;
        Ok(Identity { certificate: path("pem"), key: path("key"), until })
    }
}

/// `YYYYMMDDHHMMSSZ`.
fn stamp(time: SystemTime) -> Result<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let mut date = command("date", "coreutils")?;
    date.args(["-u", "-d", &format!("@{seconds}"), "+%Y%m%d%H%M%SZ"]);
    Ok(output(&mut date)?.trim().to_owned())
}

/// The variables of a client that trusts `roots`, and shows `identity` if there is one.
pub fn variables(roots: &Path, identity: Option<&Identity>) -> Vec<(&'static str, String)> {
    let mut variables = vec![("OTEL_EXPORTER_OTLP_CERTIFICATE", roots.display().to_string())];
    if let Some(identity) = identity {
        let Identity { certificate, key, .. } = identity;
        variables
            .push(("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificate.display().to_string()));
        variables.push(("OTEL_EXPORTER_OTLP_CLIENT_KEY", key.display().to_string()));
    }
    variables
}
