//! MariaDB, with its general log.

use std::fs;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{as_nobody, command, find, home_of_nobody, output, statement_word, with_input};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// A running server without TLS.
#[derive(Debug)]
pub struct MariaDb {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    _process: Process,
    home: TempDir,
}

impl MariaDb {
    /// Makes a data directory and serves it; `root` has no password.
    pub fn start() -> Result<Self> {
        let home = home_of_nobody("mariadb")?;
        let data = home.path().join("data");
        let mut install = as_nobody(&find("mariadb-install-db", "mariadb-server-core")?)?;
        install.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
        install.args(["--skip-test-db", "--innodb-log-file-size=4M"]);
        install.arg(format!("--datadir={}", data.display())).current_dir(home.path());
        output(&mut install)?;
        let port = free_port()?;
        let mut server = as_nobody(&find("mariadbd", "mariadb-server-core")?)?;
        let general = home.path().join("general.log");
        server.args(["--no-defaults", "--bind-address=127.0.0.1", "--general-log"]);
        server.args(["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0"]);
        server.arg(format!("--port={port}")).arg(format!("--datadir={}", data.display()));
        server.arg(format!("--socket={}", home.path().join("socket").display()));
        server.arg(format!("--general-log-file={}", general.display()));
        server.current_dir(home.path());
        let process = Process::start(server)?;
        process.stderr.wait_for("MariaDB to be up", PATIENCE, |line| {
            line.contains("ready for connections").then_some(())
        })?;
        Ok(Self { port, _process: process, home })
    }

    /// Runs statements by its own client, on one connection, going on after errors, whose codes it
    /// gives.
    pub fn run(&self, statements: &str) -> Result<Vec<String>> {
        let mut client = command("mariadb", "mariadb-client-core")?;
        client.args(["--no-defaults", "--skip-ssl", "--host=127.0.0.1", "--user=root", "--force"]);
        client.arg(format!("--port={}", self.port));
        let said = with_input(&mut client, statements)?;
        let code = |line: &str| Some(line.strip_prefix("ERROR ")?.split(' ').next()?.to_owned());
        Ok(String::from_utf8_lossy(&said.stderr).lines().filter_map(code).collect())
    }

    /// Runs a Perl program with `DBI` and the server's port as its argument.
    pub fn perl(&self, program: &str) -> Result<String> {
        let mut perl = command("perl", "perl")?;
        output(perl.args(["-e", program, &self.port.to_string()]))
    }

    /// `- SELECT` for each command of the general log that came over TCP, once there are so many.
    pub fn logged(&self, count: usize) -> Result<Vec<String>> {
        let path = self.home.path().join("general.log");
        wait::until("MariaDB to log", PATIENCE, || {
            let log = fs::read_to_string(&path).ok()?;
            let logged: Vec<_> = log.lines().filter_map(logged).collect();
            (logged.len() >= count).then_some(logged)
        })
        .with_context(|| fs::read_to_string(&path).unwrap_or_default())
    }
}

/// Time (only where it is new), thread and kind, statement; between them tabs.
fn logged(line: &str) -> Option<String> {
    let mut fields = line.split('\t').skip_while(|it| it.is_empty());
    let mut thread = fields.next()?.trim();
    if thread.contains(':') {
        thread = fields.next()?.trim();
    }
    let (id, kind) = thread.split_once(' ')?;
    id.parse::<u32>().ok()?;
    let word = match kind {
        "Query" | "Execute" => statement_word(fields.next()?),
        "Prepare" => "PREPARE".into(),
        "Init DB" => "USE".into(),
        "Reset stmt" => "STMT_RESET".into(),
        "Ping" => "PING".into(),
        "Statistics" => "STATISTICS".into(),
        _ => return None,
    };
    Some(format!("- {word}"))
}
