//! What a collective gives, against straightforward loops.

use std::num::NonZeroUsize;

use minisgl_comm::{Communicator, SingleRank};
use minisgl_kernels::{DType, Device, Tensor};

use crate::support::{Random, bits, device_and_stream, run_ranks, sum, tensor};

const WORLD_SIZES: [usize; 5] = [1, 2, 3, 4, 8];

/// On both sides of the sizes from which sums are shared out and arrays are cut.
const LENGTHS: [usize; 8] = [0, 1, 3, 17, 1021, 9_001, 131_073, 300_007];

/// The contents of every rank's array.
fn parts(seed: usize, world_size: usize, len: usize) -> Vec<Vec<f32>> {
    (0..world_size).map(|rank| Random::new(seed as u64, rank).floats(len)).collect()
}

#[test]
fn all_reduce_is_the_sum_in_rank_order_rounded_once() {
    for world_size in WORLD_SIZES {
        for len in LENGTHS {
            let parts = parts(len, world_size, len);
            for dtype in [DType::F32, DType::Bf16] {
                let expected = bits(&sum(dtype, &parts));
                run_ranks(world_size, |rank, device, stream| {
                    let mut data = tensor(device, dtype, [len], &parts[rank.rank()]);
                    rank.all_reduce(stream, data.view_mut()).unwrap();
                    let result = bits(&data.to_f32_vec().unwrap());
                    assert!(result == expected, "{len} {dtype} on {world_size} ranks");
                });
            }
        }
    }
}

#[test]
fn all_reduce_of_strided_rows_leaves_what_is_between_them() {
    // Few and many rows, with long and short ones, below and above every threshold.
    for [rows, columns] in [[5, 3], [3, 40_001], [2, 140_000], [1_000, 33], [40_000, 4], [9, 9_000]]
    {
        for world_size in [2, 3, 8] {
            let parts = parts(rows, world_size, rows * columns);
            let expected = bits(&sum(DType::F32, &parts));
            run_ranks(world_size, |rank, device, stream| {
                // Strides differ between ranks; rank 0 is contiguous.
                let gap = rank.rank();
                let mut data = tensor(device, DType::F32, [rows, columns + gap], &{
                    let mut values = vec![f32::NAN; rows * (columns + gap)];
                    let part = parts[rank.rank()].chunks_exact(columns);
                    for (row, part) in values.chunks_exact_mut(columns + gap).zip(part) {
                        row[..columns].copy_from_slice(part);
                    }
                    values
                });
                let view = data.view_mut().columns(0..columns).unwrap();
                rank.all_reduce(stream, view).unwrap();
                let values = data.to_f32_vec().unwrap();
                let mut result = Vec::new();
                for row in values.chunks_exact(columns + gap) {
                    result.extend_from_slice(&row[..columns]);
                    assert!(row[columns..].iter().all(|value| value.is_nan()));
                }
                assert!(bits(&result) == expected, "{rows} x {columns} on {world_size} ranks");
            });
        }
    }
}

#[test]
fn all_gather_is_rank_major() {
    for world_size in WORLD_SIZES {
        for [rows, columns] in [[1, 1], [0, 4], [5, 7], [1, 140_001], [700, 111]] {
            let len = rows * columns;
            let parts = parts(7, world_size, len);
            let expected: Vec<_> = parts.iter().flat_map(|part| bits(part)).collect();
            run_ranks(world_size, |rank, device, stream| {
                let input = tensor(device, DType::F32, [rows, columns], &parts[rank.rank()]);
                let mut output = device.zeros(DType::F32, [world_size, rows, columns]).unwrap();
                rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
                assert!(bits(&output.to_vec().unwrap()) == expected);
            });
        }
    }
}

#[test]
fn all_gather_and_broadcast_move_every_dtype() {
    let world_size = 3;
    run_ranks(world_size, |rank, device, stream| {
        let first = rank.rank() as i32 * 10;
        let input = Tensor::from_slice(device, [2], &[first, first + 1]).unwrap();
        let mut output = device.zeros(DType::I32, [world_size, 2]).unwrap();
        rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
        assert_eq!(output.to_vec::<i32>().unwrap(), [0, 1, 10, 11, 20, 21]);

        let input = tensor(device, DType::Bf16, [1], &[first as f32]);
        let mut output = device.zeros(DType::Bf16, [world_size, 1]).unwrap();
        rank.all_gather(stream, input.view(), output.view_mut()).unwrap();
        assert_eq!(output.to_f32_vec().unwrap(), [0.0, 10.0, 20.0]);

        let mut seeds = Tensor::from_slice(device, [1], &[u64::MAX - rank.rank() as u64]).unwrap();
        rank.broadcast(stream, seeds.view_mut(), 2).unwrap();
        assert_eq!(seeds.to_vec::<u64>().unwrap(), [u64::MAX - 2]);
    });
}

#[test]
fn broadcast_gives_everybody_the_roots_array() {
    for world_size in WORLD_SIZES {
        for len in [0, 1, 1021, 131_073] {
            let parts = parts(len, world_size, len);
            run_ranks(world_size, |rank, device, stream| {
                for (root, part) in parts.iter().enumerate() {
                    let own = &parts[rank.rank()];
                    let mut data = tensor(device, DType::F32, [len], own);
                    rank.broadcast(stream, data.view_mut(), root).unwrap();
                    assert!(bits(&data.to_vec().unwrap()) == bits(part));
                }
            });
        }
    }
}

#[test]
fn ranks_with_several_threads_each_get_the_same_bits() {
    let (world_size, len) = (3, 100_003);
    let parts = parts(5, world_size, len);
    let expected = bits(&sum(DType::F32, &parts));
    run_ranks(world_size, |rank, _, _| {
        let device = Device::cpu(NonZeroUsize::new(2).unwrap()).unwrap();
        let stream = device.new_stream().unwrap();
        let mut data = tensor(&device, DType::F32, [len], &parts[rank.rank()]);
        // Inside the device's own pool, as a rank's whole step runs.
        let (queue, target) = (&stream, data.view_mut());
        stream.run(move || rank.all_reduce(queue, target)).unwrap();
        assert!(bits(&data.to_vec().unwrap()) == expected);
    });
}

#[test]
fn a_single_rank_keeps_its_data_and_gathers_a_copy() {
    let (device, stream) = device_and_stream();
    let single = SingleRank::new();
    assert_eq!((single.rank(), single.world_size()), (0, 1));
    let mut data = tensor(&device, DType::F32, [2, 2], &[1.0, -0.0, 3.0, 4.0]);
    let before = bits(&data.to_vec().unwrap());
    single.all_reduce(&stream, data.view_mut()).unwrap();
    single.broadcast(&stream, data.view_mut(), 0).unwrap();
    single.barrier().unwrap();
    assert_eq!(bits(&data.to_vec().unwrap()), before);
    let mut output = device.zeros(DType::F32, [1, 2, 2]).unwrap();
    single.all_gather(&stream, data.view(), output.view_mut()).unwrap();
    assert_eq!(bits(&output.to_vec().unwrap()), before);
}
