//! The published generator, the range of the variates, and their distribution.

use super::{MAX_UNIFORM, position_key, splitmix64, uniform};

#[test]
fn splitmix64_gives_the_published_sequence() {
    // The first outputs for seed 1234567, as in Vigna's reference implementation's test vectors.
    let want: [u64; 5] = [
        6_457_827_717_110_365_317,
        3_203_168_211_198_807_973,
        9_817_491_932_198_370_423,
        4_593_380_528_125_082_431,
        16_408_922_859_458_223_821,
    ];
    let got: Vec<u64> = (0..5).map(|i| splitmix64(1_234_567, i)).collect();
    assert_eq!(got, want);
}

#[test]
fn uniforms_are_inside_their_range_and_evenly_spread() {
    const BINS: usize = 64;
    const PER_BIN: usize = 4096;
    let mut bins = [0usize; BINS];
    for id in 0..(BINS * PER_BIN) as i32 {
        let u = uniform(position_key(42, id % 7), id);
        assert!((1.0 / (1u32 << 31) as f32..=MAX_UNIFORM).contains(&u), "{u}");
        bins[(f64::from(u) * BINS as f64) as usize] += 1;
    }
    // Chi-squared with 63 degrees of freedom: 127 is its 1 - 4e-6 quantile.
    let expected = PER_BIN as f64;
    let chi2: f64 = bins.iter().map(|&n| (n as f64 - expected).powi(2) / expected).sum();
    assert!(chi2 < 127.0, "chi-squared {chi2}");
}

#[test]
fn neighbours_in_each_coordinate_are_unrelated() {
    let n = 20_000;
    let correlation = |pair: fn(i32) -> (f32, f32)| {
        let products = (0..n).map(pair).map(|(a, b)| f64::from(a - 0.5) * f64::from(b - 0.5));
        products.sum::<f64>() * 12.0 / f64::from(n)
    };
    let by_id =
        correlation(|i| (uniform(position_key(1, 0), i), uniform(position_key(1, 0), i + 1)));
    let by_position =
        correlation(|i| (uniform(position_key(1, i), 5), uniform(position_key(1, i + 1), 5)));
    let by_seed = correlation(|i| {
        let key = |seed: i32| position_key(seed as u64, 3);
        (uniform(key(i), 5), uniform(key(i + 1), 5))
    });
    for (name, r) in [("id", by_id), ("position", by_position), ("seed", by_seed)] {
        // The standard deviation of the estimate is 1 / sqrt(n) = 0.007.
        assert!(r.abs() < 0.035, "neighbours by {name} correlate: {r}");
    }
}
