//! What is done to the logits of a batch, in host memory; and the records of rows that this takes,
//! since a plan tells what a request asks for only once. Knows rows; never logits.

use std::ops::Range;
use std::sync::Arc;

use minisgl_sched::adjustment::{MAX_HELD_BACK, MAX_LOGIT_BIAS};
use minisgl_sched::{Adjusting, Adjustments, FirstAdjusting, SequencePlan, TokenId};

/// Tokens of one row with something added to their logits.
pub const MAX_BIASED: usize = MAX_LOGIT_BIAS + MAX_HELD_BACK;

/// What is done to the logits of a batch. Lists have an element for each sampled sequence.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct AdjustedBatch {
    /// What becomes of the rows of requests that begin, before all else.
    pub begins: Vec<BeginningRow>,
    /// Repetition, frequency and presence penalties.
    pub penalties: [Vec<f32>; 3],
    /// Which entries of the row's bias are in force: where they begin and end.
    pub biased: [Vec<i32>; 2],
}

/// A row that a request begins in.
#[derive(Clone, PartialEq, Debug)]
pub struct BeginningRow {
    /// Its number.
    pub row: usize,
    /// The prompt, a bit for each token id; ends with the highest id in it.
    pub prompt: Vec<i32>,
    /// The tokens with a bias.
    pub biased_ids: Vec<i32>,
    /// What is added to their logits.
    pub bias: Vec<f32>,
}

/// What is remembered of a row.
#[derive(Clone, Debug)]
struct Record {
    adjustments: Arc<Adjustments>,
    /// Of the row's list of biased tokens, these are first held back; later those from
    /// `num_held_back` on are biased.
    num_held_back: usize,
    num_early: usize,
    num_entries: usize,
    /// The position of the first token of the output.
    first_position: usize,
}

/// The records of all rows.
#[derive(Debug)]
pub(super) struct AdjustedRows {
    records: Vec<Option<Record>>,
}

impl AdjustedBatch {
    /// Whether some sequence has penalties.
    pub fn has_penalties(&self) -> bool {
        let [repetition, frequency, presence] = &self.penalties;
        repetition.iter().any(|penalty| *penalty != 1.0)
            || frequency.iter().chain(presence).any(|penalty| *penalty != 0.0)
    }

    /// Whether some sequence has a bias.
    pub fn has_bias(&self) -> bool {
        let [begins, ends] = &self.biased;
        begins.iter().zip(ends).any(|(begin, end)| begin < end)
    }

    fn push(&mut self, adjustments: &Adjustments, biased: Range<usize>) {
        let [repetition, frequency, presence] = &mut self.penalties;
        repetition.push(adjustments.repetition_penalty);
        frequency.push(adjustments.frequency_penalty);
        presence.push(adjustments.presence_penalty);
        let [begins, ends] = &mut self.biased;
        begins.push(biased.start as i32);
        ends.push(biased.end as i32);
    }
}

impl AdjustedRows {
    pub(super) fn new(num_rows: usize) -> Self {
        Self { records: vec![None; num_rows] }
    }

    /// What the sampled ones of `sequences` ask for; `None` if that is nothing.
    pub(super) fn build(&mut self, sequences: &[SequencePlan]) -> Option<AdjustedBatch> {
        if sequences.iter().all(|sequence| sequence.adjusting.is_none()) {
            return None;
        }
        let mut batch = AdjustedBatch::default();
        for sequence in sequences.iter().filter(|sequence| sequence.sampling.is_some()) {
            let (row, position) = (sequence.row.0 as usize, sequence.start + sequence.input.len());
            match &sequence.adjusting {
                None => {
                    batch.push(&Adjustments::NONE, 0..0);
                    continue;
                }
                Some(Adjusting::First(first)) => {
                    let (record, begin) = begin(row, position, first);
                    self.records[row] = Some(record);
                    batch.begins.push(begin);
                }
                Some(Adjusting::Next) => {}
            }
            let record = self.records[row].as_ref().expect("a request begins before it goes on");
            let num_outputs = position - record.first_position;
            let biased = if num_outputs < record.adjustments.min_tokens {
                0..record.num_early
            } else {
                record.num_held_back..record.num_entries
            };
            batch.push(&record.adjustments, biased);
        }
        Some(batch)
    }
}

