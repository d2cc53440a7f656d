//! A step plan as the arrays kernels read: built once on the host, uploaded by every rank.
//! Knows rows and positions; never layers or weights.

mod adjusted;
mod inputs;

use std::ops::Range;

use minisgl_cache::page::PageSize;
use minisgl_sched::{InputTokens, SamplingParams, StepPlan};

use self::adjusted::AdjustedRows;
pub use self::adjusted::{AdjustedBatch, BeginningRow, MAX_BIASED};
pub use self::inputs::StepInputs;

/// One forward pass, in host memory: `t` tokens, `n` sequences, `m` of them sampled.
///
/// All lists but the sampling parameters lie in one array, so that one copy takes them to a device.
#[derive(Clone, PartialEq, Debug)]
pub struct HostBatch {
    layout: Layout,
    ints: Vec<i32>,
    /// Changes of the page table, to be made first: index in `row * max_pages + page` order, page.
    table_updates: (Vec<i32>, Vec<i32>),
    /// Tokens whose id is the one last sampled for a row: index among the tokens, row.
    sampled_inputs: (Vec<i32>, Vec<i32>),
    /// Of the sequences that are sampled; those that only fill the batch up have none.
    sampling: Vec<SamplingParams>,
    /// What is done to their logits before, if anything is.
    adjusted: Option<AdjustedBatch>,
    /// Whether every sequence has one token and is sampled.
    is_decode: bool,
}

/// Where the lists of a batch are in its array.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// Tokens.
    pub tokens: usize,
    /// Sequences.
    pub sequences: usize,
    /// Sampled sequences.
    pub sampled: usize,
}

/// One of the lists.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Field {
    /// `[t]`; 0 where the id is the one last sampled for a row.
    InputIds,
    /// `[t]`
    Positions,
    /// `[t]` slots of the KV pool; -1 for none.
    OutLoc,
    /// `[n]` rows of the page table.
    Rows,
    /// `[n + 1]`
    CuSeqlensQ,
    /// `[n]`
    KvLens,
    /// `[m]` index of the last token of each sampled sequence.
    LastTokens,
    /// `[m]` its row; -1 for none.
    SampledRows,
    /// `[m]` the position of the token to be sampled.
    SampledPositions,
}

impl Layout {
    /// Elements of all lists.
    pub const fn len(self) -> usize {
        3 * self.tokens + 3 * self.sequences + 1 + 3 * self.sampled
    }

    /// Never: a batch has at least a list of one element.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// Where a list is.
    pub fn range(self, field: Field) -> Range<usize> {
        let Self { tokens: t, sequences: n, sampled: m } = self;
        let (sequences, sampled) = (3 * t, 3 * t + 3 * n + 1);
        let (start, len) = match field {
            Field::InputIds => (0, t),
            Field::Positions => (t, t),
            Field::OutLoc => (2 * t, t),
            Field::Rows => (sequences, n),
            Field::CuSeqlensQ => (sequences + n, n + 1),
            Field::KvLens => (sequences + 2 * n + 1, n),
            Field::LastTokens => (sampled, m),
            Field::SampledRows => (sampled + m, m),
            Field::SampledPositions => (sampled + 2 * m, m),
        };
        start..start + len
    }
}

impl HostBatch {
    /// A batch of one token for each of `sequences` sequences that are nobody's: what a graph is
    /// captured with.
    pub fn placeholder(sequences: usize) -> Self {
        let mut lists = Lists::default();
        lists.pad(sequences);
        lists.pack(true)
    }

    /// Its sizes, with the sequences that only fill it up.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// One of its lists.
    pub fn field(&self, field: Field) -> &[i32] {
        &self.ints[self.layout.range(field)]
    }

    /// Of the sequences that are sampled for somebody.
    pub fn sampling(&self) -> &[SamplingParams] {
        &self.sampling
    }

    /// What is done to their logits, if anything is.
    pub fn adjusted(&self) -> Option<&AdjustedBatch> {
        self.adjusted.as_ref()
    }

    /// Whether every sequence has one token and is sampled.
    pub fn is_decode(&self) -> bool {
        self.is_decode
    }
}

