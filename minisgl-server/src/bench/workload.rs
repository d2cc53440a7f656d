//! Random prompts and fixed output lengths, the same on every machine: drawn as Python's `random`
//! draws them, so that the numbers compare with those of `bench.py`.
//!
//! Never knows who runs it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use minisgl_sched::{Request, RequestId, SamplingParams};
use rand_mt::Mt;

/// Prompts and outputs are at least this long, in tokens.
const MIN_LEN: u32 = 100;

/// `bench.py` draws prompts from the ids up to this one.
const MAX_ID: u32 = 10_000;

/// Sequences to compute: how long their prompts and outputs are.
#[derive(Debug)]
pub(super) struct Workload {
    prompts: Vec<Vec<u32>>,
    outputs: Vec<usize>,
    temperature: f32,
}

impl Workload {
    /// `num_seqs` sequences with prompts of 100 to `max_input` tokens and outputs of 100 to
    /// `max_output`.
    ///
    /// # Errors
    /// If there is nothing to draw from.
    pub(super) fn random(
        num_seqs: usize,
        max_input: u32,
        max_output: u32,
        temperature: f32,
    ) -> Result<Self> {
        ensure!(
            (0.0..=100.0).contains(&temperature),
            "--temperature {temperature} is not allowed: use 0 to 100"
        );
        ensure!(num_seqs > 0, "--num-seqs 0 is not allowed: use at least 1");
        for (option, value) in [("--max-input", max_input), ("--max-output", max_output)] {
            ensure!(
                (MIN_LEN..=1 << 20).contains(&value),
                "{option} {value} is not allowed: use {MIN_LEN} to {}",
                1 << 20
            );
        }
        let mut random = Random::seeded(0);
        let mut prompt = |_| {
            let len = random.between(MIN_LEN, max_input);
            (0..len).map(|_| random.between(0, MAX_ID)).collect()
        };
        let prompts = (0..num_seqs).map(&mut prompt).collect();
        let outputs = (0..num_seqs).map(|_| random.between(MIN_LEN, max_output) as usize).collect();
        Ok(Self { prompts, outputs, temperature })
    }

    /// One sequence: how fast a single client is served.
    pub(super) fn of_one(input: usize, output: usize, temperature: f32) -> Self {
        let prompt = (0..input as u32).map(|i| 17 + 31 * i).collect();
        Self { prompts: vec![prompt], outputs: vec![output], temperature }
    }

    /// Sequences.
    pub(super) fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Prompt and output length of each sequence.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (usize, usize)> {
        self.prompts.iter().map(Vec::len).zip(self.outputs.iter().copied())
    }

    /// Tokens of all prompts and of all outputs.
    pub(super) fn num_tokens(&self) -> (usize, usize) {
        self.lengths().fold((0, 0), |(ins, outs), (input, output)| (ins + input, outs + output))
    }

    /// Tokens of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.lengths().map(|(input, output)| input + output).max().unwrap_or(0)
    }

    /// The requests. Every `round` has other prompts, so that no prefix cache helps; 0 has those of
    /// `bench.py`.
    pub(super) fn with_prompts(&self, vocab_size: usize, round: u64) -> Vec<Request> {
        let request = |(index, (prompt, &output)): (usize, (&Vec<u32>, &usize))| {
            let shift = |id: &u32| ((u64::from(*id) + 7919 * round) % vocab_size as u64) as u32;
            Request {
                id: RequestId(index as u64),
                prompt: prompt.iter().map(shift).collect(),
                max_tokens: output,
                stop_token_ids: Arc::from([]),
                sampling: SamplingParams {
                    temperature: self.temperature,
                    seed: index as u64,
                    ..SamplingParams::GREEDY
                },
                adjustments: None,
            }
        };
        self.prompts.iter().zip(&self.outputs).enumerate().map(request).collect()
    }
}

/// Python's `random.Random(seed)`: the Mersenne Twister (Matsumoto and Nishimura, 1998), seeded by
/// an array, and `randint` by rejection.
struct Random(Mt);

impl Random {
    fn seeded(seed: u32) -> Self {
        Self(Mt::new_with_key([seed]))
    }

    /// `randint(low, high)`: both included.
    fn between(&mut self, low: u32, high: u32) -> u32 {
        let count = high - low + 1;
        let bits = u32::BITS - count.leading_zeros();
        loop {
            let drawn = self.0.next_u32() >> (u32::BITS - bits);
            if drawn < count {
                return low + drawn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `bench.py` says of its own workload.
    #[test]
    fn the_workload_is_that_of_the_original() {
        let workload = Workload::random(256, 1024, 1024, 0.6).unwrap();
        assert_eq!((workload.len(), workload.num_tokens()), (256, (142_827, 133_966)));
        let requests = workload.with_prompts(151_936, 0);
        assert_eq!(requests[0].prompt, workload.prompts[0]);
        assert!(workload.with_prompts(151_936, 1)[0].prompt != workload.prompts[0]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        for temperature in [-1.0, 1e9, f32::NAN] {
            let error = Workload::random(1, 200, 200, temperature).unwrap_err().to_string();
            assert!(error.contains("is not allowed: use 0 to 100"), "{error}");
        }
        let error = |n, input, output| Workload::random(n, input, output, 0.0).unwrap_err();
        assert!(error(0, 200, 200).to_string().contains("--num-seqs 0"));
        assert!(error(1, 99, 200).to_string().contains("--max-input 99"));
        assert!(error(1, 200, 99).to_string().contains("--max-output 99"));
    }
}
