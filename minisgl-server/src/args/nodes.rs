//! The part of the command line that is about several processes, and about what happens when one of
//! them, or a rank, fails.

use clap::Args;

/// See the fields.
#[derive(Args, Debug)]
pub(crate) struct NodeArgs {
    /// Processes that share the ranks of --tp evenly, one on each machine; start all of them with
    /// the same options but --node-rank
    #[arg(long, value_name = "N", default_value = "1", help_heading = "Nodes")]
    pub(crate) nnodes: usize,
    /// This process among them; 0 is the one that serves, the others only compute
    #[arg(long, value_name = "I", default_value = "0", help_heading = "Nodes")]
    pub(crate) node_rank: usize,
    /// Where node 0 listens for the others, as in 10.0.0.1:20000
    #[arg(long, value_name = "HOST:PORT", help_heading = "Nodes")]
    pub(crate) dist_init_addr: Option<String>,
    /// What all nodes know and nobody else; better given as the environment variable, since others
    /// can see the command line
    #[arg(
        long,
        env = "MINISGL_DIST_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        help_heading = "Nodes"
    )]
    pub(crate) dist_secret: Option<String>,
    /// How long all nodes together may take to come, and how long loading may take from one sign of
    /// progress to the next
    #[arg(long, value_name = "SECONDS", default_value = "600", help_heading = "Nodes")]
    pub(crate) dist_init_timeout: f64,
    /// A node that gives no sign of life is given up within this time, with all open requests
    #[arg(long, value_name = "SECONDS", default_value = "5", help_heading = "Nodes")]
    pub(crate) dist_timeout: f64,
    /// A step that takes longer ends the group, with all open requests: some rank hangs
    #[arg(long, value_name = "SECONDS", default_value = "300", help_heading = "Nodes")]
    pub(crate) watchdog_timeout: f64,
    /// Start the ranks again when one has failed, on all nodes that have this option, too; open
    /// requests are lost, and the server stays. Without it the process ends
    #[arg(long, help_heading = "Nodes")]
    pub(crate) restart_on_failure: bool,
}
