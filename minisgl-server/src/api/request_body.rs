//! Reading the body of a request: JSON, not too long, not too late.

use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::CONTENT_TYPE;

use crate::api::error::ApiError;

/// A body must be here in this time.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body that is too long is read and thrown away, so that the client, which listens
/// only when it has sent all, gets the answer.
const MAX_DISCARDED_BYTES: usize = 128 << 20;
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of the body.
pub(super) async fn read(request: Request<Incoming>, max_bytes: usize) -> Result<Bytes, ApiError> {
    // A web page cannot send this type to another site without being asked (CORS).
    let content_type = request.headers().get(CONTENT_TYPE).map(|value| value.as_bytes());
    let is_json = content_type.is_some_and(|value| {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or(value);
        essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
    });
    if !is_json {
        return Err(ApiError::bad_request("the content type must be application/json"));
    }
    let mut body = request.into_body();
    if body.size_hint().lower() > max_bytes as u64 {
        discard(&mut body).await;
        return Err(ApiError::body_too_large(max_bytes));
    }
    let collected = Limited::new(&mut body, max_bytes).collect();
    match tokio::time::timeout(READ_TIMEOUT, collected).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            discard(&mut body).await;
            Err(ApiError::body_too_large(max_bytes))
        }
        Ok(Err(_)) => Err(ApiError::bad_request("the body cannot be read")),
        Err(_) => Err(ApiError::body_timeout()),
    }
}

async fn discard(body: &mut Incoming) {
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
