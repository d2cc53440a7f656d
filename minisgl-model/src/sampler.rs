//! From logits, sharded over the vocabulary, to one token per sequence, the same on all ranks.
//!
//! Logits are never gathered: ranks exchange maxima, sums and, for top-k and top-p, histograms of
//! 256 bins ([`minisgl_kernels::ops::sampling`] says how). Random choices are Gumbel-max with noise
//! that is a function of the request's seed, the position and the token id alone, so they depend
//! neither on the sharding nor on who else is in the batch.
//!
//! Logits are first adjusted as vLLM does: bias and held-back stop tokens, then the repetition, the
//! frequency and the presence penalty ([`minisgl_kernels::ops::sampling::penalize_logits`]). Filters
//! then apply in the order of Hugging Face transformers: temperature, top-k, top-p (of what top-k
//! left), min-p. Greedy rows take the most likely token of the adjusted logits. Log-probabilities are
//! of the model's distribution, before all of that (vLLM's default, `raw_logprobs`).
//!
//! A batch in which nobody asks for adjustments runs the same kernels as if there were none.
//!
//! Everything is queued on the device and nothing waits for it; the host reads the results when they
//! are there ([`Results`]).
//!
//! Never knows requests; one row is one sequence of the step.

mod adjuster;
mod column;
mod drawing;
mod logprobs;
mod params;
mod results;

use minisgl_comm::Communicator;
use minisgl_kernels::ops::sampling as ops;
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};

use self::adjuster::Adjuster;
use self::column::Column;
use self::drawing::Drawing;
pub use self::results::Results;
use crate::ModelError;
use crate::batch::{AdjustedBatch, HostBatch};

/// The largest number of most likely tokens that can be reported.
pub const MAX_LOGPROBS: usize = 20;

/// One rank's sampler, with memory for its largest batch.
#[derive(Debug)]
pub struct Sampler {
    /// Token ids of the whole model.
    vocab_size: usize,
    finder: Finder,
    /// By the model's logits.
    best: Best,
    /// By the adjusted ones.
    adjusted_best: Best,
    adjuster: Adjuster,
    drawing: Drawing,
    /// Which tokens were chosen last.
    chosen: Chosen,
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

/// What the tokens chosen are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chosen {
    Best,
    BestAdjusted,
    Drawn,
}

