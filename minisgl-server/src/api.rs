//! The HTTP API: OpenAI's chat and completion endpoints, those of Mini-SGLang, and what operators
//! need.
//!
//! Never knows sockets, nor what computes the tokens.
//!
//! # Reading order
//! 1. [`error`], `response`: what is sent back.
//! 2. `fields`, `params`, `adjustments`, `prompt`: what is asked for, checked field by field.
//! 3. `chat`, `completions`, `generate`, `tokenize`: the endpoints that take text.
//! 4. `reply`, `wire`, `stream`: how outputs are written.
//! 5. `auth`, `metrics`, `models`, `request_body`, `route`: the rest.

pub mod error;

mod adjustments;
mod auth;
mod chat;
mod completions;
mod fields;
mod generate;
mod metrics;
mod models;
mod params;
mod prompt;
mod reply;
mod request_body;
mod response;
mod route;
mod stream;
mod tokenize;
mod wire;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use minisgl_sched::TokenId;
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::calendar::unix_seconds;
use crate::engine::{Engine, Health, Submission};
use crate::generation::{EndCounters, Generation};
use crate::text::TextModel;

use self::auth::ApiKey;
use self::error::ApiError;
use self::fields::Fields;
use self::metrics::Counters;
use self::params::CommonParams;
use self::reply::{Format, Reply};
use self::response::{empty_response, event_response, json_response};
use self::route::Route;
use self::stream::EventStream;

pub(crate) use self::adjustments::{BIASES, PENALTIES};
pub(crate) use self::params::random_seed;
pub use self::response::Body;

/// Longer ids of requests are replaced, not repeated.
const MAX_REQUEST_ID_BYTES: usize = 128;
const REQUEST_ID: &str = "x-request-id";

/// What an [`Api`] may be told.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// What clients call the model.
    pub model_name: String,
    /// What they must send to use it, if anything.
    pub api_key: Option<String>,
    /// Longer request bodies are refused.
    pub max_body_bytes: usize,
    /// Requests that are tokenized at one time; more wait.
    pub num_tokenizers: usize,
}

/// The service behind all connections.
#[derive(Debug)]
pub struct Api {
    engine: Engine,
    text: Arc<TextModel>,
    model_name: Arc<str>,
    /// Seconds since 1970.
    created: u64,
    api_key: Option<ApiKey>,
    max_body_bytes: usize,
    tokenizers: Arc<Semaphore>,
    ends: Arc<EndCounters>,
    counters: Counters,
}

