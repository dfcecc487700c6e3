use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};
use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const TEXT: &[u8] = br#"{"a":{"id":"a","state":"active"}}"#;
const LIMIT: usize = 4096;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn headers(labels: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for label in labels {
        headers.append(header::CONTENT_ENCODING, HeaderValue::from_str(label).unwrap());
    }
    headers
}

/// Decodes in pieces of this size.
fn decode_in(size: usize, labels: &[&str], body: &[u8]) -> Result<Bytes, DecodeError> {
    let mut decoder = Decoder::new(&headers(labels), LIMIT, None);
    for piece in body.chunks(size) {
        decoder.push(piece)?;
    }
    decoder.finish()
}

fn decode(labels: &[&str], body: &[u8]) -> Result<Bytes, DecodeError> {
    let whole = decode_in(usize::MAX, labels, body);
    for size in [1, 2, 7] {
        assert_eq!(decode_in(size, labels, body), whole, "{labels:?} in pieces of {size}");
    }
    whole
}

#[test]
fn body_is_decoded_by_its_label() {
    for (label, body) in [
        ("gzip", gzip(TEXT)),
        ("GZIP", gzip(TEXT)),
        ("x-gzip", gzip(TEXT)),
        (" X-Gzip ", gzip(TEXT)),
        ("gzip, identity", gzip(TEXT)),
        ("utf-8, gzip", gzip(TEXT)),
        ("gzip,", gzip(TEXT)),
        ("deflate", zlib(TEXT)),
        ("Deflate", raw_deflate(TEXT)),
        ("gzip, gzip", gzip(&gzip(TEXT))),
        ("deflate, gzip", gzip(&zlib(TEXT))),
        ("gzip, deflate", zlib(&gzip(TEXT))),
    ] {
        assert_eq!(decode(&[label], &body).as_deref(), Ok(TEXT), "{label}");
    }
    assert_eq!(decode(&["gzip", "gzip"], &gzip(&gzip(TEXT))).as_deref(), Ok(TEXT));
}

#[test]
fn label_of_no_coding_means_nothing() {
    for label in ["", "identity", "none", "None", "UTF-8", "binary", "aws-chunked", "br", ",", "8bit"] {
        assert_eq!(decode(&[label], TEXT).as_deref(), Ok(TEXT), "{label}");
    }
    assert_eq!(decode(&[], TEXT).as_deref(), Ok(TEXT));
}

#[test]
fn body_that_is_not_what_its_label_says_is_read_as_it_is() {
    for body in [TEXT, b"", b"{", b"{}", b"\x1f", b"\x1f{", b"<html>"] {
        for label in ["gzip", "x-gzip", "deflate", "gzip, gzip"] {
            assert_eq!(decode(&[label], body).as_deref(), Ok(body), "{label} {}", body.escape_ascii());
        }
    }
    assert_eq!(decode(&["gzip, gzip"], &gzip(TEXT)).as_deref(), Ok(TEXT), "compressed once");
    assert_eq!(decode(&["gzip", "gzip"], &gzip(TEXT)).as_deref(), Ok(TEXT), "labelled twice");
}

#[test]
fn gzip_may_have_members_and_padding() {
    let (left, right) = TEXT.split_at(9);
    let members = [gzip(left), gzip(right)].concat();
    for padding in [&b""[..], &[0; 512], b"\r\n", b"junk", &[0x1f], &[0x1f, 0], &gzip(b"")] {
        let body = [&members, padding].concat();
        assert_eq!(decode(&["gzip"], &body).as_deref(), Ok(TEXT), "{}", padding.escape_ascii());
    }
}

#[test]
fn gzip_that_breaks_off_or_is_damaged_is_corrupt() {
    let whole = gzip(TEXT);
    for end in 2..whole.len() {
        assert_eq!(decode(&["gzip"], &whole[..end]), Err(DecodeError::Corrupt), "{end}");
    }
    let mut damaged = whole.clone();
    let checksum = damaged.len() - 8;
    damaged[checksum] ^= 1;
    assert_eq!(decode(&["gzip"], &damaged), Err(DecodeError::Corrupt));
    assert_eq!(decode(&["deflate"], &zlib(TEXT)[..20]), Err(DecodeError::Corrupt));
}

#[test]
fn decoded_bytes_are_limited() {
    let (fits, over) = (vec![b' '; LIMIT], vec![b' '; LIMIT + 1]);
    for (label, encode) in [
        ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
        ("deflate", zlib),
        ("deflate", raw_deflate),
        ("", <[u8]>::to_vec),
    ] {
        assert_eq!(decode(&[label], &encode(&fits)).as_deref(), Ok(&fits[..]), "{label}");
        assert_eq!(decode(&[label], &encode(&over)), Err(DecodeError::TooLarge), "{label}");
    }
    let bomb = gzip(&vec![b' '; 1 << 24]);
    assert_eq!(decode(&["gzip"], &bomb), Err(DecodeError::TooLarge));
    assert_eq!(decode(&["gzip, gzip"], &gzip(&bomb)), Err(DecodeError::TooLarge));
    let two = [gzip(&fits), gzip(b"x")].concat();
    assert_eq!(decode(&["gzip"], &two), Err(DecodeError::TooLarge), "all members together");
}

#[test]
fn members_and_padding_without_an_end_are_too_large() {
    for endless in [gzip(b""), [gzip(TEXT), vec![0; 64]].concat()] {
        let mut decoder = Decoder::new(&headers(&["gzip"]), LIMIT, None);
        let end = (0..1 << 20).find_map(|_| decoder.push(&endless).err());
        assert_eq!(end, Some(DecodeError::TooLarge));
    }
}

#[test]
fn partial_body_is_what_was_decoded() {
    for (label, body) in
        [("", TEXT.to_vec()), ("gzip", [gzip(TEXT), vec![0x1f]].concat()), ("gzip", TEXT.to_vec())]
    {
        let mut decoder = Decoder::new(&headers(&[label]), LIMIT, None);
        decoder.push(&body).unwrap();
        assert_eq!(&decoder.into_partial()[..], TEXT, "{label}");
    }
    let mut decoder = Decoder::new(&headers(&["gzip"]), LIMIT, None);
    decoder.push(&gzip(TEXT)[..12]).unwrap();
    assert!(TEXT.starts_with(&decoder.into_partial()));
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_in_the_same_way_in_any_pieces(
        label in prop::sample::select(vec!["gzip", "deflate", "gzip, gzip", "identity"]),
        magic in any::<bool>(),
        body in prop::collection::vec(any::<u8>(), 0..256),
        size in 1..64_usize,
    ) {
        let body = if magic { [&[0x1f, 0x8b, 8][..], &body].concat() } else { body };
        let whole = decode_in(usize::MAX, &[label], &body);
        prop_assert!(whole.as_ref().is_ok_and(|body| body.len() <= LIMIT) || whole.is_err());
        prop_assert_eq!(decode_in(size, &[label], &body), whole);
    }

    #[test]
    fn what_was_compressed_comes_back(body in prop::collection::vec(any::<u8>(), 0..LIMIT), size in 1..512_usize) {
        prop_assert_eq!(decode_in(size, &["gzip"], &gzip(&body)), Ok(body.clone().into()));
        prop_assert_eq!(decode_in(size, &["deflate"], &zlib(&body)), Ok(body.into()));
    }
}
