//! A group over several nodes: how they agree before they load, how node 0's plans reach the others,
//! and what a node other than node 0 does. Knows plans as wholes; never what is on the wire.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use minisgl_comm::nccl::{NcclGroup, NcclId, NcclLibrary};
use minisgl_comm::nodes::{Fact, Link, LinkEvent, LinkReceiver, Links, Node};
use minisgl_comm::{AbortHandle, CommError};
use minisgl_kernels::Device;
use minisgl_sched::StepPlan;

use super::members::{Member, nccl_group, nccl_members};
use super::wire::Message;
use super::worker::{Report, Work};
use super::{LaunchObserver, RankGroup};
use crate::batch::BatchBuilder;
use crate::{Checkpoint, EngineOptions, ModelError};

/// This node among the others, before its ranks start.
pub(super) struct JoinedNode {
    node: usize,
    ranks_per_node: usize,
    links: Links,
    ranks: Ranks,
    /// Aborts the ranks here and, through the links, those of the other nodes.
    abort: AbortHandle,
}

/// The ranks of this node, and how they reach those of the others.
enum Ranks {
    /// Over TCP, and they do already.
    Cpu(Vec<Member>),
    /// Through NCCL, once they know by which id.
    Gpu(Arc<NcclLibrary>, NcclGroup),
}

