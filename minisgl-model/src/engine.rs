//! One rank: its weights, its part of the KV pool, its copy of the page table, and the memory for
//! one step. Runs batches; never knows how they were decided or what becomes of the tokens.

use minisgl_cache::KvPool;
use minisgl_comm::Communicator;
use minisgl_kernels::{DType, Stream, Tensor, ops};
use minisgl_sched::Sample;

use crate::ModelError;
use crate::batch::{DeviceBatch, HostBatch, IndexBuffer};
use crate::decoder::{Activations, Decoder, ForwardContext};
use crate::sampler::Sampler;

/// Sizes of the memory for one step, fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct StepLimits {
    /// Tokens in a batch.
    pub max_tokens: usize,
    /// Sequences in a batch, and rows of the page table.
    pub max_sequences: usize,
    /// Pages of one row.
    pub max_pages_per_row: usize,
    /// Tokens in a page.
    pub page_size: usize,
    /// Token ids of the whole model.
    pub vocab_size: usize,
}

/// See the [module](self).
pub struct Engine {
    stream: Stream,
    comm: Box<dyn Communicator>,
    decoder: Decoder,
    pool: KvPool,
    page_size: usize,
    /// `[rows, max_pages]` i32
    page_table: Tensor,
    /// `[rows]` i32: the token last sampled for each row.
    last_sampled: Tensor,
    /// Rows and tokens of inputs that are read from `last_sampled`.
    sampled_rows: IndexBuffer,
    sampled_tokens: IndexBuffer,
    sampled_ids: Tensor,
    batch: DeviceBatch,
    activations: Activations,
    sampler: Sampler,
}

impl Engine {
    /// Allocates the memory for one step.
    ///
    /// # Errors
    /// If the device has no room.
    pub fn new(
        stream: Stream,
        comm: Box<dyn Communicator>,
        decoder: Decoder,
        pool: KvPool,
        limits: StepLimits,
    ) -> Result<Self, ModelError> {
        let StepLimits { max_tokens, max_sequences, max_pages_per_row, .. } = limits;
        let geometry = *decoder.geometry();
        let device = stream.device();
        Ok(Self {
            page_size: limits.page_size,
            page_table: device.zeros(DType::I32, [max_sequences, max_pages_per_row])?,
            last_sampled: device.zeros(DType::I32, [max_sequences])?,
            sampled_rows: IndexBuffer::new(device, max_sequences)?,
            sampled_tokens: IndexBuffer::new(device, max_sequences)?,
            sampled_ids: device.zeros(DType::I32, [max_sequences])?,
            batch: DeviceBatch::new(device, max_tokens, max_sequences)?,
            activations: Activations::new(device, &geometry, max_tokens, max_sequences)?,
            sampler: Sampler::new(
                device,
                geometry.first_token_id,
                limits.vocab_size,
                max_sequences,
                comm.world_size(),
            )?,
            stream,
            comm,
            decoder,
            pool,
        })
    }

    /// Runs one step: computes the batch and samples. The same on all ranks.
    ///
    /// # Errors
    /// If a kernel or a collective fails; the engine is broken then.
    pub fn step(&mut self, batch: &HostBatch) -> Result<Vec<Sample>, ModelError> {
        // Inside the device's own threads, so that ops start without a hand-over each.
        let stream = self.stream.clone();
        stream.run(|| {
            self.prepare(batch)?;
            let context = ForwardContext {
                stream: &self.stream,
                comm: &*self.comm,
                batch: &self.batch,
                page_table: self.page_table.view(),
                page_size: self.page_size,
            };
            self.decoder.forward(&context, &mut self.pool, &mut self.activations)?;
            let logits = self.activations.logits(batch.sampling.len())?;
            let samples = self.sampler.sample(&self.stream, &*self.comm, logits, batch)?;
            self.keep(batch, &samples)?;
            Ok(samples)
        })
    }

    /// This rank's logits of the `num_sampled` sequences sampled in the last step, row by row.
    ///
    /// # Errors
    /// If the device fails.
    pub fn last_logits(&self, num_sampled: usize) -> Result<Vec<f32>, ModelError> {
        let logits = self.activations.logits(num_sampled)?;
        let mut host = vec![0.0; logits.num_elements()];
        self.stream.download(logits, &mut host)?;
        Ok(host)
    }

    /// Uploads the batch and fills in the ids that only the device knows.
    fn prepare(&mut self, batch: &HostBatch) -> Result<(), ModelError> {
        let stream = &self.stream;
        for update in &batch.table_updates {
            let row = update.row.0 as usize;
            let columns = update.first_page..update.first_page + update.pages.len();
            let pages: Vec<i32> = update.pages.iter().map(|page| page.0 as i32).collect();
            let target = self.page_table.view_mut().rows(row..row + 1)?.columns(columns)?;
            stream.upload(&pages, target)?;
        }
        self.batch.upload(stream, batch)?;
        let (tokens, rows) = &batch.sampled_inputs;
        self.sampled_tokens.upload(stream, tokens)?;
        self.sampled_rows.upload(stream, rows)?;
        let last_sampled = self.last_sampled.view();
        let ids = self.sampled_ids.view_mut().rows(0..rows.len())?;
        ops::gather_ids(stream, last_sampled, self.sampled_rows.view()?, ids)?;
        let ids = self.sampled_ids.view().rows(0..rows.len())?;
        let input_ids = self.batch.input_ids.view_mut();
        ops::scatter_ids(stream, ids, self.sampled_tokens.view()?, input_ids)?;
        Ok(())
    }

    /// Remembers the sampled tokens as inputs of the next step.
    fn keep(&mut self, batch: &HostBatch, samples: &[Sample]) -> Result<(), ModelError> {
        let token = |sample: &Sample| match sample {
            Sample::Token { token, .. } => *token as i32,
            Sample::NotFinite => 0,
        };
        let tokens: Vec<i32> = samples.iter().map(token).collect();
        self.sampled_rows.upload(&self.stream, &batch.sampled_rows)?;
        self.stream.upload(&tokens, self.sampled_ids.view_mut().rows(0..tokens.len())?)?;
        let tokens = self.sampled_ids.view().rows(0..tokens.len())?;
        let rows = self.sampled_rows.view()?;
        ops::scatter_ids(&self.stream, tokens, rows, self.last_sampled.view_mut())?;
        Ok(())
    }
}
