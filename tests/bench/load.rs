//! The load: nginx and wrk from Debian, a latency probe at a fixed rate, idle connections.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// Connections of the throughput loads, and their time.
const CONNECTIONS: &str = "64";
pub const SECONDS: usize = 2;

/// Requests a second of the latency load, and how many.
const RATE: u32 = 2000;
const REQUESTS: u32 = 6000;

/// A load as fast as it goes.
#[derive(Clone, Copy, Debug)]
pub struct Throughput {
    pub requests_per_s: f64,
    /// CPU time of the whole host for each request. It tells the cost even where the scheduler
    /// leaves one of the cores idle for a while, as it does with two busy processes that wake
    /// each other.
    pub cpu_us: f64,
}

/// p50 and p99 of a load.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// One worker that answers with a line.
pub struct Nginx {
    child: Child,
    port: u16,
    http2: u16,
    _home: tempfile::TempDir,
}

impl Nginx {
    pub fn start() -> Result<Self> {
        let home = tempfile::tempdir()?;
        let [port, http2] = free_ports()?;
        let folder = home.path().display();
        let config = format!(
            "worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 1000000000;\n\
             client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;\n\
             fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;\n\
             server {{ listen 127.0.0.1:{port} backlog=4096; listen 127.0.0.1:{http2} http2;\n\
             location = /status {{ stub_status; }}\n\
             location / {{ return 200 'hello\\n'; }} }} }}\n"
        );
        let path = home.path().join("nginx.conf");
        std::fs::write(&path, config)?;
        let child = Command::new("/usr/sbin/nginx")
            .arg("-c")
            .arg(&path)
            .stderr(Stdio::null())
            .spawn()
            .context("nginx does not start: `cargo xtask setup --tests` installs it")?;
        let until = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            anyhow::ensure!(Instant::now() < until, "nginx does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { child, port, http2, _home: home })
    }

    /// Where it speaks HTTP/1.1, and HTTP/2 without TLS.
    pub const fn ports(&self) -> [u16; 2] {
        [self.port, self.http2]
    }

    /// Requests that it has answered, that for this number included.
    pub fn requests(&self) -> Result<u64> {
        let text = get(self.port, "/status")?;
        let line = text.lines().skip_while(|line| !line.starts_with("server accepts")).nth(1);
        let number = line.and_then(|line| line.split_whitespace().nth(2));
        number.with_context(|| format!("nginx said: {text}"))?.parse().context(text.clone())
    }

    /// Requests a second over connections that stay.
    pub fn keep_alive(&self, seconds: usize) -> Result<Throughput> {
        self.wrk(seconds, &[])
    }

    /// Requests a second, a connection each.
    pub fn connections(&self) -> Result<Throughput> {
        self.wrk(SECONDS, &["-H", "Connection: close"])
    }

    fn wrk(&self, seconds: usize, more: &[&str]) -> Result<Throughput> {
        let before = host_cpu()?;
        let output = Command::new("wrk")
            .args(["-t", "1", "-c", CONNECTIONS, "-d", &format!("{seconds}s")])
            .args(more)
            .arg(format!("http://127.0.0.1:{}/", self.port))
            .output()
            .context("wrk does not start: `cargo xtask setup --tests` installs it")?;
        let cpu = host_cpu()? - before;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = || format!("wrk said: {text}");
        let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
        let requests_per_s = line.with_context(said)?.trim().parse()?;
        let line = text.lines().find(|line| line.contains(" requests in "));
        let requests: f64 =
            line.and_then(|line| line.split_whitespace().next()).with_context(said)?.parse()?;
        Ok(Throughput { requests_per_s, cpu_us: cpu.as_secs_f64() * 1e6 / requests })
    }

    /// Latency at [`RATE`], from the time at which a request was due.
    pub fn latency(&self) -> Result<Sample> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        let mut took = Vec::with_capacity(REQUESTS as usize);
        let mut answer = [0; 1024];
        let begin = Instant::now();
        for number in 0..REQUESTS {
            let due = begin + Duration::from_secs(1) / RATE * number;
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(early.saturating_sub(Duration::from_micros(60)));
            }
            while Instant::now() < due {
                std::hint::spin_loop();
            }
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            let len = stream.read(&mut answer)?;
            anyhow::ensure!(answer[..len].starts_with(b"HTTP/1.1 200"), "nginx answered otherwise");
            took.push(due.elapsed());
        }
        took.sort();
        let at = |share: f64| took[(took.len() as f64 * share) as usize].as_secs_f64() * 1e6;
        Ok(Sample { p50_us: at(0.5), p99_us: at(0.99) })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        drop(self.child.wait());
    }
}

