//! Kinetica's records in Avro binary encoding, as far as an adapter meets them.
//!
//! A record is written as the JSON that the same server would send, so that what is
//! read from it afterwards can't depend on the encoding. The reader is total and
//! strict: a length that the bytes can't hold, a number that its type can't hold and
//! anything left over make no record. It allocates nothing on the word of a length:
//! the JSON is at most six times as long as the bytes, since each becomes one
//! code point, of six characters where it has to be escaped.
//!
//! Follows the Avro 1.11 specification, "Binary Encoding".

use serde::Serialize;

/// The fields of a record, in order.
pub(super) type Schema = &'static [(&'static str, Kind)];

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text,
    Boolean,
    Int,
    Bytes,
    /// Of text to text.
    Map,
}

/// Around every response: status, message, the type of the record, and the record in
/// one of two forms.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrapper<'a> {
    pub(super) status: &'a str,
    pub(super) message: &'a str,
    pub(super) data: &'a [u8],
}

impl<'a> Wrapper<'a> {
    /// `None` where the bytes are anything but one wrapper.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let status = reader.text()?;
        let message = reader.text()?;
        let _data_type = reader.text()?;
        let data = reader.bytes()?;
        let _data_str = reader.text()?;
        reader.0.is_empty().then_some(Self { status, message, data })
    }
}

/// The record as JSON, in the order of its schema and under its names. Bytes are one
/// code point each, as in the server's own JSON; a text that is not UTF-8 is null.
/// `None` where the bytes are anything but one such record.
pub(super) fn to_json(schema: Schema, bytes: &[u8]) -> Option<String> {
    let mut reader = Reader(bytes);
    let mut json = Json::default();
    json.0.push(b'{');
    for (name, kind) in schema {
        json.name(name);
        match kind {
            Kind::Text => json.text(reader.bytes()?),
            Kind::Boolean => json.value(&reader.boolean()?),
            Kind::Int => json.value(&i32::try_from(reader.long()?).ok()?),
            Kind::Bytes => {
                let latin1: String = reader.bytes()?.iter().copied().map(char::from).collect();
                json.value(&latin1);
            }
            Kind::Map => {
                json.0.push(b'{');
                reader.map(|key, value| {
                    json.name(&String::from_utf8_lossy(key));
                    json.text(value);
                })?;
                json.0.push(b'}');
            }
        }
    }
    json.0.push(b'}');
    reader.0.is_empty().then(|| String::from_utf8_lossy(&json.0).into_owned())
}

/// JSON as it is written.
#[derive(Default)]
struct Json(Vec<u8>);

impl Json {
    fn name(&mut self, name: &str) {
        if self.0.last() != Some(&b'{') {
            self.0.push(b',');
        }
        self.value(&name);
        self.0.push(b':');
    }

    fn text(&mut self, bytes: &[u8]) {
        self.value(&std::str::from_utf8(bytes).ok());
    }

    fn value(&mut self, value: &impl Serialize) {
        serde_json::to_writer(&mut self.0, value).expect("a text or a number is JSON, and a Vec takes it");
    }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// A zig-zag number of at most 64 bits: seven bits a byte, the lowest first.
    fn long(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                let magnitude = (number >> 1).cast_signed();
                return Some(if number & 1 == 0 { magnitude } else { !magnitude });
            }
        }
        None
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.long()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn boolean(&mut self) -> Option<bool> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        match byte {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    /// Blocks of entries up to an empty one. A negative count has the block's length
    /// in bytes behind it. Each entry takes at least two bytes, so that no count can
    /// make this run on for longer than the bytes do.
    fn map(&mut self, mut entry: impl FnMut(&'a [u8], &'a [u8])) -> Option<()> {
        loop {
            let count = self.long()?;
            if count == 0 {
                return Some(());
            }
            let rest = if count < 0 {
                let length = usize::try_from(self.long()?).ok()?;
                Some(self.0.len().checked_sub(length)?)
            } else {
                None
            };
            for _ in 0..count.unsigned_abs() {
                entry(self.bytes()?, self.bytes()?);
            }
            if rest.is_some_and(|rest| rest != self.0.len()) {
                return None;
            }
        }
    }
}

/// A map of texts as a request's last field.
pub(super) fn put_options<'a>(out: &mut Vec<u8>, options: impl ExactSizeIterator<Item = (&'a str, &'a str)>) {
    if options.len() > 0 {
        put_length(out, options.len());
        for text in options.flat_map(|(key, value)| [key, value]) {
            put_length(out, text.len());
            out.extend_from_slice(text.as_bytes());
        }
    }
    out.push(0);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_long(out, i64::try_from(length).expect("no text is longer than half of the address space"));
}

