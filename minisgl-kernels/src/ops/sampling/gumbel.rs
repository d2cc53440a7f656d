//! Sampling by the Gumbel-max trick, with noise that depends on nothing but its coordinates.
//!
//! Never knows: where seeds come from.

use crate::ops::check::Check;
use crate::{DType, Error, Stream, View, ViewMut, cpu, cuda, random};

/// The uniform variate of one token at one position, in `[2⁻³¹, 1 - 2⁻²⁴]`.
///
/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014) used
/// as a counter-based hash. Its `i`-th output (from 0) for the seed `s` is, in wrapping 64-bit
/// arithmetic,
///
/// ```text
/// z = s + (i + 1) · 0x9e3779b97f4a7c15
/// z = (z ^ (z >> 30)) · 0xbf58476d1ce4e5b9
/// z = (z ^ (z >> 27)) · 0x94d049bb133111eb
/// output(s, i) = z ^ (z >> 31)
/// ```
///
/// The variate is made of the hash `h = output(output(seed, position), id)` (both indices
/// sign-extended) and its top 30 bits `j = h >> 34`: `(2j + 1) · 2⁻³¹` rounded to f32, and at most
/// `1 - 2⁻²⁴`. Every backend computes these bits exactly.
pub fn uniform(seed: u64, position: i32, id: i32) -> f32 {
    random::uniform(random::position_key(seed, position), id)
}

/// Samples one token per row: the argmax of `x · inv_temperature + g` over the elements with
/// `x >= threshold`, where `g = -ln(-ln(1 - uniform(seed, position, id)))` is standard Gumbel noise.
/// It has the probabilities of `softmax(x · inv_temperature)` over those elements.
///
/// The large `g`, which decide the maximum, come from small uniforms, where f32 is finest.
///
/// - `logits`: `[n, v_local]` f32, `v_local` at least 1.
/// - `inv_temperature`: `[n]` f32, positive. `threshold`: `[n]` f32; -inf excludes nothing.
/// - `seeds`: `[n]` u64. `positions`: `[n]` i32: the place of the token to be chosen.
/// - `out_value`: `[n]` f32, `out_id`: `[n]` i32: the largest sum and its id, the lowest id among
///   equals. A row with any NaN or +inf gives NaN and -1; a shard with nothing at or above the
///   threshold, or with only -inf, gives -inf and -1.
///
/// # Errors
/// [`Error::Parameter`] if there are no columns or their ids do not fit in an i32.
#[expect(clippy::too_many_arguments, reason = "the arguments are the parallel columns of a batch")]
pub fn gumbel_argmax(
    stream: &Stream,
    logits: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    seeds: View<'_>,
    positions: View<'_>,
    first_id: i32,
    out_value: ViewMut<'_>,
    out_id: ViewMut<'_>,
) -> Result<(), Error> {
    let outs = (out_value.as_view(), out_id.as_view());
    check(logits, inv_temperature, threshold, (seeds, positions), first_id, outs)?;
    match stream {
        Stream::Cpu(stream) => cpu::sampling::gumbel_argmax(
            stream.cpu(),
            logits,
            inv_temperature,
            threshold,
            (seeds, positions),
            first_id,
            out_value,
            out_id,
        ),
        Stream::Cuda(stream) => {
            let places = (seeds, positions);
            cuda::ops::gumbel_argmax(
                stream,
                logits,
                inv_temperature,
                threshold,
                places,
                first_id,
                out_value,
                out_id,
            )
        }?,
    }
    Ok(())
}

pub(crate) fn check(
    logits: View<'_>,
    inv_temperature: View<'_>,
    threshold: View<'_>,
    (seeds, positions): (View<'_>, View<'_>),
    first_id: i32,
    (out_value, out_id): (View<'_>, View<'_>),
) -> Result<(), Error> {
    let check = Check::of("gumbel_argmax");
    let [n, _] = check.logits(logits, first_id)?;
    check.tensor("inv_temperature", inv_temperature, DType::F32, [n])?;
    check.tensor("threshold", threshold, DType::F32, [n])?;
    check.tensor("seeds", seeds, DType::U64, [n])?;
    check.tensor("positions", positions, DType::I32, [n])?;
    check.tensor("out_value", out_value, DType::F32, [n])?;
    check.tensor("out_id", out_id, DType::I32, [n])
}
