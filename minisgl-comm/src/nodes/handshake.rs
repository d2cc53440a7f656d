//! The first words on a connection: each end proves that it knows the secret without telling it, and
//! node 0 checks that both were started alike.
//!
//! Never knows: sockets beyond reading and writing, or what the facts mean.
//!
//! 1. The node that comes says what it speaks, who it is, and a nonce.
//! 2. Node 0 answers with a nonce of its own and a proof over both.
//! 3. The node checks it, and sends its proof over the same and its facts.
//! 4. Node 0 checks that, compares the facts, and says welcome, or why not.
//!
//! Facts are told only to who has proved itself. The labels in the proofs keep one end from sending
//! the other's proof back.

use std::io::{self, Read, Write};

use super::Fact;
use super::frame::{self, FrameBuffer, Kind, Parts, push_text};
use super::secret::{PROOF_BYTES, Secret};

const MAGIC: [u8; 8] = *b"minisgl\n";
/// Changes whenever what is on the wire does.
const PROTOCOL: u32 = 1;
/// The longest frame taken from who has not proved anything yet.
const MAX_STRANGER_BYTES: usize = 256;
/// The longest one of who has, and the longest refusal.
const MAX_BYTES: usize = 64 << 10;
const MAX_FACTS: usize = 64;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Channel {
    Link = 0,
    Data = 1,
}

