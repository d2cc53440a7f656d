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
//! Everything is queued on the device and nothing waits for it; the host reads the results when they
//! are there ([`Results`]).
//!
//! Never knows requests; one row is one sequence of the step.

mod column;
mod logprobs;
mod params;
mod results;

use minisgl_comm::Communicator;
use minisgl_kernels::ops::sampling::{
    self as ops, NUM_BINS, ROUNDS, ThresholdMode, ThresholdState,
};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};

use self::column::Column;
use self::params::DeviceParams;
pub use self::results::Results;
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
    params: DeviceParams,
    /// What this rank finds, and what all do.
    values: Column,
    ids: Column,
    best: Best,
    drawn: Best,
    /// `[rows]` i32
    chosen: Tensor,
    /// Whether the tokens chosen are the best ones, and not in `chosen`.
    chosen_is_best: bool,
    threshold: Tensor,
    prefix: Tensor,
    remaining: Tensor,
    histogram: Tensor,
    sums: Tensor,
    picked: Tensor,
    top_values: Column,
    top_ids: Column,
}

/// The best token of each row, in some sense; id -1 if there is none.
#[derive(Debug)]
struct Best {
    /// `[rows]` f32
    value: Tensor,
    /// `[rows]` i32
    id: Tensor,
}

impl Best {
    fn new(device: &Device, rows: usize) -> Result<Self, Error> {
        let (value, id) = (device.zeros(DType::F32, [rows])?, device.zeros(DType::I32, [rows])?);
        Ok(Self { value, id })
    }
}

/// The arguments that all steps of one call share.
#[derive(Clone, Copy)]
struct Call<'a> {
    stream: &'a Stream,
    comm: &'a dyn Communicator,
    /// `[m, v]` f32
    logits: View<'a>,
}