/// The list of biased tokens is in three parts: those held back; other tokens with a bias; tokens
/// with a bias that are held back. The first two are in force early, the last two later, so that no
/// token ever stands twice in what is in force.
fn begin(row: usize, position: usize, first: &FirstAdjusting) -> (Record, BeginningRow) {
    let FirstAdjusting { adjustments, prompt, held_back } = first;
    let mut held_back: Vec<TokenId> = held_back.to_vec();
    held_back.sort_unstable();
    held_back.dedup();
    let is_held_back = |(token, _): &(TokenId, f32)| held_back.binary_search(token).is_ok();
    let (late, early): (Vec<_>, Vec<_>) =
        adjustments.logit_bias.iter().copied().partition(is_held_back);
    let held: Vec<_> = held_back.iter().map(|token| (*token, f32::NEG_INFINITY)).collect();
    let record = Record {
        adjustments: Arc::clone(adjustments),
        num_held_back: held.len(),
        num_early: held.len() + early.len(),
        num_entries: held.len() + early.len() + late.len(),
        first_position: position,
    };
    let entries = [held, early, late].concat();
    let begin = BeginningRow {
        row,
        prompt: prompt.words().iter().map(|word| *word as i32).collect(),
        biased_ids: entries.iter().map(|(token, _)| *token as i32).collect(),
        bias: entries.iter().map(|(_, bias)| *bias).collect(),
    };
    (record, begin)
}

#[cfg(test)]
mod tests {
    use minisgl_sched::{InputTokens, RequestId, RowId, SamplingParams, TokenSet};

    use super::*;

    fn sequence(row: u32, start: usize, adjusting: Option<Adjusting>) -> SequencePlan {
        SequencePlan {
            request: RequestId(u64::from(row)),
            row: RowId(row),
            start,
            input: InputTokens::Host(vec![1, 2]),
            sampling: Some(SamplingParams::GREEDY),
            adjusting,
        }
    }

    #[test]
    fn a_batch_that_asks_for_nothing_has_nothing() {
        assert_eq!(AdjustedRows::new(2).build(&[sequence(1, 0, None)]), None);
    }

    #[test]
    fn a_row_goes_on_as_it_began_and_stop_tokens_are_held_back_for_a_while() {
        let mut rows = AdjustedRows::new(3);
        let adjustments = Adjustments {
            repetition_penalty: 1.5,
            logit_bias: vec![(7, 2.0), (8, -1.0), (40, 3.0)],
            min_tokens: 2,
            ..Adjustments::NONE
        };
        let first = Adjusting::First(Box::new(FirstAdjusting {
            adjustments: Arc::new(adjustments),
            prompt: TokenSet::of(&[1, 32]),
            held_back: [9, 8, 9].into(),
        }));
        let batch = rows.build(&[sequence(0, 3, None), sequence(2, 4, Some(first))]).unwrap();
        let begin = BeginningRow {
            row: 2,
            prompt: vec![2, 1],
            biased_ids: vec![8, 9, 7, 40, 8],
            bias: vec![f32::NEG_INFINITY, f32::NEG_INFINITY, 2.0, 3.0, -1.0],
        };
        assert_eq!(batch.begins, [begin]);
        assert_eq!(batch.penalties, [vec![1.0, 1.5], vec![0.0; 2], vec![0.0; 2]]);
        assert_eq!(batch.biased, [vec![0, 0], vec![0, 4]]);
        assert!(batch.has_penalties() && batch.has_bias());
        // The next tokens are at positions 7, 8.
        for (start, biased) in [(5, 0..4), (6, 2..5), (7, 2..5)] {
            let batch = rows.build(&[sequence(2, start, Some(Adjusting::Next))]).unwrap();
            assert_eq!(batch.begins, []);
            assert_eq!(batch.biased, [vec![biased.start], vec![biased.end]]);
        }
        assert_eq!(rows.build(&[sequence(2, 0, None)]), None, "another request in the row");
    }
}
