//! Devices, tensors, copies and files.

use half::{bf16, f16};
use minisgl_kernels::convert::{CheckpointDType, copy_from_checkpoint};
use minisgl_kernels::cuda::{CudaLibraries, LibrarySearch, probe};
use minisgl_kernels::mapped::MappedFile;
use minisgl_kernels::{DType, Device, Error, InstructionSet, Tensor, ops};

use crate::support::{Array, FLOATS, Rng, for_each_device, host, threads};

#[test]
fn tensors_are_zeroed_aligned_and_round_trip() {
    for_each_device(|device, stream| {
        // Below and above the size from which memory comes straight from the system.
        for n in [0, 1, 1000, 300_000, 2_000_000] {
            let mut tensor = device.zeros(DType::F32, [n]).unwrap();
            assert!(tensor.to_vec::<f32>().unwrap().iter().all(|&x| x.to_bits() == 0));
            let values = Rng::fresh(n as u64).floats(n);
            stream.upload(&values, tensor.view_mut()).unwrap();
            stream.synchronize().unwrap();
            assert_eq!(tensor.to_vec::<f32>().unwrap(), values);
        }
        let seeds = [u64::MAX, 0, 1 << 63];
        let tensor = Tensor::from_slice(device, [3], &seeds).unwrap();
        assert_eq!(tensor.to_vec::<u64>().unwrap(), seeds);
        assert!(tensor.to_f32_vec().is_err());
    });
}

#[test]
fn impossible_sizes_are_errors() {
    let device = host();
    let overflow = device.zeros(DType::F32, [usize::MAX, 2]).unwrap_err();
    assert!(matches!(overflow, Error::ShapeOverflow { .. }), "{overflow}");
    let overflow = device.zeros(DType::U64, [usize::MAX / 4]).unwrap_err();
    assert!(matches!(overflow, Error::ShapeOverflow { .. }), "{overflow}");
    let refused = device.zeros(DType::F32, [1 << 60]).unwrap_err();
    assert!(matches!(refused, Error::OutOfMemory { .. }), "{refused}");
    assert_eq!(device.zeros(DType::F32, [usize::MAX, 0]).unwrap().num_elements(), 0);
}

#[test]
fn strided_views_are_copied_row_by_row() {
    for_each_device(|device, stream| {
        for dtype in FLOATS {
            let values = Rng::fresh(1).floats(50 * 70);
            let source = Array::new(device, dtype, [50, 70], 3, &values);
            let mut target = Array::poisoned(device, dtype, [50, 70], 9);
            ops::copy(stream, source.view(), target.view_mut()).unwrap();
            assert_eq!(source.bits(), target.bits());
        }
        let mut source = Tensor::from_slice(device, [2, 3], &[1i32, 2, 3, 4, 5, 6]).unwrap();
        let mut two = [0; 4];
        stream.download(source.view().columns(1..3).unwrap(), &mut two).unwrap();
        assert_eq!(two, [2, 3, 5, 6]);
        stream.upload(&[8, 9], source.view_mut().columns(0..1).unwrap()).unwrap();
        assert_eq!(source.to_vec::<i32>().unwrap(), [8, 2, 3, 9, 5, 6]);
    });
}

#[test]
fn checkpoint_bytes_are_rounded_once_from_any_alignment() {
    let values = Rng::fresh(3).floats(40 * 33);
    let bytes = |dtype| -> Vec<u8> {
        let to_bytes = |&x: &f32| match dtype {
            CheckpointDType::F32 => x.to_le_bytes().to_vec(),
            CheckpointDType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
            CheckpointDType::Bf16 => bf16::from_f32(x).to_le_bytes().to_vec(),
        };
        // One byte before the data makes it unaligned.
        std::iter::once(0xff).chain(values.iter().flat_map(to_bytes)).collect()
    };
    for_each_device(|device, stream| {
        for source in [CheckpointDType::F32, CheckpointDType::F16, CheckpointDType::Bf16] {
            for target in FLOATS {
                let stored = |x: f32| match source {
                    CheckpointDType::F32 => x,
                    CheckpointDType::F16 => f16::from_f32(x).to_f32(),
                    CheckpointDType::Bf16 => bf16::from_f32(x).to_f32(),
                };
                let rounded = |x: f32| match target {
                    DType::Bf16 => bf16::from_f32(x).to_f32(),
                    _ => x,
                };
                let want: Vec<u32> = values.iter().map(|&x| rounded(stored(x)).to_bits()).collect();
                let mut out = Array::poisoned(device, target, [40, 33], 2);
                let bytes = &bytes(source)[1..];
                copy_from_checkpoint(stream, bytes, source, out.view_mut()).unwrap();
                assert_eq!(out.bits(), want, "{source} to {target}");
                let short = &bytes[1..];
                let error = copy_from_checkpoint(stream, short, source, out.view_mut());
                assert!(matches!(error, Err(Error::Length { unit: "bytes", .. })));
            }
        }
    });
}

#[test]
fn run_returns_the_result_and_nests() {
    for_each_device(|_, stream| {
        assert_eq!(stream.run(|| stream.run(|| 6) * 7), 42);
    });
}

#[test]
fn devices_describe_themselves() {
    let device = Device::cpu_with(threads(3), InstructionSet::Portable).unwrap();
    assert_eq!(device.description(), "cpu (3 threads, portable)");
    let missing = InstructionSet::ALL.into_iter().find(|set| !set.is_available());
    if let Some(set) = missing {
        assert!(matches!(Device::cpu_with(threads(1), set), Err(Error::Unavailable(_))));
    }
    if cfg!(target_os = "linux") {
        let memory = device.memory().unwrap();
        assert!(0 < memory.free_bytes && memory.free_bytes <= memory.total_bytes, "{memory:?}");
    }
}

#[test]
fn the_probe_answers_with_or_without_a_gpu() {
    let report = probe(&LibrarySearch::default());
    // Without a library that exists, the first thing that is missing is named.
    let nowhere = LibrarySearch { kernels: Some("/nowhere/k.so".into()), ..Default::default() };
    let error = CudaLibraries::load(&nowhere).unwrap_err().to_string();
    match (report.driver, report.cublaslt) {
        (Err(missing), _) | (Ok(_), Err(missing)) => assert_eq!(error, missing),
        (Ok(_), Ok(_)) => assert!(error.contains("/nowhere/k.so"), "{error}"),
    }
    let named = LibrarySearch { nccl: Some("/nowhere/libnccl.so.2".into()), ..Default::default() };
    let missing = probe(&named).nccl.unwrap_err();
    assert!(missing.contains("/nowhere/libnccl.so.2"), "{missing}");
}

#[test]
fn files_are_mapped_whole() {
    let path = std::env::temp_dir().join(format!("minisgl-kernels-map-{}", std::process::id()));
    std::fs::write(&path, b"checkpoint").unwrap();
    let file = MappedFile::open(&path).unwrap();
    assert_eq!(file.bytes(), b"checkpoint");
    drop(file);
    std::fs::remove_file(&path).unwrap();
    let error = MappedFile::open(&path).unwrap_err();
    assert!(error.to_string().contains("minisgl-kernels-map"), "{error}");
}
