//! Groups whose ranks live in several processes, called nodes, perhaps on several machines.
//!
//! Never knows: what is computed, or what the messages on its links say.
//!
//! Node 0 is where the others come to. [`Node::join`] brings all of them together: it checks that
//! they know the same [`Secret`] and were started alike, and then there are, between node 0 and each
//! other node, two connections:
//!
//! - a [`Link`] for messages of the caller. It also carries signs of life, so that a node that
//!   stops, hangs or is cut off is noticed within [`NodeConfig::timeout`], busy or idle;
//! - one for the arrays of the collectives, which go through node 0. That is simple and right, and
//!   slow: it is meant for CPU ranks, to develop and to test with. GPUs talk NCCL.
//!
//! The secret keeps strangers and mix-ups out. The connections are not encrypted: they belong on a
//! network where nobody reads or changes what is on it.
//!
//! # Reading order
//! 1. [`NodeConfig`], [`Node`]: what a node is told, and what it gets.
//! 2. `join`, `handshake`, `secret`: how nodes come together.
//! 3. `frame`, `link`: messages, signs of life and the end.
//! 4. `rank`, `exchange`, `bytes`: the collectives.

mod bytes;
mod exchange;
mod frame;
mod handshake;
mod join;
mod link;
mod rank;
mod secret;

use std::net::TcpStream;
use std::time::Duration;

pub use self::link::{Link, LinkEvent, LinkReceiver};
pub use self::rank::NodeRank;
pub use self::secret::Secret;
use crate::{AbortHandle, CommError};

/// What a node must know to join the others.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Nodes in all, 2 or more.
    pub num_nodes: usize,
    /// This node's number, in `0..num_nodes`.
    pub node: usize,
    /// `host:port` where node 0 listens and the others come to.
    pub address: String,
    /// What all nodes know and nobody else.
    pub secret: Secret,
    /// How long all of them together may take to come.
    pub join_timeout: Duration,
    /// A node that gives no sign of life is known to be gone before this is over.
    pub timeout: Duration,
}

impl NodeConfig {
    /// The most nodes there can be.
    pub const MAX_NODES: usize = 64;

    /// How long a connection may be silent. The rest of `timeout` is for telling everybody.
    fn silence(&self) -> Duration {
        self.timeout.mul_f64(0.8)
    }
}

/// Something all nodes must agree on: its name, and its value on this node.
pub type Fact = (String, String);

/// The links of a node, both ends of each.
pub type Links = Vec<(Link, LinkReceiver)>;

/// A node that all others have joined.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    connections: Vec<Connection>,
}

/// To one other node.
#[derive(Debug)]
struct Connection {
    link: Link,
    receiver: LinkReceiver,
    data: TcpStream,
}

impl Node {
    /// Comes together with the other nodes: blocks until all are there.
    ///
    /// - `facts`: what all nodes must agree on, by name. Node 0 compares.
    ///
    /// # Errors
    /// [`CommError::Nodes`] if the numbers make no sense, [`CommError::Listen`] or
    /// [`CommError::Unreachable`] if `address` does not work, [`CommError::Missing`], which names who
    /// did not come in time, [`CommError::Mismatch`], which names the facts that differ, and
    /// [`CommError::Node`].
    pub fn join(config: NodeConfig, facts: &[Fact]) -> Result<Self, CommError> {
        let NodeConfig { num_nodes, node, .. } = config;
        if !(2..=NodeConfig::MAX_NODES).contains(&num_nodes) || node >= num_nodes {
            return Err(CommError::Nodes { num_nodes, node, max: NodeConfig::MAX_NODES });
        }
        let connections = match node {
            0 => join::receive_all(&config, facts)?,
            _ => vec![join::reach(&config, facts)?],
        };
        Ok(Self { config, connections })
    }

    /// The ranks of this node, `ranks_per_node` on each node, and its links: to all other nodes in
    /// their order on node 0, to node 0 on the others.
    ///
    /// An abort of the group, whatever its reason, reaches every node and ends the links.
    ///
    /// # Errors
    /// [`CommError::WorldSize`] if `ranks_per_node` is 0, [`CommError::Node`] if a connection
    /// breaks.
    pub fn into_ranks(self, ranks_per_node: usize) -> Result<(Vec<NodeRank>, Links), CommError> {
        let Self { config, connections } = self;
        let mut data = Vec::new();
        for connection in &connections {
            let peer = connection.link.peer();
            let broken = |error| CommError::Node { node: peer, problem: format!("{error}") };
            data.push((peer, connection.data.try_clone().map_err(broken)?));
        }
        let ranks = rank::node_group(config.num_nodes, config.node, ranks_per_node, data)?;
        let abort = ranks[0].abort_handle();
        Ok((ranks, tied(connections, &abort)))
    }

    /// The links alone, for ranks that exchange their arrays otherwise, as on GPUs. An abort of the
    /// group of `abort` reaches every node and ends the links; the other way round, who listens to a
    /// link aborts it.
    pub fn into_links(self, abort: &AbortHandle) -> Links {
        tied(self.connections, abort)
    }

    /// Tells the other nodes that this one gives up before there are ranks, and why.
    pub fn give_up(&self, reason: &str) {
        for connection in &self.connections {
            connection.link.abort(reason);
        }
    }
}

/// The links of `connections`, which end when the group is aborted.
fn tied(connections: Vec<Connection>, abort: &AbortHandle) -> Links {
    let tie = |Connection { link, receiver, data }| {
        link.end_on_abort(abort, data);
        (link, receiver)
    };
    connections.into_iter().map(tie).collect()
}

impl LinkReceiver {
    /// Reads on a thread of its own until the link ends. Every event goes to `on_event`, but not that
    /// the link ends when this node has ended it; a failure also aborts the group of `abort`, after
    /// `on_event` has heard of it.
    ///
    /// # Errors
    /// [`CommError::Node`] if the thread cannot be started.
    pub fn spawn(
        mut self,
        abort: AbortHandle,
        mut on_event: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<std::thread::JoinHandle<()>, CommError> {
        let node = self.peer();
        let body = move || {
            let _guard = AbortIfPanicking { node, abort: &abort };
            loop {
                match self.receive() {
                    Ok(Some(message)) => on_event(LinkEvent::Message(message)),
                    // What follows an end from here is only the answer to it.
                    Ok(None) if self.has_ended() => return,
                    Ok(None) => return on_event(LinkEvent::Left),
                    Err(error) => {
                        // What the node itself said of its end is the reason, not that it ended.
                        let reason = match &error {
                            CommError::Aborted { reason } => reason.to_string(),
                            other => other.to_string(),
                        };
                        on_event(LinkEvent::Failed(error));
                        return abort.abort(&reason);
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("link-{node}"));
        let broken = |source| CommError::Node { node, problem: format!("no thread: {source}") };
        thread.spawn(body).map_err(broken)
    }
}

/// Whoever waits for a message would wait for ever if the thread that reads them is gone.
struct AbortIfPanicking<'a> {
    node: usize,
    abort: &'a AbortHandle,
}

impl Drop for AbortIfPanicking<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort.abort(&format!("what listens to node {} panicked", self.node));
        }
    }
}

#[cfg(test)]
mod tests;
