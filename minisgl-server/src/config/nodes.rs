//! What the command line says about other processes, checked.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use minisgl_model::{NodeConfig, Secret};

use crate::args::nodes::NodeArgs;

/// Long enough for a busy machine to give a sign of life, short enough to be of use.
const TIMEOUTS: std::ops::RangeInclusive<f64> = 0.5..=3600.0;
const STEP_TIMEOUTS: std::ops::RangeInclusive<f64> = 0.5..=86_400.0;
const INIT_TIMEOUTS: std::ops::RangeInclusive<f64> = 1.0..=86_400.0;
/// A shorter secret could be found out by trying.
const MIN_SECRET_BYTES: usize = 8;

/// The other nodes, if there are any.
///
/// # Errors
/// A sentence about the first option that makes no sense.
pub(super) fn node_config(args: &NodeArgs) -> Result<Option<NodeConfig>> {
    let NodeArgs { nnodes, node_rank, .. } = *args;
    ensure!(
        (1..=NodeConfig::MAX_NODES).contains(&nnodes),
        "--nnodes {nnodes} is not allowed: use 1 to {}",
        NodeConfig::MAX_NODES
    );
    ensure!(
        node_rank < nnodes,
        "--node-rank {node_rank} is not allowed with --nnodes {nnodes}: use 0 to {}",
        nnodes - 1
    );
    for (option, seconds, allowed) in [
        ("--dist-timeout", args.dist_timeout, TIMEOUTS),
        ("--dist-init-timeout", args.dist_init_timeout, INIT_TIMEOUTS),
        ("--watchdog-timeout", args.watchdog_timeout, STEP_TIMEOUTS),
    ] {
        let (least, most) = (allowed.start(), allowed.end());
        ensure!(
            allowed.contains(&seconds),
            "{option} {seconds} is not allowed: use {least} to {most} seconds"
        );
    }
    if nnodes == 1 {
        ensure!(
            args.dist_init_addr.is_none(),
            "--dist-init-addr is for several nodes: give --nnodes as well"
        );
        return Ok(None);
    }
    let address = args.dist_init_addr.clone().with_context(|| {
        format!("--nnodes {nnodes} needs --dist-init-addr HOST:PORT, where node 0 listens")
    })?;
    let port = address.rsplit_once(':').and_then(|(host, port)| {
        port.parse::<u16>().ok().filter(|port| *port > 0 && !host.is_empty())
    });
    ensure!(port.is_some(), "--dist-init-addr {address} is not HOST:PORT, as in 10.0.0.1:20000");
    let secret = args.dist_secret.clone().with_context(|| {
        format!(
            "--nnodes {nnodes} needs a secret that all nodes know, in the environment variable \
             MINISGL_DIST_SECRET; `openssl rand -hex 32` makes a good one"
        )
    })?;
    ensure!(
        secret.len() >= MIN_SECRET_BYTES,
        "MINISGL_DIST_SECRET is too short: use {MIN_SECRET_BYTES} bytes or more"
    );
    Ok(Some(NodeConfig {
        num_nodes: nnodes,
        node: node_rank,
        address,
        secret: Secret::new(secret),
        join_timeout: Duration::from_secs_f64(args.dist_init_timeout),
        timeout: Duration::from_secs_f64(args.dist_timeout),
    }))
}
