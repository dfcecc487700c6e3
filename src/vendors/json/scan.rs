//! Finds the members of an object and the values of an array in one pass over their text,
//! without decoding anything.
//!
//! Accepts exactly the JSON of RFC 8259. An unpaired surrogate escape counts as a part of its
//! text. Does not recurse with its input.

/// Hands each member of the object that `text` is to `member`: the name with its quotes, and
/// the value. `None` where the text is anything but one object, which may show after some
/// members.
pub(super) fn members<'a>(text: &'a str, mut member: impl FnMut(&'a str, &'a str)) -> Option<()> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    scanner.expect(b'{')?;
    scanner.space();
    if !scanner.take(b'}') {
        loop {
            let name = scanner.part(Scanner::string)?;
            scanner.colon()?;
            member(name, scanner.part(Scanner::value)?);
            if !scanner.goes_on(b'}')? {
                break;
            }
        }
    }
    scanner.end()
}

/// Hands each value of the array that `text` is to `item`. `None` where the text is anything
/// but one array, which may show after some values.
pub(super) fn items<'a>(text: &'a str, mut item: impl FnMut(&'a str)) -> Option<()> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    scanner.expect(b'[')?;
    scanner.space();
    if !scanner.take(b']') {
        loop {
            item(scanner.part(Scanner::value)?);
            if !scanner.goes_on(b']')? {
                break;
            }
        }
    }
    scanner.end()
}

/// The one value that `text` is, without the white space around it.
pub(super) fn value(text: &str) -> Option<&str> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    let value = scanner.part(Scanner::value)?;
    scanner.end()?;
    Some(value)
}

/// A place in a text. What is skipped is at that place; where it is not, the place no longer
/// matters.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.take(byte).then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn colon(&mut self) -> Option<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Some(())
    }

    /// Whether a comma follows, and not the `close` of the array or object.
    fn goes_on(&mut self, close: u8) -> Option<bool> {
        self.space();
        if self.take(b',') {
            self.space();
            return Some(true);
        }
        self.expect(close)?;
        Some(false)
    }

    fn end(&mut self) -> Option<()> {
        self.space();
        (self.at == self.text.len()).then_some(())
    }

    /// The text that `skip` skips.
    fn part(&mut self, skip: impl FnOnce(&mut Self) -> Option<()>) -> Option<&'a str> {
        let begin = self.at;
        skip(self)?;
        self.text.get(begin..self.at)
    }

    /// A value of any depth.
    fn value(&mut self) -> Option<()> {
        // The brackets that are still to come.
        let mut closes = Vec::new();
        loop {
            match self.peek()? {
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'n' => self.word("null")?,
                open @ (b'{' | b'[') => {
                    self.at += 1;
                    self.space();
                    let close = if open == b'{' { b'}' } else { b']' };
                    if !self.take(close) {
                        closes.push(close);
                        if open == b'{' {
                            self.string()?;
                            self.colon()?;
                        }
                        continue;
                    }
                }
                _ => return None,
            }
            // What follows the value.
            loop {
                let Some(close) = closes.last().copied() else { return Some(()) };
                if self.goes_on(close)? {
                    if close == b'}' {
                        self.string()?;
                        self.colon()?;
                    }
                    break;
                }
                closes.pop();
            }
        }
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let rest = self.text.as_bytes().get(self.at..)?;
        self.at += word.len();
        rest.starts_with(word.as_bytes()).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _ = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Some(())
    }

    /// One or more.
    fn digits(&mut self) -> Option<()> {
        let begin = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        (self.at > begin).then_some(())
    }

    /// A text with its quotes.
    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += plain_length(self.text.as_bytes().get(self.at..)?);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.escape()?,
                // A control character.
                _ => return None,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let [_, escaped, digits @ ..] = self.text.as_bytes().get(self.at..)? else { return None };
        self.at += match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 2,
            b'u' if digits.get(..4)?.iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return None,
        };
        Some(())
    }
}

