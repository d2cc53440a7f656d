//! Errors as clients of the API see them: a status, and OpenAI's
//! `{"error":{"message","type","param","code"}}` with all four keys, within a kilobyte.
//! Never says more of a request than the name of a field.

use std::borrow::Cow;

use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::ServerError;
use crate::api::response::{Body, json_response};
use crate::engine::Refusal;
use crate::generation::Failure;
use crate::template::TemplateError;

/// Longer messages are cut.
const MAX_MESSAGE_BYTES: usize = 500;

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER: &str = "server_error";

/// What to answer in place of what was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: Box<str>,
    param: Option<Cow<'static, str>>,
    code: Option<&'static str>,
    /// Its name in lower case, and its value.
    header: Option<(&'static str, &'static str)>,
}

/// The body of an error.
#[derive(Serialize)]
struct Envelope<'a> {
    error: Details<'a>,
}

#[derive(Serialize)]
struct Details<'a> {
    message: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        // An escaped control character takes six bytes.
        let message = message.replace(char::is_control, " ").into();
        Self { status, kind, message, param: None, code: None, header: None }
    }

    /// 400 for the request as a whole.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    /// 400 for one field, which the message is about.
    pub(crate) fn field(name: impl Into<Cow<'static, str>>, problem: &str) -> Self {
        let name = name.into();
        let message = format!("`{name}` {problem}");
        Self { param: Some(name), ..Self::bad_request(message) }
    }

    /// The same, about the field `name` if it is about none yet.
    pub(crate) fn about(mut self, name: &'static str) -> Self {
        if self.status == StatusCode::BAD_REQUEST {
            self.param.get_or_insert(name.into());
        }
        self
    }

    /// 401.
    pub(crate) fn unauthorized() -> Self {
        let message = "a valid API key is needed: send the header `Authorization: Bearer KEY`";
        Self {
            code: Some("invalid_api_key"),
            header: Some(("www-authenticate", "Bearer")),
            ..Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, message)
        }
    }

    /// 404 for a path.
    pub(crate) fn not_found() -> Self {
        let message = "there is nothing at this path";
        Self {
            code: Some("not_found"),
            ..Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
        }
    }

    /// 404 for a model; `served` is what there is.
    pub(crate) fn model_not_found(served: &str) -> Self {
        let message = format!("there is no model of this name here: this server has `{served}`");
        Self {
            param: Some("model".into()),
            code: Some("model_not_found"),
            ..Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message)
        }
    }

    /// 405; `allowed` are the methods for the `Allow` header.
    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this path takes {allowed}");
        Self {
            code: Some("method_not_allowed"),
            header: Some(("allow", allowed)),
            ..Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, message)
        }
    }

    /// 408 for a body that does not arrive.
    pub(crate) fn body_timeout() -> Self {
        Self {
            header: Some(("connection", "close")),
            ..Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, "the body took too long")
        }
    }

    /// 413.
    pub(crate) fn body_too_large(max_bytes: usize) -> Self {
        let message = format!("the body has more than {max_bytes} bytes");
        Self {
            code: Some("body_too_large"),
            header: Some(("connection", "close")),
            ..Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message)
        }
    }

    /// 500 for a bug.
    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, "something went wrong in the server")
    }

    fn unavailable(code: &'static str, message: String) -> Self {
        Self {
            code: Some(code),
            header: Some(("retry-after", "1")),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, SERVER, message)
        }
    }

    /// The JSON, for the middle of a stream.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(&self.envelope()).unwrap_or_default()
    }

    fn envelope(&self) -> Envelope<'_> {
        Envelope {
            error: Details {
                message: &self.message,
                kind: self.kind,
                param: self.param.as_deref(),
                code: self.code,
            },
        }
    }

    /// The whole response.
    pub(crate) fn to_response(&self) -> Response<Body> {
        let mut response = json_response(self.status, &self.envelope());
        if let Some((name, value)) = self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

impl From<ServerError> for ApiError {
    fn from(error: ServerError) -> Self {
        match &error {
            ServerError::TooLong { .. } | ServerError::TextTooLong { .. } => Self {
                code: Some("context_length_exceeded"),
                ..Self::bad_request(error.to_string())
            },
            ServerError::Template(TemplateError::Raised(_) | TemplateError::Failed(_)) => {
                Self { param: Some("messages".into()), ..Self::bad_request(error.to_string()) }
            }
            ServerError::NoTemplate
            | ServerError::Encode(_)
            | ServerError::NoTokenizer
            | ServerError::EmptyPrompt
            | ServerError::UnknownToken { .. } => Self::bad_request(error.to_string()),
            _ => {
                tracing::error!("a request failed: {error}");
                Self::internal()
            }
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::Draining => "shutting_down",
            Refusal::Failed => "engine_failed",
        };
        Self::unavailable(code, refusal.to_string())
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Shutdown => Self::unavailable("shutting_down", failure.to_string()),
            Failure::Engine(reason) => Self {
                code: Some("engine_failed"),
                ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, reason.as_ref())
            },
        }
    }
}
