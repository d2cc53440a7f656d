//! Sums over ranks through peer memory. Ranks may share a GPU, so one is enough.

use std::sync::Arc;

use minisgl_kernels::cuda::{AbortFlag, PeerAlgorithm, PeerGroup, PeerMemory};
use minisgl_kernels::{DType, Device, Error, Shape, Stream, Tensor};

use crate::support::{Array, FLOATS, Rng, gpu_or_skip, gpu_turn, host};

/// Ranks that share a GPU.
struct Ranks {
    abort: Arc<AbortFlag>,
    groups: Vec<PeerGroup>,
    streams: Vec<Stream>,
}

impl Ranks {
    fn new(device: &Device, world_size: usize, staging_bytes: usize) -> Self {
        let member = |_| Arc::new(PeerMemory::new(device, staging_bytes).unwrap());
        let members: Vec<_> = (0..world_size).map(member).collect();
        let abort = Arc::new(AbortFlag::new(device).unwrap());
        let connect = |rank| PeerGroup::connect(rank, members.clone(), abort.clone()).unwrap();
        let groups = (0..world_size).map(connect).collect();
        let streams = (0..world_size).map(|_| device.new_stream().unwrap()).collect();
        Self { abort, groups, streams }
    }
}

/// What the reference makes of the inputs of all ranks.
fn sum(dtype: DType, shape: impl Into<Shape> + Copy, inputs: &[Vec<f32>]) -> Array {
    let part = |x: &Vec<f32>| Array::new(&host(), dtype, shape, 0, x);
    let parts: Vec<_> = inputs.iter().map(part).collect();
    let views: Vec<_> = parts.iter().map(Array::view).collect();
    let mut sum = Array::poisoned(&host(), dtype, shape, 0);
    minisgl_kernels::reference::reduce_sum(&views, sum.view_mut()).unwrap();
    sum
}

#[test]
fn the_cpu_has_no_peer_memory() {
    assert!(matches!(PeerMemory::new(&host(), 1024), Err(Error::Unavailable(_))));
    assert!(matches!(AbortFlag::new(&host()), Err(Error::Unavailable(_))));
}

#[test]
fn sums_are_those_of_the_ranks_in_order() {
    let Some(device) = gpu_or_skip("sums over peers") else { return };
    let _turn = gpu_turn();
    for world_size in [1usize, 2, 4] {
        let Ranks { abort, groups, streams } = Ranks::new(device, world_size, 1 << 20);
        for dtype in FLOATS {
            for n in [1usize, 7, 1024, 33_333] {
                for algorithm in [PeerAlgorithm::OneShot, PeerAlgorithm::TwoShot] {
                    let mut rng = Rng::fresh((n * world_size) as u64);
                    let inputs: Vec<_> = groups.iter().map(|_| rng.floats(n)).collect();
                    let mut data: Vec<_> =
                        inputs.iter().map(|x| Array::new(device, dtype, [n], 0, x)).collect();
                    for ((group, stream), data) in groups.iter().zip(&streams).zip(&mut data) {
                        group.all_reduce(stream, data.view_mut(), algorithm).unwrap();
                    }
                    streams.iter().for_each(|stream| stream.synchronize().unwrap());
                    let want = sum(dtype, [n], &inputs);
                    for data in &data {
                        let what = format!("{n} over {world_size}, {algorithm:?}, {dtype}");
                        assert!(data.bits() == want.bits(), "{what}");
                    }
                }
            }
        }
        assert!(!abort.is_raised());
        let mut large = device.zeros(DType::F32, [(1 << 18) + 1]).unwrap();
        let refused = groups[0].all_reduce(&streams[0], large.view_mut(), PeerAlgorithm::OneShot);
        assert!(matches!(refused, Err(Error::Length { .. })));
        if world_size > 1 {
            // A rank that nobody answers gives up when the group is aborted.
            let mut alone = Tensor::from_slice(device, [4], &[1.0f32; 4]).unwrap();
            groups[0].all_reduce(&streams[0], alone.view_mut(), PeerAlgorithm::OneShot).unwrap();
            abort.raise();
            streams[0].synchronize().unwrap();
            assert!(abort.is_raised());
        }
    }
    let few = vec![Arc::new(PeerMemory::new(device, 64).unwrap())];
    let abort = Arc::new(AbortFlag::new(device).unwrap());
    assert!(matches!(PeerGroup::connect(1, few, abort), Err(Error::Unavailable(_))));
}

#[test]
fn a_sum_with_a_norm_is_the_sum_and_the_norm() {
    let Some(device) = gpu_or_skip("sums with a norm over peers") else { return };
    let _turn = gpu_turn();
    for world_size in [1usize, 2, 4] {
        let Ranks { abort, groups, streams } = Ranks::new(device, world_size, 2 << 20);
        for dtype in FLOATS {
            // Fewer rows than blocks and more, in turn, so that blocks skip launches.
            for (t, h) in [(1, 64), (70, 1024), (3, 5120), (0, 8), (1, 20_000), (65, 8)] {
                let mut rng = Rng::fresh((t * h * world_size) as u64);
                let inputs: Vec<_> = groups.iter().map(|_| rng.floats(t * h)).collect();
                let (residual, weight) = (rng.floats(t * h), rng.floats(h));
                let weight_there = Array::new(device, dtype, [h], 0, &weight);
                let array = |gap, values: &Vec<f32>| Array::new(device, dtype, [t, h], gap, values);
                let mut data: Vec<_> =
                    inputs.iter().map(|x| (array(8, x), array(16, &residual))).collect();
                for ((group, stream), (x, residual)) in groups.iter().zip(&streams).zip(&mut data) {
                    let (x, residual) = (x.view_mut(), residual.view_mut());
                    let weight = weight_there.view();
                    group.all_reduce_add_rms_norm(stream, x, residual, weight, 1e-6).unwrap();
                }
                streams.iter().for_each(|stream| stream.synchronize().unwrap());

                let host = host();
                let mut sum = sum(dtype, [t, h], &inputs);
                let mut want = Array::new(&host, dtype, [t, h], 0, &residual);
                let weight = Array::new(&host, dtype, [h], 0, &weight);
                minisgl_kernels::reference::add_rms_norm(
                    sum.view_mut(),
                    want.view_mut(),
                    weight.view(),
                    1e-6,
                )
                .unwrap();
                for (x, residual) in &data {
                    let what = format!("{t}x{h} over {world_size}, {dtype}");
                    assert!(residual.bits() == want.bits(), "residual, {what}");
                    x.assert_close(&sum, &what);
                    assert!(x.bits() == data[0].0.bits(), "ranks differ, {what}");
                }
            }
        }
        assert!(!abort.is_raised());
    }
}
