//! Where tests run: most share one daemon ([`together`]), those that start or stop one have the
//! host to themselves ([`apart`]). A lock file keeps a second test run on the same host waiting,
//! since two daemons at once are a case of their own.

use std::{
    fs::File,
    sync::{Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard},
    thread,
};

use anyhow::{Context, Result, ensure};

use crate::{
    bpf,
    receiver::{Protocol, Receiver},
    sys,
    tap::{Accounting, Launch, Tap},
};

/// A daemon and the receiver it exports to.
#[derive(Debug)]
pub struct Session {
    /// The daemon.
    pub tap: Tap,
    /// What it exports to.
    pub receiver: Receiver,
}

impl Session {
    /// Starts both, with nothing set but the export.
    pub fn start() -> Result<Self> {
        Self::with(&Launch::new())
    }

    /// Starts both; `launch` has more settings.
    pub fn with(launch: &Launch) -> Result<Self> {
        let receiver = Receiver::start()?;
        let tap = launch.clone().exporting(&receiver, Protocol::Grpc).start()?;
        Ok(Self { tap, receiver })
    }

    /// Stops the daemon, checks its books against themselves and against what arrived, and gives
    /// the receiver.
    pub fn finish(self) -> Result<Receiver> {
        self.finish_with(|_| ())
    }

    /// The same, with a look at the books.
    pub fn finish_with(self, look: impl FnOnce(&Accounting)) -> Result<Receiver> {
        let ended = self.tap.stop()?;
        let accounting = ended.check()?;
        look(&accounting);
        let arrived = self.receiver.arrived();
        let exported = accounting.spans("exported");
        ensure!(
            arrived == exported,
            "{exported} spans exported, {arrived} arrived: {accounting:?}"
        );
        Ok(self.receiver)
    }
}

static SHARED: RwLock<Option<Session>> = RwLock::new(None);

/// Runs a test that shares a daemon with others.
pub fn together(test: impl FnOnce(&Session) -> Result<()>) {
    if !usable() {
        return;
    }
    let shared = shared().unwrap_or_else(|error| panic!("{error:#}"));
    let session = shared.as_ref().expect("it was just started");
    let witness = Witness(&session.tap);
    // A panic prints the daemon's log as well, so an error becomes one.
    if let Err(error) = test(session) {
        panic!("{error:#}");
    }
    drop(witness);
}

/// Runs a test with no daemon but its own on the host. The shared one is stopped before, and its
/// books are checked.
pub fn apart(test: impl FnOnce() -> Result<()>) {
    if !usable() {
        return;
    }
    let mut shared = SHARED.write().unwrap_or_else(PoisonError::into_inner);
    let finished = shared.take().map_or(Ok(()), |session| session.finish().map(drop));
    if let Err(error) = finished.context("the daemon that the tests before this one shared") {
        panic!("{error:#}");
    }
    if let Err(error) = test() {
        panic!("{error:#}");
    }
}

/// Runs a test that needs root and eBPF but no daemon.
pub fn as_root(test: impl FnOnce() -> Result<()>) {
    if !usable() {
        return;
    }
    if let Err(error) = test() {
        panic!("{error:#}");
    }
}

fn shared() -> Result<RwLockReadGuard<'static, Option<Session>>> {
    loop {
        let session = SHARED.read().unwrap_or_else(PoisonError::into_inner);
        if session.is_some() {
            return Ok(session);
        }
        drop(session);
        let mut empty = SHARED.write().unwrap_or_else(PoisonError::into_inner);
        if empty.is_none() {
            *empty = Some(Session::start()?);
        }
    }
}

/// Whether the host can run tap; where it cannot, says why. Also waits for another test run.
fn usable() -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        if sys::euid() != 0 {
            return Some("not root".to_owned());
        }
        if let Some(reason) = bpf::unusable() {
            return Some(format!("no eBPF: {reason}"));
        }
        lock_host().err().map(|error| format!("{error:#}"))
    });
    if let Some(reason) = reason {
        println!("skipped: {reason}");
    }
    reason.is_none()
}

/// Held until the process ends.
fn lock_host() -> Result<()> {
    static LOCK: Mutex<Option<File>> = Mutex::new(None);
    let path = std::env::temp_dir().join("tap-end-to-end.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("opening {}", path.display()))?;
    sys::lock_file(&file)?;
    *LOCK.lock().expect("no holder panics") = Some(file);
    Ok(())
}

/// Prints the end of the daemon's log when a test fails.
struct Witness<'a>(&'a Tap);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.0.log().all();
            let tail = &log[log.len().saturating_sub(15)..];
            println!("The daemon's log ends:\n{}", tail.join("\n"));
        }
    }
}
