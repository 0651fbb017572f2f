//! Reads a request's body: so large at most, within the request's time, of any content type.

use super::error::HttpError;
use super::serve::HttpLimits;
use crate::frontends::intake::{NotTakenIn, RETRY_AFTER};
use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Takes the whole body.
///
/// # Errors
/// 413 when it is too large (before it is read where its length is announced), 408 when it does
/// not come in time, 429 when too many others come in too, 400 when the connection breaks off.
pub async fn read(body: Body, limits: &HttpLimits) -> Result<Bytes, HttpError> {
    let bytes_max = limits.body_bytes_max;
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large(bytes_max));
    }
    let body = limits.intake.of_request(body, limits.request_deadline);
    let error = match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => return Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_large(bytes_max)),
        Err(error) => error,
    };
    let message = error.to_string();
    Err(match error.downcast_ref() {
        Some(NotTakenIn::GaveWay { .. }) => HttpError {
            retry_after: Some(RETRY_AFTER),
            ..HttpError::new(StatusCode::TOO_MANY_REQUESTS, "overloaded", message)
        },
        Some(NotTakenIn::Late(_)) => {
            HttpError::new(StatusCode::REQUEST_TIMEOUT, "deadline", message)
        }
        _ => {
            let message = format!("the request's body broke off: {message}");
            HttpError::new(StatusCode::BAD_REQUEST, "invalid", message)
        }
    })
}

fn too_large(bytes_max: usize) -> HttpError {
    let message = format!(
        "the request's body is over the limit of {bytes_max} bytes (http.body_bytes_max); \
         send fewer records at once"
    );
    HttpError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}