/// Turns plans into batches; keeps the host's copy of the page table for that, and what requests
/// asked to be done to their logits.
#[derive(Debug)]
pub struct BatchBuilder {
    page_size: usize,
    max_pages_per_row: usize,
    /// By row; as long as was ever written.
    table: Vec<Vec<u32>>,
    /// Sizes that decode batches are filled up to, ascending.
    decode_sizes: Vec<usize>,
    adjusted: AdjustedRows,
}

impl BatchBuilder {
    /// An empty page table of `num_rows` rows. Decode batches are filled up to the next of
    /// `decode_sizes`, for which there are graphs; larger ones are as they are.
    pub fn new(
        page_size: PageSize,
        num_rows: usize,
        max_pages_per_row: usize,
        mut decode_sizes: Vec<usize>,
    ) -> Self {
        decode_sizes.sort_unstable();
        let table = vec![Vec::new(); num_rows];
        let adjusted = AdjustedRows::new(num_rows);
        Self { page_size: page_size.get(), max_pages_per_row, table, decode_sizes, adjusted }
    }

    /// The arrays of `plan`. Plans must come in the order of their steps.
    pub fn build(&mut self, plan: &StepPlan) -> HostBatch {
        let mut lists =
            Lists { adjusted: self.adjusted.build(&plan.sequences), ..Lists::default() };
        for update in &plan.table_updates {
            let row = &mut self.table[update.row.0 as usize];
            let end = update.first_page + update.pages.len();
            row.resize(row.len().max(end), 0);
            let first = update.row.0 as usize * self.max_pages_per_row;
            for (page, new) in (update.first_page..end).zip(&update.pages) {
                row[page] = new.0;
                lists.table_updates.0.push((first + page) as i32);
                lists.table_updates.1.push(new.0 as i32);
            }
        }
        let mut is_decode = true;
        for sequence in &plan.sequences {
            let row = sequence.row.0 as i32;
            match &sequence.input {
                InputTokens::Host(tokens) => {
                    lists.input_ids.extend(tokens.iter().map(|token| *token as i32));
                }
                InputTokens::Sampled => {
                    lists.sampled_inputs.0.push(lists.input_ids.len() as i32);
                    lists.sampled_inputs.1.push(row);
                    lists.input_ids.push(0);
                }
            }
            let pages = &self.table[sequence.row.0 as usize];
            let end = sequence.start + sequence.input.len();
            for position in sequence.start..end {
                let page = pages[position / self.page_size] as usize;
                let slot = page * self.page_size + position % self.page_size;
                lists.positions.push(position as i32);
                lists.out_loc.push(slot as i32);
            }
            lists.rows.push(row);
            lists.ends.push(lists.input_ids.len() as i32);
            lists.kv_lens.push(end as i32);
            is_decode &= sequence.input.len() == 1 && sequence.sampling.is_some();
            if let Some(sampling) = sequence.sampling {
                lists.last_tokens.push(lists.input_ids.len() as i32 - 1);
                lists.sampled_rows.push(row);
                lists.sampled_positions.push(end as i32);
                lists.sampling.push(sampling);
            }
        }
        let num_sequences = plan.sequences.len();
        let size = self.decode_sizes.iter().find(|size| is_decode && **size >= num_sequences);
        lists.pad(size.map_or(0, |size| size - num_sequences));
        lists.pack(is_decode)
    }
}

/// The lists of a batch while it is built.
#[derive(Default)]
struct Lists {
    table_updates: (Vec<i32>, Vec<i32>),
    sampled_inputs: (Vec<i32>, Vec<i32>),
    input_ids: Vec<i32>,
    positions: Vec<i32>,
    out_loc: Vec<i32>,
    rows: Vec<i32>,
    /// Where each sequence ends among the tokens.
    ends: Vec<i32>,
    kv_lens: Vec<i32>,
    last_tokens: Vec<i32>,
    sampled_rows: Vec<i32>,
    sampled_positions: Vec<i32>,
    sampling: Vec<SamplingParams>,
    adjusted: Option<AdjustedBatch>,
}

