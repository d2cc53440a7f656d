//! The polynomials against f64, over their whole range.

use super::{exp, ln, ln_one_minus};
use crate::cpu::simd::{InstructionSet, Isa, Kernel, Simd};

struct Map<'a> {
    function: Function,
    values: &'a mut [f32],
}

#[derive(Clone, Copy, PartialEq)]
enum Function {
    Exp,
    Ln,
    LnOneMinus,
}

impl Kernel for Map<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for x in self.values {
            *x = match self.function {
                Function::Exp => exp(simd, *x),
                Function::Ln => ln(simd, *x),
                Function::LnOneMinus => ln_one_minus(simd, *x),
            };
        }
    }
}

/// Units in the last place between `got` and the true value.
fn ulps(got: f32, want: f64) -> f64 {
    let spacing = (want.abs() as f32).max(f32::MIN_POSITIVE);
    let spacing = f64::from(f32::from_bits(spacing.to_bits() + 1)) - f64::from(spacing);
    (f64::from(got) - want).abs() / spacing
}

/// The largest error in ulps over `inputs`, on every instruction set.
fn check(function: Function, inputs: &[f32], truth: fn(f64) -> f64, limit: f64) {
    for isa in InstructionSet::ALL.into_iter().filter_map(Isa::new) {
        let mut values = inputs.to_vec();
        isa.run(Map { function, values: &mut values });
        for (&x, got) in inputs.iter().zip(values) {
            let error = ulps(got, truth(f64::from(x)));
            assert!(error <= limit, "{}: f({x:e}) = {got:e} is {error:.2} ulps off", isa.set());
        }
    }
}

#[test]
fn exp_is_within_two_ulps_and_right_at_the_ends() {
    let inputs: Vec<f32> = (-87_300..=88_700).map(|i| i as f32 / 1000.0 + 1e-5).collect();
    check(Function::Exp, &inputs, f64::exp, 2.0);
    let small: Vec<f32> = (-300..300).map(|i| (i as f32 / 4.0).exp2().copysign(i as f32)).collect();
    let small: Vec<f32> = small.into_iter().filter(|x| x.abs() < 80.0).collect();
    check(Function::Exp, &small, f64::exp, 2.0);

    for isa in InstructionSet::ALL.into_iter().filter_map(Isa::new) {
        let infinity = f32::INFINITY;
        let mut values = [-infinity, infinity, f32::NAN, 0.0, -0.0, 89.0, -104.0, -1e30, -100.0];
        isa.run(Map { function: Function::Exp, values: &mut values });
        assert_eq!(values[..2], [0.0, infinity]);
        assert!(values[2].is_nan());
        assert_eq!(values[3..8], [1.0, 1.0, infinity, 0.0, 0.0]);
        // Gradual underflow: e⁻¹⁰⁰ is a subnormal of 26 units of 2⁻¹⁴⁹.
        assert!((values[8] / 2f32.powi(-149) - 26.0).abs() <= 1.0, "{}", values[8]);
    }
}

#[test]
fn ln_is_within_two_ulps() {
    // Every exponent, with mantissas all over.
    let inputs: Vec<f32> =
        (0x0080_0000..0x7f80_0000u32).step_by(9973).map(f32::from_bits).collect();
    // Close to 1 the result is small; relative to it the error must stay small too.
    check(Function::Ln, &inputs, f64::ln, 2.0);
    let near_one: Vec<f32> = (-4000..4000).map(|i| 1.0 + i as f32 / 16_384.0).collect();
    check(Function::Ln, &near_one, f64::ln, 2.0);
}

#[test]
fn ln_one_minus_keeps_the_digits_of_small_numbers() {
    let small = (1..=120).map(|i| (-i as f32 / 4.0).exp2());
    let even = (1..10_000).map(|i| i as f32 / 10_000.0);
    let inputs: Vec<f32> = small.chain(even).chain([1.0 - f32::EPSILON / 2.0]).collect();
    check(Function::LnOneMinus, &inputs, |x| (-x).ln_1p(), 2.5);
}
