//! Tests of the model through its public interface, on the tiny checkpoints in `tests/golden`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dummy;
mod equality;
mod errors;
mod files;
mod fp8;
mod golden;
mod gpu; // a GPU and every way of using it against the CPU
mod gpu_nodes; // nodes with GPUs, as processes
mod harness;
mod hostile;
mod nodes;
mod penalties; // adjusted logits against the same computed from whole rows
mod quantized; // projections and KV as 8-bit floats
mod rope;
mod sampling;
mod vocab_parallel;
mod weights;
