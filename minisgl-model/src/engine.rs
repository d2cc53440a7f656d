//! One rank: its weights, its KV pool, its memory for one step. Knows batches; never plans, requests
//! or how many steps there will be.
//!
//! A step is launched, and its results are there some time later: on a GPU the next step may be
//! launched before. Everything of a step is ordered on one stream, so steps share all memory but
//! that for the results.

mod graphs;
pub(crate) mod phases;
mod tuning;

use std::path::Path;
use std::sync::Arc;

use minisgl_cache::KvPool;
use minisgl_comm::Communicator;
use minisgl_kernels::{DType, Error, Stream, Tensor, ops};
use minisgl_sched::Sample;

use self::graphs::Graphs;
pub use self::phases::{PhaseBackends, Phases};
use crate::batch::{Field, HostBatch, StepInputs};
use crate::decoder::{Activations, Decoder, ForwardContext};
use crate::sampler::{Results, Sampler};
use crate::{ModelError, StepClock};

/// Steps that may be launched and not finished.
pub const MAX_LAUNCHED: usize = 2;

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

/// A step that was launched; finish it with [`Engine::finish`], in the order of the launches.
#[derive(Debug)]
#[must_use = "a step that is never finished blocks the ones after it"]
pub struct Launched(usize);

/// See the [module](self).
pub struct Engine {
    /// First, so that they are dropped before the memory and the communicator that they use.
    graphs: Graphs,
    stream: Stream,
    comm: Box<dyn Communicator>,
    memory: StepMemory,
    /// By the number of the step.
    results: Vec<Results>,
    num_launched: usize,
    num_finished: usize,
    clock: Option<StepClock>,
}

/// What a forward pass reads and writes; it stays where it is, so that graphs can name it.
struct StepMemory {
    decoder: Decoder,
    pool: KvPool,
    page_size: usize,
    attention: Phases,
    /// `[rows, max_pages]` i32
    page_table: Tensor,
    /// `[rows]` i32: the token last sampled for each row.
    last_sampled: Tensor,
    inputs: StepInputs,
    activations: Activations,
    sampler: Sampler,
}

impl Engine {
    /// Allocates the memory for one step.
    ///
    /// # Errors
    /// If the device has no room, or not these attention kernels.
    pub fn new(
        stream: Stream,
        comm: Box<dyn Communicator>,
        decoder: Decoder,
        pool: KvPool,
        limits: StepLimits,
        attention: PhaseBackends,
    ) -> Result<Self, ModelError> {
        let StepLimits { max_tokens, max_sequences, max_pages_per_row, .. } = limits;
        let geometry = *decoder.geometry();
        let (device, world_size) = (stream.device(), comm.world_size());
        let results = || Results::new(device, max_sequences, world_size);
        let memory = StepMemory {
            page_size: limits.page_size,
            attention: Phases::new(&stream, &geometry, &limits, attention)?,
            page_table: device.zeros(DType::I32, [max_sequences, max_pages_per_row])?,
            last_sampled: device.zeros(DType::I32, [max_sequences])?,
            inputs: StepInputs::new(device, max_tokens, max_sequences)?,
            activations: Activations::new(device, &geometry, max_tokens, max_sequences)?,
            sampler: Sampler::new(
                device,
                geometry.first_token_id,
                geometry.vocab_size,
                limits.vocab_size,
                max_sequences,
                world_size,
            )?,
            decoder,
            pool,
        };
        Ok(Self {
            graphs: Graphs::default(),
            memory,
            results: (0..MAX_LAUNCHED).map(|_| results()).collect::<Result<_, _>>()?,
            num_launched: 0,
            num_finished: 0,
            clock: None,
            stream,
            comm,
        })
    }

    /// Has decode batches of each of `sizes` use the fastest matrix multiplications, by `file` or by
    /// measuring; before it measures, `announce` hears how many shapes.
    ///
    /// # Errors
    /// If the device fails.
    pub fn tune(
        &mut self,
        sizes: &[usize],
        file: &Path,
        announce: impl FnOnce(usize),
    ) -> Result<(), ModelError> {
        tuning::tune(&self.stream, self.memory.decoder.geometry(), sizes, file, announce)
    }

    /// Has `clock` take the times of all steps from now on.
    pub fn time_steps(&mut self, clock: StepClock) {
        self.clock = Some(clock);
    }

    /// Captures a graph for decode batches of each of `sizes`. All ranks call this together.
    ///
    /// # Errors
    /// If the device cannot, or has no room.
    pub fn capture(&mut self, sizes: &[usize]) -> Result<(), ModelError> {
        let Self { stream, comm, graphs, memory, .. } = self;
        graphs.capture(sizes, stream, &**comm, memory)
    }

