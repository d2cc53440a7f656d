//! Which way to sum is the fastest at which size, found out by trying all of them.
//!
//! Never knows: what one of the ways does.

use std::time::Duration;

use minisgl_kernels::cuda::PeerAlgorithm;
use minisgl_kernels::{DType, Event, Stream, Tensor};

use super::{PeerLimits, PeerRank};
use crate::{CommError, Communicator};

/// One-shot, two-shot, and what the other communicator does.
const WAYS: [Option<PeerAlgorithm>; 3] =
    [Some(PeerAlgorithm::OneShot), Some(PeerAlgorithm::TwoShot), None];
/// The smallest size; each further one is twice the one before.
const SMALLEST_BYTES: usize = 8 << 10;
/// How many sums one graph has, and how often it is launched; the fastest launch counts.
const CALLS: usize = 20;
const LAUNCHES: usize = 4;
/// How often the group is asked whether it is still whole while the GPU works.
const POLL: Duration = Duration::from_micros(20);

/// Seconds that a sum takes by each of [`WAYS`].
type Seconds = [f32; WAYS.len()];

/// Times every way at every size up to `max_bytes` and chooses. Every rank must call it; all choose
/// the same, by the slowest rank's times.
///
/// The sums are timed inside of graphs, where those of decode steps are.
pub(super) fn measure(
    rank: &PeerRank,
    stream: &Stream,
    max_bytes: usize,
) -> Result<PeerLimits, CommError> {
    let sizes: Vec<usize> =
        std::iter::successors(Some(SMALLEST_BYTES), |bytes| bytes.checked_mul(2))
            .take_while(|bytes| *bytes <= max_bytes)
            .collect();
    if sizes.is_empty() {
        return Ok(PeerLimits { one_shot_bytes: max_bytes, two_shot_bytes: max_bytes });
    }
    // Ranks get here at different times, and kernels do not wait for another rank for long.
    rank.barrier()?;
    let mut own: Vec<Seconds> = Vec::new();
    for bytes in &sizes {
        let mut data = stream.device().zeros(DType::Bf16, [bytes / DType::Bf16.size_bytes()])?;
        let mut seconds = Seconds::default();
        for (way, seconds) in WAYS.into_iter().zip(&mut seconds) {
            *seconds = time(rank, stream, &mut data, way)?;
        }
        own.push(seconds);
    }
    let slowest = slowest(rank, stream, &own)?;
    Ok(choose(&sizes, &slowest))
}

/// Seconds of one sum of `data` by one way.
fn time(
    rank: &PeerRank,
    stream: &Stream,
    data: &mut Tensor,
    way: Option<PeerAlgorithm>,
) -> Result<f32, CommError> {
    let mut sum = || match way {
        Some(algorithm) => Ok(rank.peers.all_reduce(stream, data.view_mut(), algorithm)?),
        None => rank.base.all_reduce(stream, data.view_mut()),
    };
    // Once outside of the graph: NCCL connects what it needs at the first call of a size.
    sum()?;
    stream.synchronize()?;
    rank.barrier()?;
    let (graph, ()) = stream.capture(|| (0..CALLS).try_for_each(|_| sum()))?;
    stream.synchronize()?;
    rank.barrier()?;
    let (begin, end) = (Event::timed(stream.device())?, Event::timed(stream.device())?);
    let mut fastest = f64::INFINITY;
    for _ in 0..LAUNCHES {
        begin.record(stream)?;
        graph.launch(stream)?;
        end.record(stream)?;
        while !end.is_done()? {
            rank.check()?;
            std::thread::sleep(POLL);
        }
        fastest = fastest.min(end.seconds_since(&begin)?);
    }
    rank.check()?;
    Ok((fastest / CALLS as f64) as f32)
}

/// Of each time the longest of all ranks'.
fn slowest(rank: &PeerRank, stream: &Stream, own: &[Seconds]) -> Result<Vec<Seconds>, CommError> {
    let (world_size, len) = (rank.world_size(), own.len() * WAYS.len());
    let device = stream.device();
    let input = Tensor::from_slice(device, [len], own.as_flattened())?;
    let mut output = device.zeros(DType::F32, [world_size, len])?;
    rank.base.all_gather(stream, input.view(), output.view_mut())?;
    stream.synchronize()?;
    rank.check()?;
    let mut slowest = vec![Seconds::default(); own.len()];
    for of_rank in output.to_vec::<f32>()?.chunks_exact(len) {
        for (slowest, seconds) in slowest.as_flattened_mut().iter_mut().zip(of_rank) {
            *slowest = slowest.max(*seconds);
        }
    }
    Ok(slowest)
}

/// One-shot up to some size, two-shot up to another, and beyond it the other communicator: the sizes
/// for which a sum takes, over all sizes, the least in proportion to the fastest way at its size.
/// Among equals, the larger sizes.
fn choose(sizes: &[usize], seconds: &[Seconds]) -> PeerLimits {
    let cost = |at: usize, way: usize| {
        let fastest = seconds[at].iter().copied().fold(f32::INFINITY, f32::min);
        f64::from(seconds[at][way] / fastest)
    };
    let mut best = (f64::INFINITY, PeerLimits { one_shot_bytes: 0, two_shot_bytes: 0 });
    for one_shot in 0..=sizes.len() {
        for two_shot in one_shot..=sizes.len() {
            let way = |at| if at < one_shot { 0 } else { 1 + usize::from(at >= two_shot) };
            let total: f64 = (0..sizes.len()).map(|at| cost(at, way(at))).sum();
            let up_to = |count: usize| count.checked_sub(1).map_or(0, |last| sizes[last]);
            if total <= best.0 {
                let limits = (up_to(one_shot), up_to(two_shot));
                best.0 = total;
                best.1 = PeerLimits { one_shot_bytes: limits.0, two_shot_bytes: limits.1 };
            }
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::choose;

    const SIZES: [usize; 4] = [8, 16, 32, 64];

    fn limits(seconds: [[f32; 3]; 4]) -> (usize, usize) {
        let limits = choose(&SIZES, &seconds);
        (limits.one_shot_bytes, limits.two_shot_bytes)
    }

    #[test]
    fn each_size_is_summed_the_fastest_way() {
        let one_two_other = [[1., 2., 4.], [2., 3., 4.], [4., 3., 5.], [9., 7., 6.]];
        assert_eq!(limits(one_two_other), (16, 32));
        // Two-shot is never the fastest: nothing lies between.
        let one_other = [[1., 2., 4.], [2., 3., 4.], [4., 5., 3.], [9., 8., 5.]];
        assert_eq!(limits(one_other), (16, 16));
        let two_other = [[2., 1., 4.], [3., 2., 4.], [4., 3., 5.], [9., 7., 6.]];
        assert_eq!(limits(two_other), (0, 32));
        assert_eq!(limits([[2., 2., 1.]; 4]), (0, 0));
        assert_eq!(limits([[1., 2., 3.]; 4]), (64, 64));
    }

    #[test]
    fn a_single_odd_time_does_not_decide() {
        // At the second size the other way looked a little faster by accident.
        let noisy = [[1., 2., 4.], [2.1, 3., 2.], [3., 4., 5.], [4., 5., 6.]];
        assert_eq!(limits(noisy), (64, 64));
        assert_eq!(limits([[1.; 3]; 4]), (64, 64));
    }
}
