//! What log-probabilities are made of, over all ranks: the sum of each row, the logit of the token
//! chosen, and the most likely tokens. Knows logits and ids, not how the tokens were chosen.

use minisgl_kernels::ops::sampling as ops;
use minisgl_sched::SamplingParams;

use super::{Call, MAX_LOGPROBS, Sampler, sum_over_ranks};
use crate::ModelError;

/// The most likely tokens that some row asks for.
pub(super) fn num_asked(params: &[SamplingParams]) -> usize {
    let asked = params.iter().filter_map(|params| params.logprobs).max().unwrap_or(0) as usize;
    asked.min(MAX_LOGPROBS)
}

impl Sampler {
    /// Leaves the sums in `sums`, the logits of the chosen in `picked`, and the most likely in
    /// `top_values` and `top_ids`.
    pub(super) fn find_logprobs(
        &mut self,
        call: &Call<'_>,
        params: &[SamplingParams],
    ) -> Result<(), ModelError> {
        let (m, stream) = (call.len(), call.stream);
        ops::sum_exp(
            stream,
            call.logits,
            self.best.value.view().rows(0..m)?,
            self.drawing.params.ones(m)?,
            self.sums.view_mut().rows(0..m)?,
        )?;
        sum_over_ranks(call, &mut self.sums)?;
        let chosen = self.chosen.of(&self.best, &self.adjusted_best, &self.drawing);
        let chosen = chosen.view().rows(0..m)?;
        // The rank that has the token tells the others, whose share of the sum is 0.
        let picked = self.picked.view_mut().rows(0..m)?;
        ops::pick_logits(stream, call.logits, chosen, self.finder.first_id, picked)?;
        sum_over_ranks(call, &mut self.picked)?;
        let count = num_asked(params);
        if count == 0 {
            return Ok(());
        }
        let (shape, len) = ([m, count], m * count);
        let values = self.top_values.local(len)?.reshape(shape)?;
        let ids = self.top_ids.local(len)?.reshape(shape)?;
        ops::top_n(stream, call.logits, self.finder.first_id, values, ids)?;
        self.top_values.gather(stream, call.comm, len)?;
        self.top_ids.gather(stream, call.comm, len)?;
        Ok(())
    }
}
