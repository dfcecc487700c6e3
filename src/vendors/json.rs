//! Reading JSON that others wrote: without loss, and without one odd value
//! spoiling the rest.
//!
//! A value is found without being decoded, so its exact bytes and numbers of any
//! size survive. Readers here are lenient and total, and none of them recurses
//! with its input, which a vendor could nest as deep as the size cap allows.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    fmt,
};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::job::{JobError, Progress};

mod nameable;

/// A value as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// The text that it is in JSON.
    pub(super) fn get(self) -> &'a str {
        self.0
    }

    /// `None` where the bytes are anything but one JSON value.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice::<&RawValue>(bytes).ok().map(Self::from)
    }

    #[cfg(test)]
    pub(super) fn new(text: &'a str) -> Self {
        Self(text)
    }
}

impl<'a> From<&'a RawValue> for Value<'a> {
    fn from(value: &'a RawValue) -> Self {
        Self(value.get())
    }
}

/// An object's members in document order.
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'a> Object<'a> {
    /// `None` where the bytes are anything but one JSON object.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The same with the value as a whole.
    pub(super) fn parse_whole(bytes: &'a [u8]) -> Option<(Value<'a>, Self)> {
        let text = std::str::from_utf8(bytes).ok()?;
        let members = serde_json::from_str(text).ok()?;
        Some((Value(text.trim_ascii()), members))
    }

    /// `None` where the value is anything but an object.
    pub(super) fn of(value: Value<'a>) -> Option<Self> {
        if is_object(value) { serde_json::from_str(value.get()).ok() } else { None }
    }

    /// The same without members whose names no text can hold, such as a lone surrogate, for
    /// readers to whom the others matter.
    pub(super) fn of_nameable(value: Value<'a>) -> Option<Self> {
        nameable::members(value).map(Self)
    }

    /// `None` where a name stands twice, for readers to whom nothing says which
    /// of the two is right.
    pub(super) fn unambiguous(self) -> Option<Self> {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.is_sorted_by(|one, other| one != other).then_some(self)
    }

    /// The member's value; null counts as absent. Of a repeated name the last
    /// one counts, as in `JSON.parse`.
    pub(super) fn get(&self, name: &str) -> Option<Value<'a>> {
        let (_, value) = self.0.iter().rfind(|(key, _)| key == name)?;
        (!is_null(*value)).then_some(*value)
    }

    /// Like [`get`](Self::get), where null does not count as absent.
    pub(super) fn find(&self, name: &str) -> Option<Value<'a>> {
        self.0.iter().rfind(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The member's value where it is a text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        text(self.get(name)?)
    }

    /// The members in document order, repeated names included.
    pub(super) fn members(&self) -> impl Iterator<Item = (&str, Value<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }
}

/// Members by their names, and the names that stand twice with different values.
pub(super) fn by_name<'n, 'a>(
    members: Vec<(&'n str, Value<'a>)>,
) -> (HashMap<&'n str, Value<'a>>, HashSet<&'n str>) {
    let (mut values, mut contradicted) = (HashMap::with_capacity(members.len()), HashSet::new());
    for (name, value) in members {
        let before: Option<Value<'_>> = values.insert(name, value);
        if before.is_some_and(|before| before.get() != value.get()) {
            contradicted.insert(name);
        }
    }
    (values, contradicted)
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some((Name(name), value)) = map.next_entry::<_, &RawValue>()? {
                    members.push((name, value.into()));
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// What an object has under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// Of a repeated name the last one.
    pub(super) value: Option<Value<'a>>,
    pub(super) is_repeated: bool,
}

/// Looks for one member without keeping the others. `None` where the value is anything but
/// an object.
pub(super) fn member<'a>(object: Value<'a>, name: &str) -> Option<Member<'a>> {
    struct Named<'n>(&'n str);

    impl<'de> DeserializeSeed<'de> for Named<'_> {
        type Value = Member<'de>;

        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member<'de>, D::Error> {
            deserializer.deserialize_map(self)
        }
    }

    impl<'de> Visitor<'de> for Named<'_> {
        type Value = Member<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member<'de>, A::Error> {
            let mut found = Member { value: None, is_repeated: false };
            while let Some((Name(name), value)) = map.next_entry::<_, &RawValue>()? {
                if name == self.0 {
                    found = Member { value: Some(value.into()), is_repeated: found.value.is_some() };
                }
            }
            Ok(found)
        }
    }

    if !is_object(object) {
        return None;
    }
    Named(name).deserialize(&mut serde_json::Deserializer::from_str(object.get())).ok()
}

