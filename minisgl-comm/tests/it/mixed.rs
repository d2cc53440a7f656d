//! Long random sequences of all collectives, with ranks that dawdle.

use minisgl_comm::{Communicator, ThreadRank};
use minisgl_kernels::{DType, Device, Stream, Tensor};

use crate::support::{Random, bits, run_ranks, sum, tensor};

/// What all ranks do next, drawn from a seed that all share.
#[derive(Clone, Copy, Debug)]
enum Call {
    AllReduce(DType, usize),
    AllGather(usize),
    Broadcast(usize, usize),
    Barrier,
}

impl Call {
    fn draw(random: &mut Random, world_size: usize) -> Self {
        // Mostly short, so that calls follow each other closely; a few are shared out or cut.
        let longest = if random.below(150) == 0 { 140_000 } else { [8, 40, 300][random.below(3)] };
        let len = random.below(longest);
        match random.below(8) {
            0..3 => Self::AllReduce(DType::F32, len),
            3 => Self::AllReduce(DType::Bf16, len),
            4 | 5 => Self::AllGather(len),
            6 => Self::Broadcast(len, random.below(world_size)),
            _ => Self::Barrier,
        }
    }

    /// Makes this call and checks the result, knowing what every rank puts in.
    fn make(self, seed: u64, rank: &ThreadRank, device: &Device, stream: &Stream) {
        let ranks = 0..rank.world_size();
        let parts = |len| -> Vec<_> {
            ranks.clone().map(|rank| Random::new(seed, rank).floats(len)).collect()
        };
        match self {
            Self::AllReduce(dtype, len) => {
                let parts = parts(len);
                let mut data = tensor(device, dtype, [len], &parts[rank.rank()]);
                rank.all_reduce(stream, data.view_mut()).unwrap();
                assert!(bits(&data.to_f32_vec().unwrap()) == bits(&sum(dtype, &parts)));
            }
            Self::AllGather(len) => {
                let parts = parts(len);
                let input = Tensor::from_slice(device, [len], &parts[rank.rank()]).unwrap();
                let mut output = device.zeros(DType::F32, [parts.len(), len]).unwrap();
                rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
                assert!(bits(&output.to_vec().unwrap()) == bits(&parts.concat()));
            }
            Self::Broadcast(len, root) => {
                let parts = parts(len);
                let mut data = Tensor::from_slice(device, [len], &parts[rank.rank()]).unwrap();
                rank.broadcast(stream, data.view_mut(), root).unwrap();
                assert!(bits(&data.to_vec().unwrap()) == bits(&parts[root]));
            }
            Self::Barrier => rank.barrier().unwrap(),
        }
    }
}

#[test]
fn thousands_of_mixed_calls_are_each_right() {
    const NUM_CALLS: u64 = 1_500;
    for world_size in [2, 3, 4, 8] {
        run_ranks(world_size, |rank, device, stream| {
            let mut shared = Random::new(world_size as u64, usize::MAX);
            let mut own = Random::new(world_size as u64, rank.rank());
            for seed in 0..NUM_CALLS {
                own.dawdle();
                Call::draw(&mut shared, world_size).make(seed, &rank, device, stream);
            }
        });
    }
}

#[test]
fn ranks_that_finish_early_do_not_disturb_the_others() {
    for seed in 0..200 {
        run_ranks(3, |rank, device, stream| {
            for len in [5, 9_000] {
                Call::AllReduce(DType::F32, len).make(seed, &rank, device, stream);
            }
        });
    }
}
