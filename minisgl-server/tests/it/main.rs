//! Tests of the whole crate through its public interface, mostly with the scheduler's simulator in
//! the place of a model.
//!
//! - `fixture`: tokenizers and models for the tests; `server`, `client`: both ends of a connection.
//! - `tokens`, `stop`: tokens to text, against Hugging Face's decoder and naive definitions.
//! - `offline`: the model without a server; what the text side of a checkpoint says.
//! - `outputs`: what the endpoints that generate send; `adjusted`: penalties and biases, with the demo
//!   model.
//! - `refusals`: what is refused, and how.
//! - `templates`: prompts, against Python's Jinja.
//! - `lifecycle`: clients that go away, queues that are full, engines that fail, servers that stop.
//! - `startup`: the program itself when it cannot start.
//! - `processes`: the program itself, as several processes that answer as one.
//! - `faults`: such a group, a part of which breaks: killed, stopped, cut off, hanging; `group` starts
//!   it, `freeze` stops single threads, `proxy` cuts connections.
//! - `namespaces`: two nodes with a network of their own each, and the cable between them.
//! - `pretended_gpus`: such a group on GPUs that are not there.
//! - `hub`, `modelscope`: models from hubs that `mock_hub` plays, well-behaved and not.
//! - `limits`: bytes, headers, connections; the endpoints for operators.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adjusted;
mod client;
#[cfg(target_os = "linux")]
mod faults;
mod fixture;
#[cfg(target_os = "linux")]
mod freeze;
mod group;
mod hub;
mod lifecycle;
mod limits;
mod mock_hub;
mod modelscope;
#[cfg(target_os = "linux")]
mod namespaces;
mod offline;
mod outputs;
mod pretended_gpus;
mod processes;
#[cfg(target_os = "linux")]
mod proxy;
mod refusals;
mod server;
mod startup;
mod stop;
mod templates;
mod tokens;
