//! A batch on the device, in memory that stays where it is, so that a graph can name it.
//! Knows lists and copies; never what reads them.

use minisgl_kernels::ops::VarlenBatch;
use minisgl_kernels::{DType, Device, Error, Stream, Tensor, View, ops};

use super::{Field, HostBatch, Layout};

/// A batch on the device, in memory that stays where it is.
#[derive(Debug)]
pub struct StepInputs {
    /// `[capacity]` i32: the lists of the batch, then the changes.
    ints: Tensor,
    /// The ids of tokens that were sampled, by the order of the batch.
    sampled_ids: Tensor,
    /// Changes that fit behind the lists.
    max_changes: usize,
    layout: Layout,
}

impl StepInputs {
    /// Room for `max_tokens` tokens of `max_sequences` sequences.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(device: &Device, max_tokens: usize, max_sequences: usize) -> Result<Self, Error> {
        Ok(Self {
            ints: device.zeros(DType::I32, [Self::capacity(max_tokens, max_sequences)])?,
            sampled_ids: device.zeros(DType::I32, [max_sequences])?,
            max_changes: max_tokens + max_sequences,
            layout: Layout::default(),
        })
    }

    /// Bytes that [`StepInputs::new`] allocates.
    pub fn bytes(max_tokens: usize, max_sequences: usize) -> usize {
        (Self::capacity(max_tokens, max_sequences) + max_sequences) * size_of::<i32>()
    }

    fn capacity(max_tokens: usize, max_sequences: usize) -> usize {
        let (sequences, sampled) = (max_sequences, max_sequences);
        let lists = Layout { tokens: max_tokens, sequences, sampled };
        // A change is two numbers, of the page table or of a sampled token.
        lists.len() + 2 * (max_tokens + max_sequences) + 2 * max_sequences
    }

    /// Replaces the contents by `batch`, changes `page_table` (`[rows, max_pages]` i32) as it says,
    /// and fills in the ids that only the device knows from `last_sampled` (`[rows]` i32).
    ///
    /// # Errors
    /// If the batch is larger than the room for it, or the device fails.
    pub fn upload(
        &mut self,
        stream: &Stream,
        batch: &HostBatch,
        page_table: &mut Tensor,
        last_sampled: &Tensor,
    ) -> Result<(), Error> {
        self.layout = batch.layout;
        let (mut indices, mut pages) = (&batch.table_updates.0[..], &batch.table_updates.1[..]);
        while indices.len() > self.max_changes {
            let (now, later) =
                (indices.split_at(self.max_changes), pages.split_at(self.max_changes));
            self.change_table(stream, &[], now.0, later.0, &[], page_table)?;
            (indices, pages) = (now.1, later.1);
        }
        let (tokens, rows) = (&batch.sampled_inputs.0[..], &batch.sampled_inputs.1[..]);
        let sampled = [tokens, rows].concat();
        self.change_table(stream, &batch.ints, indices, pages, &sampled, page_table)?;

        let start = batch.ints.len() + 2 * indices.len();
        let (middle, end) = (start + tokens.len(), start + sampled.len());
        let ids = self.sampled_ids.view_mut().rows(0..rows.len())?;
        ops::gather_ids(stream, last_sampled.view(), self.ints.view().rows(middle..end)?, ids)?;
        // The lists come first, so that the two parts share no element.
        let (lists, changes) = self.ints.view_mut().split_columns(batch.ints.len())?;
        let input_ids = lists.rows(self.layout.range(Field::InputIds))?;
        let tokens = start - batch.ints.len()..middle - batch.ints.len();
        let ids = self.sampled_ids.view().rows(0..rows.len())?;
        ops::scatter_ids(stream, ids, changes.as_view().rows(tokens)?, input_ids)
    }

    /// Uploads `lists`, the changes and `rest` in one copy, and makes the changes.
    fn change_table(
        &mut self,
        stream: &Stream,
        lists: &[i32],
        indices: &[i32],
        pages: &[i32],
        rest: &[i32],
        page_table: &mut Tensor,
    ) -> Result<(), Error> {
        let all = [lists, indices, pages, rest].concat();
        stream.upload(&all, self.ints.view_mut().rows(0..all.len())?)?;
        let (first, count) = (lists.len(), indices.len());
        let indices = self.ints.view().rows(first..first + count)?;
        let pages = self.ints.view().rows(first + count..first + 2 * count)?;
        let entries = page_table.num_elements();
        ops::scatter_ids(stream, pages, indices, page_table.view_mut().reshape([entries])?)
    }

    /// One of the lists.
    ///
    /// # Errors
    /// None for a batch that was uploaded.
    pub fn field(&self, field: Field) -> Result<View<'_>, Error> {
        self.ints.view().rows(self.layout.range(field))
    }

    /// Which queries belong to which sequence.
    ///
    /// # Errors
    /// None for a batch that was uploaded.
    pub fn sequences(&self) -> Result<VarlenBatch<'_>, Error> {
        Ok(VarlenBatch {
            rows: self.field(Field::Rows)?,
            cu_seqlens_q: self.field(Field::CuSeqlensQ)?,
            kv_lens: self.field(Field::KvLens)?,
        })
    }

    /// The sizes of the batch.
    pub fn layout(&self) -> Layout {
        self.layout
    }
}
