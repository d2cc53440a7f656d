//! The widening of binary16 against the `half` crate's.

use half::f16;

use super::widen_f16;

#[test]
fn every_binary16_is_widened_exactly() {
    for bits in 0..=u16::MAX {
        let (got, want) = (widen_f16(bits), f16::from_bits(bits).to_f32());
        if want.is_nan() {
            assert!(got.is_nan(), "{bits:#06x}");
        } else {
            assert_eq!(got.to_bits(), want.to_bits(), "{bits:#06x}");
        }
    }
}
