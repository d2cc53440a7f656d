//! How the nodes come together: node 0 waits for all, the others try until they reach it.
//!
//! Never knows: what is said on a connection once it stands.

use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::handshake::{self, Caller, Channel, Failure};
use super::link::Link;
use super::{Connection, Fact, NodeConfig};
use crate::CommError;

/// How often node 0 looks for who comes, and the others try again.
const RETRY: Duration = Duration::from_millis(20);
/// For the whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that may be at their handshake; more wait in the system's queue.
const MAX_HANDSHAKES: usize = 64;

/// What node 0 has of another node so far.
#[derive(Default)]
struct Arrived {
    link: Option<TcpStream>,
    data: Option<TcpStream>,
}

/// Node 0: waits until both connections of all other nodes stand.
pub(super) fn receive_all(
    config: &NodeConfig,
    facts: &[Fact],
) -> Result<Vec<Connection>, CommError> {
    let listen = |source| CommError::Listen { address: config.address.clone(), source };
    let listener = TcpListener::bind(&config.address).map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let deadline = Instant::now() + config.join_timeout;
    let mut joining = Joining { config, arrived: BTreeMap::new(), links: Vec::new() };
    let outcome = joining.wait(&listener, facts, deadline);
    match outcome {
        Ok(()) => joining.into_connections(),
        Err(error) => {
            for (link, _) in &joining.links {
                link.abort(&error.to_string());
            }
            Err(error)
        }
    }
}

struct Joining<'a> {
    config: &'a NodeConfig,
    arrived: BTreeMap<usize, Arrived>,
    /// Of those that have arrived: from then on they hear signs of life.
    links: Vec<(Link, super::LinkReceiver)>,
}

impl Joining<'_> {
    fn wait(
        &mut self,
        listener: &TcpListener,
        facts: &[Fact],
        deadline: Instant,
    ) -> Result<(), CommError> {
        let (finished, results) = mpsc::channel();
        let mut handshakes = 0;
        // The last connection that came to nothing: perhaps from one of those that are missing.
        let mut turned_away = None;
        while !self.is_complete() {
            if Instant::now() >= deadline {
                return Err(self.missing(turned_away));
            }
            while handshakes < MAX_HANDSHAKES {
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    // Nobody there, or who was there has gone.
                    Err(_) => break,
                };
                let (finished, facts) = (finished.clone(), facts.to_vec());
                let (secret, num_nodes) = (self.config.secret.clone(), self.config.num_nodes);
                let shake = move || {
                    let result = prepare(&stream)
                        .map_err(Failure::from)
                        .and_then(|()| handshake::answer(&stream, num_nodes, &secret, &facts));
                    // The main thread may have given up.
                    let _ = finished.send((stream, result));
                };
                if thread::Builder::new().name("handshake".to_owned()).spawn(shake).is_ok() {
                    handshakes += 1;
                }
            }
            match results.recv_timeout(RETRY) {
                Ok((stream, Ok(caller))) => {
                    handshakes -= 1;
                    self.admit(caller, stream)?;
                }
                Ok((stream, Err(failure))) => {
                    handshakes -= 1;
                    let from = stream.peer_addr().map_or("?".to_owned(), |peer| peer.to_string());
                    turned_away = Some(match failure {
                        Failure::Mismatch(problem) => return Err(CommError::Mismatch { problem }),
                        Failure::Refused(problem) => format!("{from} was refused: {problem}"),
                        Failure::Secret => format!("{from} does not know the secret"),
                        // Who closes after our proof did not believe it.
                        Failure::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                            format!("{from} hung up, as one with another secret does")
                        }
                        Failure::Io(error) => format!("{from}: {error}"),
                    });
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        Ok(())
    }

    fn admit(&mut self, caller: Caller, stream: TcpStream) -> Result<(), CommError> {
        let Caller { node, channel, .. } = caller;
        let arrived = self.arrived.entry(node).or_default();
        let slot = match channel {
            Channel::Link => &mut arrived.link,
            Channel::Data => &mut arrived.data,
        };
        if slot.is_some() {
            let problem = format!("there is a node {node} already");
            handshake::refuse(&stream, Failure::Refused(problem));
            return Ok(());
        }
        // Who has gone since is noticed on its link.
        let _ = handshake::welcome(&stream);
        let broken = |source: io::Error| CommError::Node { node, problem: source.to_string() };
        if channel == Channel::Link {
            let clone = stream.try_clone().map_err(broken)?;
            self.links.push(Link::new(node, clone, self.config.silence())?);
        }
        *slot = Some(stream);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let complete = self
            .arrived
            .values()
            .filter(|arrived| arrived.link.is_some() && arrived.data.is_some());
        complete.count() + 1 == self.config.num_nodes
    }

    fn missing(&self, turned_away: Option<String>) -> CommError {
        let has_come =
            |node: &usize| self.arrived.get(node).is_some_and(|arrived| arrived.link.is_some());
        let missing = (1..self.config.num_nodes).filter(|node| !has_come(node));
        CommError::Missing {
            nodes: missing.map(|node| format!("node {node}")).collect::<Vec<_>>().join(", "),
            num_nodes: self.config.num_nodes,
            address: self.config.address.clone(),
            seconds: self.config.join_timeout.as_secs_f64(),
            hint: turned_away.map(|hint| format!(" ({hint})")).unwrap_or_default(),
        }
    }

    fn into_connections(mut self) -> Result<Vec<Connection>, CommError> {
        self.links.sort_by_key(|(link, _)| link.peer());
        let mut connections = Vec::new();
        for (link, receiver) in self.links {
            let node = link.peer();
            let arrived = self.arrived.get_mut(&node).and_then(|arrived| arrived.data.take());
            let data = arrived.expect("a complete node has both connections");
            untimed(&data).map_err(|error| CommError::Node { node, problem: error.to_string() })?;
            connections.push(Connection { link, receiver, data });
        }
        Ok(connections)
    }
}

