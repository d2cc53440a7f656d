//! Four ranks, each on a thread of its own, sum an array in place.
//!
//! `cargo run -p minisgl-comm --example all_reduce`

#![allow(clippy::print_stdout, reason = "an example shows its result")]

use std::num::NonZeroUsize;
use std::thread;

use minisgl_comm::{CommError, Communicator, ThreadRank, thread_group};
use minisgl_kernels::{Device, Tensor};

fn main() -> Result<(), CommError> {
    let ranks: Vec<_> =
        thread_group(4)?.into_iter().map(|rank| thread::spawn(move || contribute(&rank))).collect();
    for (rank, thread) in ranks.into_iter().enumerate() {
        // A rank that panics has aborted the group, so no join waits for ever.
        match thread.join() {
            Ok(sum) => println!("rank {rank} has {:?}", sum?),
            Err(_) => println!("rank {rank} panicked"),
        }
    }
    Ok(())
}

/// What one rank does: rank r contributes `[r, 1, 10^r]`.
fn contribute(rank: &ThreadRank) -> Result<Vec<f32>, CommError> {
    let device = Device::cpu(NonZeroUsize::MIN)?;
    let stream = device.new_stream()?;
    let r = rank.rank() as f32;
    let mut data = Tensor::from_slice(&device, [3], &[r, 1.0, 10f32.powf(r)])?;
    rank.all_reduce(&stream, data.view_mut())?;
    Ok(data.to_vec()?)
}
