//! Objects with names that no text can hold, such as a lone surrogate.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Value, is_object};

/// The members whose names are texts. `None` where the value is anything but an object.
pub(super) fn members(value: Value<'_>) -> Option<Vec<(Cow<'_, str>, Value<'_>)>> {
    if !is_object(value) {
        return None;
    }
    let members: Nameable<'_> = serde_json::from_str(value.get()).ok()?;
    Some(members.0)
}

/// The members of an object whose names are texts.
struct Nameable<'a>(Vec<(Cow<'a, str>, Value<'a>)>);

impl<'de> Deserialize<'de> for Nameable<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Nameable<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Nameable<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((AnyName(name), value)) = map.next_entry::<_, &RawValue>()? {
                    members.extend(name.map(|name| (name, Value::from(value))));
                }
                Ok(Nameable(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// A member's name, unless no text can hold it.
struct AnyName<'a>(Option<Cow<'a, str>>);

impl<'de> Deserialize<'de> for AnyName<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = AnyName<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_bytes<E: de::Error>(self, name: &'de [u8]) -> Result<AnyName<'de>, E> {
                Ok(AnyName(std::str::from_utf8(name).ok().map(Cow::Borrowed)))
            }

            fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<AnyName<'de>, E> {
                Ok(AnyName(std::str::from_utf8(name).ok().map(|name| Cow::Owned(name.to_owned()))))
            }
        }

        deserializer.deserialize_bytes(Bytes)
    }
}
