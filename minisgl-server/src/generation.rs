//! The outputs of one API call: `n` choices for each of its prompts, fed by the engine.
//!
//! The first choice of a prompt is submitted at once, its siblings when the first has a token: by
//! then the prompt is in the prefix cache, and is computed once for all of them.
//! Never knows in which format the outputs are sent.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use minisgl_sched::{
    Adjustments, Event, FinishReason, Request, RequestId, SamplingParams, TokenId,
};

use crate::engine::{Submission, Update};
use crate::output::{Delta, Output, OutputOptions};
use crate::text::TextModel;

/// What is the same for all outputs of a call.
#[derive(Clone, Debug)]
pub struct GenerationParams {
    /// Choices per prompt.
    pub n: usize,
    /// Whether outputs go on with the text of their prompts, or are texts of their own, as answers
    /// in a chat.
    pub continues: bool,
    /// Tokens to generate at most; what is left of the context if not given, or if less is left.
    pub max_tokens: Option<usize>,
    /// How tokens are chosen; the seed is that of the first choice, the others count up from it.
    pub sampling: SamplingParams,
    /// What is done to logits before, if anything.
    pub adjustments: Option<Arc<Adjustments>>,
    /// How tokens become text.
    pub output: OutputOptions,
}

/// `adjustments` as a request has them: none if they change nothing.
pub fn adjustments(
    adjustments: Adjustments,
    stop_token_ids: &[TokenId],
) -> Option<Arc<Adjustments>> {
    // Without stop tokens there are none to hold back.
    let min_tokens = if stop_token_ids.is_empty() { 0 } else { adjustments.min_tokens };
    let adjustments = Adjustments { min_tokens, ..adjustments };
    (!adjustments.is_none()).then(|| Arc::new(adjustments))
}

/// Why an output ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// An end token, a stop token or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
}

impl End {
    /// The `finish_reason` of the API.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Stop => "stop",
            End::Length => "length",
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The engine could not go on with one of its outputs.
    #[error("{0}")]
    Engine(Arc<str>),
    /// The server ended it.
    #[error("the server is shutting down")]
    Shutdown,
}

/// Tokens counted over all outputs of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCounts {
    /// In the prompts, each counted once.
    pub prompt: usize,
    /// Of those, how many came from the prefix cache.
    pub cached: usize,
    /// Generated, end tokens included.
    pub completion: usize,
}

/// How outputs ended since the start, over all calls.
#[derive(Debug, Default)]
pub struct EndCounters {
    /// With [`End::Stop`].
    pub stop: AtomicU64,
    /// With [`End::Length`].
    pub length: AtomicU64,
    /// Because the client went away or the server shut down.
    pub abort: AtomicU64,
    /// With [`Failure::Engine`].
    pub error: AtomicU64,
}

/// One output.
#[derive(Debug)]
pub struct Choice {
    /// What became certain and was not taken yet.
    pub delta: Delta,
    /// Set once nothing will be added to `delta` any more.
    pub end: Option<End>,
    output: Output,
    /// Whether a stop string has ended it; the engine has yet to confirm.
    stopped: bool,
    /// Until it is submitted.
    request: Option<Request>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Generation {
    text: Arc<TextModel>,
    counters: Arc<EndCounters>,
    submission: Submission,
    n: usize,
    choices: Vec<Choice>,
    unfinished: usize,
    counts: TokenCounts,
    /// Kept for its memory.
    updates: Vec<Update>,
}

impl Generation {
    /// Submits the first choice of each prompt. `submission` has room for all choices; every prompt
    /// has been checked by [`TextModel::check`].
    pub fn start(
        text: Arc<TextModel>,
        counters: Arc<EndCounters>,
        submission: Submission,
        prompts: Vec<Vec<TokenId>>,
        params: &GenerationParams,
    ) -> Self {
        let mut generation = Self {
            n: params.n,
            unfinished: params.n * prompts.len(),
            choices: Vec::with_capacity(params.n * prompts.len()),
            counts: TokenCounts::default(),
            updates: Vec::new(),
            text,
            counters,
            submission,
        };
        for prompt in prompts {
            generation.counts.prompt += prompt.len();
            let first = generation.choices.len();
            let vocabulary = generation.text.tokenizer.token_bytes();
            let output = match params.continues {
                true => Output::after(&params.output, vocabulary, &prompt),
                false => Output::new(&params.output),
            };
            for sibling in 0..params.n {
                let request = generation.request(prompt.clone(), params, sibling);
                generation.choices.push(Choice {
                    delta: Delta::default(),
                    end: None,
                    output: output.clone(),
                    stopped: false,
                    request: Some(request),
                });
            }
            generation.submit(first);
        }
        generation
    }

