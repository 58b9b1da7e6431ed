//! A child process whose output is kept and which does not outlive its test.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{sys, wait};

/// A running program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    /// What it printed.
    pub stdout: Arc<Lines>,
    /// What it complained of.
    pub stderr: Arc<Lines>,
}

impl Process {
    /// Starts `command` in a process group of its own, which is killed when this is dropped; the
    /// program itself also when the test process ends.
    pub fn start(mut command: Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(|| sys::die_with_parent(libc::SIGKILL)) };
        let mut child = spawn(command).with_context(|| format!("starting {name}"))?;
        let stdout = Lines::of(child.stdout.take());
        let stderr = Lines::of(child.stderr.take());
        Ok(Self { child, name, stdout, stderr })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.pid(), signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end, and for the last of its output.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {} ({})", self.name, self.pid());
        let child = &mut self.child;
        let status = wait::until(&what, limit, || child.try_wait().transpose())??;
        self.stdout.finish();
        self.stderr.finish();
        Ok(status)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its children too: nginx's workers outlive a master that is killed. The leader is not waited for yet, so the
        // group's number is its own.
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(sys::kill_group(self.child.id()));
            drop(self.child.wait());
        }
    }
}

/// Starts children from one thread that lives as long as the process: a parent-death signal comes
/// when the starting *thread* ends, and a test's thread ends before the daemon that it shares.
fn spawn(command: Command) -> Result<Child> {
    type Job = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static KEEPER: OnceLock<Mutex<mpsc::SyncSender<Job>>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (jobs, to_do) = mpsc::sync_channel::<Job>(16);
        thread::spawn(move || {
            for (mut command, answer) in to_do {
                drop(answer.send(command.spawn()));
            }
        });
        Mutex::new(jobs)
    });
    let (answer, answered) = mpsc::sync_channel(1);
    keeper.lock().expect("no holder panics").send((command, answer)).ok().context("no keeper")?;
    Ok(answered.recv()??)
}

/// Lines of a stream, as they come.
#[derive(Debug, Default)]
pub struct Lines {
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    lines: Vec<String>,
    ended: bool,
}

impl Lines {
    fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Self> {
        let lines = Arc::new(Self::default());
        if let Some(stream) = stream {
            let lines = Arc::clone(&lines);
            thread::spawn(move || lines.read(stream));
        }
        lines
    }

    fn read(&self, stream: impl Read) {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            self.inner.lock().expect("no holder panics").lines.push(text);
            self.changed.notify_all();
        }
        self.inner.lock().expect("no holder panics").ended = true;
        self.changed.notify_all();
    }

    /// All so far.
    pub fn all(&self) -> Vec<String> {
        self.inner.lock().expect("no holder panics").lines.clone()
    }

    /// All so far, as one text.
    pub fn text(&self) -> String {
        self.all().join("\n")
    }

    /// Those so far that hold `part`.
    pub fn with(&self, part: &str) -> Vec<String> {
        self.all().into_iter().filter(|line| line.contains(part)).collect()
    }

    /// Waits for the first line that `wanted` makes something of.
    pub fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        let mut inner = self.inner.lock().expect("no holder panics");
        loop {
            if let Some(found) = inner.lines.iter().find_map(|line| wanted(line)) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if inner.ended || left.is_zero() {
                bail!("{what} was not printed, only:\n{}", inner.lines.join("\n"));
            }
            inner = self.changed.wait_timeout(inner, left).expect("no holder panics").0;
        }
    }

    /// Waits for the end of the stream; a grandchild that holds it open is not waited for.
    fn finish(&self) {
        let inner = self.inner.lock().expect("no holder panics");
        let limit = Duration::from_secs(2);
        drop(self.changed.wait_timeout_while(inner, limit, |inner| !inner.ended));
    }
}
