//! Percent-encoding of `grpc-message`, with as few escapes as gRPC allows.
//!
//! gRPC requires an escape for `%` and for characters outside printable ASCII. Tonic
//! escapes spaces and others, too. A correct client decodes both, but grpcio does not
//! if its own deadline passes while the error arrives, and
//! `grpc_status.rpc_status.from_call` then rejects the details, because their message
//! differs.

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::MapFrame};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

/// Parsed once: two look-ups for each call.
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Characters to escape, in addition to all that are not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

type Rewrite<D> = fn(Frame<D>) -> Frame<D>;

/// Rewrites the message of a response, in its headers or its trailers.
pub(super) fn plain<B: Body>(mut response: Response<B>) -> Response<MapFrame<B, Rewrite<B::Data>>> {
    rewrite(response.headers_mut());
    response.map(|body| body.map_frame(in_trailers as Rewrite<B::Data>))
}

fn in_trailers<D>(mut frame: Frame<D>) -> Frame<D> {
    if let Some(trailers) = frame.trailers_mut() {
        rewrite(trailers);
    }
    frame
}

fn rewrite(headers: &mut HeaderMap) {
    let Some(escaped) = headers.get_mut(&MESSAGE) else { return };
    let message: Vec<u8> = percent_decode(escaped.as_bytes()).collect();
    let outer = [message.first(), message.last()];
    // A header's value can't begin or end with a space.
    if !outer.contains(&Some(&b' '))
        && let Ok(plain) = HeaderValue::try_from(percent_encode(&message, ESCAPED).to_string())
    {
        *escaped = plain;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use proptest::prelude::*;
    use tonic::Status;

    use super::*;

    /// The header's value for an error with `message`.
    fn on_the_wire(message: &str) -> String {
        let response = plain(Status::internal(message).into_http::<Full<Bytes>>());
        response.headers()[&MESSAGE].to_str().unwrap().to_owned()
    }

    #[test]
    fn printable_ascii_is_not_escaped() {
        let message = r#"job "a b" <c>: 'no' `such` {job}? #1"#;
        assert_eq!(on_the_wire(message), message);
    }

    #[test]
    fn percent_sign_control_and_non_ascii_characters_are_escaped() {
        assert_eq!(on_the_wire("100% é\n."), "100%25 %C3%A9%0A.");
    }

    #[test]
    fn space_at_an_end_is_escaped() {
        assert_eq!(on_the_wire(" a b"), "%20a%20b");
        assert_eq!(on_the_wire("a b "), "a%20b%20");
    }

    #[tokio::test]
    async fn message_in_the_trailers_is_rewritten() {
        let mut trailers = HeaderMap::new();
        Status::internal("no such job").add_header(&mut trailers).unwrap();
        let body = Full::new(Bytes::from_static(b"data")).with_trailers(async { Some(Ok(trailers)) });
        let collected = plain(Response::new(body)).into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()[&MESSAGE], "no such job");
        assert_eq!(collected.to_bytes(), "data");
    }

    proptest! {
        /// Includes text that looks like an escape, control characters and spaces.
        #[test]
        fn any_message_is_decoded_unchanged(message in "(?s)([%4aF \t\n\0\x7fé]|.)*") {
            let response = plain(Status::internal(&*message).into_http::<Full<Bytes>>());
            let read = Status::from_header_map(response.headers()).unwrap();
            prop_assert_eq!(read.message(), message);
        }
    }
}
