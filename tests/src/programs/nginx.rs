//! nginx, and its own count of bytes from its access log.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{command, tls::certificate};
use crate::{
    process::Process,
    tap::free_port,
    wait::{self, PATIENCE},
};

/// A running nginx with one worker.
#[derive(Debug)]
pub struct Nginx {
    /// Its master process.
    pub process: Process,
    /// HTTP/1.1 without TLS.
    pub http: SocketAddr,
    /// HTTP/2 and HTTP/1.1 over TLS.
    pub https: SocketAddr,
    /// HTTP/2 without TLS.
    pub h2c: SocketAddr,
    home: TempDir,
}

/// What nginx logged of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Bytes of the request.
    pub received: u64,
    /// Bytes of the answer.
    pub sent: u64,
}

impl Nginx {
    /// Serves what stands in [`Self::root`].
    pub fn start() -> Result<Self> {
        let home = tempfile::Builder::new().prefix("tap-nginx-").tempdir()?;
        // The worker is not root.
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755))?;
        fs::create_dir(home.path().join("root"))?;
        let [http, https, h2c] = [(); 3].map(|()| free_port());
        let [http, https, h2c] =
            [http?, https?, h2c?].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let config = home.path().join("nginx.conf");
        fs::write(&config, configuration(home.path(), [http, https, h2c])?)?;
        let mut nginx = command("nginx", "nginx-light")?;
        nginx.arg("-c").arg(&config).arg("-p").arg(home.path());
        let process = Process::start(nginx)?;
        let pid = home.path().join("nginx.pid");
        wait::until_true("nginx to be up", PATIENCE, || {
            pid.metadata().is_ok_and(|it| it.len() > 0)
        })
        .with_context(|| process.stderr.text())?;
        Ok(Self { process, http, https, h2c, home })
    }

    /// Where its files are.
    pub fn root(&self) -> std::path::PathBuf {
        self.home.path().join("root")
    }

    /// Requests that it has logged so far.
    pub fn count(&self) -> usize {
        let log = fs::read(self.home.path().join("requests.log")).unwrap_or_default();
        log.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Its log of requests to one of its addresses, in the words of [`crate::record::http_sizes`],
    /// once it has so many.
    pub fn told(&self, to: SocketAddr, count: usize) -> Result<Vec<String>> {
        let path = self.home.path().join("requests.log");
        let to = format!("{} ", to.port());
        wait::until("nginx to log its requests", PATIENCE, || {
            let log = fs::read_to_string(&path).ok()?;
            let told: Vec<_> =
                log.lines().filter_map(|line| Some(line.strip_prefix(&to)?.to_owned())).collect();
            (told.len() >= count).then_some(told)
        })
        .with_context(|| fs::read_to_string(&path).unwrap_or_default())
    }

    /// The requests that came from `port`, once there are so many.
    pub fn requests(&self, port: u16, count: usize) -> Result<Vec<Request>> {
        let path = self.home.path().join("requests.log");
        wait::until("nginx to log its requests", PATIENCE, || {
            let log = fs::read_to_string(&path).ok()?;
            let of_port: Vec<_> = log.lines().filter_map(|line| request(line, port)).collect();
            (of_port.len() >= count).then_some(of_port)
        })
    }

    /// What it logged of the requests that came from `port`.
    pub fn logged(&self, port: u16, requests: usize) -> Result<Vec<Logged>> {
        let path = self.home.path().join("access.log");
        wait::until("nginx to log", PATIENCE, || {
            let log = fs::read_to_string(&path).ok()?;
            let of_port: Vec<_> = log.lines().filter_map(|line| logged(line, port)).collect();
            (of_port.len() >= requests).then_some(of_port)
        })
    }
}

/// A request as nginx logged it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Status of the response.
    pub status: u16,
    /// Bytes of the response's body.
    pub body: u64,
}

fn request(line: &str, port: u16) -> Option<Request> {
    let fields: Vec<_> = line.split(' ').collect();
    let [_, from, method, _, status, body, ..] = fields[..] else { return None };
    (from.parse() == Ok(port)).then_some(())?;
    Some(Request { method: method.into(), status: status.parse().ok()?, body: body.parse().ok()? })
}

fn logged(line: &str, port: u16) -> Option<Logged> {
    let mut fields = line.split(' ').map(str::parse::<u64>);
    let mut next = || fields.next()?.ok();
    (next()? == u64::from(port)).then_some(())?;
    Some(Logged { received: next()?, sent: next()? })
}

fn configuration(home: &Path, [http, https, h2c]: [SocketAddr; 3]) -> Result<String> {
    let home = home.display();
    let tls = certificate()?;
    Ok(format!(
        "daemon off; worker_processes 1; pid {home}/nginx.pid; error_log stderr warn;\n\
         events {{ worker_connections 256; }}\n\
         http {{\n\
           log_format counts '$remote_port $request_length $bytes_sent';\n\
           access_log {home}/access.log counts;\n\
           log_format requests '$server_port $remote_port $request_method $request_uri $status '\n\
           '$body_bytes_sent $request_length $bytes_sent';\n\
           access_log {home}/requests.log requests;\n\
           client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;\n\
           fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi;\n\
           scgi_temp_path {home}/scgi; sendfile on; root {home}/root;\n\
           server {{ listen {http}; }}\n\
           server {{ listen {h2c} http2; }}\n\
           server {{ listen {https} ssl http2; ssl_certificate {}; ssl_certificate_key {}; }}\n\
         }}\n",
        tls.certificate.display(),
        tls.key.display()
    ))
}
