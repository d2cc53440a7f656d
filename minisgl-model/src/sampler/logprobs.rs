//! Log-probabilities of the tokens chosen and of the most likely ones, over all ranks.
//! Knows logits and ids, not how the tokens were chosen.

use minisgl_kernels::ops::sampling as ops;
use minisgl_sched::TokenLogprobs;

use super::{Best, Call, MAX_LOGPROBS, Sampler};
use crate::ModelError;

impl Sampler {
    /// For each row that asks for them.
    pub(super) fn logprobs(
        &mut self,
        call: &Call<'_>,
        best: &[Best],
        chosen: &[Best],
    ) -> Result<Vec<Option<TokenLogprobs>>, ModelError> {
        if call.params().all(|params| params.logprobs.is_none()) {
            return Ok(vec![None; call.len()]);
        }
        let normalizers = self.log_sum_exp(call, best)?;
        let chosen = self.logits_of(call, chosen)?;
        let asked = call.params().filter_map(|params| params.logprobs).max().unwrap_or(0) as usize;
        let mut top = self.top(call, asked.min(MAX_LOGPROBS))?;
        let row = |row: usize| {
            let count = call.batch.sampling[row].logprobs?;
            let normalizer = normalizers[row];
            // The same expression for all, so that the chosen token's value is the one in the list.
            let logprob = |logit: f32| logit - normalizer;
            let mut top = std::mem::take(&mut top[row]);
            top.truncate(count as usize);
            Some(TokenLogprobs {
                chosen: logprob(chosen[row]),
                top: top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
            })
        };
        Ok((0..call.len()).map(row).collect())
    }

    /// `ln Σ exp(x)` of each row.
    fn log_sum_exp(&mut self, call: &Call<'_>, best: &[Best]) -> Result<Vec<f32>, ModelError> {
        let (m, stream) = (call.len(), call.stream);
        let row_max: Vec<f32> = best.iter().map(|best| best.value).collect();
        stream.upload(&row_max, self.row_max.view_mut().rows(0..m)?)?;
        stream.upload(&vec![1.0; m], self.inv_temperature.view_mut().rows(0..m)?)?;
        ops::sum_exp(
            stream,
            call.logits,
            self.row_max.view().rows(0..m)?,
            self.inv_temperature.view().rows(0..m)?,
            self.values.local(m)?,
        )?;
        let sums = self.values.sum_of_ranks(stream, call.comm, m)?;
        Ok(row_max.iter().zip(sums).map(|(max, sum)| max + sum.ln()).collect())
    }

    /// The logit of one id in each row; the rank that has it tells the others.
    fn logits_of(&mut self, call: &Call<'_>, ids: &[Best]) -> Result<Vec<f32>, ModelError> {
        let v = call.logits.shape().dims()[1];
        let mut logits = vec![0.0; ids.len()];
        for (row, (logit, best)) in logits.iter_mut().zip(ids).enumerate() {
            let column = i64::from(best.id) - i64::from(self.first_id);
            if let Some(column) = usize::try_from(column).ok().filter(|column| *column < v) {
                let element = call.logits.rows(row..row + 1)?.columns(column..column + 1)?;
                call.stream.download(element, std::slice::from_mut(logit))?;
            }
        }
        call.stream.upload(&logits, self.values.local(ids.len())?)?;
        self.values.sum_of_ranks(call.stream, call.comm, ids.len())
    }

    /// The `count` largest logits of each row with their ids.
    fn top(&mut self, call: &Call<'_>, count: usize) -> Result<Vec<Vec<(u32, f32)>>, ModelError> {
        let m = call.len();
        if count == 0 {
            return Ok(vec![Vec::new(); m]);
        }
        let (shape, len) = ([m, count], m * count);
        let values = self.top_values.local(len)?.reshape(shape)?;
        let ids = self.top_ids.local(len)?.reshape(shape)?;
        ops::top_n(call.stream, call.logits, self.first_id, values, ids)?;
        let values = self.top_values.gather(call.stream, call.comm, len)?;
        let ids = self.top_ids.gather(call.stream, call.comm, len)?;
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); m];
        for (index, (value, id)) in values.into_iter().zip(ids).enumerate() {
            // Ids below zero fill up where a rank has fewer.
            if let Ok(id) = u32::try_from(id) {
                rows[index / count % m].push((id, value));
            }
        }
        for row in &mut rows {
            row.sort_by(|(a_id, a), (b_id, b)| b.total_cmp(a).then(a_id.cmp(b_id)));
            row.truncate(count);
        }
        Ok(rows)
    }
}
