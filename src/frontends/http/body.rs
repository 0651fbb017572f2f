//! Reads a request's body: so large at most, within the request's time, of any content type.

use super::error::HttpError;
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::time::Duration;

/// Takes the whole body.
///
/// # Errors
/// 413 when it is too large (before it is read where its length is announced), 408 when it does
/// not come in time, 400 when the connection breaks off.
pub async fn read(body: Body, bytes_max: usize, time: Duration) -> Result<Bytes, HttpError> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let collecting = tokio::time::timeout(time, Limited::new(body, bytes_max).collect());
    match collecting.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
        Ok(Err(error)) => {
            let message = format!("the request's body broke off: {error}");
            Err(HttpError::new(StatusCode::BAD_REQUEST, "invalid", message))
        }
        Err(_) => {
            let message = "the request's body did not come in time";
            Err(HttpError::new(StatusCode::REQUEST_TIMEOUT, "deadline", message))
        }
    }
}

fn too_large(bytes_max: usize) -> HttpError {
    let message = format!(
        "the request's body is over the limit of {bytes_max} bytes (http.body_bytes_max); \
         send fewer records at once"
    );
    HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}