/// Two ports that nobody listens on.
fn free_ports() -> Result<[u16; 2]> {
    let held = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port()])
}

/// CPU time of the whole host so far, by proc_stat(5).
fn host_cpu() -> Result<Duration> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).map(str::parse).collect::<Result<_, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq; what a hypervisor stole is not ours.
    let busy: u64 = ticks.iter().take(7).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    // SAFETY: no argument but a constant.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(Duration::from_secs_f64(busy as f64 / hertz as f64))
}

/// Reads requests with a Content-Length or chunked body and answers each with 200.
pub fn swallow(mut stream: TcpStream) -> Result<()> {
    let mut have = Vec::new();
    let mut part = vec![0; 1 << 16];
    loop {
        let Some(head) = have.windows(4).position(|four| four == b"\r\n\r\n") else {
            match stream.read(&mut part)? {
                0 => return Ok(()),
                len => have.extend_from_slice(&part[..len]),
            }
            continue;
        };
        let text = String::from_utf8_lossy(&have[..head]).to_ascii_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.map_or(Ok(0), |length| length.trim().parse())?;
        let whole = head + 4 + length;
        while have.len() < whole {
            match stream.read(&mut part)? {
                0 => return Ok(()),
                len => have.extend_from_slice(&part[..len]),
            }
        }
        have.drain(..whole);
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes())?;
    }
}

/// GET of a local server.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: tap\r\nconnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Pairs of sockets that one process holds: the hard limit of open files is 20,000 on some hosts.
const PAIRS: usize = 9_000;

/// Processes that hold idle connections, each on a loopback address of its own.
pub struct Held(Vec<Child>);

impl Held {
    /// Opens that many pairs of sockets.
    pub fn pairs(pairs: usize) -> Result<Self> {
        let mut held = Self(Vec::new());
        for number in 0..pairs.div_ceil(PAIRS) {
            let part = PAIRS.min(pairs - number * PAIRS);
            let mut child = Command::new(std::env::current_exe()?)
                .args(["hold", &part.to_string(), &(2 + number).to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut answer = [0; 6];
            let output = child.stdout.as_mut().context("a piped output")?;
            let read = output.read_exact(&mut answer);
            held.0.push(child);
            read.with_context(|| format!("process {number} cannot hold {part} pairs"))?;
        }
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for child in &mut self.0 {
            drop(child.stdin.take()); // it ends with its input
            drop(child.wait());
        }
    }
}

/// Holds `pairs` idle connections on 127.0.0.`host` until its input ends.
pub fn hold(pairs: usize, host: usize) -> Result<()> {
    let mut room = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a whole structure that outlives the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut room);
        room.rlim_cur = room.rlim_max;
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const room);
    }
    let host = u8::try_from(host).context("an octet")?;
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0))?;
    let address: SocketAddr = listener.local_addr()?;
    let mut held = Vec::with_capacity(2 * pairs);
    for number in 0..pairs {
        held.push(TcpStream::connect(address).with_context(|| format!("connection {number}"))?);
        held.push(listener.accept()?.0);
    }
    std::io::stdout().write_all(b"ready\n")?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
