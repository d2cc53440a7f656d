//! The crate from outside: every op of every device against the reference, and the properties that
//! the layers above rely on.
#![expect(clippy::unwrap_used, reason = "a test that fails should stop")]

mod attention; // paged attention against the reference
mod bits; // results do not depend on the batch, the threads, the chunks or the pages
mod dense; // gemm, norms, rope, activation, sums against the reference
mod errors; // wrong arguments are refused by name, before anything is written
mod index; // gather, scatter, embedding, KV store against the reference
mod memory; // devices, tensors, views, copies, files
mod moe; // mixture of experts against the reference
mod sampling; // sampling against the reference, and over shards
mod support; // devices under test, arrays, comparison
mod tolerance; // how close is close enough
