//! Recordings of real programs, one for each protocol, that `cargo xtask bench protocol` measures
//! the daemon with: nginx with wrk and h2load, redis-server with redis-benchmark. Every recording is
//! bounded by requests or by time.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{Tap, load::Nginx};

/// What an ordinary browser sends, so that heads have an ordinary length.
const HEADERS: [&str; 4] = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.5",
    "Cookie: session=0123456789abcdef0123456789abcdef",
];

/// Makes all recordings in `folder`, which is emptied.
pub fn make(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    let nginx = Nginx::start()?;
    let [http1, http2] = nginx.ports();
    let redis = Redis::start()?;
    let url = format!("http://127.0.0.1:{http1}/items/17?page=2&sort=name");
    let mut headers: Vec<&str> = Vec::new();
    HEADERS.iter().for_each(|header| headers.extend(["-H", header]));
    let wrk = ["-t", "1", "-c", "4", "-d", "1"];
    let close = ["-H", "Connection: close"];
    let http2 = format!("http://127.0.0.1:{http2}/items/17?page=2&sort=name");
    let h2load = ["-c", "4", "-m", "10", "-n", "20000"];
    let port = redis.port.to_string();
    let redis_benchmark = ["-p", &port, "-c", "4", "-n", "8000", "-t", "set,get", "-q"];
    let loads: [(&str, &str, Vec<&str>); 5] = [
        ("http1-keep-alive", "wrk", [&wrk[..], &[&url]].concat()),
        ("http1-browser", "wrk", [&wrk[..], &headers, &[&url]].concat()),
        ("http1-connections", "wrk", [&wrk[..], &close, &[&url]].concat()),
        ("http2", "h2load", [&h2load[..], &headers, &[&http2]].concat()),
        ("redis", "redis-benchmark", redis_benchmark.to_vec()),
    ];
    for (name, program, arguments) in &loads {
        let file = folder.join(name);
        let tap = Tap::record(&file)?;
        let run = Command::new(program).args(arguments).output();
        std::thread::sleep(Duration::from_millis(500));
        let lost = tap.metric("tap_records_dropped_total")?;
        tap.stop()?;
        let run = run.with_context(|| {
            format!("{program} does not start: `cargo xtask setup --tests` installs it")
        })?;
        ensure!(run.status.success(), "{program}: {}", String::from_utf8_lossy(&run.stderr));
        let bytes = fs::metadata(&file)?.len();
        println!("{name}: {bytes} bytes of recording, {lost} records lost");
    }
    Ok(())
}

/// A redis-server of its own.
struct Redis {
    child: Child,
    port: u16,
    _home: tempfile::TempDir,
}

impl Redis {
    fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(home.path())
            .stdout(Stdio::null())
            .spawn()
            .context("redis-server does not start: `cargo xtask setup --tests` installs it")?;
        let redis = Self { child, port, _home: home };
        let until = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            ensure!(Instant::now() < until, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(redis)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        drop(self.child.wait());
    }
}
