//! Which GEMM algorithm is the fastest for each shape of a decode step: measured once per GPU and
//! model, then read from a file. Knows shapes; never what is multiplied.

use std::path::Path;
use std::{fs, io};

use minisgl_kernels::ops::tuning::{self, GemmShape};
use minisgl_kernels::{DType, Stream};

use crate::ModelError;
use crate::decoder::Geometry;

/// Makes decode steps of `sizes` sequences use the fastest algorithms. What is measured is added to
/// `file`, which is only a cache: if it cannot be read or written, the next start measures again. `announce` hears how many shapes are
/// to be measured, if there are any, before that begins.
///
/// # Errors
/// If the device fails.
pub(crate) fn tune(
    stream: &Stream,
    geometry: &Geometry,
    sizes: &[usize],
    file: &Path,
    announce: impl FnOnce(usize),
) -> Result<(), ModelError> {
    let device = stream.device();
    if let Ok(text) = fs::read_to_string(file) {
        tuning::load_tuned(device, &text);
    }
    let shapes = sizes.iter().flat_map(|size| shapes(geometry, *size));
    let new: Vec<GemmShape> = shapes.filter(|shape| !tuning::is_tuned(device, shape)).collect();
    if new.is_empty() {
        return Ok(());
    }
    announce(new.len());
    for shape in &new {
        tuning::tune_gemm(stream, shape)?;
    }
    // Only the next start is slower without.
    let _ = save(file, &tuning::save_tuned(device));
    Ok(())
}

/// All matrices of a step with `m` tokens that are all sampled.
fn shapes(geometry: &Geometry, m: usize) -> Vec<GemmShape> {
    let Geometry { hidden_size: h, intermediate_size: i, vocab_size: v, dtype, .. } = *geometry;
    let weights = if geometry.fp8_projections { DType::F8E4M3 } else { dtype };
    let shape = |n, k, dtype, out_dtype| GemmShape { m, n, k, dtype, out_dtype, bias: false };
    let projection = |n, k| shape(n, k, weights, dtype);
    let mut shapes = vec![
        projection(geometry.qkv_size(), h),
        projection(h, geometry.attention_size()),
        shape(v, h, dtype, DType::F32),
    ];
    if i > 0 {
        shapes.extend([projection(2 * i, h), projection(h, i)]);
    }
    shapes
}

/// As a whole or not at all: ranks and other servers may do the same at this moment.
fn save(file: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut whole = file.as_os_str().to_owned();
    whole.push(format!(".{}", std::process::id()));
    fs::write(&whole, text)?;
    fs::rename(&whole, file)
}