impl Call<'_> {
    fn len(&self) -> usize {
        self.logits.shape().dims()[0]
    }
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
        let column = |dtype, len| Column::new(device, dtype, len, world_size);
        Ok(Self {
            first_id,
            vocab_size,
            params: DeviceParams::new(device, max_rows)?,
            values: column(DType::F32, max_rows)?,
            ids: column(DType::I32, max_rows)?,
            best: Best::new(device, max_rows)?,
            drawn: Best::new(device, max_rows)?,
            chosen: ints()?,
            chosen_is_best: true,
            threshold: floats()?,
            prefix: ints()?,
            remaining: floats()?,
            histogram: device.zeros(DType::F32, [max_rows, NUM_BINS])?,
            sums: floats()?,
            picked: floats()?,
            top_values: column(DType::F32, max_rows * MAX_LOGPROBS)?,
            top_ids: column(DType::I32, max_rows * MAX_LOGPROBS)?,
        })
    }

    /// Finds the most likely token of every row of `logits`, `[m, v]` f32. All ranks call this
    /// together, each with its share of the logits. Reads nothing from the host, so that a graph can
    /// hold it.
    ///
    /// # Errors
    /// If a kernel or a collective fails.
    pub fn find_most_likely(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        logits: View<'_>,
    ) -> Result<(), ModelError> {
        let call = Call { stream, comm, logits };
        let (values, ids) = (self.values.local(call.len())?, self.ids.local(call.len())?);
        ops::argmax(stream, logits, self.first_id, values, ids)?;
        best_of_ranks(&call, &mut self.values, &mut self.ids, &mut self.best)
    }

    /// After [`Sampler::find_most_likely`], chooses a token for the first rows of `logits`, one for
    /// each of the sampling parameters of `batch`; `positions` (`[m]` i32) are those of the tokens.
    /// All ranks call this together, and choose the same.
    ///
    /// # Errors
    /// If a kernel or a collective fails.
    pub fn choose(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        logits: View<'_>,
        positions: View<'_>,
        batch: &HostBatch,
    ) -> Result<(), ModelError> {
        let params = batch.sampling();
        let m = params.len();
        self.chosen_is_best = params.iter().all(|params| params.temperature == 0.0);
        let asks_logprobs = params.iter().any(|params| params.logprobs.is_some());
        if m == 0 || (self.chosen_is_best && !asks_logprobs) {
            return Ok(());
        }
        let call = Call { stream, comm, logits: logits.rows(0..m)? };
        self.params.upload(stream, params, self.vocab_size)?;
        if !self.chosen_is_best {
            self.draw(&call, positions.rows(0..m)?)?;
        }
        if asks_logprobs { self.find_logprobs(&call, params) } else { Ok(()) }
    }

    /// The tokens chosen for the first `m` rows, `[m]` i32; -1 if the logits were not finite.
    ///
    /// # Errors
    /// If there is no room for so many.
    pub fn chosen(&self, m: usize) -> Result<View<'_>, Error> {
        if self.chosen_is_best { &self.best.id } else { &self.chosen }.view().rows(0..m)
    }

    /// Draws from the filtered distributions of all rows; greedy rows get their best token.
    fn draw(&mut self, call: &Call<'_>, positions: View<'_>) -> Result<(), ModelError> {
        let (m, stream) = (call.len(), call.stream);
        ops_copy(stream, self.params.no_threshold(m)?, &mut self.threshold)?;
        self.filter(call)?;
        ops::gumbel_argmax(
            stream,
            call.logits,
            self.params.inv_temperature(m)?,
            self.threshold.view().rows(0..m)?,
            self.params.seeds(m)?,
            positions,
            self.first_id,
            self.values.local(m)?,
            self.ids.local(m)?,
        )?;
        best_of_ranks(call, &mut self.values, &mut self.ids, &mut self.drawn)?;
        ops::choose_ids(
            stream,
            self.params.is_greedy(m)?,
            self.best.id.view().rows(0..m)?,
            self.drawn.id.view().rows(0..m)?,
            self.chosen.view_mut().rows(0..m)?,
        )?;
        Ok(())
    }

    /// Raises `threshold` to what top-k, top-p and min-p leave.
    fn filter(&mut self, call: &Call<'_>) -> Result<(), ModelError> {
        let (m, stream, used) = (call.len(), call.stream, self.params.used());
        if used.top_k {
            ops_copy(stream, self.params.top_k(m)?, &mut self.remaining)?;
            self.raise_threshold(call, ThresholdMode::Count)?;
        }
        if used.top_p {
            ops::sum_exp_above(
                stream,
                call.logits,
                self.best.value.view().rows(0..m)?,
                self.params.inv_temperature(m)?,
                self.threshold.view().rows(0..m)?,
                self.sums.view_mut().rows(0..m)?,
            )?;
            sum_over_ranks(call, &mut self.sums)?;
            ops::mass_target(
                stream,
                self.params.top_p(m)?,
                self.sums.view().rows(0..m)?,
                self.remaining.view_mut().rows(0..m)?,
            )?;
            self.raise_threshold(call, ThresholdMode::Mass)?;
        }
        if used.min_p {
            ops::min_p_threshold(
                stream,
                self.best.value.view().rows(0..m)?,
                self.params.ln_min_p(m)?,
                self.params.inv_temperature(m)?,
                self.threshold.view_mut().rows(0..m)?,
            )?;
        }
        Ok(())
    }

    /// For rows that take part, raises `threshold` to the largest value such that the count or mass
    /// of the logits at or above it reaches `remaining`.
    fn raise_threshold(&mut self, call: &Call<'_>, mode: ThresholdMode) -> Result<(), ModelError> {
        let (m, stream) = (call.len(), call.stream);
        ops_copy(stream, self.params.zeros(m)?, &mut self.prefix)?;
        let mut state = ThresholdState {
            mode: self.params.mode(m, mode)?,
            prefix: self.prefix.view_mut().rows(0..m)?,
            remaining: self.remaining.view_mut().rows(0..m)?,
        };
        for round in 0..ROUNDS {
            ops::threshold_histogram(
                stream,
                call.logits,
                self.best.value.view().rows(0..m)?,
                self.params.inv_temperature(m)?,
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
}

/// The first elements of `target` become `source`.
fn ops_copy(stream: &Stream, source: View<'_>, target: &mut Tensor) -> Result<(), Error> {
    let len = source.num_elements();
    minisgl_kernels::ops::copy(stream, source, target.view_mut().rows(0..len)?)
}

/// The first elements of `values` become their sums over all ranks.
fn sum_over_ranks(call: &Call<'_>, values: &mut Tensor) -> Result<(), ModelError> {
    Ok(call.comm.all_reduce(call.stream, values.view_mut().rows(0..call.len())?)?)
}

/// The best of `values` and `ids` over all ranks: the largest value, the lowest id among equals; NaN,
/// which says that a row has no meaningful token, beats all.
fn best_of_ranks(
    call: &Call<'_>,
    values: &mut Column,
    ids: &mut Column,
    best: &mut Best,
) -> Result<(), ModelError> {
    let m = call.len();
    ops::best_of_shards(
        call.stream,
        values.gather(call.stream, call.comm, m)?,
        ids.gather(call.stream, call.comm, m)?,
        best.value.view_mut().rows(0..m)?,
        best.id.view_mut().rows(0..m)?,
    )?;
    Ok(())
}
