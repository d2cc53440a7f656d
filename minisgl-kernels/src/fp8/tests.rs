//! The format against its specification, number by number.

use super::F8E4M3;

/// As the specification says it, by powers.
fn specified(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let magnitude = match (exponent, bits & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa / 8.0 * 2f32.powi(-6),
        _ => (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

#[test]
fn every_number_is_that_of_the_specification_and_comes_back() {
    for bits in 0..=255 {
        let number = F8E4M3::from_bits(bits);
        let (got, want) = (number.to_f32(), specified(bits));
        if want.is_nan() {
            assert!(got.is_nan(), "{bits:#x}");
            assert_eq!(F8E4M3::from_f32(got), F8E4M3::NAN);
        } else {
            assert_eq!(got.to_bits(), want.to_bits(), "{bits:#x}");
            assert_eq!(F8E4M3::from_f32(got), number, "{bits:#x}");
        }
    }
    for (bits, value) in [(0x38, 1.0), (0x3c, 1.5), (0x7e, 448.0), (0x01, 2f32.powi(-9))] {
        assert_eq!(F8E4M3::from_bits(bits).to_f32(), value);
    }
}

/// Between two neighbours the nearer one is taken, and in the middle the one with even bits.
#[test]
fn rounding_is_to_nearest_even_and_saturates() {
    for bits in 0..0x7e {
        let (low, high) = (specified(bits), specified(bits + 1));
        let middle = (low + high) / 2.0; // exact
        let even = if bits % 2 == 0 { bits } else { bits + 1 };
        for (value, want) in [
            (middle, even),
            (f32::from_bits(middle.to_bits() - 1), bits),
            (f32::from_bits(middle.to_bits() + 1), bits + 1),
            (high, bits + 1),
        ] {
            assert_eq!(F8E4M3::from_f32(value).to_bits(), want, "{value}");
            assert_eq!(F8E4M3::from_f32(-value).to_bits(), want | 0x80, "-{value}");
        }
    }
    for large in [448.0, 449.0, 463.9, 464.1, 480.0, 1e9, f32::INFINITY] {
        assert_eq!(F8E4M3::from_f32(large).to_bits(), 0x7e, "{large}");
        assert_eq!(F8E4M3::from_f32(-large).to_bits(), 0xfe, "-{large}");
    }
    for small in [0.0, 1e-45, 1e-30, 2f32.powi(-10)] {
        assert_eq!(F8E4M3::from_f32(small).to_bits(), 0, "{small}");
    }
    assert_eq!(F8E4M3::from_f32(-0.0).to_bits(), 0x80);
}