impl JoinedNode {
    /// Comes together with the other nodes, if `options` say that there are any.
    ///
    /// - `decided`: what this node has worked out that the others must have, too.
    /// - `nccl`: what ranks on GPUs meet through; none if they are on CPUs.
    pub(super) fn join(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        decided: &[(&str, String)],
        nccl: Option<Arc<NcclLibrary>>,
    ) -> Result<Option<Self>, ModelError> {
        let Some(config) = &options.nodes else { return Ok(None) };
        let ranks_per_node = options.local_ranks()?.len();
        let mut facts: Vec<Fact> = vec![
            ("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("model".to_owned(), format!("{:016x}", checkpoint.fingerprint()?)),
            ("--tp".to_owned(), options.tp_size.to_string()),
            ("--page-size".to_owned(), options.page_size.get().to_string()),
            ("--max-running-requests".to_owned(), options.max_running_requests.to_string()),
            ("--max-prefill-length".to_owned(), options.max_prefill_tokens.to_string()),
            ("--dummy-weight".to_owned(), options.dummy_weights.to_string()),
        ];
        facts.extend(decided.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        // Ranks of different versions may not understand each other, and NCCL says little about it.
        facts.extend(nccl.iter().map(|nccl| ("NCCL".to_owned(), nccl.version())));
        let joined = Node::join(config.clone(), &facts)?;
        let (ranks, links, abort) = match nccl {
            None => {
                let (ranks, links) = joined.into_ranks(ranks_per_node)?;
                let abort = ranks[0].abort_handle();
                let member = |rank| Member::of(Box::new(rank), abort.clone());
                (Ranks::Cpu(ranks.into_iter().map(member).collect()), links, abort)
            }
            Some(library) => {
                let group = nccl_group(library.clone(), options)?;
                let abort = group.abort_handle();
                let links = joined.into_links(&abort);
                (Ranks::Gpu(library, group), links, abort)
            }
        };
        Ok(Some(Self { node: config.node, ranks_per_node, links, ranks, abort }))
    }

    /// The number of KV pages that fit on every node, `num_pages` being what fits on this one.
    pub(super) fn agree(&mut self, num_pages: usize) -> Result<usize, ModelError> {
        let agreed = least_pages(self.node, &mut self.links, num_pages);
        // The nodes that are still there are to hear why, and not only that this one leaves.
        agreed.inspect_err(|error| self.abort.abort(&error.to_string()))
    }

    /// The ranks, whose devices these are, and what [`OtherNodes`] come of. Ranks on GPUs can meet
    /// from then on.
    pub(super) fn into_parts(
        mut self,
        devices: &[Device],
    ) -> Result<(Vec<Member>, Unheard), ModelError> {
        let members = match self.ranks {
            Ranks::Cpu(members) => members,
            Ranks::Gpu(library, group) => {
                let new_id = || Ok(NcclId::new(&library)?.to_bytes());
                let id = common_id(self.node, &mut self.links, new_id)
                    .inspect_err(|error| self.abort.abort(&error.to_string()))?;
                nccl_members(&group, NcclId::from_bytes(id), devices, None)
            }
        };
        let Self { node, ranks_per_node, links, .. } = self;
        Ok((members, Unheard { node, ranks_per_node, links }))
    }
}

/// See [`JoinedNode::agree`].
fn least_pages(node: usize, links: &mut Links, num_pages: usize) -> Result<usize, ModelError> {
    if node != 0 {
        let (link, receiver) = &mut links[0];
        link.send(&Message::Capacity { num_pages }.encode())?;
        return match receive(receiver)? {
            Message::Start { num_pages } => Ok(num_pages),
            _ => Err(nonsense(0)),
        };
    }
    let mut least = num_pages;
    for (link, receiver) in &mut *links {
        match receive(receiver)? {
            Message::Capacity { num_pages } => least = least.min(num_pages),
            _ => return Err(nonsense(link.peer())),
        }
    }
    send_all(links, &Message::Start { num_pages: least })?;
    Ok(least)
}

/// By what NCCL's ranks of all nodes find each other: node 0 makes it, and tells the others.
fn common_id(
    node: usize,
    links: &mut Links,
    new_id: impl FnOnce() -> Result<[u8; NcclId::BYTES], ModelError>,
) -> Result<[u8; NcclId::BYTES], ModelError> {
    if node != 0 {
        return match receive(&mut links[0].1)? {
            Message::NcclId(id) => Ok(id),
            _ => Err(nonsense(0)),
        };
    }
    let id = new_id()?;
    send_all(links, &Message::NcclId(id))?;
    Ok(id)
}

fn send_all(links: &Links, message: &Message) -> Result<(), ModelError> {
    let message = message.encode();
    Ok(links.iter().try_for_each(|(link, _)| link.send(&message))?)
}

/// Links that nobody listens to yet.
pub(super) struct Unheard {
    node: usize,
    ranks_per_node: usize,
    links: Links,
}

impl Unheard {
    /// Listens from now on: what another node reports or its end becomes a report like that of a
    /// rank here, and plans go to `ranks`.
    pub(super) fn listen(
        self,
        abort: &AbortHandle,
        reports: &Sender<Report>,
        ranks: Vec<Sender<Work>>,
        mut builder: BatchBuilder,
    ) -> Result<OtherNodes, ModelError> {
        let Self { node, ranks_per_node, links } = self;
        // A watchdog may end the group while all ranks are idle. A link that ends for it is silent.
        let (rank, aborted) = (node * ranks_per_node, reports.clone());
        abort.on_abort(move |reason| {
            let error = CommError::Aborted { reason: reason.into() }.into();
            let _ = aborted.send(Report::Failed { rank, error });
        });
        if node == 0 {
            let mut senders = Vec::new();
            for (link, receiver) in links {
                let from = Origin::new(link.peer(), ranks_per_node, abort, reports);
                receiver.spawn(abort.clone(), move |event| match event {
                    LinkEvent::Message(bytes) => match Message::decode(&bytes) {
                        Some(Message::Ready { rank }) => from.ready(rank),
                        _ => from.fail(nonsense(from.node)),
                    },
                    end => from.ended(end),
                })?;
                senders.push(link);
            }
            return Ok(OtherNodes { links: senders });
        }
        let mut senders = Vec::new();
        // There is one: to node 0.
        if let Some((link, receiver)) = links.into_iter().next() {
            let from = Origin::new(0, ranks_per_node, abort, reports);
            receiver.spawn(abort.clone(), move |event| match event {
                LinkEvent::Message(bytes) => match Message::decode(&bytes) {
                    Some(Message::Plan(plan)) => {
                        let batch = Arc::new(builder.build(&plan));
                        for rank in &ranks {
                            // A rank that is gone has said why.
                            let _ = rank.send(Work { step: plan.step, batch: Arc::clone(&batch) });
                        }
                    }
                    _ => from.fail(nonsense(0)),
                },
                end => from.ended(end),
            })?;
            senders.push(link);
        }
        Ok(OtherNodes { links: senders })
    }
}

/// The sending ends of this node's links. Dropping it says goodbye to the other nodes.
#[derive(Debug)]
pub(super) struct OtherNodes {
    links: Vec<Link>,
}

impl OtherNodes {
    /// Node 0: has the other nodes run `plan`, too.
    pub(super) fn submit(&self, plan: &StepPlan) -> Result<(), ModelError> {
        self.send(&Message::encode_plan(plan))
    }

    fn send(&self, message: &[u8]) -> Result<(), ModelError> {
        for link in &self.links {
            link.send(message)?;
        }
        Ok(())
    }
}

/// Where a report comes from: another node, which is called by its first rank.
struct Origin {
    node: usize,
    rank: usize,
    abort: AbortHandle,
    reports: Sender<Report>,
}

// Nobody listens to reports any more once the group is being dropped.
impl Origin {
    fn new(
        node: usize,
        ranks_per_node: usize,
        abort: &AbortHandle,
        reports: &Sender<Report>,
    ) -> Self {
        let (abort, reports) = (abort.clone(), reports.clone());
        Self { node, rank: node * ranks_per_node, abort, reports }
    }

    fn ready(&self, rank: usize) {
        let _ = self.reports.send(Report::Ready { rank, unused_tensors: Vec::new() });
    }

    fn ended(&self, end: LinkEvent) {
        match end {
            LinkEvent::Message(_) => {}
            LinkEvent::Failed(error) => self.report(error.into()),
            // Node 0 leaves when it is done. Another node has no reason to.
            LinkEvent::Left if self.node == 0 => self.report(ModelError::NodeLeft { node: 0 }),
            LinkEvent::Left => self.fail(ModelError::NodeLeft { node: self.node }),
        }
    }

    /// Tells why, then wakes the ranks that wait for those of that node.
    fn fail(&self, error: ModelError) {
        let reason = error.to_string();
        self.report(error);
        self.abort.abort(&reason);
    }

    fn report(&self, error: ModelError) {
        let _ = self.reports.send(Report::Failed { rank: self.rank, error });
    }
}

fn receive(receiver: &mut LinkReceiver) -> Result<Message, ModelError> {
    let node = receiver.peer();
    let bytes = receiver.receive()?.ok_or(ModelError::NodeLeft { node })?;
    Message::decode(&bytes).ok_or_else(|| nonsense(node))
}

fn nonsense(node: usize) -> ModelError {
    CommError::Node { node, problem: "it sent a message that makes no sense here".to_owned() }
        .into()
}

impl RankGroup {
    /// What a node other than node 0 does: joins, loads its ranks, and runs the plans of node 0
    /// until that leaves in good order. `on_ready` is called when the ranks are ready.
    ///
    /// # Errors
    /// [`ModelError`] that says what is wrong with the checkpoint or an option, or what broke, here
    /// or on another node.
    pub fn serve_node(
        checkpoint: &Checkpoint,
        options: &EngineOptions,
        observer: &dyn LaunchObserver,
        on_ready: impl FnOnce(&RankGroup),
    ) -> Result<(), ModelError> {
        if options.nodes.as_ref().is_none_or(|nodes| nodes.node == 0) {
            let problem = "0 is the node that the others come to; it cannot follow itself";
            return Err(ModelError::Option { option: "--node-rank", problem: problem.to_owned() });
        }
        let group = Self::launch_node(checkpoint, options, observer)?;
        for rank in options.local_ranks()? {
            if let Some(nodes) = &group.nodes {
                nodes.send(&Message::Ready { rank }.encode())?;
            }
        }
        on_ready(&group);
        loop {
            match group.reports.recv() {
                Ok(Report::Failed { error: ModelError::NodeLeft { node: 0 }, .. }) => return Ok(()),
                Ok(Report::Failed { error, .. }) => {
                    group.abort.abort(&error.to_string());
                    return Err(error);
                }
                Ok(Report::Progress(_) | Report::Ready { .. } | Report::Sampled(_)) => {}
                Err(_) => {
                    let message = "all ranks of this node are gone".to_owned();
                    return Err(ModelError::Rank { rank: options.local_ranks()?.start, message });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
