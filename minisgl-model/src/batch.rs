//! A step plan as the arrays kernels read: built once on the host, uploaded by every rank.
//! Knows rows and positions; never layers or weights.

use minisgl_cache::page::PageSize;
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View};
use minisgl_sched::{InputTokens, SamplingParams, StepPlan, TableUpdate};

/// One forward pass, in host memory. `t` tokens, `n` sequences, `m` of them sampled.
#[derive(Clone, PartialEq, Debug)]
pub struct HostBatch {
    /// Changes of the page table, to be made first.
    pub table_updates: Vec<TableUpdate>,
    /// `[t]`; 0 where the id is the one last sampled for a row.
    pub input_ids: Vec<i32>,
    /// Tokens whose id is the one last sampled for a row: index in `input_ids`, row.
    pub sampled_inputs: (Vec<i32>, Vec<i32>),
    /// `[t]`
    pub positions: Vec<i32>,
    /// `[t]` slots of the KV pool.
    pub out_loc: Vec<i32>,
    /// `[n]` rows of the page table.
    pub rows: Vec<i32>,
    /// `[n + 1]`
    pub cu_seqlens_q: Vec<i32>,
    /// `[n]`
    pub kv_lens: Vec<i32>,
    /// `[m]` index of the last token of each sampled sequence.
    pub last_tokens: Vec<i32>,
    /// `[m]` its row.
    pub sampled_rows: Vec<i32>,
    /// `[m]` the position of the token to be sampled.
    pub sampled_positions: Vec<i32>,
    /// `[m]`
    pub sampling: Vec<SamplingParams>,
}

/// Turns plans into batches; keeps the host's copy of the page table for that.
#[derive(Debug)]
pub struct BatchBuilder {
    page_size: usize,
    /// By row; as long as was ever written.
    table: Vec<Vec<u32>>,
}

impl BatchBuilder {
    /// An empty page table of `num_rows` rows.
    pub fn new(page_size: PageSize, num_rows: usize) -> Self {
        Self { page_size: page_size.get(), table: vec![Vec::new(); num_rows] }
    }

    /// The arrays of `plan`. Plans must come in the order of their steps.
    pub fn build(&mut self, plan: &StepPlan) -> HostBatch {
        for update in &plan.table_updates {
            let row = &mut self.table[update.row.0 as usize];
            let end = update.first_page + update.pages.len();
            row.resize(row.len().max(end), 0);
            for (entry, page) in row[update.first_page..end].iter_mut().zip(&update.pages) {
                *entry = page.0;
            }
        }
        let mut batch = HostBatch {
            table_updates: plan.table_updates.clone(),
            input_ids: Vec::with_capacity(plan.num_tokens()),
            sampled_inputs: Default::default(),
            positions: Vec::with_capacity(plan.num_tokens()),
            out_loc: Vec::with_capacity(plan.num_tokens()),
            rows: Vec::with_capacity(plan.sequences.len()),
            cu_seqlens_q: vec![0],
            kv_lens: Vec::with_capacity(plan.sequences.len()),
            last_tokens: Vec::new(),
            sampled_rows: Vec::new(),
            sampled_positions: Vec::new(),
            sampling: Vec::new(),
        };
        for sequence in &plan.sequences {
            let row = sequence.row.0 as i32;
            match &sequence.input {
                InputTokens::Host(tokens) => {
                    batch.input_ids.extend(tokens.iter().map(|token| *token as i32));
                }
                InputTokens::Sampled => {
                    batch.sampled_inputs.0.push(batch.input_ids.len() as i32);
                    batch.sampled_inputs.1.push(row);
                    batch.input_ids.push(0);
                }
            }
            let pages = &self.table[sequence.row.0 as usize];
            let end = sequence.start + sequence.input.len();
            for position in sequence.start..end {
                let page = pages[position / self.page_size] as usize;
                let slot = page * self.page_size + position % self.page_size;
                batch.positions.push(position as i32);
                batch.out_loc.push(slot as i32);
            }
            batch.rows.push(row);
            batch.cu_seqlens_q.push(batch.input_ids.len() as i32);
            batch.kv_lens.push(end as i32);
            if let Some(sampling) = sequence.sampling {
                batch.last_tokens.push(batch.input_ids.len() as i32 - 1);
                batch.sampled_rows.push(row);
                batch.sampled_positions.push(end as i32);
                batch.sampling.push(sampling);
            }
        }
        batch
    }
}

/// An array of `i32` on the device, allocated once for the largest batch.
#[derive(Debug)]
pub struct IndexBuffer {
    tensor: Tensor,
    len: usize,
}

