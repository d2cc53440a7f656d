//! The outputs of a call as server-sent events: what came since the last time, in one piece.
//! Dropping it, which is what happens when the client goes away, ends the call.

use std::task::{Context, Poll, ready};

use hyper::body::Bytes;

use crate::api::reply::Reply;
use crate::generation::Generation;

/// See the [module](self).
#[derive(Debug)]
pub struct EventStream {
    /// `None` when its last event is written.
    generation: Option<Generation>,
    reply: Reply,
    /// By choice: whether something of it was written.
    begun: Vec<bool>,
    /// Kept for its memory.
    changed: Vec<usize>,
}

impl EventStream {
    /// The events of `generation`, written as `reply` says.
    pub(crate) fn new(mut generation: Generation, reply: Reply) -> Self {
        let begun = vec![false; generation.choices().len()];
        Self { generation: Some(generation), reply, begun, changed: Vec::new() }
    }

    /// The next events; `None` after the last.
    pub(crate) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(generation) = &mut self.generation else { return Poll::Ready(None) };
        let mut out = Vec::new();
        // What comes may be nothing to send, such as half a character.
        while out.is_empty() {
            self.changed.clear();
            if let Err(failure) = ready!(generation.poll_advance(context, &mut self.changed)) {
                self.reply.write_error(&mut out, &failure.into());
                self.generation = None;
                break;
            }
            let text = generation.text().clone();
            let vocabulary = text.tokenizer.token_bytes();
            for &index in &self.changed {
                let is_first = !std::mem::replace(&mut self.begun[index], true);
                let choice = &mut generation.choices()[index];
                self.reply.write_chunk(&mut out, vocabulary, index, choice, is_first);
            }
            if generation.has_ended() {
                self.reply.write_end(&mut out, generation.counts());
                self.generation = None;
                break;
            }
        }
        Poll::Ready(Some(out.into()))
    }
}