/// A member's name, copied only where it is written with escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// Whether the value is null.
pub(super) fn is_null(value: Value<'_>) -> bool {
    value.get() == "null"
}

/// Whether the value is an object.
pub(super) fn is_object(value: Value<'_>) -> bool {
    value.get().starts_with('{')
}

/// The text, unescaped. `None` for any other type, and for one with a lone
/// surrogate, which no UTF-8 can hold.
pub(super) fn text(value: Value<'_>) -> Option<String> {
    unescaped(value).map(Cow::into_owned)
}

/// The same, copied only where it is written with escapes.
pub(super) fn unescaped(value: Value<'_>) -> Option<Cow<'_, str>> {
    let text = value.get().strip_prefix('"')?.strip_suffix('"')?;
    // Most have no escapes.
    if text.contains('\\') {
        serde_json::from_str(value.get()).ok().map(Cow::Owned)
    } else {
        Some(text.into())
    }
}

/// A text, or anything else as it is written.
pub(super) fn plain(value: Value<'_>) -> String {
    text(value).unwrap_or_else(|| value.get().to_owned())
}

/// An identifier that may be written as a text or as an integer of any size.
pub(super) fn identifier(value: Value<'_>) -> Option<String> {
    identifier_of(value).map(Cow::into_owned)
}

/// The same, copied only where it is written with escapes.
pub(super) fn identifier_of(value: Value<'_>) -> Option<Cow<'_, str>> {
    let digits = value.get().strip_prefix('-').unwrap_or(value.get());
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(value.get().into());
    }
    unescaped(value)
}

/// An integer, or a text that is one.
pub(super) fn integer(value: Value<'_>) -> Option<i64> {
    identifier(value)?.parse().ok()
}

/// A percentage as progress; one that is not within 0 to 100 counts as absent.
pub(super) fn percent(value: Value<'_>) -> Option<Progress> {
    let percent = serde_json::from_str(value.get()).ok().filter(|percent| (0.0..=100.0).contains(percent))?;
    Some(Progress { percent: Some(percent), ..Progress::default() })
}

/// The values of an array in order.
pub(super) fn list(value: Value<'_>) -> Option<Vec<Value<'_>>> {
    // An error of the parser costs more than all the rest of a small value.
    if !value.get().starts_with('[') {
        return None;
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get()).ok()?;
    Some(items.into_iter().map(Value::from).collect())
}

/// The values of an array in order, or of an object in document order: PHP
/// writes a list with gaps as an object. Of anything else, nothing.
pub(super) fn elements(value: Value<'_>) -> Vec<Value<'_>> {
    match Object::of(value) {
        Some(Object(members)) => members.into_iter().map(|(_, value)| value).collect(),
        None => list(value).unwrap_or_default(),
    }
}

/// The value as a part of `body`, which it was read from, uncopied.
pub(super) fn part(body: &Bytes, value: Value<'_>) -> Bytes {
    body.slice_ref(value.get().as_bytes())
}

/// A copy of the exact bytes, so that a small part does not keep a large response
/// in memory.
pub(super) fn bytes(value: Value<'_>) -> Bytes {
    Bytes::copy_from_slice(value.get().as_bytes())
}

/// What a vendor gave as the reason of a failure: its words for people, and the
/// whole of it as details.
pub(super) fn error(value: Value<'_>) -> JobError {
    JobError { message: message(value).unwrap_or_default(), details: bytes(value) }
}

/// The words for people: the value itself where it is a text, else its `message`,
/// which may stand a few wrappers deep.
pub(super) fn message(value: Value<'_>) -> Option<String> {
    fn within(value: Value<'_>, depth: u8) -> Option<String> {
        if let Some(words) = text(value) {
            return (!words.trim().is_empty()).then_some(words);
        }
        let depth = depth.checked_sub(1)?;
        let object = Object::of(value)?;
        ["message", "value", "error"].iter().find_map(|name| within(object.get(name)?, depth))
    }
    within(value, 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(text: &str) -> Value<'_> {
        Value(text)
    }

    #[test]
    fn of_a_repeated_name_the_last_one_counts() {
        let object = Object::parse(br#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(object.get("a").unwrap().get(), "3");
        assert_eq!(object.members().map(|(name, _)| name).collect::<String>(), "aba");
        assert!(object.unambiguous().is_none());
        assert!(Object::parse(br#"{"a": 1, "b": 1}"#).unwrap().unambiguous().is_some());
    }

    #[test]
    fn member_is_found_as_in_the_whole_object() {
        let text = r#" {"a": 1, "b": null, "\u0061": {"x": 3}, "c": "a"} "#;
        let (whole, object) = Object::parse_whole(text.as_bytes()).unwrap();
        assert_eq!(whole.get(), text.trim());
        for name in ["a", "b", "c", "d", "x", ""] {
            let found = member(whole, name).unwrap();
            assert_eq!(found.value, object.find(name), "{name}");
            assert_eq!(found.is_repeated, name == "a", "{name}");
        }
        for text in ["[]", "1", "null", "\"{\"", r#"{"\ud800": 1}"#] {
            assert_eq!(member(raw(text), "a"), None, "{text}");
        }
    }

    #[test]
    fn member_whose_name_no_text_can_hold_is_left_out_alone() {
        let text = r#"{"a": [1], "\ud800": [2], "\u0062\ud83d\ude00": [3]}"#;
        assert!(Object::of(raw(text)).is_none());
        let object = Object::of_nameable(raw(text)).unwrap();
        let members: Vec<_> = object.members().map(|(name, value)| (name, value.get())).collect();
        assert_eq!(members, [("a", "[1]"), ("b😀", "[3]")]);
        assert!(Object::of_nameable(raw("[1]")).is_none());
    }

    #[test]
    fn only_one_whole_object_is_an_object() {
        for text in ["", "null", "[]", "[1]", "\"x\"", "1", "{", "{}{}", "{\"a\":1,}", "{\"a\":\"\u{0}\"}"] {
            assert!(Object::parse(text.as_bytes()).is_none(), "{text}");
        }
        assert!(Object::parse(b"{\"a\":\xff}").is_none());
    }

    #[test]
    fn an_identifier_keeps_all_its_digits() {
        for (text, id) in [
            ("42", Some("42")),
            ("-7", Some("-7")),
            ("\"x1\"", Some("x1")),
            ("123456789012345678901234567890", Some("123456789012345678901234567890")),
            ("1.5", None),
            ("1e3", None),
            ("true", None),
            ("[]", None),
        ] {
            assert_eq!(identifier(raw(text)).as_deref(), id, "{text}");
        }
        assert_eq!(integer(raw("\"12\"")), Some(12));
        assert_eq!(integer(raw("9223372036854775808")), None);
    }

    #[test]
    fn list_may_be_an_object_with_numbers_for_names() {
        let values = |text| elements(raw(text)).iter().map(|value| value.get()).collect::<Vec<_>>().join(" ");
        assert_eq!(values("[1, 2]"), "1 2");
        assert_eq!(values(r#"{"2": 1, "0": 2}"#), "1 2");
        for nothing in ["[]", "{}", "null", "1", "\"x\""] {
            assert_eq!(values(nothing), "", "{nothing}");
        }
    }

    #[test]
    fn words_of_an_error_may_be_wrapped() {
        for (text, words) in [
            (r#""boom""#, Some("boom")),
            (r#"{"name": "Error", "message": "boom"}"#, Some("boom")),
            (r#"{"value": "boom"}"#, Some("boom")),
            (r#"{"value": {"message": "boom"}}"#, Some("boom")),
            (r#"{"message": 1, "error": {"message": "boom"}}"#, Some("boom")),
            (r#"{"message": " "}"#, None),
            ("{}", None),
            ("[\"boom\"]", None),
            (r#""\ud800""#, None),
        ] {
            assert_eq!(message(raw(text)).as_deref(), words, "{text}");
        }
    }

    #[test]
    fn percentage_out_of_range_counts_as_absent() {
        for (json, expected) in [("0", 0.0), ("99.5", 99.5), ("100", 100.0)] {
            assert_eq!(percent(raw(json)).unwrap().percent, Some(expected));
        }
        for json in ["-1", "101", "1e999", "\"50\"", "true", "{}"] {
            assert_eq!(percent(raw(json)), None, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_unescaped_as_by_serde_json(
            text in "([ -~é]|\\\\[\"\\\\/bfnrt]|\\\\u[0-9a-fA-F]{4}|\\\\ud83d\\\\ude00){0,20}",
        ) {
            let quoted = format!("\"{text}\"");
            if let Some(value) = Value::parse(quoted.as_bytes()) {
                prop_assert_eq!(super::text(value), serde_json::from_str(&quoted).ok());
            }
        }
    }

    #[test]
    fn a_value_of_any_depth_is_read_without_recursion() {
        for (open, close) in [("[", "]"), ("{\"value\":", "}"), ("{\"message\":", "}")] {
            let text = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            let value = raw(&text);
            assert_eq!(message(value), None);
            assert_eq!(elements(value).len(), 1);
            assert_eq!(bytes(value), text);
        }
    }
}