impl Api {
    /// An API to `engine`, whose tokens mean what `text` says.
    pub fn new(engine: Engine, text: Arc<TextModel>, options: ApiOptions) -> Self {
        Self {
            engine,
            text,
            model_name: options.model_name.into(),
            created: unix_seconds(),
            api_key: options.api_key.map(ApiKey::new),
            max_body_bytes: options.max_body_bytes,
            tokenizers: Arc::new(Semaphore::new(options.num_tokenizers.max(1))),
            ends: Arc::default(),
            counters: Counters::default(),
        }
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, mut body) = request.into_parts();
        let request_id = request_id(&head.headers);
        let what = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| format!("{} {}", head.method, head.uri.path()));
        let mut response = match self.dispatch(&head, &mut body).await {
            Ok(response) => response,
            Err(error) => {
                tracing::debug!("refused: {error:?}");
                let response = error.to_response();
                // Who is late already is not waited for again.
                if response.status() != StatusCode::REQUEST_TIMEOUT {
                    request_body::discard(&head.headers, &mut body).await;
                }
                response
            }
        };
        self.counters.count_response(response.status());
        if let Some(what) = what {
            tracing::debug!("{what:?} {} {request_id:?}", response.status().as_u16());
        }
        response.headers_mut().insert(REQUEST_ID, request_id);
        response
    }

    async fn dispatch(
        &self,
        head: &Parts,
        body: &mut Incoming,
    ) -> Result<Response<Body>, ApiError> {
        // What is checked here is what is routed below: the path as it is, without any rewriting.
        let route = Route::of(head.uri.path());
        let method = &head.method;
        let is_public = matches!(route, Some(Route::Health)) || method == Method::OPTIONS;
        if let Some(key) = &self.api_key
            && !is_public
            && !key.is_in(&head.headers)
        {
            return Err(ApiError::unauthorized());
        }
        let route = route.ok_or_else(ApiError::not_found)?;
        if method == Method::OPTIONS && route != Route::Root {
            let mut response = empty_response(StatusCode::NO_CONTENT);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(route.methods()));
            return Ok(response);
        }
        if !route.allows(method) {
            return Err(ApiError::method_not_allowed(route.methods()));
        }
        match route {
            Route::Health => Ok(self.health()),
            Route::Metrics => Ok(self.metrics()),
            Route::Models => Ok(self.models()),
            Route::Model(id) => self.model(&id),
            Route::Root => Ok(json_response(StatusCode::OK, &Status { status: "ok" })),
            Route::Chat => self.chat(&self.body(head, body).await?).await,
            Route::Completions => self.completions(&self.body(head, body).await?).await,
            Route::Generate => self.generate(&self.body(head, body).await?).await,
            Route::Tokenize => self.tokenize(&self.body(head, body).await?).await,
            Route::Detokenize => self.detokenize(&self.body(head, body).await?).await,
        }
    }

    async fn body(&self, head: &Parts, body: &mut Incoming) -> Result<Bytes, ApiError> {
        request_body::read(&head.headers, body, self.max_body_bytes).await
    }

    fn health(&self) -> Response<Body> {
        let (status, text) = match self.engine.health() {
            Health::Ready => (StatusCode::OK, "ok"),
            Health::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            Health::Stalled => (StatusCode::SERVICE_UNAVAILABLE, "stalled"),
            Health::Failed(_) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        };
        json_response(status, &Status { status: text })
    }

    /// Room in the queue for `count` outputs; refused before any work is done for them.
    fn open(&self, count: usize) -> Result<Submission, ApiError> {
        let max = self.engine.max_open_requests();
        if count > max {
            let message = format!("{count} outputs in one request, at most {max} are allowed");
            return Err(ApiError::bad_request(message));
        }
        Ok(self.engine.open(count)?)
    }

    /// Does slow work on texts on another thread; only so many at a time, also if clients go away
    /// while it is done.
    async fn with_text<T: Send + 'static>(
        &self,
        work: impl FnOnce(&TextModel) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = self.tokenizers.clone().acquire_owned().await;
        let permit = permit.map_err(|_| ApiError::internal())?;
        let text = self.text.clone();
        let work = move || {
            let result = work(&text);
            drop(permit);
            result
        };
        // A panic has been reported by the thread.
        tokio::task::spawn_blocking(work).await.map_err(|_| ApiError::internal())
    }

    /// Generates the outputs and sends them as `params` says.
    async fn respond(
        &self,
        prompts: Vec<Vec<TokenId>>,
        params: CommonParams,
        submission: Submission,
        format: Format,
    ) -> Result<Response<Body>, ApiError> {
        let prefix = match format {
            Format::Chat => "chatcmpl",
            Format::Completion { .. } | Format::Text => "cmpl",
        };
        let reply = Reply {
            id: format!("{prefix}-{}", Uuid::new_v4().simple()),
            created: unix_seconds(),
            model: self.model_name.clone(),
            format,
            logprobs: params.generation.sampling.logprobs.is_some(),
            include_usage: params.include_usage,
        };
        let (text, ends) = (self.text.clone(), self.ends.clone());
        let mut generation = Generation::start(text, ends, submission, prompts, &params.generation);
        if params.stream {
            return Ok(event_response(EventStream::new(generation, reply)));
        }
        generation.complete().await?;
        Ok(reply.whole(generation))
    }

    /// Counts the fields that nobody asked for.
    fn finish(&self, fields: Fields<'_>) {
        self.counters.unknown_fields.fetch_add(fields.finish() as u64, Ordering::Relaxed);
    }

    /// Checks the name of the model, if there is one.
    fn check_model(&self, name: Option<String>) -> Result<(), ApiError> {
        match name.as_deref() {
            None | Some("") => Ok(()),
            Some(name) if *name == *self.model_name => Ok(()),
            Some(_) => Err(ApiError::model_not_found(&self.model_name)),
        }
    }
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
}

/// The client's id of the request if it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    let given = headers.get(REQUEST_ID).filter(|id| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(is_harmless)
    });
    let random = || HeaderValue::try_from(Uuid::new_v4().simple().to_string());
    given.cloned().map_or_else(random, Ok).unwrap_or(HeaderValue::from_static("unknown"))
}
