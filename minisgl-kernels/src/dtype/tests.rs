//! The hand-written bf16 rounding against the `half` crate's.

use half::bf16;

use super::{DType, Float};

#[test]
fn bf16_rounding_agrees_with_half_on_every_upper_half_and_every_kind_of_tail() {
    for upper in 0..=u16::MAX {
        for lower in [0x0000u32, 0x0001, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let value = f32::from_bits((u32::from(upper) << 16) | lower);
            let got = <bf16 as Float>::from_f32(value);
            let want = bf16::from_f32(value);
            assert_eq!(got.to_bits(), want.to_bits(), "rounding {value:e}");
            if lower == 0 && !value.is_nan() {
                assert_eq!(Float::to_f32(got).to_bits(), value.to_bits(), "widening {value:e}");
            }
        }
    }
}

#[test]
fn names_and_sizes_are_those_of_pytorch() {
    let all = [DType::F32, DType::Bf16, DType::I32, DType::U64];
    assert_eq!(all.map(|d| d.to_string()), ["float32", "bfloat16", "int32", "uint64"]);
    assert_eq!(all.map(DType::size_bytes), [4, 2, 4, 8]);
}
