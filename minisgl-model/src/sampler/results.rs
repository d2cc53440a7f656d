//! What the sampler found, on its way to the host. Knows the sampler's arrays; queues nothing but
//! copies.

use std::sync::Arc;

use minisgl_kernels::{Device, Error, Readback, Stream, View};
use minisgl_sched::{Sample, TokenLogprobs};

use super::logprobs::num_asked;
use super::{MAX_LOGPROBS, Sampler};
use crate::ModelError;
use crate::batch::HostBatch;

/// The results of one step, read back while later work runs.
#[derive(Debug)]
pub struct Results {
    readback: Readback,
    world_size: usize,
    /// Whose results are on their way.
    batch: Option<Arc<HostBatch>>,
}

impl Results {
    /// Room for the results of `max_rows` sequences.
    ///
    /// # Errors
    /// If the host has no room.
    pub fn new(device: &Device, max_rows: usize, world_size: usize) -> Result<Self, Error> {
        // Ids, three floats, and the most likely tokens of all ranks; each list aligned.
        let lists = 4 * max_rows + 2 * world_size * MAX_LOGPROBS * max_rows;
        let readback = Readback::new(device, lists * size_of::<f32>() + 6 * 64)?;
        Ok(Self { readback, world_size, batch: None })
    }

    /// Begins to read what `sampler` chose for `batch`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn start(
        &mut self,
        stream: &Stream,
        sampler: &Sampler,
        batch: &Arc<HostBatch>,
    ) -> Result<(), ModelError> {
        let m = batch.sampling().len();
        let mut views: Vec<View<'_>> = vec![sampler.chosen(m)?];
        if batch.sampling().iter().any(|params| params.logprobs.is_some()) {
            for tensor in [&sampler.best.value, &sampler.sums, &sampler.picked] {
                views.push(tensor.view().rows(0..m)?);
            }
            let len = m * num_asked(batch.sampling());
            views.push(sampler.top_values.gathered(self.world_size, len)?);
            views.push(sampler.top_ids.gathered(self.world_size, len)?);
        }
        self.readback.start(stream, &views)?;
        self.batch = Some(Arc::clone(batch));
        Ok(())
    }

    /// Whether [`Results::finish`] would not wait.
    ///
    /// # Errors
    /// If the device failed.
    pub fn are_there(&self) -> Result<bool, ModelError> {
        Ok(self.readback.is_done()?)
    }

    /// Waits for the results: one sample per sampled sequence of the batch.
    ///
    /// # Errors
    /// If the device failed.
    pub fn finish(&mut self) -> Result<Vec<Sample>, ModelError> {
        let Some(batch) = self.batch.take() else { return Ok(Vec::new()) };
        self.readback.wait()?;
        let ids = self.readback.slice::<i32>(0)?;
        let mut logprobs = self.logprobs(&batch)?;
        let sample = |(row, id): (usize, &i32)| match u32::try_from(*id) {
            Ok(token) => Sample::Token { token, logprobs: logprobs[row].take() },
            Err(_) => Sample::NotFinite,
        };
        Ok(ids.iter().enumerate().map(sample).collect())
    }

    /// For each row that asks for them.
    fn logprobs(&self, batch: &HostBatch) -> Result<Vec<Option<TokenLogprobs>>, ModelError> {
        let params = batch.sampling();
        if params.iter().all(|params| params.logprobs.is_none()) {
            return Ok(vec![None; params.len()]);
        }
        let max = self.readback.slice::<f32>(1)?;
        let sums = self.readback.slice::<f32>(2)?;
        let chosen = self.readback.slice::<f32>(3)?;
        let mut top = self.top(params.len(), num_asked(params))?;
        let row = |row: usize| {
            let count = params[row].logprobs?;
            let normalizer = max[row] + sums[row].ln();
            // The same expression for all, so that the chosen token's value is the one in the list.
            let logprob = |logit: f32| logit - normalizer;
            let mut top = std::mem::take(&mut top[row]);
            top.truncate(count as usize);
            Some(TokenLogprobs {
                chosen: logprob(chosen[row]),
                top: top.into_iter().map(|(id, logit)| (id, logprob(logit))).collect(),
            })
        };
        Ok((0..params.len()).map(row).collect())
    }

    /// The `count` largest logits of each of `m` rows with their ids, over all ranks.
    fn top(&self, m: usize, count: usize) -> Result<Vec<Vec<(u32, f32)>>, ModelError> {
        let values = self.readback.slice::<f32>(4)?;
        let ids = self.readback.slice::<i32>(5)?;
        let mut rows: Vec<Vec<(u32, f32)>> = vec![Vec::new(); m];
        for (index, (value, id)) in values.iter().zip(ids).enumerate() {
            // Ids below zero fill up where a rank has fewer.
            if let Ok(id) = u32::try_from(*id) {
                rows[index / count % m].push((id, *value));
            }
        }
        for row in &mut rows {
            row.sort_by(|(a_id, a), (b_id, b)| b.total_cmp(a).then(a_id.cmp(b_id)));
            row.truncate(count);
        }
        Ok(rows)
    }
}
