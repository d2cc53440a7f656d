//! Sampling: the right distribution, the same tokens on any number of ranks, and one bad row alone.

use minisgl_model::DTypeChoice;
use minisgl_sched::{SamplingParams, TokenId};

use crate::harness;

const PROMPT: [TokenId; 4] = [5, 17, 200, 43];

/// Token after [`PROMPT`] for each of `seeds`, 32 requests at a time. GPUs have a rank each.
fn draws(tp_size: usize, params: SamplingParams, seeds: std::ops::Range<u64>) -> Vec<TokenId> {
    let tp_size = tp_size.min(*harness::tp_sizes().last().unwrap());
    let options = harness::options(tp_size, DTypeChoice::Float32);
    let mut driver = harness::driver(harness::launch("qwen3", &options).unwrap(), true);
    let request = |seed| harness::request(seed, &PROMPT, 1, SamplingParams { seed, ..params });
    let outputs = harness::run(&mut driver, seeds.map(request).collect());
    outputs.into_iter().map(|output| output.tokens[0]).collect()
}

/// The distribution after [`PROMPT`] that a top-k of 20 leaves, most likely first: 20 is as many as
/// can be reported.
fn distribution(temperature: f32) -> Vec<(TokenId, f64)> {
    let options = harness::options(1, DTypeChoice::Float32);
    let mut driver = harness::driver(harness::launch("qwen3", &options).unwrap(), true);
    let params = SamplingParams { logprobs: Some(20), ..SamplingParams::GREEDY };
    let outputs = harness::run(&mut driver, vec![harness::request(0, &PROMPT, 1, params)]);
    let weight = |logprob: f32| f64::from(logprob / temperature).exp();
    let top = &outputs[0].logprobs[0].top;
    let total: f64 = top.iter().map(|(_, logprob)| weight(*logprob)).sum();
    top.iter().map(|(token, logprob)| (*token, weight(*logprob) / total)).collect()
}

/// Draws follow `expected`: no token but these, and each as often as it should, within five
/// standard deviations.
fn assert_follows(draws: &[TokenId], expected: &[(TokenId, f64)]) {
    let n = draws.len() as f64;
    for token in draws {
        assert!(expected.iter().any(|(known, _)| known == token), "{token} was filtered out");
    }
    for (token, p) in expected {
        let count = draws.iter().filter(|drawn| *drawn == token).count() as f64;
        let deviation = (n * p * (1.0 - p)).sqrt().max(1.0);
        assert!((count - n * p).abs() < 5.0 * deviation, "{token}: {count} of {n}, p {p}");
    }
}

fn renormalized(kept: &[(TokenId, f64)]) -> Vec<(TokenId, f64)> {
    let total: f64 = kept.iter().map(|(_, p)| p).sum();
    kept.iter().map(|(token, p)| (*token, p / total)).collect()
}

#[test]
fn draws_follow_the_filtered_distribution() {
    let temperature = 0.4;
    let all = distribution(temperature);
    let plain = SamplingParams { temperature, top_k: 20, ..SamplingParams::GREEDY };
    assert_follows(&draws(1, plain, 0..2000), &all);

    let top_k = SamplingParams { top_k: 5, ..plain };
    assert_follows(&draws(1, top_k, 0..2000), &renormalized(&all[..5]));

    let mut mass = 0.0;
    let nucleus = all.iter().take_while(|(_, p)| {
        let before = mass;
        mass += p;
        before < 0.7
    });
    let nucleus: Vec<_> = nucleus.copied().collect();
    assert!(nucleus.len() > 1 && nucleus.len() < 15, "{nucleus:?}");
    let top_p = SamplingParams { top_p: 0.7, ..plain };
    assert_follows(&draws(2, top_p, 0..2000), &renormalized(&nucleus));

    let likely: Vec<_> = all.iter().copied().filter(|(_, p)| p / all[0].1 >= 0.3).collect();
    let min_p = SamplingParams { min_p: 0.3, ..plain };
    assert_follows(&draws(1, min_p, 0..2000), &renormalized(&likely));

    // Top-p counts in what top-k left.
    let both = SamplingParams { top_k: 3, top_p: 0.5, ..plain };
    let three = renormalized(&all[..3]);
    let kept = if three[0].1 >= 0.5 { 1 } else { 2 };
    assert_follows(&draws(4, both, 0..500), &renormalized(&three[..kept]));
}

#[test]
fn every_number_of_ranks_draws_the_same_tokens() {
    let params = SamplingParams {
        temperature: 1.3,
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        ..SamplingParams::GREEDY
    };
    let expected = draws(1, params, 0..200);
    assert!(expected.iter().collect::<std::collections::BTreeSet<_>>().len() > 20);
    for tp_size in [2, 4, 8] {
        assert_eq!(draws(tp_size, params, 0..200), expected, "tp {tp_size}");
    }
}

#[test]
fn a_top_k_of_one_is_greedy_and_extremes_are_safe() {
    let greedy = draws(1, SamplingParams::GREEDY, 0..1)[0];
    for params in [
        SamplingParams { temperature: 5.0, top_k: 1, ..SamplingParams::GREEDY },
        SamplingParams { temperature: 1.0, top_p: 1e-8, ..SamplingParams::GREEDY },
        SamplingParams { temperature: 1.0, min_p: 1.0, ..SamplingParams::GREEDY },
        SamplingParams { temperature: 1e-4, ..SamplingParams::GREEDY },
    ] {
        assert_eq!(draws(2, params, 0..20), vec![greedy; 20], "{params:?}");
    }
    let wide = SamplingParams { temperature: 100.0, top_k: u32::MAX, ..SamplingParams::GREEDY };
    assert!(draws(1, wide, 0..200).iter().collect::<std::collections::BTreeSet<_>>().len() > 60);
}