/// Who comes, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) node: usize,
    pub(super) num_nodes: usize,
    pub(super) channel: Channel,
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection broke, or the other end does not speak this language.
    Io(io::Error),
    /// The other end does not know the secret.
    Secret,
    /// This end, or the other, refuses for this reason.
    Refused(String),
    /// As `Refused`, because of facts that differ.
    Mismatch(String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn garbled() -> Failure {
    Failure::Io(io::Error::new(io::ErrorKind::InvalidData, "it does not speak this protocol"))
}

fn nonce() -> Result<[u8; PROOF_BYTES], Failure> {
    let mut nonce = [0; PROOF_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| Failure::Io(io::Error::other(error)))?;
    Ok(nonce)
}

/// The side of the node that comes.
pub(super) fn call(
    mut stream: impl Read + Write,
    caller: Caller,
    secret: &Secret,
    facts: &[Fact],
) -> Result<(), Failure> {
    let own_nonce = nonce()?;
    let mut hello = FrameBuffer::default();
    let body = hello.begin(Kind::Hello);
    body.extend_from_slice(&MAGIC);
    for number in [PROTOCOL, caller.node as u32, caller.num_nodes as u32] {
        body.extend_from_slice(&number.to_le_bytes());
    }
    body.push(caller.channel as u8);
    let introduction = body[body.len() - 21..].to_vec();
    body.extend_from_slice(&own_nonce);
    hello.write(&mut stream)?;

    let mut body = Vec::new();
    match frame::read(&mut stream, MAX_BYTES, &mut body)? {
        Kind::Challenge => {}
        Kind::Refusal => return Err(Failure::Refused(refusal(&body))),
        _ => return Err(garbled()),
    }
    let mut parts = Parts(&body);
    let (Some(nonce), Some(proof)) = (parts.bytes(PROOF_BYTES), parts.bytes(PROOF_BYTES)) else {
        return Err(garbled());
    };
    if !secret.verify(&[b"node 0", &introduction, &own_nonce, nonce], proof) {
        return Err(Failure::Secret);
    }

    let mut told = Vec::new();
    for (name, value) in facts {
        push_text(&mut told, name);
        push_text(&mut told, value);
    }
    let mut answer = FrameBuffer::default();
    let proof = secret.proof(&[b"node", &introduction, &own_nonce, nonce, &told]);
    let answer_body = answer.begin(Kind::Proof);
    answer_body.extend_from_slice(&proof);
    answer_body.extend_from_slice(&told);
    answer.write(&mut stream)?;

    match frame::read(&mut stream, MAX_BYTES, &mut body)? {
        Kind::Welcome => Ok(()),
        Kind::Refusal => Err(Failure::Refused(refusal(&body))),
        _ => Err(garbled()),
    }
}

fn refusal(body: &[u8]) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// The side of node 0. The facts of a link are compared with `facts`; other channels tell none.
pub(super) fn answer(
    mut stream: impl Read + Write,
    num_nodes: usize,
    secret: &Secret,
    facts: &[Fact],
) -> Result<Caller, Failure> {
    let mut body = Vec::new();
    if frame::read(&mut stream, MAX_STRANGER_BYTES, &mut body)? != Kind::Hello {
        return Err(garbled());
    }
    let mut parts = Parts(&body);
    let magic = parts.array().ok_or_else(garbled)?;
    if magic != MAGIC {
        return Err(garbled());
    }
    let introduction = parts.0.get(..21 - MAGIC.len()).map(|rest| [&MAGIC[..], rest].concat());
    let protocol = parts.u32().ok_or_else(garbled)?;
    if protocol != PROTOCOL {
        let problem = format!("it speaks protocol {protocol}, node 0 speaks {PROTOCOL}");
        return Err(refuse(&mut stream, Failure::Refused(problem)));
    }
    let (node, their_num_nodes) = (parts.u32(), parts.u32());
    let channel = match parts.array() {
        Some([0]) => Channel::Link,
        Some([1]) => Channel::Data,
        _ => return Err(garbled()),
    };
    let (Some(node), Some(their_num_nodes), Some(introduction), Some(their_nonce)) =
        (node, their_num_nodes, introduction, parts.array::<PROOF_BYTES>())
    else {
        return Err(garbled());
    };
    let caller = Caller { node: node as usize, num_nodes: their_num_nodes as usize, channel };

    let own_nonce = nonce()?;
    let proof = secret.proof(&[b"node 0", &introduction, &their_nonce, &own_nonce]);
    FrameBuffer::of(Kind::Challenge, &[own_nonce, proof].concat()).write(&mut stream)?;

    if frame::read(&mut stream, MAX_BYTES, &mut body)? != Kind::Proof {
        return Err(garbled());
    }
    let (proof, told) = body.split_at_checked(PROOF_BYTES).ok_or_else(garbled)?;
    if !secret.verify(&[b"node", &introduction, &their_nonce, &own_nonce, told], proof) {
        return Err(Failure::Secret);
    }
    if caller.num_nodes != num_nodes {
        let problem = format!(
            "node {} was told of {} nodes, but node 0 of {num_nodes}",
            caller.node, caller.num_nodes
        );
        return Err(refuse(&mut stream, Failure::Mismatch(problem)));
    }
    if !(1..num_nodes).contains(&caller.node) {
        let problem = format!("{} is not a number for a node that comes to node 0", caller.node);
        return Err(refuse(&mut stream, Failure::Refused(problem)));
    }
    if channel == Channel::Link {
        let theirs = read_facts(told).ok_or_else(garbled)?;
        if let Some(problem) = difference(caller.node, &theirs, facts) {
            return Err(refuse(&mut stream, Failure::Mismatch(problem)));
        }
    }
    Ok(caller)
}

/// Lets the caller in.
pub(super) fn welcome(stream: impl Write) -> io::Result<()> {
    FrameBuffer::of(Kind::Welcome, &[]).write(stream)
}

/// Tells the caller why not, and passes the reason on.
pub(super) fn refuse(stream: impl Write, failure: Failure) -> Failure {
    if let Failure::Refused(reason) | Failure::Mismatch(reason) = &failure {
        // Who has gone need not be told.
        let _ = FrameBuffer::of(Kind::Refusal, reason.as_bytes()).write(stream);
    }
    failure
}

fn read_facts(told: &[u8]) -> Option<Vec<Fact>> {
    let mut parts = Parts(told);
    let mut facts = Vec::new();
    while !parts.0.is_empty() {
        if facts.len() == MAX_FACTS {
            return None;
        }
        facts.push((parts.text()?.to_owned(), parts.text()?.to_owned()));
    }
    Some(facts)
}

/// A sentence on how the facts of `node` differ from those of node 0.
fn difference(node: usize, theirs: &[Fact], ours: &[Fact]) -> Option<String> {
    let value = |facts: &[Fact], name: &str| -> String {
        let fact = facts.iter().find(|fact| fact.0 == name);
        fact.map_or("not set".to_owned(), |fact| fact.1.clone())
    };
    let mut names: Vec<&String> = ours.iter().chain(theirs).map(|fact| &fact.0).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let differences: Vec<String> = names
        .into_iter()
        .map(|name| (name, value(theirs, name), value(ours, name)))
        .filter(|(_, theirs, ours)| theirs != ours)
        .map(|(name, theirs, ours)| format!("{name} is {theirs} there and {ours} on node 0"))
        .collect();
    (!differences.is_empty())
        .then(|| format!("node {node} differs from node 0: {}", differences.join("; ")))
}

#[cfg(test)]
mod tests;
