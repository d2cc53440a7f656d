//! Exponential and logarithm as branch-free polynomials, so that loops over them become vector
//! code.
//!
//! Never knows: ops. The polynomials are those of the Cephes library (Moshier, `expf.c` and
//! `logf.c`); results are within 2 units in the last place.

use super::simd::Simd;

/// `eˣ`. Overflows to +inf, underflows gradually to 0, keeps NaN.
#[inline(always)]
pub(super) fn exp<S: Simd>(simd: S, x: f32) -> f32 {
    // Beyond these the result is +inf or 0. Comparisons, unlike min and max, let NaN through.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    // Adding 1.5·2²³ rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = simd.mul_add_scalar(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    // ln 2 in two parts: the first has few bits, so that its product with n is exact.
    let r = simd.mul_add_scalar(n, -0.693_359_4, x);
    let r = simd.mul_add_scalar(n, 2.121_944_4e-4, r);
    let p = simd.mul_add_scalar(1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = simd.mul_add_scalar(p, r, 8.333_452e-3);
    let p = simd.mul_add_scalar(p, r, 4.166_579_6e-2);
    let p = simd.mul_add_scalar(p, r, 1.666_666_5e-1);
    let p = simd.mul_add_scalar(p, r, 0.5);
    let p = simd.mul_add_scalar(p, r * r, r) + 1.0;
    // 2ⁿ in two factors: n may be beyond the exponents of normal numbers.
    let n = shifted.to_bits() as i32 - ROUND.to_bits() as i32;
    let half = n >> 1;
    p * power_of_two(half) * power_of_two(n - half)
}

/// `2ⁿ` for `n` in `-126..=127`. Any other `n` gives some number (for the NaN of [`exp`]).
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `ln x` for positive, normal `x`.
#[inline(always)]
pub(super) fn ln<S: Simd>(simd: S, x: f32) -> f32 {
    let (exponent, mantissa) = decompose(x);
    ln_of_parts(simd, exponent, mantissa - 1.0)
}

/// `ln(1 - x)` for `x` in `0..1`, also where `1 - x` would lose the digits of a small `x`.
#[inline(always)]
pub(super) fn ln_one_minus<S: Simd>(simd: S, x: f32) -> f32 {
    let (exponent, mantissa) = decompose(1.0 - x);
    let fraction = if exponent == 0 { -x } else { mantissa - 1.0 };
    ln_of_parts(simd, exponent, fraction)
}

/// `(e, m)` with `x == m · 2ᵉ` and `m` between `√½` and `√2`.
#[inline(always)]
fn decompose(x: f32) -> (i32, f32) {
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let exponent = (bits - SQRT_HALF) >> 23;
    (exponent, f32::from_bits((bits - (exponent << 23)) as u32))
}

/// `ln((1 + f) · 2ᵉ)`.
#[inline(always)]
fn ln_of_parts<S: Simd>(simd: S, e: i32, f: f32) -> f32 {
    let e = e as f32;
    let p = simd.mul_add_scalar(7.037_683_6e-2, f, -1.151_461e-1);
    let p = simd.mul_add_scalar(p, f, 1.167_699_9e-1);
    let p = simd.mul_add_scalar(p, f, -1.242_014_1e-1);
    let p = simd.mul_add_scalar(p, f, 1.424_932_3e-1);
    let p = simd.mul_add_scalar(p, f, -1.666_805_8e-1);
    let p = simd.mul_add_scalar(p, f, 2.000_071_5e-1);
    let p = simd.mul_add_scalar(p, f, -2.499_999_4e-1);
    let p = simd.mul_add_scalar(p, f, 3.333_333e-1);
    let square = f * f;
    let y = simd.mul_add_scalar(e, -2.121_944_4e-4, p * f * square);
    let y = simd.mul_add_scalar(-0.5, square, y);
    simd.mul_add_scalar(e, 0.693_359_4, f + y)
}

#[cfg(test)]
mod tests;