    /// Queues one step: computes the batch and samples. The same on all ranks.
    ///
    /// # Errors
    /// If a kernel or a collective fails; the engine is broken then.
    ///
    /// # Panics
    /// If [`MAX_LAUNCHED`] steps are not finished.
    pub fn launch(&mut self, batch: &Arc<HostBatch>) -> Result<Launched, ModelError> {
        assert!(self.num_launched < self.num_finished + MAX_LAUNCHED, "finish a step before");
        // Inside the device's own threads, so that ops start without a hand-over each.
        let stream = self.stream.clone();
        stream.run(|| self.queue(batch))?;
        self.num_launched += 1;
        Ok(Launched(self.num_launched))
    }

    fn queue(&mut self, batch: &Arc<HostBatch>) -> Result<(), ModelError> {
        let Self { stream, comm, graphs, memory, results, clock, .. } = self;
        if let Some(clock) = clock {
            clock.start(stream)?;
        }
        let graph = graphs.of(batch);
        memory.prepare(stream, batch, graph.is_some())?;
        match graph {
            Some(graph) => graph.launch(stream)?,
            None => memory.forward(stream, &**comm)?,
        }
        memory.choose(stream, &**comm, batch)?;
        results[self.num_launched % MAX_LAUNCHED].start(stream, &memory.sampler, batch)?;
        Ok(clock.as_ref().map_or(Ok(()), |clock| clock.end(stream))?)
    }

    /// Whether [`Engine::finish`] would not wait for the oldest step that was launched.
    ///
    /// # Errors
    /// If the device failed.
    pub fn is_done(&self) -> Result<bool, ModelError> {
        self.results[self.num_finished % MAX_LAUNCHED].are_there()
    }

    /// Waits for a step: one sample per sampled sequence.
    ///
    /// # Errors
    /// If the device failed, or the group was aborted: then the samples may be anything.
    ///
    /// # Panics
    /// If another step was launched before and is not finished.
    pub fn finish(&mut self, step: Launched) -> Result<Vec<Sample>, ModelError> {
        assert_eq!(step.0, self.num_finished + 1, "steps are finished in their order");
        self.num_finished += 1;
        let samples = self.results[(step.0 - 1) % MAX_LAUNCHED].finish()?;
        // What the kernels of an aborted group leave behind is no result.
        self.comm.check()?;
        Ok(samples)
    }

    /// This rank's logits of the `num_sampled` sequences sampled in the last step, row by row.
    ///
    /// # Errors
    /// If the device fails.
    pub fn last_logits(&self, num_sampled: usize) -> Result<Vec<f32>, ModelError> {
        let logits = self.memory.activations.logits(num_sampled)?;
        let mut host = vec![0.0; logits.num_elements()];
        self.stream.download(logits, &mut host)?;
        Ok(host)
    }
}

impl StepMemory {
    /// Uploads the batch and what else the forward pass reads.
    fn prepare(
        &mut self,
        stream: &Stream,
        batch: &HostBatch,
        for_graph: bool,
    ) -> Result<(), Error> {
        self.inputs.upload(stream, batch, &mut self.page_table, &self.last_sampled)?;
        let Self { attention, inputs, pool, page_table, page_size, .. } = self;
        attention.plan(stream, batch, inputs, pool, page_table.view(), *page_size, for_graph)
    }

    /// From the batch that was prepared to its most likely tokens. Reads nothing from the host.
    fn forward(&mut self, stream: &Stream, comm: &dyn Communicator) -> Result<(), ModelError> {
        let m = self.inputs.layout().sampled;
        let context = ForwardContext {
            stream,
            comm,
            inputs: &self.inputs,
            page_table: self.page_table.view(),
            page_size: self.page_size,
        };
        let attention = self.attention.planned();
        self.decoder.forward(&context, attention, &mut self.pool, &mut self.activations)?;
        if m == 0 {
            return Ok(());
        }
        self.sampler.find_most_likely(stream, comm, self.activations.logits(m)?)
    }

    /// Chooses tokens and remembers them as inputs of the next step.
    fn choose(
        &mut self,
        stream: &Stream,
        comm: &dyn Communicator,
        batch: &HostBatch,
    ) -> Result<(), ModelError> {
        let m = batch.sampling().len();
        let logits = self.activations.logits(m)?;
        let positions = self.inputs.field(Field::SampledPositions)?;
        let rows = self.inputs.field(Field::SampledRows)?.rows(0..m)?;
        self.sampler.choose(stream, comm, logits, rows, positions, batch)?;
        ops::scatter_ids(stream, self.sampler.chosen(m)?, rows, self.last_sampled.view_mut())?;
        Ok(())
    }
}
