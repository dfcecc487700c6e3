//! Decodes the body of a response, as it comes and within a limit.
//!
//! As lenient as browsers and curl: a body that is labelled as compressed and is not is read
//! as it stands, gzip may have several members and padding after them, and a label that
//! names no coding (empty, `none`, `UTF-8`, `binary`, ...) means nothing. Bytes are counted
//! after they are decompressed.

use std::io::{self, Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::{
    read::{DeflateDecoder, ZlibDecoder},
    write::GzDecoder,
};
use http::{HeaderMap, header};

/// Codings of one body that are undone at most.
const MAX_CODINGS: usize = 3;

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Why a body can't be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DecodeError {
    /// Larger than the limit, when it is decoded.
    TooLarge,
    /// Neither what its label says nor plain.
    Corrupt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
}

/// Decodes one body.
#[derive(Debug)]
pub(super) struct Decoder {
    /// Codings that are still to be undone after this one.
    inner: Vec<Coding>,
    state: State,
    limit: usize,
    /// Bytes that were pushed.
    read: usize,
}

#[derive(Debug)]
enum State {
    Plain(Limited),
    /// The body, or what follows a member of gzip, begins.
    Gzip {
        output: Limited,
        begin: Vec<u8>,
        is_first: bool,
    },
    Member(Box<GzDecoder<Limited>>),
    /// The last member has ended; what follows is padding.
    Padding(Limited),
    /// Whether it is in zlib's form, raw or plain shows at the end.
    Deflate(Limited),
    /// An error was returned.
    Failed,
}

impl Decoder {
    /// For a body with these headers. At most `limit` bytes are decoded; `announced` are
    /// expected where the body is plain.
    pub(super) fn new(headers: &HeaderMap, limit: usize, announced: Option<usize>) -> Self {
        Self::of(codings(headers), limit, announced)
    }

    fn of(mut codings: Vec<Coding>, limit: usize, announced: Option<usize>) -> Self {
        let coding = codings.pop();
        // What can't be compressed grows by less than this.
        let compressed = limit.saturating_add(limit / 8).saturating_add(1024);
        let is_last = codings.is_empty() && coding != Some(Coding::Deflate);
        let empty = || Limited { bytes: BytesMut::new(), limit: if is_last { limit } else { compressed } };
        let state = match coding {
            None => {
                let capacity = announced.unwrap_or_default().min(limit);
                State::Plain(Limited { bytes: BytesMut::with_capacity(capacity), limit })
            }
            Some(Coding::Gzip) => State::Gzip { output: empty(), begin: Vec::new(), is_first: true },
            Some(Coding::Deflate) => State::Deflate(empty()),
        };
        Self { inner: codings, state, limit, read: 0 }
    }

    /// Whether the body is read as it is.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.state, State::Plain(_))
    }

    /// About how many times `limit` is held at most.
    pub(super) fn buffers(&self) -> usize {
        if matches!(self.state, State::Deflate(_)) || !self.inner.is_empty() { 2 } else { 1 }
    }

    /// Bytes of memory that the body holds now.
    pub(super) fn capacity(&self) -> usize {
        match &self.state {
            State::Plain(output)
            | State::Gzip { output, .. }
            | State::Padding(output)
            | State::Deflate(output) => output.bytes.capacity(),
            State::Member(member) => member.get_ref().bytes.capacity(),
            State::Failed => 0,
        }
    }

    /// Decodes the next bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), DecodeError> {
        // Members without content and padding cost no room, only time.
        self.read = self.read.saturating_add(bytes.len());
        if self.read > self.limit.saturating_mul(2).saturating_add(1 << 16) {
            return Err(DecodeError::TooLarge);
        }
        while !bytes.is_empty() {
            let state = std::mem::replace(&mut self.state, State::Failed);
            (self.state, bytes) = state.push(bytes)?;
        }
        Ok(())
    }

    /// The whole body, decoded.
    pub(super) fn finish(self) -> Result<Bytes, DecodeError> {
        let bytes = self.state.finish(self.limit)?;
        if self.inner.is_empty() {
            return Ok(bytes);
        }
        let mut inner = Self::of(self.inner, self.limit, None);
        inner.push(&bytes)?;
        inner.finish()
    }

    /// What was decoded of a body that goes no further.
    pub(super) fn into_partial(self) -> Bytes {
        match self.state {
            State::Plain(output) | State::Gzip { output, .. } | State::Padding(output) => {
                output.bytes.freeze()
            }
            State::Member(member) => member.get_ref().bytes.clone().freeze(),
            State::Deflate(_) | State::Failed => Bytes::new(),
        }
    }
}

