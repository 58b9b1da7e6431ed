//! How the daemon is started.

use std::{
    env, fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Address, Ended, Tap};
use crate::{
    process::Process,
    receiver::{Protocol, Receiver},
    wait,
};

/// Loading and attaching takes a second; the machine may be compiling.
const START: Duration = Duration::from_secs(60);

/// The daemon's file: `TAP_BIN`, else `release/tap` of the target directory.
pub fn binary() -> Result<PathBuf> {
    let path = match env::var_os("TAP_BIN") {
        Some(path) => PathBuf::from(path),
        None => target()?.join("release/tap"),
    };
    ensure!(
        crate::sys::is_executable(&path),
        "{} is not there: build it with `cargo xtask build`, or name it in TAP_BIN",
        path.display()
    );
    Ok(path)
}

/// The target directory: a test's own file is `<target>/<profile>/deps/<name>`.
fn target() -> Result<PathBuf> {
    let own = env::current_exe()?;
    Ok(own.ancestors().nth(3).context("a test outside of a target directory")?.to_owned())
}

/// A daemon to be: command, environment, configuration.
#[derive(Clone, Debug)]
pub struct Launch {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    config: String,
    admin: Admin,
    wrapper: Vec<String>,
    copied: bool,
}

#[derive(Clone, Debug)]
enum Admin {
    /// A free port.
    Free,
    /// A socket in its own directory.
    Unix,
    /// As given.
    Fixed(String),
}

impl Launch {
    /// `tap run` with nothing set.
    pub fn new() -> Self {
        Self::of(&["run"])
    }

    /// `tap` with `arguments`.
    pub fn of(arguments: &[&str]) -> Self {
        Self {
            arguments: arguments.iter().map(|&it| it.to_owned()).collect(),
            environment: Vec::new(),
            config: "{}\n".to_owned(),
            admin: Admin::Free,
            wrapper: Vec::new(),
            copied: false,
        }
    }

    /// Sets a variable of its environment, which is empty but for PATH.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets its configuration file.
    pub fn config(mut self, yaml: &str) -> Self {
        yaml.clone_into(&mut self.config);
        self
    }

    /// Exports spans to `receiver`, soon.
    pub fn exporting(self, receiver: &Receiver, protocol: Protocol) -> Self {
        self.env("OTEL_TRACES_EXPORTER", "otlp")
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.name())
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint(protocol))
            .env("OTEL_BSP_SCHEDULE_DELAY", "100")
    }

    /// Listens for `--admin` at `address`.
    pub fn admin(mut self, address: &str) -> Self {
        self.admin = Admin::Fixed(address.to_owned());
        self
    }

    /// Has its admin server listen on a unix socket.
    pub fn admin_on_unix(mut self) -> Self {
        self.admin = Admin::Unix;
        self
    }

    /// Runs it by another program, `setpriv` for example, which must execute what follows.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&it| it.to_owned()).collect();
        self
    }

    /// Runs a copy that every user can reach; a target directory may be root's alone.
    pub const fn copied(mut self) -> Self {
        self.copied = true;
        self
    }

    /// Starts it and waits until it is ready.
    pub fn start(&self) -> Result<Tap> {
        let mut tap = self.spawn()?;
        let ready = wait::until("tap to be ready", START, || match tap.process.ended() {
            Ok(Some(status)) => Some(Err(status)),
            _ => tap.get("/readyz").is_ok_and(|answer| answer.status == 200).then_some(Ok(())),
        });
        match ready.with_context(|| tap.log().text())? {
            Ok(()) => Ok(tap),
            Err(status) => bail!("tap left at once with {status}:\n{}", tap.log().text()),
        }
    }

    /// Starts it and waits for nothing.
    pub fn spawn(&self) -> Result<Tap> {
        let home = tempfile::Builder::new().prefix("tap-test-").tempdir()?;
        let config = home.path().join("tap.yaml");
        fs::write(&config, &self.config)?;
        let mut binary = binary()?;
        if self.copied {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
            let copy = home.path().join("tap");
            fs::copy(&binary, &copy)?;
            binary = copy;
        }
        let admin = match &self.admin {
            Admin::Free => format!("127.0.0.1:{}", free_port()?),
            Admin::Unix => format!("unix:{}", home.path().join("admin").display()),
            Admin::Fixed(address) => address.clone(),
        };
        let mut argv: Vec<String> = self.wrapper.clone();
        argv.push(binary.display().to_string());
        argv.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .env("TAP_CONFIG", &config)
            .env("TAP_ADMIN", &admin)
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start(command)?;
        Ok(Tap { process, admin: Address::new(&admin), _home: home })
    }

    /// Runs it to its end: a command, or a start that must fail.
    pub fn run(&self) -> Result<Ended> {
        let started = Instant::now();
        let mut tap = self.spawn()?;
        let status: ExitStatus = tap.process.wait(START).with_context(|| tap.log().text())?;
        Ok(Ended::of(&tap.process, status, started.elapsed()))
    }
}

impl Default for Launch {
    fn default() -> Self {
        Self::new()
    }
}

/// A port of the loopback that was free a moment ago.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