    fn request(&self, prompt: Vec<TokenId>, params: &GenerationParams, sibling: usize) -> Request {
        let left = self.text.max_seq_len.saturating_sub(prompt.len());
        let seed = params.sampling.seed.wrapping_add(sibling as u64);
        Request {
            // Chosen when it is submitted.
            id: RequestId(0),
            prompt,
            max_tokens: params.max_tokens.unwrap_or(left).min(left),
            stop_token_ids: params.output.stop_token_ids.clone(),
            sampling: SamplingParams { seed, ..params.sampling },
            adjustments: params.adjustments.clone(),
        }
    }

    fn submit(&mut self, index: usize) {
        if let Some(request) = self.choices[index].request.take() {
            self.submission.submit(index, request);
        }
    }

    /// Takes in what the engine has sent, or waits for it. Adds to `changed` the indices of the
    /// choices with something new in `delta` or `end`. Not to be called once all have ended.
    ///
    /// # Errors
    /// [`Failure`]; the whole call has failed then.
    pub fn poll_advance(
        &mut self,
        context: &mut Context<'_>,
        changed: &mut Vec<usize>,
    ) -> Poll<Result<(), Failure>> {
        ready!(self.submission.poll_updates(context, &mut self.updates));
        let mut updates = mem::take(&mut self.updates);
        let result = updates.drain(..).try_for_each(|update| {
            let index = update.index;
            let has_news = self.apply(update)?;
            if has_news && !changed.contains(&index) {
                changed.push(index);
            }
            Ok(())
        });
        self.updates = updates;
        Poll::Ready(result)
    }

    /// [`Generation::poll_advance`] as a future, until all choices have ended.
    ///
    /// # Errors
    /// As there.
    pub async fn complete(&mut self) -> Result<(), Failure> {
        let mut changed = Vec::new();
        while !self.has_ended() {
            std::future::poll_fn(|context| self.poll_advance(context, &mut changed)).await?;
        }
        Ok(())
    }

    /// Returns whether there is something new to send.
    fn apply(&mut self, Update { index, event }: Update) -> Result<bool, Failure> {
        let first = index - index % self.n;
        if index == first {
            (first + 1..first + self.n).for_each(|sibling| self.submit(sibling));
        }
        let choice = &mut self.choices[index];
        match event {
            // The engine was at it while the stop string was found.
            Event::Token { .. } if choice.stopped => Ok(false),
            Event::Token { token, logprobs, .. } => {
                self.counts.completion += 1;
                let vocabulary = self.text.tokenizer.token_bytes();
                let Choice { output, delta, .. } = choice;
                choice.stopped = output.push(vocabulary, token, logprobs, delta);
                if choice.stopped {
                    self.submission.abort(index);
                }
                Ok(!choice.delta.is_empty())
            }
            Event::Finished { reason, cached_tokens, .. } => {
                let end = self.end(index, reason)?;
                self.unfinished -= 1;
                if index == first {
                    self.counts.cached += cached_tokens;
                }
                self.choices[index].end = Some(end);
                Ok(true)
            }
        }
    }

    fn end(&mut self, index: usize, reason: FinishReason) -> Result<End, Failure> {
        let Choice { output, delta, stopped, .. } = &mut self.choices[index];
        let stopped = *stopped || output.finish(delta);
        let (counter, end) = match reason {
            FinishReason::Error(reason) => {
                self.unfinished -= 1;
                (&self.counters.error, Err(Failure::Engine(reason)))
            }
            _ if stopped => (&self.counters.stop, Ok(End::Stop)),
            FinishReason::Stop => (&self.counters.stop, Ok(End::Stop)),
            FinishReason::Length => (&self.counters.length, Ok(End::Length)),
            // Counted with the other choices when this is dropped.
            FinishReason::Abort => return Err(Failure::Shutdown),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        end
    }

    /// Whether all choices have ended.
    pub fn has_ended(&self) -> bool {
        self.unfinished == 0
    }

    /// All choices: those of the first prompt, then those of the second...
    pub fn choices(&mut self) -> &mut [Choice] {
        &mut self.choices
    }

    /// The tokens counted up to now.
    pub fn counts(&self) -> TokenCounts {
        self.counts
    }

    /// What the model knows of text.
    pub fn text(&self) -> &Arc<TextModel> {
        &self.text
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.counters.abort.fetch_add(self.unfinished as u64, Ordering::Relaxed);
    }
}
