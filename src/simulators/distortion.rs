//! Effects on the bytes of a response: how each changes what is sent.

use std::time::Duration;

use super::{
    faults::Effect,
    raw_response::{Delivery, RawResponse},
};

/// Turns a response into the bytes that are sent in its place.
pub type Distortion = Box<dyn Fn(&RawResponse) -> Delivery + Send + Sync>;

impl Effect {
    /// How it changes the bytes of a response; `None` if it changes the content.
    pub fn distortion(&self) -> Option<Distortion> {
        let whole = |it: &RawResponse| Delivery::of(it.whole());
        let change: Distortion = match self.clone() {
            Self::Reset => Box::new(|_| Delivery::of([]).then_reset()),
            Self::Truncate(bytes) => Box::new(move |it| {
                let body = it.body.get(..bytes).unwrap_or(&it.body);
                let length = format!("content-length: {}\r\n", it.body.len());
                Delivery::of(it.with_body(&length, body)).then_close()
            }),
            Self::ResetAt(bytes) => Box::new(move |it| whole(it).first(bytes).then_reset()),
            Self::CloseAt(bytes) => Box::new(move |it| whole(it).first(bytes).then_close()),
            Self::StallAt(bytes) => Box::new(move |it| whole(it).first(bytes).then_stall()),
            Self::Throttle { bytes, pause } => Box::new(move |it| whole(it).paced(bytes.get(), pause)),
            Self::SlowHead(pause) => Box::new(move |it| slow_head(it, pause)),
            Self::CloseAfterAnswer => Box::new(move |it| whole(it).then_close()),
            Self::CloseUnderRequest => Box::new(|_| Delivery::of([]).then_close()),
            Self::Twice => Box::new(|it| Delivery::of([it.whole(), it.whole()].concat())),
            Self::Extra(bytes) => Box::new(move |it| Delivery::of([&it.whole(), bytes.as_bytes()].concat())),
            Self::EndlessBody => {
                Box::new(|it| Delivery::of(it.head("connection: close\r\n")).then_repeat([b' '; 0x1000]))
            }
            Self::EndlessChunks => Box::new(|it| {
                let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
                Delivery::of(it.head("transfer-encoding: chunked\r\n")).then_repeat(chunk)
            }),
            Self::ContentLength(length) => Box::new(move |it| Delivery::of(it.with_length(&length))),
            Self::WrongLength(more) => {
                Box::new(move |it| Delivery::of(it.with_length(it.body.len().saturating_add_signed(more))))
            }
            Self::GzipBomb(bytes) => Box::new(move |it| {
                let bomb = gzip_of_spaces(bytes);
                let lines = format!("content-encoding: gzip\r\ncontent-length: {}\r\n", bomb.len());
                Delivery::of(it.with_body(&lines, bomb))
            }),
            Self::ManyHeaders(number) => Box::new(move |it| {
                let lines = "x: BODY\r\n".repeat(number) + &length(it);
                Delivery::of(it.with_body(&lines, &it.body))
            }),
            Self::HugeHeader(bytes) => Box::new(move |it| {
                let lines = format!("x: {}\r\n{}", "x".repeat(bytes), length(it));
                Delivery::of(it.with_body(&lines, &it.body))
            }),
            Self::EndlessHead => {
                Box::new(|it| Delivery::of(format!("HTTP/1.1 {}\r\n", it.status)).then_repeat("x: BODY\r\n"))
            }
            Self::Http10 => Box::new(|it| {
                let response = it.with_body("", &it.body);
                Delivery::of([b"HTTP/1.0", response.get(8..).unwrap_or_default()].concat()).then_close()
            }),
            Self::Raw(bytes) => Box::new(move |_| Delivery::of(bytes.as_bytes()).then_close()),
            Self::Status(_)
            | Self::Delay(_)
            | Self::Jitter(_)
            | Self::Hang
            | Self::Empty204
            | Self::Html(_)
            | Self::Redirect(_)
            | Self::WrongContentType(_)
            | Self::HugeBody(_)
            | Self::Refuse(_)
            | Self::GraphQlError(_)
            | Self::IgnoreRange
            | Self::AnswerFor(_)
            | Self::Elements(_)
            | Self::HoldResponse
            | Self::Json(_) => return None,
        };
        Some(change)
    }
}

fn length(response: &RawResponse) -> String {
    format!("content-length: {}\r\n", response.body.len())
}

fn slow_head(response: &RawResponse, pause: Duration) -> Delivery {
    Delivery::of(response.whole()).paced(1, pause).only_in_the_head()
}

/// A gzip member of about `length` spaces, without its end: one block of a space
/// and its repeats, 258 at a time, in the fixed codes of RFC 1951, 3.2.6.
fn gzip_of_spaces(length: usize) -> Vec<u8> {
    // High bit first: the repeat is code 285 (11000101) and distance 1 (00000).
    const REPEAT: u32 = 0b0_0000_1010_0011;
    const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut bytes = HEAD.to_vec();
    // Three bits of a block's head, not the last; then a space, 0x30 + 0x20.
    let (mut pending, mut count) = (0b010_u32 | (u32::from(0x50_u8.reverse_bits()) << 3), 11);
    for _ in 0..length.div_ceil(258) {
        pending |= REPEAT << count;
        count += 13;
        while count >= 8 {
            bytes.push(pending.to_le_bytes()[0]);
            pending >>= 8;
            count -= 8;
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
