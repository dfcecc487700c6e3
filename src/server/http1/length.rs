//! Whether a head has a `Content-Length` that can't be counted: hyper's error for it is that of a
//! head that is too long.

/// Bytes of a line that are looked at.
const LOOKED_AT: usize = 64;

const NAME: &[u8] = b"content-length:";

/// Reads heads as they arrive.
#[derive(Debug)]
pub(super) struct Lengths {
    line: [u8; LOOKED_AT],
    filled: usize,
    is_endless: bool,
}

impl Lengths {
    pub(super) const fn new() -> Self {
        Self { line: [0; LOOKED_AT], filled: 0, is_endless: false }
    }

    /// Adds bytes of a head.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.is_endless |= is_endless(&self.line[..self.filled]);
                self.filled = 0;
            } else if let Some(next) = self.line.get_mut(self.filled) {
                *next = *byte;
                self.filled += 1;
            }
        }
    }

    /// Whether one of the lengths can't be counted.
    pub(super) fn is_endless(&self) -> bool {
        self.is_endless
    }
}

fn is_endless(line: &[u8]) -> bool {
    let Some((name, value)) = line.split_at_checked(NAME.len()) else { return false };
    let value = value.trim_ascii();
    if !name.eq_ignore_ascii_case(NAME) || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let length = std::str::from_utf8(value).ok().and_then(|value| value.parse::<u64>().ok());
    // hyper has another meaning for the last two.
    length.is_none_or(|length| length > u64::MAX - 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_that_can_not_be_counted_is_found_however_the_head_is_split() {
        let head = |length: &str| {
            format!("POST / HTTP/1.1\r\nX: {}\r\nCONTENT-length: {length}\r\n\r\n", "x".repeat(99))
        };
        for (length, expected) in [
            ("18446744073709551615", true),
            ("18446744073709551614 ", true),
            ("99999999999999999999999", true),
            ("18446744073709551613", false),
            ("0", false),
            ("", false),
            ("-1", false),
        ] {
            for piece in [1, 7, 1000] {
                let mut lengths = Lengths::new();
                head(length).as_bytes().chunks(piece).for_each(|piece| lengths.add(piece));
                assert_eq!(lengths.is_endless(), expected, "{length} in pieces of {piece}");
            }
        }
    }
}
