//! Sockets: HTTP/1.1 with a limit on everything that a client could hold on to.
//!
//! Never knows paths or tokens; those are the [`Api`]'s.

mod stall;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::ServerError;
use crate::api::Api;

use self::stall::StallGuard;

/// Pending connections that the system keeps.
const BACKLOG: u32 = 1024;
/// After this long without a free file descriptor or the like, accepting is tried again.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What one client, or all together, may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// More connections wait in the system's queue.
    pub max_connections: usize,
    /// For the headers of a request, from the time the connection is idle: so also how long it is
    /// kept alive.
    pub header_timeout: Duration,
    /// A client that takes nothing for this long is gone.
    pub write_timeout: Duration,
    /// Request line and headers in bytes.
    pub max_header_bytes: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// How long open connections may take to close at the end.
    pub close_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_header_bytes: 64 << 10,
            max_headers: 64,
            close_timeout: Duration::from_secs(1),
        }
    }
}

/// An address that is taken, so that nobody else gets it while the model loads, but not listened on
/// yet, so that no client waits for that.
#[derive(Debug)]
pub struct BoundAddress {
    socket: TcpSocket,
    address: SocketAddr,
}

impl BoundAddress {
    /// Takes an address that `host` stands for, one of IPv4 if there is any, since that is where
    /// clients look for `localhost`; one of IPv6 may have brackets, as in URLs. Port 0 is any free
    /// one.
    ///
    /// # Errors
    /// [`ServerError::Listen`] if it is in use or not of this machine, [`ServerError::Host`] if `host`
    /// stands for nothing.
    pub fn bind(host: &str, port: u16) -> Result<Self, ServerError> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let host_error = |source| ServerError::Host { host: host.to_owned(), source };
        let no_address = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        let addresses = (host, port).to_socket_addrs().map_err(host_error)?;
        let addresses: Vec<SocketAddr> = addresses.collect();
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let address = *address.ok_or_else(|| host_error(no_address()))?;
        let listen_error = |source| ServerError::Listen { address, source };
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        let socket = socket.map_err(listen_error)?;
        // Connections of a server that has just stopped do not keep the port.
        socket.set_reuseaddr(true).map_err(listen_error)?;
        socket.bind(address).map_err(listen_error)?;
        let address = socket.local_addr().map_err(listen_error)?;
        Ok(Self { socket, address })
    }

    /// With the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients connect.
    ///
    /// # Errors
    /// [`ServerError::Listen`] if somebody else listens there by now.
    ///
    /// # Panics
    /// If called outside of a Tokio runtime.
    pub fn listen(self) -> Result<TcpListener, ServerError> {
        let address = self.address;
        self.socket.listen(BACKLOG).map_err(|source| ServerError::Listen { address, source })
    }
}

/// Serves connections until `stop` is true; then closes them, each after the response it is at, and
/// returns when all are closed or [`HttpLimits::close_timeout`] is over.
pub async fn serve(
    listener: TcpListener,
    api: Arc<Api>,
    limits: HttpLimits,
    stop: watch::Receiver<bool>,
) {
    let mut stopping = stop.clone();
    let connections = Arc::new(Semaphore::new(limits.max_connections));
    let accept = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection = connection(stream, api.clone(), limits, stop.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept connections: {error}");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        // An error means that whoever could say it is gone.
        _ = stopping.wait_for(|stop| *stop) => {}
    }
    drop(listener);
    let all = u32::try_from(limits.max_connections).unwrap_or(u32::MAX);
    // Late or not, this is the end.
    let _ = tokio::time::timeout(limits.close_timeout, connections.acquire_many(all)).await;
}

/// A client that went away before it was accepted says nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn connection(
    stream: TcpStream,
    api: Arc<Api>,
    limits: HttpLimits,
    mut stop: watch::Receiver<bool>,
) {
    // Each event is to be sent at once; without this it is only slower.
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(StallGuard::new(stream, limits.write_timeout));
    let service = service_fn(|request| async { Ok::<_, Infallible>(api.handle(request).await) });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.max_header_bytes)
        .max_headers(limits.max_headers)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
    let result = tokio::select! {
        result = connection.as_mut() => result,
        _ = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("a connection ended: {error}");
    }
}
