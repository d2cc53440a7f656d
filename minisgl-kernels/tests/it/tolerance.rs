//! How far a device may be from the reference, per dtype.

use minisgl_kernels::DType;

/// `|got - want| <= absolute + relative · |want|` for every element, and few that differ at all.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f32,
    pub(crate) relative: f32,
    /// The part of the elements that may differ from the reference.
    pub(crate) inexact: f32,
}

/// For results of sums of up to some thousand terms of magnitude 1, divided by no more than that.
///
/// bf16 has a relative step of 2⁻⁷ (between neighbours just above a power of two). A result that is
/// rounded twice, at places where f32 sums of another order may fall on the other side, can be two
/// steps off. But that is rare: if many elements differ, something is rounded in another place than
/// the reference rounds it.
pub(crate) fn tolerance(dtype: DType) -> Tolerance {
    match dtype {
        DType::F32 => Tolerance { absolute: 2e-5, relative: 2e-5, inexact: 1.0 },
        DType::Bf16 => Tolerance { absolute: 2e-3, relative: 2.0 / 128.0, inexact: 0.01 },
        // One step, of numbers that were rounded to another type before.
        DType::F8E4M3 => Tolerance { absolute: 1.0 / 512.0, relative: 1.0 / 8.0, inexact: 0.02 },
        DType::I32 | DType::U64 => Tolerance { absolute: 0.0, relative: 0.0, inexact: 0.0 },
    }
}

/// For attention with the weights of the values rounded to T: absolute and relative. Values are in
/// `-1..1` and weights sum to 1, so a weight's relative error of 2⁻⁹ makes at most that in the sum;
/// the sum is rounded once more.
pub(crate) fn twice_rounded_tolerance(dtype: DType) -> (f32, f32) {
    match dtype {
        DType::Bf16 => (1.0 / 128.0, 2.0 / 128.0),
        _ => (2e-5, 2e-5),
    }
}
