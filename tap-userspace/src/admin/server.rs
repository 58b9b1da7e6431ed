//! `/livez`, `/readyz`, `/metrics`.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::Address;
use crate::{
    connection::clock,
    observe::Board,
    telemetry::metric::{
        Reader, Registry,
        text::{self, Format},
    },
};
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::get,
};

/// The reader makes a round at least every 20 ms; without one for this long it hangs.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// What the server shows.
#[derive(Clone)]
pub struct Admin {
    /// Numbers of the kernel line.
    pub board: Board,
    /// All numbers.
    pub registry: Arc<Registry>,
}

/// A bound socket.
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// Why the admin address could not be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve health and metrics on {address}: {error}; give another address with --admin, or --admin off"
)]
pub struct BindError {
    address: Address,
    error: io::Error,
}

/// Binds the address; `None` where it is off.
pub fn bind(address: &Address) -> Result<Option<Listener>, BindError> {
    let bound = match address {
        Address::Off => return Ok(None),
        Address::Tcp(tcp) => bind_tcp(*tcp),
        Address::Unix(path) => bind_unix(path),
    };
    bound.map(Some).map_err(|error| BindError { address: address.clone(), error })
}

fn bind_tcp(address: SocketAddr) -> io::Result<Listener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Tcp(listener))
}

fn bind_unix(path: &Path) -> io::Result<Listener> {
    // What a killed tap left is removed; what answers is somebody's.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if path.exists() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(listener))
}

/// Serves until aborted; on a runtime's thread.
pub async fn serve(listener: Listener, admin: Admin) {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(admin);
    let served = async {
        match listener {
            Listener::Tcp(listener) => {
                axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await
            }
            Listener::Unix(listener) => {
                axum::serve(tokio::net::UnixListener::from_std(listener)?, router).await
            }
        }
    };
    let served: io::Result<()> = served.await;
    if let Err(error) = served {
        tracing::error!(%error, "Health and metrics are no longer served.");
    }
}

async fn live(State(admin): State<Admin>) -> impl IntoResponse {
    let round = Duration::from_nanos(admin.board.picture().round_ns);
    let silent = Duration::from_nanos(clock::monotonic()).saturating_sub(round);
    if silent < HANGS_AFTER {
        (StatusCode::OK, "live\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("no round over the rings for {silent:?}\n"))
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    if admin.board.picture().ready {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not attached yet\n")
    }
}

async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept.unwrap_or_default());
    let render = move || text::render(&admin.registry.read(Reader::Scrape), format);
    // Thousands of series take some milliseconds.
    match tokio::task::spawn_blocking(render).await {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