impl Chosen {
    fn of<'a>(self, best: &'a Best, adjusted: &'a Best, drawing: &'a Drawing) -> &'a Tensor {
        match self {
            Self::Best => &best.id,
            Self::BestAdjusted => &adjusted.id,
            Self::Drawn => &drawing.chosen,
        }
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
    /// For up to `max_rows` sequences, of the `num_ids` token ids from `first_id` on, out of
    /// `vocab_size`.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(
        device: &Device,
        first_id: i32,
        num_ids: usize,
        vocab_size: usize,
        max_rows: usize,
        world_size: usize,
    ) -> Result<Self, Error> {
        let floats = || device.zeros(DType::F32, [max_rows]);
        let column = |dtype, len| Column::new(device, dtype, len, world_size);
        Ok(Self {
            vocab_size,
            finder: Finder {
                first_id,
                values: column(DType::F32, max_rows)?,
                ids: column(DType::I32, max_rows)?,
            },
            best: Best::new(device, max_rows)?,
            adjusted_best: Best::new(device, max_rows)?,
            adjuster: Adjuster::new(device, first_id, num_ids, vocab_size, max_rows)?,
            drawing: Drawing::new(device, max_rows)?,
            chosen: Chosen::Best,
            sums: floats()?,
            picked: floats()?,
            top_values: column(DType::F32, max_rows * MAX_LOGPROBS)?,
            top_ids: column(DType::I32, max_rows * MAX_LOGPROBS)?,
        })
    }

    /// Bytes of what [`Sampler::new`] allocates that grow with the vocabulary, which is all but some
    /// hundred bytes a row.
    pub fn bytes(num_ids: usize, vocab_size: usize, max_rows: usize) -> usize {
        Adjuster::bytes(num_ids, vocab_size, max_rows)
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
        self.finder.most_likely(&Call { stream, comm, logits }, &mut self.best)
    }

    /// After [`Sampler::find_most_likely`], chooses a token for the first rows of `logits`, one for
    /// each of the sampling parameters of `batch`; `rows` are those of the page table, `positions`
    /// those of the tokens (`[m]` i32). All ranks call this together, and choose the same.
    ///
    /// # Errors
    /// If a kernel or a collective fails.
    pub fn choose(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        logits: View<'_>,
        rows: View<'_>,
        positions: View<'_>,
        batch: &HostBatch,
    ) -> Result<(), ModelError> {
        let params = batch.sampling();
        let m = params.len();
        let is_greedy = params.iter().all(|params| params.temperature == 0.0);
        let asks_logprobs = params.iter().any(|params| params.logprobs.is_some());
        self.chosen = match (is_greedy, batch.adjusted()) {
            (false, _) => Chosen::Drawn,
            (true, Some(_)) => Chosen::BestAdjusted,
            (true, None) => Chosen::Best,
        };
        if m == 0 || (self.chosen == Chosen::Best && !asks_logprobs) {
            return Ok(());
        }
        let call = Call { stream, comm, logits: logits.rows(0..m)? };
        if !is_greedy || asks_logprobs {
            self.drawing.params.upload(stream, params, self.vocab_size)?;
        }
        let rows = rows.rows(0..m)?;
        if let Some(adjusted) = batch.adjusted() {
            self.adjuster.adjust(stream, call.logits, rows, adjusted)?;
            let call = Call { logits: self.adjuster.logits(m)?, ..call };
            self.finder.most_likely(&call, &mut self.adjusted_best)?;
        }
        if !is_greedy {
            let (logits, best) = match batch.adjusted() {
                Some(_) => (self.adjuster.logits(m)?, &self.adjusted_best),
                None => (call.logits, &self.best),
            };
            let call = Call { logits, ..call };
            self.drawing.draw(&call, best, &mut self.finder, positions.rows(0..m)?)?;
        }
        if batch.adjusted().is_some_and(AdjustedBatch::has_penalties) {
            let chosen = self.chosen.of(&self.best, &self.adjusted_best, &self.drawing);
            self.adjuster.count(stream, rows, chosen.view().rows(0..m)?)?;
        }
        if asks_logprobs { self.find_logprobs(&call, params) } else { Ok(()) }
    }

    /// The tokens chosen for the first `m` rows, `[m]` i32; -1 if the logits were not finite.
    ///
    /// # Errors
    /// If there is no room for so many.
    pub fn chosen(&self, m: usize) -> Result<View<'_>, Error> {
        self.chosen.of(&self.best, &self.adjusted_best, &self.drawing).view().rows(0..m)
    }
}

/// Finds the best token of each row over all ranks.
#[derive(Debug)]
struct Finder {
    first_id: i32,
    /// What this rank finds, and what all do.
    values: Column,
    ids: Column,
}

impl Finder {
    fn most_likely(&mut self, call: &Call<'_>, best: &mut Best) -> Result<(), ModelError> {
        let (values, ids) = (self.values.local(call.len())?, self.ids.local(call.len())?);
        ops::argmax(call.stream, call.logits, self.first_id, values, ids)?;
        self.best_of_ranks(call, best)
    }

    /// The best of what all ranks found: the largest value, the lowest id among equals; NaN, which
    /// says that a row has no meaningful token, beats all.
    fn best_of_ranks(&mut self, call: &Call<'_>, best: &mut Best) -> Result<(), ModelError> {
        let m = call.len();
        ops::best_of_shards(
            call.stream,
            self.values.gather(call.stream, call.comm, m)?,
            self.ids.gather(call.stream, call.comm, m)?,
            best.value.view_mut().rows(0..m)?,
            best.id.view_mut().rows(0..m)?,
        )?;
        Ok(())
    }
}

/// The first rows of `target` become `source`.
fn ops_copy(stream: &Stream, source: View<'_>, target: &mut Tensor) -> Result<(), Error> {
    let rows = source.shape().dims()[0];
    minisgl_kernels::ops::copy(stream, source, target.view_mut().rows(0..rows)?)
}

/// The first elements of `values` become their sums over all ranks.
fn sum_over_ranks(call: &Call<'_>, values: &mut Tensor) -> Result<(), ModelError> {
    Ok(call.comm.all_reduce(call.stream, values.view_mut().rows(0..call.len())?)?)
}