/// A number, zig-zag.
pub(super) fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut left = (number << 1 ^ number >> 63).cast_unsigned();
    while left >= 0x80 {
        out.push(left.to_le_bytes()[0] | 0x80);
        left >>= 7;
    }
    out.push(left.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RECORD: Schema = &[
        ("text", Kind::Text),
        ("flag", Kind::Boolean),
        ("number", Kind::Int),
        ("bytes", Kind::Bytes),
        ("map", Kind::Map),
    ];

    fn long(bytes: &[u8]) -> Option<i64> {
        let mut reader = Reader(bytes);
        reader.long().filter(|_| reader.0.is_empty())
    }

    fn map(bytes: &[u8]) -> Option<String> {
        to_json(&[("m", Kind::Map)], bytes)
    }

    #[test]
    fn record_becomes_the_servers_json() {
        let record = b"\x06a\"\x0a\x01\xc8\x01\x06\x00\xff\x1f\x04\x02k\x04\xc3\xa4\x02l\x00\x00";
        let json = to_json(RECORD, record).unwrap();
        assert_eq!(
            json,
            r#"{"text":"a\"\n","flag":true,"number":100,"bytes":"\u0000ÿ\u001f","map":{"k":"ä","l":""}}"#
        );
    }

    #[test]
    fn text_that_is_not_utf8_is_null() {
        assert_eq!(to_json(&[("t", Kind::Text)], b"\x02\xff").unwrap(), r#"{"t":null}"#);
        assert_eq!(map(b"\x02\x02\xff\x02\xff\x00").unwrap(), "{\"m\":{\"\u{fffd}\":null}}");
    }

    #[test]
    fn number_has_at_most_64_bits() {
        assert_eq!(long(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(i64::MAX));
        assert_eq!(long(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]), Some(i64::MIN));
        assert_eq!(long(&[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]), None);
        assert_eq!(long(&[0x80; 11]), None);
        assert_eq!(long(&[0x80]), None);
        assert_eq!(long(&[]), None);
        let int = |number| {
            let mut bytes = Vec::new();
            put_long(&mut bytes, number);
            to_json(&[("n", Kind::Int)], &bytes)
        };
        assert_eq!(int(i32::MIN.into()).unwrap(), format!("{{\"n\":{}}}", i32::MIN));
        assert_eq!(int(i64::from(i32::MAX) + 1), None);
    }

    #[test]
    fn length_that_the_bytes_cannot_hold_is_refused_at_once() {
        for length in [1, 2, i64::MAX, i64::MIN, -1, 1 << 40] {
            let mut bytes = Vec::new();
            put_long(&mut bytes, length);
            for kind in [Kind::Text, Kind::Bytes, Kind::Map] {
                let schema = match kind {
                    Kind::Text => &[("x", Kind::Text)],
                    Kind::Bytes => &[("x", Kind::Bytes)],
                    _ => &[("x", Kind::Map)] as Schema,
                };
                assert_eq!(to_json(schema, &bytes), None, "{kind:?} of {length}");
            }
            assert_eq!(Wrapper::read(&bytes), None);
        }
    }

    #[test]
    fn map_comes_in_blocks_with_or_without_their_length() {
        let wanted = Some(r#"{"m":{"k":"v","l":"w"}}"#.to_owned());
        assert_eq!(map(b"\x04\x02k\x02v\x02l\x02w\x00"), wanted);
        assert_eq!(map(b"\x02\x02k\x02v\x02\x02l\x02w\x00"), wanted);
        assert_eq!(map(b"\x03\x10\x02k\x02v\x02l\x02w\x00"), wanted);
        // A length that is not the block's, or that no bytes have.
        assert_eq!(map(b"\x03\x0e\x02k\x02v\x02l\x02w\x00"), None);
        assert_eq!(map(b"\x03\x7e\x02k\x02v\x02l\x02w\x00"), None);
        assert_eq!(map(b"\x03\x01\x02k\x02v\x02l\x02w\x00"), None);
        // The end is missing, or something follows it.
        assert_eq!(map(b"\x02\x02k\x02v"), None);
        assert_eq!(map(b"\x02\x02k\x02v\x00\x00"), None);
    }

    #[test]
    fn boolean_is_nought_or_one() {
        let read = |byte| to_json(&[("b", Kind::Boolean)], &[byte]);
        assert_eq!(read(0).as_deref(), Some(r#"{"b":false}"#));
        assert_eq!(read(2), None);
    }

    proptest! {
        #[test]
        fn every_number_is_read_as_it_was_written(number: i64) {
            let mut bytes = Vec::new();
            put_long(&mut bytes, number);
            prop_assert_eq!(long(&bytes), Some(number));
        }

        #[test]
        fn any_bytes_give_bounded_json_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Wrapper::read(&bytes);
            for schema in [RECORD, &RECORD[4..], &RECORD[3..4], &RECORD[..1]] {
                if let Some(json) = to_json(schema, &bytes) {
                    serde_json::from_str::<&serde_json::value::RawValue>(&json).unwrap();
                    prop_assert!(json.len() <= 6 * bytes.len() + 64);
                }
            }
        }
    }
}