impl State {
    /// Returns what has not been read yet.
    fn push(self, bytes: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        match self {
            Self::Plain(mut output) => {
                output.put(bytes)?;
                Ok((Self::Plain(output), &[]))
            }
            Self::Deflate(mut input) => {
                input.put(bytes)?;
                Ok((Self::Deflate(input), &[]))
            }
            Self::Padding(output) => Ok((Self::Padding(output), &[])),
            Self::Gzip { output, mut begin, is_first } => {
                let (head, rest) = bytes.split_at(bytes.len().min(GZIP_MAGIC.len() - begin.len()));
                begin.extend_from_slice(head);
                if GZIP_MAGIC == *begin {
                    let mut member = Box::new(GzDecoder::new(output));
                    // Two bytes of a header decode to nothing.
                    member.write_all(&begin).map_err(|error| decode_error(&error))?;
                    Ok((Self::Member(member), rest))
                } else if GZIP_MAGIC.starts_with(&begin) {
                    Ok((Self::Gzip { output, begin, is_first }, rest))
                } else if is_first {
                    let mut output = output;
                    output.put(&begin)?;
                    Ok((Self::Plain(output), rest))
                } else {
                    Ok((Self::Padding(output), &[]))
                }
            }
            Self::Member(mut member) => match member.write(bytes) {
                Ok(0) => {
                    let output = member.finish().map_err(|error| decode_error(&error))?;
                    Ok((Self::Gzip { output, begin: Vec::new(), is_first: false }, bytes))
                }
                Ok(read) => Ok((Self::Member(member), &bytes[read..])),
                Err(error) => Err(decode_error(&error)),
            },
            Self::Failed => Err(DecodeError::Corrupt),
        }
    }

    fn finish(self, limit: usize) -> Result<Bytes, DecodeError> {
        match self {
            Self::Plain(output) | Self::Padding(output) => Ok(output.bytes.freeze()),
            Self::Gzip { mut output, begin, is_first } => {
                if is_first {
                    output.put(&begin)?;
                }
                Ok(output.bytes.freeze())
            }
            Self::Member(member) => {
                member.finish().map(|output| output.bytes.freeze()).map_err(|error| decode_error(&error))
            }
            Self::Deflate(input) => inflated(input.bytes.freeze(), limit),
            Self::Failed => Err(DecodeError::Corrupt),
        }
    }
}

/// Content-Encoding's `deflate` is zlib's form (RFC 9110, section 8.4.1.2); some servers send
/// it raw.
fn inflated(input: Bytes, limit: usize) -> Result<Bytes, DecodeError> {
    let is_zlib = matches!(input[..], [cmf, flags, ..]
        if cmf & 0x0f == 8 && (u16::from(cmf) << 8 | u16::from(flags)) % 31 == 0);
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let mut output = Vec::new();
    let whole = if is_zlib {
        ZlibDecoder::new(&input[..]).take(most).read_to_end(&mut output).is_ok()
    } else {
        let mut decoder = DeflateDecoder::new(&input[..]).take(most);
        let is_ok = decoder.read_to_end(&mut output).is_ok();
        is_ok && (output.len() > limit || decoder.get_ref().total_in() == input.len() as u64)
    };
    match whole {
        true if output.len() > limit => Err(DecodeError::TooLarge),
        true => Ok(output.into()),
        false if is_zlib => Err(DecodeError::Corrupt),
        false if input.len() > limit => Err(DecodeError::TooLarge),
        false => Ok(input),
    }
}

/// A buffer that takes no more than a limit.
#[derive(Debug)]
struct Limited {
    bytes: BytesMut,
    limit: usize,
}

impl Limited {
    fn put(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        if bytes.len() > self.limit - self.bytes.len() {
            return Err(DecodeError::TooLarge);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.put(bytes).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn decode_error(error: &io::Error) -> DecodeError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => DecodeError::TooLarge,
        _ => DecodeError::Corrupt,
    }
}

/// The codings that can be undone, in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Vec<Coding> {
    let lines = headers.get_all(header::CONTENT_ENCODING).into_iter().filter_map(|line| line.to_str().ok());
    let codings = lines.flat_map(|line| line.split(',')).filter_map(|token| {
        match token.trim_matches(|c: char| c.is_whitespace() || c == '"').to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" | "x-deflate" => Some(Coding::Deflate),
            _ => None,
        }
    });
    codings.take(MAX_CODINGS).collect()
}

#[cfg(test)]
mod tests;
