//! A seeded executor without a model: it simulates the KV pool and the page table of a device so
//! closely that any mistake in scheduling or caching changes the tokens, and tells simulated time
//! by a cost model. For tests and benches here and in the crates above.
//!
//! Every slot remembers the token computed into it, its position, and a hash of all tokens up to
//! it. "Attention" follows a row's pages from position 0, insists that the chain of hashes is
//! unbroken, and "samples" the next token from the last hash and the request's seed. So what a
//! request generates is a function of its prompt and seed alone, [`expected`], whatever runs beside
//! it, unless somebody reads a page that is not theirs.
//!
//! Steps run when they are waited for, the latest moment allowed, and a step that would write a page
//! or take a row which a step still in flight touches for another request is refused with a panic.
//! Never knows the scheduler's state.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use minisgl_cache::page::TokenId;
use minisgl_cache::{PageId, PageSize, TableUpdate};

use crate::SchedulerConfig;
use crate::executor::{Executor, Ticket};
use crate::request::{FinishReason, Request, RequestId, SamplingParams, TokenLogprobs};
use crate::step::{InputTokens, Sample, SequencePlan, StepOutput, StepPlan};

/// Token ids run from 0 to this, so few that stop tokens and shared prefixes are common.
pub const VOCAB_SIZE: u32 = 50;

/// What a step costs, in simulated microseconds.
#[derive(Clone, Copy, Debug)]
pub struct CostModel {
    /// Every step: launch and weights.
    pub per_step_us: f64,
    /// Every token computed.
    pub per_token_us: f64,
    /// Every KV entry read.
    pub per_context_token_us: f64,
}

