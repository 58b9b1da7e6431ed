//! Apache httpd, with an access log in the words of [`crate::record::http_body`].

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{command, home, lines_of};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// Where Debian has its modules.
const MODULES: &str = "/usr/lib/apache2/modules";

/// A running Apache.
#[derive(Debug)]
pub struct Apache {
    /// HTTP/1.1.
    pub http: SocketAddr,
    /// HTTP/2 by upgrade from HTTP/1.1, or with prior knowledge.
    pub h2c: SocketAddr,
    _process: Process,
    home: TempDir,
}

impl Apache {
    /// Serves what stands in [`Self::root`].
    pub fn start() -> Result<Self> {
        let home = home("apache")?;
        fs::create_dir(home.path().join("root"))?;
        let [http, h2c] = [free_port()?, free_port()?].map(|it| ([127, 0, 0, 1], it).into());
        let config = home.path().join("apache.conf");
        fs::write(&config, configuration(home.path(), http, h2c))?;
        let mut apache = command("apache2", "apache2-bin")?;
        apache.arg("-f").arg(&config).args(["-D", "FOREGROUND"]);
        let process = Process::start(apache)?;
        wait::until_true("apache to be up", PATIENCE, || home.path().join("pid").exists())
            .with_context(|| process.stderr.text())?;
        Ok(Self { http, h2c, _process: process, home })
    }

    /// Where its files are.
    pub fn root(&self) -> std::path::PathBuf {
        self.home.path().join("root")
    }

    /// Its access log of one of its addresses, once it has so many lines.
    pub fn logged(&self, of: SocketAddr, count: usize) -> Result<Vec<String>> {
        lines_of(&self.home.path().join(format!("{}.log", of.port())), count)
    }
}

fn configuration(home: &Path, http: SocketAddr, h2c: SocketAddr) -> String {
    let home = home.display();
    let of = |address: SocketAddr, protocols: &str| {
        format!(
            "Listen {address}\n<VirtualHost {address}>\nProtocols {protocols}\n\
             CustomLog {home}/{}.log told\n</VirtualHost>\n",
            address.port()
        )
    };
    format!(
        "ServerRoot {home}\nServerName tap-test.example\nPidFile {home}/pid\n\
         DefaultRuntimeDir {home}\nErrorLog {home}/error.log\n\
         LoadModule mpm_event_module {MODULES}/mod_mpm_event.so\n\
         LoadModule authz_core_module {MODULES}/mod_authz_core.so\n\
         LoadModule dir_module {MODULES}/mod_dir.so\n\
         LoadModule http2_module {MODULES}/mod_http2.so\n\
         User nobody\nGroup nogroup\nStartServers 1\n\
         DocumentRoot {home}/root\n<Directory {home}/root>\nRequire all granted\n</Directory>\n\
         LogFormat \"%{{remote}}p %m %U%q %>s %B\" told\n{}{}",
        of(http, "http/1.1"),
        of(h2c, "h2c http/1.1"),
    )
}
