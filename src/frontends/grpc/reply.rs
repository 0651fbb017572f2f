//! Rewrites a reply's status below tonic, whose `Code` is a closed set.
//!
//! The book's clients look for status 404, which is no gRPC code: a handler asks for it by
//! metadata that never leaves the process, and the `grpc-status` trailer is replaced here,
//! whether it comes behind messages or instead of them.

use super::dispatch::Client;
use super::places::Place;
use super::refusal;
use super::stalled::{self, Whose};
use crate::frontends::seats::Use;
use crate::frontends::unsent::{Taker, Unsent};
use crate::observe::metrics::Outcome;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use prost::Message;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::codegen::http;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::pb;

const STATUS: &str = "grpc-status";
const STATUS_WANTED: &str = "duramen-internal-status";

/// The book's error for an offset that is not in the log: number 404 in trailer and details.
pub fn book_offset_out_of_range(offset: u64) -> Status {
    let message = format!("offset out of range: {offset}");
    let localized = pb::LocalizedMessage {
        locale: "en-US".into(),
        message: format!("The requested offset is outside of the log: {offset}"),
    };
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/google.rpc.LocalizedMessage".into(),
        value: localized.encode_to_vec(),
    };
    let details = pb::Status { code: 404, message: message.clone(), details: vec![detail] };
    let details = Bytes::from(details.encode_to_vec());
    let mut status = Status::with_details(Code::Unknown, message, details);
    status.metadata_mut().insert(STATUS_WANTED, MetadataValue::from_static("404"));
    status
}

/// As what a call is counted that ends so: the book's own status is that of an offset that is not
/// there.
pub fn outcome_of(status: &Status) -> Outcome {
    if status.metadata().contains_key(STATUS_WANTED) {
        return Outcome::Invalid;
    }
    refusal::outcome_of(status.code())
}

/// Rewrites the status of a reply that has no body, and wraps the body of any other.
pub fn rewritten(
    reply: http::Response<tonic::body::Body>,
    client: &Option<Client>,
    unsent: &Unread,
    held: Held,
    streams: Option<Whose>,
) -> http::Response<ReplyBody> {
    let (mut head, body) = reply.into_parts();
    if head.headers.contains_key(STATUS) {
        rewrite(&mut head.headers);
        note_mistake(&head.headers, client.as_ref());
    }
    let (client, unsent) = (client.clone(), unsent.clone());
    if let Some(whose) = streams {
        stalled::begins(whose);
    }
    http::Response::from_parts(head, ReplyBody { body, client, unsent, streams, _held: held })
}

/// Notes a reply that says that the request made no sense.
fn note_mistake(trailers: &HeaderMap, client: Option<&Client>) {
    let Some(Client { peer, complaints, .. }) = client else { return };
    let code = trailers.get(STATUS).map(|code| Code::from_bytes(code.as_bytes()));
    let is_mistake =
        matches!(code, Some(Code::InvalidArgument | Code::NotFound | Code::Unimplemented));
    if is_mistake && let Some(status) = Status::from_header_map(trailers) {
        complaints.note(*peer, status.message());
    }
}

fn rewrite(trailers: &mut HeaderMap) {
    if let Some(wanted) = trailers.remove(STATUS_WANTED) {
        trailers.insert(STATUS, wanted);
    }
}

/// Where what a connection does not read is counted.
pub type Unread = (Unsent, Taker);

/// What a call has until its answer is at its end.
pub type Held = (Option<Place>, Option<Use>);

/// A reply's body: messages pass untouched, the trailers are rewritten.
#[derive(Debug)]
pub struct ReplyBody {
    body: tonic::body::Body,
    client: Option<Client>,
    unsent: Unread,
    /// To a stream of requests: whose that is.
    streams: Option<Whose>,
    _held: Held,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Some(whose) = self.streams {
            stalled::asked(whose, polled.is_pending());
        }
        let (unsent, taker) = &self.unsent;
        let counted = |frame: Frame<Bytes>| frame.map_data(|data| unsent.counted(data, taker));
        let mut polled = polled.map_ok(counted);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
        {
            rewrite(trailers);
            note_mistake(trailers, self.client.as_ref());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::partition::ReadError;
    use crate::frontends::grpc::refusal::Refusal;
    use crate::model::Offset;

    #[test]
    fn an_offset_that_is_not_there_is_counted_alike_in_both_interfaces() {
        let (offset, start, end) = (Offset(7), Offset(0), Offset(3));
        let duramen: Status = Refusal::from(ReadError::OutOfRange { offset, start, end }).into();
        for status in [duramen, book_offset_out_of_range(7)] {
            // As dispatch sees it: written to headers and read back.
            let head = status.into_http::<tonic::body::Body>();
            let read = Status::from_header_map(head.headers()).unwrap();
            assert_eq!(outcome_of(&read), Outcome::Invalid);
        }
    }
}
