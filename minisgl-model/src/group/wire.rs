//! What node 0 and the other nodes tell each other, as bytes: numbers are little-endian, lists stand
//! behind their lengths. Knows how plans are written; never what they mean.

use std::sync::Arc;

use minisgl_comm::nccl::NcclId;
use minisgl_sched::adjustment::{MAX_HELD_BACK, MAX_LOGIT_BIAS};
use minisgl_sched::{
    Adjusting, Adjustments, FirstAdjusting, InputTokens, PageId, RequestId, RowId, SamplingParams,
    SequencePlan, StepId, StepPlan, TableUpdate, TokenSet,
};

/// A message of one node to another.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Message {
    /// To node 0: so many KV pages fit on this node.
    Capacity { num_pages: usize },
    /// From node 0: so many KV pages there are on every node. Load now.
    Start { num_pages: usize },
    /// To node 0: this rank is ready.
    Ready { rank: usize },
    /// From node 0: run this step.
    Plan(StepPlan),
    /// From node 0: NCCL's ranks find each other by this.
    NcclId([u8; NcclId::BYTES]),
}

impl Message {
    /// A plan as a message, without a copy of it.
    pub(super) fn encode_plan(plan: &StepPlan) -> Vec<u8> {
        let mut out = Writer(vec![3]);
        out.plan(plan);
        out.0
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Capacity { num_pages } => (0, *num_pages),
            Self::Start { num_pages } => (1, *num_pages),
            Self::Ready { rank } => (2, *rank),
            Self::Plan(plan) => return Self::encode_plan(plan),
            Self::NcclId(id) => return [&[4], &id[..]].concat(),
        };
        let mut out = Writer(vec![kind]);
        out.u64(number as u64);
        out.0
    }

    /// `None` if the bytes are no message, or a message and more.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Reader(bytes);
        let message = match bytes.u8()? {
            0 => Self::Capacity { num_pages: bytes.size()? },
            1 => Self::Start { num_pages: bytes.size()? },
            2 => Self::Ready { rank: bytes.size()? },
            3 => Self::Plan(bytes.plan()?),
            4 => Self::NcclId(bytes.array()?),
            _ => return None,
        };
        bytes.0.is_empty().then_some(message)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn f32(&mut self, value: f32) {
        self.u32(value.to_bits());
    }

    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|item| write(self, item));
    }

    fn plan(&mut self, plan: &StepPlan) {
        let StepPlan { step, table_updates, sequences } = plan;
        self.u64(step.0);
        self.list(table_updates, |out, TableUpdate { row, first_page, pages }| {
            out.u32(row.0);
            out.u64(*first_page as u64);
            out.list(pages, |out, page| out.u32(page.0));
        });
        self.list(sequences, |out, sequence| {
            let SequencePlan { request, row, start, input, sampling, adjusting } = sequence;
            out.u64(request.0);
            out.u32(row.0);
            out.u64(*start as u64);
            match input {
                InputTokens::Sampled => out.u8(0),
                InputTokens::Host(tokens) => {
                    out.u8(1);
                    out.list(tokens, |out, token| out.u32(*token));
                }
            }
            out.u8(u8::from(sampling.is_some()));
            if let Some(sampling) = sampling {
                out.sampling(sampling);
            }
            match adjusting {
                None => out.u8(0),
                Some(Adjusting::Next) => out.u8(1),
                Some(Adjusting::First(first)) => {
                    out.u8(2);
                    out.first_adjusting(first);
                }
            }
        });
    }

    fn first_adjusting(&mut self, first: &FirstAdjusting) {
        let FirstAdjusting { adjustments, prompt, held_back } = first;
        let Adjustments {
            repetition_penalty,
            frequency_penalty,
            presence_penalty,
            logit_bias,
            min_tokens,
        } = &**adjustments;
        self.f32(*repetition_penalty);
        self.f32(*frequency_penalty);
        self.f32(*presence_penalty);
        self.list(logit_bias, |out, (token, bias)| {
            out.u32(*token);
            out.f32(*bias);
        });
        self.u64(*min_tokens as u64);
        self.list(prompt.words(), |out, word| out.u32(*word));
        self.list(held_back, |out, token| out.u32(*token));
    }

    fn sampling(&mut self, sampling: &SamplingParams) {
        let SamplingParams { temperature, top_k, top_p, min_p, seed, logprobs } = *sampling;
        self.f32(temperature);
        self.u32(top_k);
        self.f32(top_p);
        self.f32(min_p);
        self.u64(seed);
        self.u8(u8::from(logprobs.is_some()));
        if let Some(logprobs) = logprobs {
            self.u32(logprobs);
        }
    }
}

/// Takes values off the front; `None` where there are not enough bytes, or not such a value.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn size(&mut self) -> Option<usize> {
        self.u64()?.try_into().ok()
    }

    fn f32(&mut self) -> Option<f32> {
        self.u32().map(f32::from_bits)
    }

    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => read(self).map(Some),
            _ => None,
        }
    }

    /// Takes no memory for items that are not there, whatever the length says.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u32()? as usize;
        let mut items = Vec::with_capacity(length.min(self.0.len()));
        for _ in 0..length {
            items.push(read(self)?);
        }
        Some(items)
    }

    fn plan(&mut self) -> Option<StepPlan> {
        Some(StepPlan {
            step: StepId(self.u64()?),
            table_updates: self.list(|bytes| {
                Some(TableUpdate {
                    row: RowId(bytes.u32()?),
                    first_page: bytes.size()?,
                    pages: bytes.list(|bytes| bytes.u32().map(PageId))?,
                })
            })?,
            sequences: self.list(|bytes| {
                Some(SequencePlan {
                    request: RequestId(bytes.u64()?),
                    row: RowId(bytes.u32()?),
                    start: bytes.size()?,
                    input: match bytes.option(|bytes| bytes.list(Self::u32))? {
                        None => InputTokens::Sampled,
                        Some(tokens) => InputTokens::Host(tokens),
                    },
                    sampling: bytes.option(Self::sampling)?,
                    adjusting: bytes.adjusting()?,
                })
            })?,
        })
    }

    fn adjusting(&mut self) -> Option<Option<Adjusting>> {
        match self.u8()? {
            0 => Some(None),
            1 => Some(Some(Adjusting::Next)),
            2 => Some(Some(Adjusting::First(Box::new(self.first_adjusting()?)))),
            _ => None,
        }
    }

    /// `None` also for more than a rank has room for.
    fn first_adjusting(&mut self) -> Option<FirstAdjusting> {
        let adjustments = Adjustments {
            repetition_penalty: self.f32()?,
            frequency_penalty: self.f32()?,
            presence_penalty: self.f32()?,
            logit_bias: self.list(|bytes| Some((bytes.u32()?, bytes.f32()?)))?,
            min_tokens: self.size()?,
        };
        let prompt = TokenSet::from_words(self.list(Self::u32)?);
        let held_back = self.list(Self::u32)?;
        let fits =
            adjustments.logit_bias.len() <= MAX_LOGIT_BIAS && held_back.len() <= MAX_HELD_BACK;
        fits.then(|| FirstAdjusting {
            adjustments: Arc::new(adjustments),
            prompt,
            held_back: held_back.into(),
        })
    }

    fn sampling(&mut self) -> Option<SamplingParams> {
        Some(SamplingParams {
            temperature: self.f32()?,
            top_k: self.u32()?,
            top_p: self.f32()?,
            min_p: self.f32()?,
            seed: self.u64()?,
            logprobs: self.option(Self::u32)?,
        })
    }
}

#[cfg(test)]
mod tests;
