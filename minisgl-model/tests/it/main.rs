//! Tests of the model through its public interface, on the tiny checkpoints in `tests/golden`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod equality;
mod errors;
mod golden;
mod harness;
mod nodes;
mod rope;
mod sampling;
mod weights;