impl IndexBuffer {
    /// Room for `capacity` elements.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(device: &Device, capacity: usize) -> Result<Self, Error> {
        Ok(Self { tensor: device.zeros(DType::I32, [capacity])?, len: 0 })
    }

    /// Replaces the contents.
    ///
    /// # Errors
    /// If `values` is longer than the capacity, or the device fails.
    pub fn upload(&mut self, stream: &Stream, values: &[i32]) -> Result<(), Error> {
        self.len = values.len();
        stream.upload(values, self.tensor.view_mut().rows(0..values.len())?)
    }

    /// What was uploaded, `[len]`.
    ///
    /// # Errors
    /// None; the signature is that of views.
    pub fn view(&self) -> Result<View<'_>, Error> {
        self.tensor.view().rows(0..self.len)
    }
}

/// A batch on the device.
#[derive(Debug)]
pub struct DeviceBatch {
    /// See [`HostBatch`].
    pub input_ids: Tensor,
    /// See [`HostBatch`].
    pub positions: IndexBuffer,
    /// See [`HostBatch`].
    pub out_loc: IndexBuffer,
    /// See [`HostBatch`].
    pub rows: IndexBuffer,
    /// See [`HostBatch`].
    pub cu_seqlens_q: IndexBuffer,
    /// See [`HostBatch`].
    pub kv_lens: IndexBuffer,
    /// See [`HostBatch`].
    pub last_tokens: IndexBuffer,
    num_tokens: usize,
}

impl DeviceBatch {
    /// Room for `max_tokens` tokens of `max_sequences` sequences.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(device: &Device, max_tokens: usize, max_sequences: usize) -> Result<Self, Error> {
        Ok(Self {
            input_ids: device.zeros(DType::I32, [max_tokens])?,
            positions: IndexBuffer::new(device, max_tokens)?,
            out_loc: IndexBuffer::new(device, max_tokens)?,
            rows: IndexBuffer::new(device, max_sequences)?,
            cu_seqlens_q: IndexBuffer::new(device, max_sequences + 1)?,
            kv_lens: IndexBuffer::new(device, max_sequences)?,
            last_tokens: IndexBuffer::new(device, max_sequences)?,
            num_tokens: 0,
        })
    }

    /// Replaces the contents by `batch`, but for the sampled inputs.
    ///
    /// # Errors
    /// If the batch is larger than the room for it, or the device fails.
    pub fn upload(&mut self, stream: &Stream, batch: &HostBatch) -> Result<(), Error> {
        self.num_tokens = batch.input_ids.len();
        stream.upload(&batch.input_ids, self.input_ids.view_mut().rows(0..self.num_tokens)?)?;
        self.positions.upload(stream, &batch.positions)?;
        self.out_loc.upload(stream, &batch.out_loc)?;
        self.rows.upload(stream, &batch.rows)?;
        self.cu_seqlens_q.upload(stream, &batch.cu_seqlens_q)?;
        self.kv_lens.upload(stream, &batch.kv_lens)?;
        self.last_tokens.upload(stream, &batch.last_tokens)
    }

    /// Tokens in the batch.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }
}

#[cfg(test)]
mod tests {
    use minisgl_sched::{PageId, RequestId, RowId, SequencePlan, StepId};

    use super::*;

    #[test]
    fn a_plan_becomes_arrays() {
        let mut builder = BatchBuilder::new(PageSize::new(4).unwrap(), 3);
        let update = |row, first_page, pages: &[u32]| TableUpdate {
            row: RowId(row),
            first_page,
            pages: pages.iter().map(|page| PageId(*page)).collect(),
        };
        let sequence = |row, start, input, sampled: bool| SequencePlan {
            request: RequestId(u64::from(row)),
            row: RowId(row),
            start,
            input,
            sampling: sampled.then_some(SamplingParams::GREEDY),
        };
        let plan = StepPlan {
            step: StepId(1),
            table_updates: vec![update(2, 0, &[7, 5]), update(0, 0, &[1]), update(2, 1, &[6])],
            sequences: vec![
                sequence(2, 5, InputTokens::Sampled, true),
                sequence(0, 2, InputTokens::Host(vec![40, 41]), false),
            ],
        };
        let batch = builder.build(&plan);
        assert_eq!(batch.input_ids, [0, 40, 41]);
        assert_eq!(batch.sampled_inputs, (vec![0], vec![2]));
        assert_eq!(batch.positions, [5, 2, 3]);
        assert_eq!(batch.out_loc, [6 * 4 + 1, 4 + 2, 4 + 3]);
        assert_eq!((batch.rows, batch.cu_seqlens_q), (vec![2, 0], vec![0, 1, 3]));
        assert_eq!(batch.kv_lens, [6, 4]);
        assert_eq!((batch.last_tokens, batch.sampled_rows), (vec![0], vec![2]));
        assert_eq!(batch.sampled_positions, [6]);
    }
}
