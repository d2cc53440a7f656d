//! Rotary position embedding of queries and keys, with the per-head norm that may precede it.
//!
//! Never knows: how the cosine and sine table was scaled.

use super::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda};

/// The per-head RMSNorm of queries and keys that some models apply before the rotation.
#[derive(Clone, Copy, Debug)]
pub struct QkNorm<'a> {
    /// `[d]` T.
    pub q_weight: View<'a>,
    /// `[d]` T.
    pub k_weight: View<'a>,
    /// Added to the mean square; finite and not negative.
    pub eps: f32,
}

/// Normalizes (if asked) and rotates every head of `q` and `k`, in place.
///
/// The rotation is RoFormer's (Su et al., 2021) in the "neox" arrangement: element `i` of the first
/// half of the first `rotary_dim` elements is paired with element `i` of their second half;
/// `(a, b)` becomes `(a·cos - b·sin, b·cos + a·sin)`, computed in f32 and rounded once. Elements
/// from `rotary_dim` on pass through. The norm is [`rms_norm`](super::rms_norm) over `d`.
///
/// - `q`: `[t, hq, d]` T. `k`: `[t, hkv, d]` T.
/// - `positions`: `[t]` i32, each in `0..max_positions`.
/// - `cos_sin`: `[max_positions, rotary_dim]` f32: `rotary_dim / 2` cosines, then as many sines.
///   `rotary_dim` is even and at most `d`.
///
/// # Errors
/// [`Error::Parameter`] if `rotary_dim` or `eps` is out of its domain, [`Error::Index`] if a
/// position is.
pub fn qk_norm_rope(
    stream: &Stream,
    q: ViewMut<'_>,
    k: ViewMut<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) -> Result<(), Error> {
    check(q.as_view(), k.as_view(), norm, positions, cos_sin)?;
    match stream {
        Stream::Cpu(stream) => {
            check_positions(positions, cos_sin)?;
            cpu::rope::qk_norm_rope(stream.cpu(), q, k, norm, positions, cos_sin);
        }
        Stream::Cuda(stream) => cuda::ops::qk_norm_rope(stream, q, k, norm, positions, cos_sin)?,
    }
    Ok(())
}

const CHECK: Check = Check::of("qk_norm_rope");

pub(crate) fn check(
    q: View<'_>,
    k: View<'_>,
    norm: Option<QkNorm<'_>>,
    positions: View<'_>,
    cos_sin: View<'_>,
) -> Result<(), Error> {
    let check = CHECK;
    let dtype = check.float("q", q)?;
    let [t, _, d] = check.dims("q", q)?;
    let [_, num_kv_heads, _] = check.dims("k", k)?;
    check.rows("q", q)?;
    check.tensor("k", k, dtype, [t, num_kv_heads, d])?;
    if let Some(norm) = norm {
        check.tensor("q_weight", norm.q_weight, dtype, [d])?;
        check.tensor("k_weight", norm.k_weight, dtype, [d])?;
        check.eps(norm.eps)?;
    }
    check.tensor("positions", positions, DType::I32, [t])?;
    let [max_positions, rotary_dim] = check.dims("cos_sin", cos_sin)?;
    check.tensor("cos_sin", cos_sin, DType::F32, [max_positions, rotary_dim])?;
    if rotary_dim > d || rotary_dim % 2 != 0 {
        return Err(check.parameter("rotary_dim", rotary_dim, "an even number up to head_dim"));
    }
    Ok(())
}

pub(crate) fn check_positions(positions: View<'_>, cos_sin: View<'_>) -> Result<(), Error> {
    CHECK.indices("positions", positions.host_slice(), cos_sin.shape().dims()[0])
}
