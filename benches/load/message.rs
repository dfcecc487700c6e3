//! Reads of a message only what the load has to know, without decoding the rest.

/// One field of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number. Ends at what can't be read.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (field, rest) = bytes.split_at_checked(length)?;
                bytes = rest;
                Field::Bytes(field)
            }
            1 => {
                let (field, rest) = bytes.split_at_checked(8)?;
                bytes = rest;
                Field::Bytes(field)
            }
            _ => return None,
        };
        Some((tag >> 3, field))
    })
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The part of a message at this path of field numbers.
pub(crate) fn part<'a>(bytes: &'a [u8], path: &[u64]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, wanted| {
        fields(bytes).find_map(|(number, field)| match field {
            Field::Bytes(field) if number == *wanted => Some(field),
            _ => None,
        })
    })
}

/// The number in this field of a message; 0 where it is absent.
pub(crate) fn number(bytes: &[u8], wanted: u64) -> u64 {
    let found = fields(bytes).find_map(|(number, field)| match field {
        Field::Number(value) if number == wanted => Some(value),
        _ => None,
    });
    found.unwrap_or(0)
}
