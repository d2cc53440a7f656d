//! The ceiling that a benchmark's numbers stand beside: how fast the devices' memory is.
//! Never knows a model.

use std::time::Instant;

use minisgl_kernels::{DType, Device, Error, ops};

use crate::group::devices;
use crate::{EngineOptions, LaunchObserver, ModelError};

/// Much more than any cache holds.
const BYTES: usize = 256 << 20;

/// Copies in one measurement; the fastest measurement counts.
const COPIES: usize = 4;
const MEASUREMENTS: usize = 5;

/// Bytes per second that the memory of all devices of `options` moves together, counting what a copy
/// reads and what it writes. On the CPU all threads copy one array; GPUs copy one each, and are taken
/// to be alike.
///
/// # Errors
/// If there is no such device, or it has no room for two arrays of 256 MiB.
pub fn device_bandwidth(
    options: &EngineOptions,
    observer: &dyn LaunchObserver,
) -> Result<f64, ModelError> {
    let devices = devices(options, observer)?;
    let of_first = of(&devices[0])?;
    Ok(of_first * devices.len() as f64)
}

fn of(device: &Device) -> Result<f64, Error> {
    let stream = device.new_stream()?;
    let shape = [BYTES / DType::F32.size_bytes() / 1024, 1024];
    let source = device.zeros(DType::F32, shape)?;
    let mut target = device.zeros(DType::F32, shape)?;
    let mut best = 0.0f64;
    // The first one also brings the memory in.
    for _ in 0..=MEASUREMENTS {
        stream.synchronize()?;
        let begun = Instant::now();
        for _ in 0..COPIES {
            ops::copy(&stream, source.view(), target.view_mut())?;
        }
        stream.synchronize()?;
        let bytes = 2 * COPIES * BYTES;
        best = best.max(bytes as f64 / begun.elapsed().as_secs_f64());
    }
    Ok(best)
}
