//! From logits, sharded over the vocabulary, to one token per sequence, the same on all ranks.
//!
//! Logits are never gathered: ranks exchange maxima, sums and, for top-k and top-p, histograms of
//! 256 bins ([`minisgl_kernels::ops::sampling`] says how). Random choices are Gumbel-max with noise
//! that is a function of the request's seed, the position and the token id alone, so they depend
//! neither on the sharding nor on who else is in the batch.
//!
//! Filters apply in the order of Hugging Face transformers: temperature, top-k, top-p (of what
//! top-k left), min-p. Log-probabilities are of the model's distribution, before all of them.
//!
//! Never knows requests; one row is one sequence of the step.

mod column;
mod logprobs;

use minisgl_comm::Communicator;
use minisgl_kernels::ops::sampling::{
    self as ops, NUM_BINS, ROUNDS, ThresholdMode, ThresholdState,
};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};
use minisgl_sched::{Sample, SamplingParams};

use self::column::Column;
use crate::ModelError;
use crate::batch::HostBatch;

/// The largest number of most likely tokens that can be reported.
pub const MAX_LOGPROBS: usize = 20;

/// One rank's sampler, with memory for its largest batch.
#[derive(Debug)]
pub struct Sampler {
    first_id: i32,
    /// Token ids of the whole model.
    vocab_size: usize,
    values: Column<f32>,
    ids: Column<i32>,
    row_max: Tensor,
    inv_temperature: Tensor,
    threshold: Tensor,
    seeds: Tensor,
    positions: Tensor,
    mode: Tensor,
    prefix: Tensor,
    remaining: Tensor,
    histogram: Tensor,
    top_values: Column<f32>,
    top_ids: Column<i32>,
}

/// The arguments that all steps of one call share.
#[derive(Clone, Copy)]
struct Call<'a> {
    stream: &'a Stream,
    comm: &'a dyn Communicator,
    /// `[m, v]` f32
    logits: View<'a>,
    batch: &'a HostBatch,
}

impl Call<'_> {
    fn len(&self) -> usize {
        self.batch.sampling.len()
    }

    fn params(&self) -> impl Iterator<Item = &SamplingParams> {
        self.batch.sampling.iter()
    }
}

/// The most likely token of a row, or whatever else was looked for; id -1 if there is none.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Best {
    value: f32,
    id: i32,
}