/// Another node: tries to reach node 0 until it is there.
pub(super) fn reach(config: &NodeConfig, facts: &[Fact]) -> Result<Connection, CommError> {
    let deadline = Instant::now() + config.join_timeout;
    let caller = |channel| Caller { node: config.node, num_nodes: config.num_nodes, channel };
    let stream = connect(config, deadline, caller(Channel::Link), facts)?;
    let (link, receiver) = Link::new(0, stream, config.silence())?;
    let data = connect(config, deadline, caller(Channel::Data), &[])?;
    untimed(&data).map_err(|error| CommError::Node { node: 0, problem: error.to_string() })?;
    Ok(Connection { link, receiver, data })
}

fn connect(
    config: &NodeConfig,
    deadline: Instant,
    caller: Caller,
    facts: &[Fact],
) -> Result<TcpStream, CommError> {
    let address = || config.address.clone();
    loop {
        let source = match try_connect(config, caller, facts, deadline) {
            Ok(stream) => return Ok(stream),
            Err(Failure::Secret) => return Err(CommError::Secret { address: address() }),
            Err(Failure::Refused(reason) | Failure::Mismatch(reason)) => {
                return Err(CommError::Refused { address: address(), reason });
            }
            Err(Failure::Io(source)) => source,
        };
        if Instant::now() >= deadline {
            let seconds = config.join_timeout.as_secs_f64();
            return Err(CommError::Unreachable { address: address(), seconds, source });
        }
        thread::sleep(RETRY);
    }
}

fn try_connect(
    config: &NodeConfig,
    caller: Caller,
    facts: &[Fact],
    deadline: Instant,
) -> Result<TcpStream, Failure> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in config.address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now()).max(RETRY);
        let stream = match TcpStream::connect_timeout(&address, left.min(HANDSHAKE_TIMEOUT)) {
            // On the loopback a socket can connect to itself when nobody listens.
            Ok(stream) if stream.local_addr()? != stream.peer_addr()? => stream,
            Ok(_) => continue,
            Err(error) => {
                last = error;
                continue;
            }
        };
        prepare(&stream)?;
        handshake::call(&stream, caller, &config.secret, facts)?;
        return Ok(stream);
    }
    Err(last.into())
}

/// Time limits for the handshake, and no waiting for more to send.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    stream.set_write_timeout(Some(HANDSHAKE_TIMEOUT))
}

/// Collectives wait as long as another rank computes; the link is what notices who has gone.
fn untimed(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)
}
