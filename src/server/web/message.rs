//! The messages in the body of a request of gRPC-Web, as gRPC reads them: the library's errors name
//! its own steps.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use tonic::Status;

use crate::api;

/// Bytes of the head of a message: a flag and its length.
const HEAD: usize = 5;

/// The flag of a compressed message.
const COMPRESSED: u8 = 1;

static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

/// Decodes a body, and checks how it is divided. `limit`: bytes of a message.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(headers: &HeaderMap, is_text: bool, body: Bytes, limit: usize) -> Result<Bytes, Status> {
    let body = if is_text {
        let decoded = STANDARD.decode(&body).map_err(|_| {
            api::of_unreadable_body(
                "is not base64 with padding, as RFC 4648 has it; encode it, or send application/grpc-web+proto",
            )
        });
        decoded?.into()
    } else {
        body
    };
    let mut rest = &body[..];
    while let [first, ..] = *rest {
        let cut_off = || {
            api::of_unreadable_body(
                "ends within a message; send a flag, four bytes of the message's length, and the message",
            )
        };
        let (head, messages) = rest.split_first_chunk::<HEAD>().ok_or_else(cut_off)?;
        let [_, length @ ..] = *head;
        let length = u32::from_be_bytes(length) as usize;
        if length > limit {
            return Err(api::of_long_request(length, limit));
        }
        if first == COMPRESSED {
            return Err(of_compressed(headers));
        }
        if first != 0 {
            let reason = format!("has a message with the flag {first}; send messages with the flag 0");
            return Err(api::of_unreadable_body(&reason));
        }
        rest = messages.get(length..).ok_or_else(cut_off)?;
    }
    Ok(body)
}

fn of_compressed(headers: &HeaderMap) -> Status {
    match headers.get(&ENCODING).map(|encoding| String::from_utf8_lossy(encoding.as_bytes())) {
        Some(encoding) if encoding != "identity" => api::of_encoded_body(ENCODING.as_str(), &encoding),
        _ => api::of_unreadable_body("has a compressed message; send messages as they are, with the flag 0"),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn body_is_decoded_and_divided_into_messages_within_the_limit() {
        let two: &[u8] = b"\0\0\0\0\x02ab\0\0\0\0\0";
        let read = |body: &[u8], is_text, encoding: &'static str| {
            let mut headers = HeaderMap::new();
            if !encoding.is_empty() {
                headers.insert(&ENCODING, HeaderValue::from_static(encoding));
            }
            let read = read(&headers, is_text, Bytes::copy_from_slice(body), 2);
            read.map_err(|status| (i32::from(status.code()), status.message().to_owned()))
        };
        assert_eq!(read(two, false, "gzip").unwrap(), two, "only compressed messages are refused");
        assert_eq!(read(STANDARD.encode(two).as_bytes(), true, "").unwrap(), two);
        assert_eq!(read(b"", true, "").unwrap(), "");
        for (body, is_text, encoding, code, problem) in [
            (&b"!!!!"[..], true, "", 3, "body is not base64 with padding"),
            (b"AAAAAAA", true, "", 3, "body is not base64 with padding"),
            (b"\0\0\0", false, "", 3, "body ends within a message"),
            (b"\0\0\0\0\x02a", false, "", 3, "body ends within a message"),
            (b"\0\xff\xff\xff\xff", false, "", 8, "the request has 4294967295 bytes; send at most 2"),
            (
                b"\x01\0\0\0\x01a",
                false,
                "gzip",
                12,
                "the header grpc-encoding is \"gzip\", which is not served",
            ),
            (b"\x01\0\0\0\x01a", false, "", 3, "body has a compressed message"),
            (b"\x80\0\0\0\0", false, "", 3, "body has a message with the flag 128; send"),
        ] {
            let refused = read(body, is_text, encoding).unwrap_err();
            assert!(refused.0 == code && refused.1.starts_with(problem), "{refused:?}");
        }
    }
}
