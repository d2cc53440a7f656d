//! The crate from outside: every op of every device against the reference, and the properties that
//! the layers above rely on.
#![expect(clippy::unwrap_used, reason = "a test that fails should stop")]

mod adjust; // biases, penalties and counts against the reference
mod attention; // paged attention against the reference
mod bits; // on the CPU, results do not depend on the batch, the threads, the chunks or the pages
mod combine; // the small steps between sampling ops against the reference
mod dense; // gemm, norms, rope, activation, sums against the reference
mod errors; // wrong arguments are refused by name, before anything is written
mod few_rows; // products with what stands around them, against the reference
mod fp8; // products of 8-bit floats against the reference
mod index; // gather, scatter, embedding, KV store against the reference
mod memory; // devices, tensors, views, copies, files
mod moe; // mixture of experts against the reference
mod overlap; // events, read-back, graphs, tuned gemm
mod peer_protocol; // the flags of those sums, in every order
mod peers; // sums through memory that GPUs share
mod planned; // planned attention against the reference
mod sampling; // sampling against the reference, and over shards
mod support; // devices under test, arrays, comparison
mod tolerance; // how close is close enough
