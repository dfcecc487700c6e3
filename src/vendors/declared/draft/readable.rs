//! Texts that people read, such as `load_orders_2026`, and those that only machines do.

/// Longest run of letters and digits that is no word and yet is read, such as `E4001`.
const LONGEST_CODE: usize = 6;

/// Most consonants one after the other within a word.
const MOST_CONSONANTS: usize = 4;

/// What a run of letters and digits is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Word,
    Number,
    /// Short, and neither of them.
    Code,
    Random,
}

/// Whether a text is made of words, numbers and what stands between them.
pub(super) fn is_readable(text: &str) -> bool {
    let pieces: Vec<Piece> = pieces(text).map(piece).collect();
    let count = |kind: Piece| pieces.iter().filter(|piece| **piece == kind).count();
    pieces.len() > 1
        && count(Piece::Random) == 0
        && count(Piece::Word) > 0
        && count(Piece::Code) * 3 <= pieces.len()
}

/// Whether a text is made of words alone.
pub(super) fn is_words(text: &str) -> bool {
    let is_plain = |c: char| c.is_alphabetic() || "_-./: ".contains(c);
    text.chars().all(is_plain) && pieces(text).all(|text| piece(text) == Piece::Word || text.len() < 4)
}

/// Whether a text is so random that it means the same secret wherever it stands.
pub(super) fn is_random(text: &str) -> bool {
    const LEAST: usize = 12;
    let has = |is: fn(char) -> bool| text.contains(is);
    text.len() >= LEAST
        && has(|c| c.is_ascii_digit())
        && has(char::is_alphabetic)
        && !has(char::is_whitespace)
        && !is_readable(text)
}

fn pieces(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|piece| !piece.is_empty())
}

fn piece(text: &str) -> Piece {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A moment is written with letters, too.
    let moment = text.strip_suffix('Z').unwrap_or(text);
    if is_number(text) || moment.split_once('T').is_some_and(|(day, time)| is_number(day) && is_number(time))
    {
        return Piece::Number;
    }
    let word = text.trim_end_matches(|c: char| c.is_ascii_digit());
    if word.chars().count() >= 3 && is_word(word) {
        Piece::Word
    } else if text.len() <= LONGEST_CODE {
        Piece::Code
    } else {
        Piece::Random
    }
}

/// Whether letters can be spoken, each word of `camelCase` for itself.
fn is_word(letters: &str) -> bool {
    if !letters.chars().all(char::is_alphabetic) {
        return false;
    }
    let is_upper = !letters.contains(|c: char| c.is_lowercase());
    let mut words = vec![String::new()];
    for c in letters.chars() {
        if c.is_uppercase() && !is_upper {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
    }
    let words: Vec<&String> = words.iter().filter(|word| !word.is_empty()).collect();
    let length: usize = words.iter().map(|word| word.chars().count()).sum();
    length >= 3 * words.len() && words.iter().all(|word| is_spoken(word))
}

fn is_spoken(word: &str) -> bool {
    let is_vowel = |c: char| !c.is_ascii() || "aeiouy".contains(c);
    let consonants = word.split(is_vowel).map(str::len).max().unwrap_or_default();
    word.contains(is_vowel) && consonants <= MOST_CONSONANTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_read_and_random_texts_are_not() {
        for text in [
            "load_orders_2026",
            "TIMEOUT_AFTER_3600S",
            "E4001_INVALID_DATE_FORMAT",
            "DATA-2026-000123-X",
            "exports/2026-01-02/data-7.csv",
            "reports/run-7/summary_2026.parquet",
            "nightly-load-20260102T030405Z",
            "RUN_EXECUTION_ERROR_404",
        ] {
            assert!(is_readable(text) && !is_random(text), "{text}");
        }
        for text in [
            "a1b2c3d4e5f6g7h8",
            "0190f3c2-7b1a-7c3e-9f00-1234567890ab",
            "AB12-CD34-EF56-GH78",
            "wJalrXUtnFEMI/K7MDENG",
            "aB3dE5gH7jK9_mN1pQ3s",
            "0123456789abcdef0123",
        ] {
            assert!(!is_readable(text) && is_random(text), "{text}");
        }
        assert!(is_words("service_account") && is_words("row rejected") && !is_words("xkqwzrtplmnb"));
    }
}
