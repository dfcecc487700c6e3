//! How the message of an error is written on the wire.
//!
//! gRPC lets every printable ASCII character but `%` stand for itself; tonic escapes
//! spaces and some more. Both mean the same to who decodes them, but not everybody
//! always does: grpcio leaves the escapes in where its own deadline passes while
//! the error arrives, and `grpc_status.rpc_status.from_call` then refuses the details,
//! since their message is another one.

use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::MapFrame};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

/// Parsed once: two look-ups for each call.
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What does not stand for itself, beside all that is not ASCII.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

type Rewrite<D> = fn(Frame<D>) -> Frame<D>;

/// Rewrites the message of a response, which stands in its headers or its trailers.
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
    // A header's value neither begins nor ends with a space.
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

    /// What stands in the header for an error with `message`.
    fn on_the_wire(message: &str) -> String {
        let response = plain(Status::internal(message).into_http::<Full<Bytes>>());
        response.headers()[&MESSAGE].to_str().unwrap().to_owned()
    }

    #[test]
    fn what_may_stand_for_itself_does() {
        let message = r#"job "a b" <c>: 'no' `such` {job}? #1"#;
        assert_eq!(on_the_wire(message), message);
    }

    #[test]
    fn the_rest_is_escaped() {
        assert_eq!(on_the_wire("100% é\n."), "100%25 %C3%A9%0A.");
    }

    #[test]
    fn a_space_at_an_end_is_no_padding() {
        assert_eq!(on_the_wire(" a b"), "%20a%20b");
        assert_eq!(on_the_wire("a b "), "a%20b%20");
    }

    #[tokio::test]
    async fn a_message_in_the_trailers_is_rewritten_too() {
        let mut trailers = HeaderMap::new();
        Status::internal("no such job").add_header(&mut trailers).unwrap();
        let body = Full::new(Bytes::from_static(b"data")).with_trailers(async { Some(Ok(trailers)) });
        let collected = plain(Response::new(body)).into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()[&MESSAGE], "no such job");
        assert_eq!(collected.to_bytes(), "data");
    }

    proptest! {
        /// Other people's escapes, control characters and spaces included.
        #[test]
        fn every_message_arrives(message in "(?s)([%4aF \t\n\0\x7fé]|.)*") {
            let response = plain(Status::internal(&*message).into_http::<Full<Bytes>>());
            let read = Status::from_header_map(response.headers()).unwrap();
            prop_assert_eq!(read.message(), message);
        }
    }
}