impl Lists {
    /// Adds `count` sequences that are nobody's: one token each that sees nothing, is stored
    /// nowhere, and whose sample is kept nowhere.
    fn pad(&mut self, count: usize) {
        for _ in 0..count {
            self.last_tokens.push(self.input_ids.len() as i32);
            self.input_ids.push(0);
            self.positions.push(0);
            self.out_loc.push(-1);
            self.rows.push(0);
            self.ends.push(self.input_ids.len() as i32);
            self.kv_lens.push(0);
            self.sampled_rows.push(-1);
            self.sampled_positions.push(0);
        }
    }

    /// In the order of [`Layout::range`].
    fn pack(self, is_decode: bool) -> HostBatch {
        let layout = Layout {
            tokens: self.input_ids.len(),
            sequences: self.rows.len(),
            sampled: self.last_tokens.len(),
        };
        let ints = [
            &self.input_ids[..],
            &self.positions,
            &self.out_loc,
            &self.rows,
            &[0],
            &self.ends,
            &self.kv_lens,
            &self.last_tokens,
            &self.sampled_rows,
            &self.sampled_positions,
        ]
        .concat();
        HostBatch {
            layout,
            ints,
            table_updates: self.table_updates,
            sampled_inputs: self.sampled_inputs,
            sampling: self.sampling,
            adjusted: self.adjusted,
            is_decode,
        }
    }
}

#[cfg(test)]
mod tests {
    use minisgl_sched::{PageId, RequestId, RowId, SequencePlan, StepId, TableUpdate};

    use super::*;

    #[test]
    fn a_plan_becomes_arrays() {
        let mut builder = BatchBuilder::new(PageSize::new(4).unwrap(), 3, 8, vec![4, 2]);
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
            adjusting: None,
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
        assert_eq!(batch.layout(), Layout { tokens: 3, sequences: 2, sampled: 1 });
        assert_eq!(batch.field(Field::InputIds), [0, 40, 41]);
        assert_eq!(batch.sampled_inputs, (vec![0], vec![2]));
        assert_eq!(batch.table_updates, (vec![16, 17, 0, 17], vec![7, 5, 1, 6]));
        assert_eq!(batch.field(Field::Positions), [5, 2, 3]);
        assert_eq!(batch.field(Field::OutLoc), [6 * 4 + 1, 4 + 2, 4 + 3]);
        assert_eq!(batch.field(Field::Rows), [2, 0]);
        assert_eq!(batch.field(Field::CuSeqlensQ), [0, 1, 3]);
        assert_eq!(batch.field(Field::KvLens), [6, 4]);
        assert_eq!(batch.field(Field::LastTokens), [0]);
        assert_eq!(batch.field(Field::SampledRows), [2]);
        assert_eq!(batch.field(Field::SampledPositions), [6]);
        assert!(!batch.is_decode());
    }

    #[test]
    fn decodes_are_filled_up() {
        let decode = |row| SequencePlan {
            request: RequestId(u64::from(row)),
            row: RowId(row),
            start: 0,
            input: InputTokens::Host(vec![9]),
            sampling: Some(SamplingParams::GREEDY),
            adjusting: None,
        };
        let update = |row| TableUpdate { row: RowId(row), first_page: 0, pages: vec![PageId(row)] };
        let build = |rows: std::ops::Range<u32>| {
            let mut builder = BatchBuilder::new(PageSize::new(1).unwrap(), 8, 8, vec![4, 2]);
            builder.build(&StepPlan {
                step: StepId(1),
                table_updates: rows.clone().map(update).collect(),
                sequences: rows.map(decode).collect(),
            })
        };
        for (count, size) in [(1, 2), (2, 2), (3, 4), (5, 5)] {
            let batch = build(0..count);
            let all = Layout { tokens: size, sequences: size, sampled: size };
            assert_eq!((batch.layout(), batch.sampling().len()), (all, count as usize));
            assert!(batch.is_decode());
        }
        let batch = build(0..3);
        assert_eq!(batch.field(Field::OutLoc), [0, 1, 2, -1]);
        assert_eq!(batch.field(Field::KvLens), [1, 1, 1, 0]);
        assert_eq!(batch.field(Field::CuSeqlensQ), [0, 1, 2, 3, 4]);
        assert_eq!(batch.field(Field::SampledRows), [0, 1, 2, -1]);
        assert_eq!(HostBatch::placeholder(4).layout(), batch.layout());
    }
}
