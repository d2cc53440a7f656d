//! Text and the network: an OpenAI-compatible server on top of `minisgl-model`, and the same model
//! without a server.
//!
//! Never knows: tensors, KV pages, ranks. It turns text into requests for the scheduler, and the
//! scheduler's events into text.
//!
//! # Reading order
//! 1. [`tokenizer`], [`template`], [`text`]: what a checkpoint says about text.
//! 2. [`detokenizer`], [`stop`], [`output`]: tokens to text, one at a time.
//! 3. [`engine`]: the thread that runs the scheduler, and how requests get there and back.
//! 4. [`generation`]: all outputs of one API call.
//! 5. [`api`], [`http`]: requests and responses; sockets.
//! 6. [`llm`]: no server.
//! 7. [`hub`]: models that are not here yet.
//!
//! The binary `minisgl` adds the command line, launching and stopping.
//!
//! **Invariants:** streamed or not, an output has the same text; what is sent is whole characters
//! and no part of a stop string. Every call is answered, and a client that goes away ends its
//! requests. Nothing that a client sends can take more memory than the limits say.
//!
//! ```no_run
//! use minisgl_server::{Llm, LlmOptions, LlmParams};
//!
//! let mut llm = Llm::load(&LlmOptions::default())?;
//! let outputs = llm.generate(&["Once upon a time".into()], &LlmParams::default())?;
//! # Ok::<(), minisgl_server::ServerError>(())
//! ```
#![forbid(unsafe_code)]

pub mod api;
pub mod calendar;
pub mod demo;
pub mod detokenizer;
pub mod engine;
pub mod error;
pub mod generation;
pub mod http;
pub mod hub;
pub mod llm;
pub mod output;
pub mod stop;
pub mod template;
pub mod text;
pub mod tokenizer;

pub use error::ServerError;
pub use llm::{Llm, LlmOptions, LlmParams};