impl Sampler {
    /// For up to `max_rows` sequences, of the token ids from `first_id` on, out of `vocab_size`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(
        device: &Device,
        first_id: i32,
        vocab_size: usize,
        max_rows: usize,
        world_size: usize,
    ) -> Result<Self, Error> {
        let floats = || device.zeros(DType::F32, [max_rows]);
        let ints = || device.zeros(DType::I32, [max_rows]);
        Ok(Self {
            first_id,
            vocab_size,
            values: Column::new(device, max_rows, world_size)?,
            ids: Column::new(device, max_rows, world_size)?,
            row_max: floats()?,
            inv_temperature: floats()?,
            threshold: floats()?,
            seeds: device.zeros(DType::U64, [max_rows])?,
            positions: ints()?,
            mode: ints()?,
            prefix: ints()?,
            remaining: floats()?,
            histogram: device.zeros(DType::F32, [max_rows, NUM_BINS])?,
            top_values: Column::new(device, max_rows * MAX_LOGPROBS, world_size)?,
            top_ids: Column::new(device, max_rows * MAX_LOGPROBS, world_size)?,
        })
    }

    /// Chooses a token for every row of `logits`, `[m, v]` f32, the `m` sampled sequences of
    /// `batch`. All ranks call this together, each with its share of the logits, and get the same.
    ///
    /// # Errors
    /// If a kernel or a collective fails.
    pub fn sample(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        logits: View<'_>,
        batch: &HostBatch,
    ) -> Result<Vec<Sample>, ModelError> {
        let call = Call { stream, comm, logits, batch };
        if call.len() == 0 {
            return Ok(Vec::new());
        }
        let best = self.most_likely(&call)?;
        let is_greedy = |params: &SamplingParams| params.temperature == 0.0;
        let chosen = if call.params().all(is_greedy) {
            best.clone()
        } else {
            let drawn = self.draw(&call, &best)?;
            let rows = call.params().zip(best.iter().zip(drawn));
            rows.map(|(params, (best, drawn))| if is_greedy(params) { *best } else { drawn })
                .collect()
        };
        let mut logprobs = self.logprobs(&call, &best, &chosen)?;
        let rows = best.iter().zip(&chosen).zip(&mut logprobs);
        let sample =
            |((best, chosen), logprobs): ((&Best, &Best), &mut Option<_>)| match u32::try_from(
                chosen.id,
            ) {
                Ok(token) if best.id >= 0 => Sample::Token { token, logprobs: logprobs.take() },
                _ => Sample::NotFinite,
            };
        Ok(rows.map(sample).collect())
    }

    fn most_likely(&mut self, call: &Call<'_>) -> Result<Vec<Best>, ModelError> {
        let m = call.len();
        let (values, ids) = (self.values.local(m)?, self.ids.local(m)?);
        ops::argmax(call.stream, call.logits, self.first_id, values, ids)?;
        self.best_of_ranks(call)
    }

    /// Draws from the filtered distributions of all rows.
    fn draw(&mut self, call: &Call<'_>, best: &[Best]) -> Result<Vec<Best>, ModelError> {
        let m = call.len();
        let finite = |best: &Best| if best.id < 0 { 0.0 } else { best.value };
        let row_max: Vec<f32> = best.iter().map(finite).collect();
        // Greedy rows are drawn too, at temperature 1, and not looked at.
        let inverse = |params: &SamplingParams| match params.temperature {
            0.0 => 1.0,
            temperature => 1.0 / temperature,
        };
        let inv_temperature: Vec<f32> = call.params().map(inverse).collect();
        let seeds: Vec<u64> = call.params().map(|params| params.seed).collect();
        let stream = call.stream;
        stream.upload(&row_max, self.row_max.view_mut().rows(0..m)?)?;
        stream.upload(&inv_temperature, self.inv_temperature.view_mut().rows(0..m)?)?;
        stream.upload(&vec![f32::NEG_INFINITY; m], self.threshold.view_mut().rows(0..m)?)?;
        stream.upload(&seeds, self.seeds.view_mut().rows(0..m)?)?;
        stream.upload(&call.batch.sampled_positions, self.positions.view_mut().rows(0..m)?)?;
        self.filter(call, &row_max, &inv_temperature)?;
        ops::gumbel_argmax(
            stream,
            call.logits,
            self.inv_temperature.view().rows(0..m)?,
            self.threshold.view().rows(0..m)?,
            self.seeds.view().rows(0..m)?,
            self.positions.view().rows(0..m)?,
            self.first_id,
            self.values.local(m)?,
            self.ids.local(m)?,
        )?;
        self.best_of_ranks(call)
    }

    /// Raises `threshold` to what top-k, top-p and min-p leave.
    fn filter(
        &mut self,
        call: &Call<'_>,
        row_max: &[f32],
        inv_temperature: &[f32],
    ) -> Result<(), ModelError> {
        let m = call.len();
        let top_k = |params: &SamplingParams| {
            let keep = params.top_k as usize;
            (1..self.vocab_size).contains(&keep).then_some(keep as f32)
        };
        let targets: Vec<Option<f32>> = call.params().map(top_k).collect();
        self.raise_threshold(call, ThresholdMode::Count, &targets)?;

        if call.params().any(|params| params.top_p < 1.0) {
            ops::sum_exp_above(
                call.stream,
                call.logits,
                self.row_max.view().rows(0..m)?,
                self.inv_temperature.view().rows(0..m)?,
                self.threshold.view().rows(0..m)?,
                self.values.local(m)?,
            )?;
            let mass = self.values.sum_of_ranks(call.stream, call.comm, m)?;
            let top_p = |(params, mass): (&SamplingParams, f32)| {
                (params.top_p < 1.0).then_some(params.top_p * mass)
            };
            let targets: Vec<Option<f32>> = call.params().zip(mass).map(top_p).collect();
            self.raise_threshold(call, ThresholdMode::Mass, &targets)?;
        }

        if call.params().any(|params| params.min_p > 0.0) {
            let mut threshold = vec![0.0; m];
            call.stream.download(self.threshold.view().rows(0..m)?, &mut threshold)?;
            for (row, params) in call.params().enumerate() {
                // p >= min_p * p_max, with p proportional to exp(x / temperature).
                let lowest = row_max[row] + params.min_p.ln() / inv_temperature[row];
                threshold[row] = threshold[row].max(lowest);
            }
            call.stream.upload(&threshold, self.threshold.view_mut().rows(0..m)?)?;
        }
        Ok(())
    }

    /// For rows with a target, raises `threshold` to the largest value such that the count or mass
    /// of the logits at or above it reaches the target.
    fn raise_threshold(
        &mut self,
        call: &Call<'_>,
        mode: ThresholdMode,
        targets: &[Option<f32>],
    ) -> Result<(), ModelError> {
        if targets.iter().all(Option::is_none) {
            return Ok(());
        }
        let (m, stream) = (targets.len(), call.stream);
        let mode_of = |target: &Option<f32>| {
            if target.is_some() { mode as i32 } else { ThresholdMode::Off as i32 }
        };
        let modes: Vec<i32> = targets.iter().map(mode_of).collect();
        let remaining: Vec<f32> = targets.iter().map(|target| target.unwrap_or(0.0)).collect();
        stream.upload(&modes, self.mode.view_mut().rows(0..m)?)?;
        stream.upload(&vec![0i32; m], self.prefix.view_mut().rows(0..m)?)?;
        stream.upload(&remaining, self.remaining.view_mut().rows(0..m)?)?;
        let mut state = ThresholdState {
            mode: self.mode.view().rows(0..m)?,
            prefix: self.prefix.view_mut().rows(0..m)?,
            remaining: self.remaining.view_mut().rows(0..m)?,
        };
        for round in 0..ROUNDS {
            ops::threshold_histogram(
                stream,
                call.logits,
                self.row_max.view().rows(0..m)?,
                self.inv_temperature.view().rows(0..m)?,
                &state,
                round,
                self.histogram.view_mut().rows(0..m)?,
            )?;
            call.comm.all_reduce(stream, self.histogram.view_mut().rows(0..m)?)?;
            ops::threshold_refine(stream, self.histogram.view().rows(0..m)?, &mut state, round)?;
        }
        ops::raise_threshold(stream, &state, self.threshold.view_mut().rows(0..m)?)?;
        Ok(())
    }

    /// The best of `values` and `ids` over all ranks: the largest value, the lowest id among equals;
    /// NaN, which says that a row has no meaningful token, beats all.
    fn best_of_ranks(&mut self, call: &Call<'_>) -> Result<Vec<Best>, ModelError> {
        let m = call.len();
        let values = self.values.gather(call.stream, call.comm, m)?;
        let ids = self.ids.gather(call.stream, call.comm, m)?;
        let mut best = vec![Best { value: f32::NEG_INFINITY, id: -1 }; m];
        // Ranks come in the order of their ids, so that a later one must be larger to win.
        for (index, (value, id)) in values.into_iter().zip(ids).enumerate() {
            let best = &mut best[index % m];
            let none_yet = best.id < 0 && !best.value.is_nan() && id >= 0;
            if value.is_nan() || none_yet || value > best.value {
                *best = Best { value, id };
            }
        }
        Ok(best)
    }
}