/// How many bytes come before the first quote, backslash or control character.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    // The high bit of each byte that is zero. Bytes after the first such may be marked, too.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut plain = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word & (ONES << 7);
        let special = quotes | backslashes | controls;
        if special != 0 {
            return plain + special.trailing_zeros() as usize / 8;
        }
        plain += 8;
    }
    let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
    plain + rest.iter().position(is_special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn found_members(text: &str) -> Option<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        members(text, |name, value| found.push((name, value)))?;
        Some(found)
    }

    fn found_items(text: &str) -> Option<Vec<&str>> {
        let mut found = Vec::new();
        items(text, |item| found.push(item))?;
        Some(found)
    }

    /// What serde_json finds. It is as lenient about surrogates only in values.
    fn expected_items(text: &str) -> Option<Vec<&str>> {
        let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
        Some(items.into_iter().map(RawValue::get).collect())
    }

    /// Whether it is an array or object for both, with the same parts.
    fn check(text: &str) -> Result<(), TestCaseError> {
        prop_assert_eq!(found_items(text), expected_items(text), "{}", text);
        let is_object = text.trim_start().starts_with('{');
        let whole = serde_json::from_str::<&RawValue>(text);
        prop_assert_eq!(value(text), whole.as_ref().ok().map(|value| value.get()), "{}", text);
        prop_assert_eq!(found_members(text).is_some(), is_object && whole.is_ok(), "{}", text);
        // Names and values are those of the text, in their order.
        let mut rest = text;
        for (name, value) in found_members(text).unwrap_or_default() {
            for part in [name, ":", value] {
                let at = rest.find(part);
                let before = at.map(|at| rest[..at].trim_matches([' ', '\n', '\t', '\r', ',', '{']));
                prop_assert_eq!(before, Some(""), "{} in {}", part, text);
                rest = &rest[at.unwrap_or_default() + part.len()..];
            }
            prop_assert!(serde_json::from_str::<&RawValue>(value).is_ok());
        }
        Ok(())
    }

    #[test]
    fn text_is_json_exactly_where_serde_json_reads_it() {
        for value in [
            "0",
            "-0",
            "-",
            "00",
            "01",
            "1.",
            ".5",
            "1.5",
            "1e5",
            "1E+5",
            "1e-5",
            "1e",
            "1e+",
            "+1",
            "1.5e3.2",
            "true",
            "tru",
            "trueish",
            "false",
            "null",
            "nul",
            "NaN",
            "Infinity",
            "'a'",
            "\"",
            "\"a",
            "\"a\"",
            "\"\\\"\"",
            "\"\\\\\"",
            "\"\\/\\b\\f\\n\\r\\t\"",
            "\"\\x\"",
            "\"\\\"",
            "\"\\u12\"",
            "\"\\u12G4\"",
            "\"\\u0041\"",
            "\"\\ud800\"",
            "\"\u{1f}\"",
            "\"\u{7f}\"",
            "\"é\u{10ffff}\"",
            "\"12345678\u{0}\"",
            "\"1234567\\n\"",
            "\"12345678\"",
            "[]",
            "[ ]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1",
            "]",
            "{}",
            "{ }",
            "{\"a\":1,}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\" : 1 , \"b\":[{}, []]}",
            "{\"a\":1]",
            "[1}",
            "\u{feff}1",
            "1\u{a0}",
            "1 1",
            "",
        ] {
            for text in [
                value.to_owned(),
                format!("[{value}]"),
                format!(" [ {value} , {value}]\r\n"),
                format!("{{\"n\":{value}}}"),
                format!("{{\"n\" :\t{value} ,\n\"m\":{value}}} "),
                format!("[[{value}]]"),
                format!("[{{\"n\":{value}}},{value}]"),
            ] {
                check(&text).unwrap();
            }
        }
    }

    #[test]
    fn value_of_any_depth_is_one_value() {
        let deep = format!("{}1{}", "[{\"a\":".repeat(100_000), "}]".repeat(100_000));
        assert_eq!(found_items(&format!("[{deep},2]")), Some(vec![&*deep, "2"]));
        assert_eq!(found_items(&format!("[{}", &deep[1..deep.len() - 1])), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_by_serde_json(text in "[\\[\\]{}\":,0-9eE+.\\\\unltrfas \n\u{1}é-]{0,40}") {
            check(&text)?;
            check(&format!("[{text}]"))?;
            check(&format!("{{\"a\":{text}}}"))?;
            check(&format!("[\"{text}\"]"))?;
        }

        #[test]
        fn any_value_is_found_whole(values in prop::collection::vec("[ -~é\n]{0,40}", 0..6)) {
            let text = serde_json::to_string(&values).unwrap();
            let parts: Vec<String> = values.iter().map(|value| serde_json::to_string(value).unwrap()).collect();
            prop_assert_eq!(found_items(&text), Some(parts.iter().map(String::as_str).collect()));
            let text = serde_json::to_string_pretty(&serde_json::json!({ "a": values, "b": { "c": values } })).unwrap();
            check(&text)?;
        }
    }
}
