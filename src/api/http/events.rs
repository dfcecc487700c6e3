//! A watch as server-sent events.
//!
//! ```text
//! status ──> status, heartbeat, interruption ... ──> terminal status ──> end
//!     └──────────────────────┴──> failure ──> end
//! ```
//!
//! The id of an event is its resume token, so that a browser continues by itself where it lost
//! the stream. A browser connects again after the end, too: the id of the terminal status, or of
//! a failure for good, says so, and the response to it is 204, after which a browser stops.

use std::fmt::Write as _;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use tonic::{Code, Status, body::Body};

use super::{
    errors,
    messages::{Messages, Next},
    protect,
    room::Room,
};
use crate::proto::{
    json,
    v1::{JobStatus, WatchJobResponse, watch_job_response::Event},
};

/// Ends the id of the last event. No resume token has a dot.
const ENDED: &str = ".end";

/// What clients ignore: it shows them and proxies that the stream has begun.
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// When the response to a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the first event, so that a watch that fails before it has an HTTP status.
    WithFirstEvent,
    /// The client has had an event before, and the next one may be far away.
    AtOnce,
}

/// The resume token in the id of an event, and whether it is the id of the last one. That of a
/// failure has none.
pub(super) fn resume_token(id: &str) -> (&str, bool) {
    match id.strip_suffix(ENDED) {
        Some(token) => (token, true),
        None => (id, false),
    }
}

/// An event that was read to know how the response begins, and what counts its bytes.
struct First {
    text: Bytes,
    held: Option<Box<dyn Send + Sync>>,
}

/// The response to a watch. The first event is encoded when `room` has some, the others when
/// they are sent.
///
/// # Errors
/// The watch has failed before its first event.
pub(super) async fn response(
    mut messages: Messages,
    room: Option<Room>,
    begin: Begin,
) -> Result<Response<Body>, Status> {
    if begin == Begin::AtOnce {
        return match messages.failure() {
            Some(status) => Err(status),
            None => Ok(stream_of(Some(First { text: COMMENT, held: None }), messages)),
        };
    }
    if let Some(room) = &room {
        room.wait().await;
    }
    let first = match messages.next().await {
        Next::End(status) if status.code() != Code::Ok => return Err(status),
        Next::End(_) => None,
        Next::Message(message) => {
            let text = Bytes::from(event(&message));
            let held = room.map(|room| room.hold(text.len()));
            Some(First { text, held })
        }
    };
    Ok(stream_of(first, messages))
}

/// The response that begins with this, and ends there if nothing is given.
fn stream_of(first: Option<First>, messages: Messages) -> Response<Body> {
    let open = first.is_some().then_some(messages);
    let events = stream::unfold((first, open), |(first, messages)| async move {
        let mut messages = messages?;
        let (text, rest) = match first {
            // From here on the sender counts it.
            Some(First { text, held }) => {
                drop(held);
                (text, Some(messages))
            }
            None => match messages.next().await {
                Next::Message(message) => (event(&message).into(), Some(messages)),
                Next::End(status) if status.code() == Code::Ok => return None,
                Next::End(status) => (failure(&status).into(), None),
            },
        };
        Some((Ok::<_, Status>(Frame::data(text)), (None, rest)))
    });
    head(Body::new(StreamBody::new(events)))
}

/// A response of events.
pub(super) fn head(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    protect(headers);
    // nginx collects a response otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One event of the watch.
fn event(message: &[u8]) -> String {
    let text = json::encoded_to_json("jobwatch.v1.WatchJobResponse", message);
    let (Some(text), Ok(response)) = (text, WatchJobResponse::decode(message)) else {
        return failure(&Status::internal("an event can't be read"));
    };
    let (name, end) = match response.event {
        Some(Event::Status(JobStatus { terminal: true, .. })) => ("status", ENDED),
        Some(Event::Status(_)) => ("status", ""),
        Some(Event::Heartbeat(_)) => ("heartbeat", ""),
        Some(Event::Interruption(_)) => ("interruption", ""),
        None => ("event", ""),
    };
    let mut written = String::with_capacity(text.len() + 128);
    let _ = writeln!(written, "event: {name}");
    if !response.resume_token.is_empty() {
        let _ = writeln!(written, "id: {}{end}", response.resume_token);
    }
    let _ = write!(written, "data: {text}\n\n");
    written
}

/// The error that ends the watch, and when a browser shall connect again.
fn failure(status: &Status) -> String {
    let retry = match errors::retry_millis(status) {
        Some(millis) => format!("retry: {millis}\n"),
        None if is_final(status.code()) => format!("id: {ENDED}\n"),
        None => String::new(),
    };
    format!("event: failure\n{retry}data: {}\n\n", errors::to_json(status))
}

/// Whether the same watch can't succeed later. A browser would begin it again and again.
fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::Unimplemented
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{Heartbeat, JobState};

    fn written(event: Event) -> String {
        let response = WatchJobResponse { event: Some(event), resume_token: "abc".to_owned() };
        super::event(&response.encode_to_vec())
    }

    #[test]
    fn event_has_its_name_its_token_and_its_json_in_one_line() {
        let heartbeat = written(Event::Heartbeat(Heartbeat::default()));
        assert_eq!(
            heartbeat,
            "event: heartbeat\nid: abc\ndata: {\"heartbeat\":{},\"resumeToken\":\"abc\"}\n\n"
        );
        let description = "two\nlines".to_owned();
        let status = JobStatus { state: JobState::Running.into(), description, ..JobStatus::default() };
        let text = written(Event::Status(status.clone()));
        assert_eq!(
            text,
            "event: status\nid: abc\ndata: {\"status\":{\"state\":\"JOB_STATE_RUNNING\",\"description\":\"two\\nlines\"},\
             \"resumeToken\":\"abc\"}\n\n"
        );
        let text = written(Event::Status(JobStatus { terminal: true, ..status }));
        assert!(text.starts_with("event: status\nid: abc.end\ndata: "), "{text}");
    }

    #[test]
    fn failure_says_when_to_come_back_or_that_it_is_for_good() {
        let gone = failure(&Status::not_found("gone"));
        assert!(gone.starts_with("event: failure\nid: .end\ndata: {\"code\":5,"), "{gone}");
        let access = failure(&crate::api::of_changed_access());
        assert!(access.starts_with("event: failure\nretry: "), "{access}");
        let internal = failure(&Status::internal("a bug"));
        assert!(internal.starts_with("event: failure\ndata: "), "{internal}");
    }

    #[test]
    fn id_of_the_last_event_is_its_token_and_its_end() {
        assert_eq!(resume_token("abc"), ("abc", false));
        assert_eq!((resume_token("abc.end"), resume_token(".end")), (("abc", true), ("", true)));
    }
}
