//! Reading the body of a request: JSON, not too long, not too late. And what becomes of one that is
//! not wanted.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, EXPECT, HeaderMap};

use crate::api::error::ApiError;

/// A body must be here in this time.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body that is not wanted is read and thrown away.
const MAX_DISCARDED_BYTES: usize = 128 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of the body.
pub(super) async fn read(
    headers: &HeaderMap,
    body: &mut Incoming,
    max_bytes: usize,
) -> Result<Bytes, ApiError> {
    // A web page cannot send this type to another site without being asked (CORS).
    let content_type = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_json = content_type.is_some_and(|value| {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or(value);
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        return Err(ApiError::bad_request("the content type must be application/json"));
    }
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(ApiError::body_too_large(max_bytes));
    }
    let collected = Limited::new(body, max_bytes).collect();
    match tokio::time::timeout(READ_TIMEOUT, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(ApiError::body_too_large(max_bytes))
        }
        Ok(Err(_)) => Err(ApiError::bad_request("the body cannot be read")),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

/// Reads what is left of a body and throws it away, so that the client, which listens only when it has
/// sent all, gets the answer. One that asks before it sends (RFC 9110, section 10.1.1) listens now.
pub(super) async fn discard(headers: &HeaderMap, body: &mut Incoming) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut left = MAX_DISCARDED_BYTES;
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            let Some(rest) = left.checked_sub(bytes) else { return };
            left = rest;
        }
    };
    // Late or not, the answer is the same.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, read).await;
}