impl Default for CostModel {
    /// The shape of an 8B model in bf16 on one H200: 16 GB of weights at 4.3 TB/s, 16 GFLOP a token
    /// at 700 TFLOP/s, 128 KiB of KV a token.
    fn default() -> Self {
        Self { per_step_us: 3700.0, per_token_us: 23.0, per_context_token_us: 0.03 }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SimExecutor {
    page_size: PageSize,
    seed: u64,
    not_finite_every: Option<u64>,
    cost: CostModel,
    elapsed_us: f64,
    in_flight: VecDeque<InFlight>,
    /// The page table as of the last step submitted, and as of the last step run.
    submitted_table: Vec<Vec<PageId>>,
    table: Vec<Vec<PageId>>,
    slots: Vec<Option<Slot>>,
    last_sampled: Vec<Option<TokenId>>,
}

#[derive(Debug)]
struct InFlight {
    plan: Arc<StepPlan>,
    /// Every page its sequences read or write, and for whom.
    touched: Vec<(PageId, RequestId)>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    token: TokenId,
    position: usize,
    prefix_hash: u64,
}

impl SimExecutor {
    /// A device of the size that `config` says.
    pub fn new(config: &SchedulerConfig, seed: u64) -> Self {
        let pages_per_row = config.page_size.pages_for(config.max_seq_len);
        let table = vec![vec![PageId(u32::MAX); pages_per_row]; config.max_running_requests];
        Self {
            page_size: config.page_size,
            seed,
            not_finite_every: None,
            cost: CostModel::default(),
            elapsed_us: 0.0,
            in_flight: VecDeque::new(),
            submitted_table: table.clone(),
            table,
            slots: vec![None; config.num_pages * config.page_size.get()],
            last_sampled: vec![None; config.max_running_requests],
        }
    }

    /// Makes about one in `samples` samples fail with [`Sample::NotFinite`], by the tokens alone.
    #[must_use]
    pub fn with_not_finite_every(mut self, samples: u64) -> Self {
        self.not_finite_every = Some(samples);
        self
    }

    /// Tells time by `cost`.
    #[must_use]
    pub fn with_cost(mut self, cost: CostModel) -> Self {
        self.cost = cost;
        self
    }

    /// Simulated time that the steps run so far took.
    pub fn elapsed_us(&self) -> f64 {
        self.elapsed_us
    }

    /// Insists that `plan` reuses nothing that a step in flight may touch for somebody else.
    fn check_reuse(&self, plan: &StepPlan) {
        for sequence in &plan.sequences {
            let pages = &self.submitted_table[sequence.row.0 as usize];
            let first_written = sequence.start / self.page_size.get();
            let end = self.page_size.pages_for(sequence.start + sequence.input.len());
            let written = &pages[first_written..end];
            for step in &self.in_flight {
                let stolen = step
                    .touched
                    .iter()
                    .find(|(page, request)| *request != sequence.request && written.contains(page));
                assert_eq!(stolen, None, "{} writes what is in flight", sequence.request);
                let mut others =
                    step.plan.sequences.iter().filter(|other| {
                        other.row == sequence.row && other.request != sequence.request
                    });
                assert_eq!(others.next(), None, "{} has a row in flight", sequence.request);
            }
        }
    }

    fn run(&mut self, plan: &StepPlan) -> StepOutput {
        apply(&mut self.table, &plan.table_updates);
        self.elapsed_us += self.cost.per_step_us;
        let samples = plan.sequences.iter().filter_map(|sequence| self.run_sequence(sequence));
        StepOutput { step: plan.step, samples: samples.collect() }
    }

    fn run_sequence(&mut self, sequence: &SequencePlan) -> Option<Sample> {
        let row = sequence.row.0 as usize;
        let tokens = match &sequence.input {
            InputTokens::Host(tokens) => tokens.clone(),
            InputTokens::Sampled => vec![self.last_sampled[row].expect("the row has sampled")],
        };
        let mut hash = self.attend(sequence, sequence.start);
        for (position, token) in (sequence.start..).zip(&tokens) {
            hash = mix(hash, u64::from(*token));
            let slot = self.slot(row, position);
            self.slots[slot] = Some(Slot { token: *token, position, prefix_hash: hash });
        }
        let context = sequence.start + tokens.len();
        self.elapsed_us += self.cost.per_token_us * tokens.len() as f64
            + self.cost.per_context_token_us * context as f64;
        let params = sequence.sampling?;
        let sample = sample(self.seed, hash, &params, self.not_finite_every);
        // A step in flight may compute on from a sample that is none; nobody looks at what comes of it.
        self.last_sampled[row] = Some(match sample {
            Sample::Token { token, .. } => token,
            Sample::NotFinite => 0,
        });
        Some(sample)
    }

    /// Reads the KV of positions `0..end` and returns the hash of their tokens.
    fn attend(&self, sequence: &SequencePlan, end: usize) -> u64 {
        let mut hash = 0;
        for position in 0..end {
            let what = (sequence.request, sequence.row, position);
            let slot = self.slots[self.slot(sequence.row.0 as usize, position)];
            let slot = slot.unwrap_or_else(|| panic!("{what:?} was never computed"));
            hash = mix(hash, u64::from(slot.token));
            assert!(
                slot.position == position && slot.prefix_hash == hash,
                "{what:?} holds the KV of somebody else: {slot:?}"
            );
        }
        hash
    }

    fn slot(&self, row: usize, position: usize) -> usize {
        let page = self.table[row][position / self.page_size.get()];
        page.0 as usize * self.page_size.get() + position % self.page_size.get()
    }
}

impl Executor for SimExecutor {
    type Error = Infallible;

    fn submit(&mut self, plan: Arc<StepPlan>) -> Result<Ticket, Infallible> {
        apply(&mut self.submitted_table, &plan.table_updates);
        self.check_reuse(&plan);
        let touched = plan.sequences.iter().flat_map(|sequence| {
            let end = self.page_size.pages_for(sequence.start + sequence.input.len());
            let pages = &self.submitted_table[sequence.row.0 as usize][..end];
            pages.iter().map(|page| (*page, sequence.request))
        });
        let (ticket, touched) = (Ticket(plan.step), touched.collect());
        self.in_flight.push_back(InFlight { plan, touched });
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<StepOutput, Infallible> {
        let InFlight { plan, .. } = self.in_flight.pop_front().expect("a step was submitted");
        assert_eq!(plan.step, ticket.0, "steps are waited for in order");
        Ok(self.run(&plan))
    }
}

fn apply(table: &mut [Vec<PageId>], updates: &[TableUpdate]) {
    for update in updates {
        let row = &mut table[update.row.0 as usize];
        row[update.first_page..][..update.pages.len()].copy_from_slice(&update.pages);
    }
}

/// What `request` must generate on a simulator with this `seed`, alone or in any company.
pub fn expected(
    request: &Request,
    seed: u64,
    not_finite_every: Option<u64>,
) -> (Vec<TokenId>, FinishReason) {
    let mut hash = request.prompt.iter().fold(0, |hash, token| mix(hash, u64::from(*token)));
    let mut output = Vec::new();
    while output.len() < request.max_tokens {
        let Sample::Token { token, .. } = sample(seed, hash, &request.sampling, not_finite_every)
        else {
            return (output, FinishReason::Error("not finite".into()));
        };
        output.push(token);
        if request.stop_token_ids.contains(&token) {
            return (output, FinishReason::Stop);
        }
        hash = mix(hash, u64::from(token));
    }
    (output, FinishReason::Length)
}

/// A greedy request without stop tokens.
pub fn request(id: u64, prompt: Vec<TokenId>, max_tokens: usize) -> Request {
    Request {
        id: RequestId(id),
        prompt,
        max_tokens,
        stop_token_ids: [].into(),
        sampling: SamplingParams::GREEDY,
        adjustments: None,
    }
}

fn sample(
    seed: u64,
    prefix_hash: u64,
    params: &SamplingParams,
    not_finite_every: Option<u64>,
) -> Sample {
    let draw = mix(mix(prefix_hash, seed), params.seed);
    if not_finite_every.is_some_and(|samples| draw.is_multiple_of(samples)) {
        return Sample::NotFinite;
    }
    let token = (draw >> 32) as u32 % VOCAB_SIZE;
    let logprobs = params.logprobs.map(|count| TokenLogprobs {
        chosen: -1.0,
        top: (0..count).map(|rank| (rank, -1.0 - rank as f32)).collect(),
    });
    Sample::Token { token, logprobs }
}

/// The output function of SplitMix64 (Steele, Lea, Flood 2014) on a running hash.
fn mix(hash: u64, value: u64) -> u64 {
    let mut z = hash.rotate_left(17) ^ value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
