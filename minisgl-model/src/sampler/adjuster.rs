//! Penalties and biases: this rank's share of the logits as requests want them changed, and what must
//! be remembered for that, by row of the page table.
//!
//! What was output is counted on the device, as part of the step that samples it: with overlap the
//! next step is queued before the host has seen the token. All memory is taken at start; the model's
//! own logits stay as they are, since log-probabilities are of them.
//!
//! Knows rows; never requests.

use minisgl_kernels::ops::sampling::{self as ops, Biases, History, Penalties};
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};

use super::ops_copy;
use crate::batch::{AdjustedBatch, BeginningRow, MAX_BIASED};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Adjuster {
    first_id: i32,
    /// `[rows, v_local]` i32: how often each id was output.
    counts: Tensor,
    /// `[rows, words]` i32: a bit for each id of the whole vocabulary.
    prompts: Tensor,
    /// `[rows, MAX_BIASED]`
    biased_ids: Tensor,
    bias: Tensor,
    /// Of the batch: rows that begin, then where the biases in force begin and end.
    ints: Tensor,
    /// Of the batch: the three penalties.
    floats: Tensor,
    /// `[rows, v_local]` f32: the logits of the batch, changed.
    logits: Tensor,
}

fn num_words(vocab_size: usize) -> usize {
    vocab_size.div_ceil(32)
}

impl Adjuster {
    /// Bytes that [`Adjuster::new`] allocates.
    pub(super) fn bytes(num_ids: usize, vocab_size: usize, max_rows: usize) -> usize {
        let tables = 2 * num_ids + num_words(vocab_size) + 2 * MAX_BIASED;
        max_rows * (tables + 3 + 3) * size_of::<i32>()
    }

    pub(super) fn new(
        device: &Device,
        first_id: i32,
        num_ids: usize,
        vocab_size: usize,
        max_rows: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            first_id,
            counts: device.zeros(DType::I32, [max_rows, num_ids])?,
            prompts: device.zeros(DType::I32, [max_rows, num_words(vocab_size)])?,
            biased_ids: device.zeros(DType::I32, [max_rows, MAX_BIASED])?,
            bias: device.zeros(DType::F32, [max_rows, MAX_BIASED])?,
            ints: device.zeros(DType::I32, [3 * max_rows])?,
            floats: device.zeros(DType::F32, [3 * max_rows])?,
            logits: device.zeros(DType::F32, [max_rows, num_ids])?,
        })
    }

    /// Changes a copy of `logits` as `batch` says; `rows` (`[m]` i32) are those of its sequences.
    pub(super) fn adjust(
        &mut self,
        stream: &Stream,
        logits: View<'_>,
        rows: View<'_>,
        batch: &AdjustedBatch,
    ) -> Result<(), Error> {
        let m = logits.shape().dims()[0];
        let num_begins = batch.begins.len();
        let begins: Vec<i32> = batch.begins.iter().map(|begin| begin.row as i32).collect();
        let ints = [&begins, &batch.biased[0], &batch.biased[1]].map(Vec::as_slice).concat();
        stream.upload(&ints, self.ints.view_mut().rows(0..ints.len())?)?;
        for begin in &batch.begins {
            self.begin(stream, begin)?;
        }
        ops::clear_counts(stream, self.counts.view_mut(), self.ints.view().rows(0..num_begins)?)?;
        ops_copy(stream, logits, &mut self.logits)?;
        let target = self.logits.view_mut().rows(0..m)?;
        if batch.has_bias() {
            let part = |index: usize| {
                let start = num_begins + index * m;
                self.ints.view().rows(start..start + m)
            };
            let (ids, values) = (self.biased_ids.view(), self.bias.view());
            let biases = Biases { ids, values, begins: part(0)?, ends: part(1)? };
            ops::bias_logits(stream, target, &biases, rows, self.first_id)?;
        }
        if batch.has_penalties() {
            let floats = batch.penalties.concat();
            stream.upload(&floats, self.floats.view_mut().rows(0..floats.len())?)?;
            let list = |index: usize| self.floats.view().rows(index * m..(index + 1) * m);
            let penalties =
                Penalties { repetition: list(0)?, frequency: list(1)?, presence: list(2)? };
            let history = History { counts: self.counts.view(), prompts: self.prompts.view() };
            let target = self.logits.view_mut().rows(0..m)?;
            ops::penalize_logits(stream, target, &history, rows, &penalties, self.first_id)?;
        }
        Ok(())
    }

    /// Uploads what is told once. Whole prompts, so that nothing is left of another request's.
    fn begin(&mut self, stream: &Stream, begin: &BeginningRow) -> Result<(), Error> {
        let row = begin.row..begin.row + 1;
        let mut prompt = begin.prompt.clone();
        prompt.resize(self.prompts.shape().dims()[1], 0);
        stream.upload(&prompt, self.prompts.view_mut().rows(row.clone())?)?;
        let entries = 0..begin.bias.len();
        if !entries.is_empty() {
            let ids = self.biased_ids.view_mut().rows(row.clone())?.columns(entries.clone())?;
            stream.upload(&begin.biased_ids, ids)?;
            stream.upload(&begin.bias, self.bias.view_mut().rows(row)?.columns(entries)?)?;
        }
        Ok(())
    }

    /// The logits changed last, `[m, v_local]`.
    pub(super) fn logits(&self, m: usize) -> Result<View<'_>, Error> {
        self.logits.view().rows(0..m)
    }

    /// Counts the tokens chosen for `rows`.
    pub(super) fn count(
        &mut self,
        stream: &Stream,
        rows: View<'_>,
        chosen: View<'_>,
    ) -> Result<(), Error> {
        ops::count_ids(stream, self.counts.view_mut(), rows, chosen, self.first_id)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn it_takes_the_memory_that_it_says() {
        let device = Device::cpu(NonZeroUsize::MIN).unwrap();
        let adjuster = Adjuster::new(&device, 40, 33, 99, 7).unwrap();
        let Adjuster { counts, prompts, biased_ids, bias, ints, floats, logits, .. } = &adjuster;
        let tensors = [counts, prompts, biased_ids, bias, ints, floats, logits];
        let bytes: usize = tensors.map(|tensor| 4 * tensor.num_elements()).iter().sum();
        assert_eq!(Adjuster::bytes(33, 99, 7), bytes);
    }
}
