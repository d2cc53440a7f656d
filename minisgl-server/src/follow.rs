//! A node other than node 0: it has ranks and no server, and does what node 0 says. From joining to
//! the end. Never knows requests.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use minisgl_model::{Checkpoint, RankGroup};
use tokio::sync::oneshot;

use crate::config::{Config, FollowConfig};
use crate::launch::{Ranks, Signals};
use crate::logging::LoadProgress;
use crate::model_source::resolve_model;
use crate::restarts::Restarts;
use crate::startup::Startup;
use crate::whole_story;

/// How a node's life ended.
enum End {
    /// Node 0 has left in good order.
    Done,
    /// By a signal.
    Stopped,
    /// With the ranks, if they were ready before.
    Failed(anyhow::Error, Option<Ranks>),
}

/// Follows node 0 until it leaves.
///
/// # Errors
/// If the node cannot join or load, or any rank fails.
pub(crate) fn follow(config: &Config, follow: &FollowConfig, startup: &Startup) -> Result<()> {
    let (checkpoint, _) = resolve_model(&config.model, !config.engine.dummy_weights)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut restarts = Restarts::new(follow.restart_on_failure);
    loop {
        let (error, ranks) =
            match runtime.block_on(once(config, &checkpoint, follow.shutdown_timeout, startup))? {
                End::Done => {
                    tracing::info!("Node 0 has left");
                    return Ok(());
                }
                End::Stopped => return Ok(()),
                End::Failed(error, ranks) => (error, ranks),
            };
        if !restarts.may_restart() {
            return Err(error);
        }
        tracing::error!("{}", whole_story(&error));
        ranks.map_or(Ok(()), |ranks| ranks.check_replaceable())?;
        tracing::warn!("Starting again");
    }
}

/// One life of this node's ranks.
async fn once(
    config: &Config,
    checkpoint: &Checkpoint,
    shutdown_timeout: Duration,
    startup: &Startup,
) -> Result<End> {
    let mut signals = Signals::listen()?;
    startup.is_over();
    let (checkpoint, engine) = (checkpoint.clone(), config.engine.clone());
    let (ended, mut has_ended) = oneshot::channel();
    let serve = move || {
        let progress = LoadProgress::new();
        let mut ranks = None;
        let ready = |group: &RankGroup| {
            ranks = Some(Ranks::of(group));
            let limits = group.limits();
            tracing::info!(
                "Ready to follow node 0: {} ranks in all, {} on {}",
                limits.tp_size,
                limits.number_formats(),
                limits.device
            );
        };
        let result = RankGroup::serve_node(&checkpoint, &engine, &progress, ready);
        // Nobody waits for it after a second signal.
        let _ = ended.send(result.map_err(|error| (error, ranks)));
    };
    thread::Builder::new().name("follow".to_owned()).spawn(serve)?;
    let node = config.engine.nodes.as_ref().map_or(0, |nodes| nodes.node);
    let result = tokio::select! {
        result = &mut has_ended => result,
        () = signals.next() => {
            let seconds = shutdown_timeout.as_secs();
            tracing::info!("Waiting {seconds} s for node 0 to finish; once more to stop at once");
            tokio::select! {
                result = &mut has_ended => result,
                () = signals.next() => return Ok(End::Stopped),
                () = tokio::time::sleep(shutdown_timeout) => return Ok(End::Stopped),
            }
        }
    };
    Ok(match result.context("the thread that follows node 0 panicked")? {
        Ok(()) => End::Done,
        Err((error, ranks)) => {
            let error = anyhow::Error::from(error).context(format!("node {node} has failed"));
            End::Failed(error, ranks)
        }
    })
}
