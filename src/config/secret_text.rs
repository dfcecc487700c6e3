//! What is wrong, or looks wrong, with the text of a secret. Never shows a character that
//! can be seen: it is a part of the secret.

use crate::vendors::SecretForm;

/// Quotes that come in pairs around a value.
const QUOTES: [(char, char); 6] =
    [('"', '"'), ('\'', '\''), ('`', '`'), ('\u{201c}', '\u{201d}'), ('\u{2018}', '\u{2019}'), ('«', '»')];

/// Names of characters that often come with a secret from an editor, a terminal or a page.
const NAMES: [(char, &str); 15] = [
    ('\t', "tab"),
    ('\n', "line feed"),
    ('\r', "carriage return"),
    (' ', "space"),
    ('\u{7f}', "delete"),
    ('\u{a0}', "no-break space"),
    ('\u{ad}', "soft hyphen"),
    ('\u{200b}', "zero width space"),
    ('\u{200c}', "zero width non-joiner"),
    ('\u{200d}', "zero width joiner"),
    ('\u{200e}', "left-to-right mark"),
    ('\u{200f}', "right-to-left mark"),
    ('\u{202f}', "narrow no-break space"),
    ('\u{2060}', "word joiner"),
    ('\u{feff}', "byte order mark"),
];

/// The secret in the text of a file of its own: without the byte order mark and the line
/// end that editors add.
pub(super) fn of_file(text: &str) -> &str {
    text.trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n'])
}

/// Why the text can't be used as a secret.
pub(super) fn check(form: SecretForm, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("is empty; write the secret, or where it is".to_owned());
    }
    let of_header = form == SecretForm::Header;
    if of_header && text.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer ")) {
        return Err("begins with \"Bearer \"; write the token alone".to_owned());
    }
    let is_line_end = |c: char| form == SecretForm::Lines && matches!(c, '\r' | '\n');
    let is_refused = |c: char| c.is_control() && !is_line_end(c) || of_header && !c.is_ascii_graphic();
    let Some((index, c)) = text.chars().enumerate().find(|(_, c)| is_refused(*c)) else { return Ok(()) };
    let what = if is_visible(c) { "a character".to_owned() } else { name(c) };
    let reason = if of_header { ", which a header can't carry" } else { "" };
    Err(format!("holds {what} at position {}{reason}; write the secret alone", index + 1))
}

/// What looks like a mistake in a text that passed [`check`].
pub(super) fn warnings(text: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let (first, last) = (text.chars().next(), text.chars().next_back());
    if text.chars().nth(1).is_some()
        && let Some(quotes) = first.zip(last)
        && QUOTES.contains(&quotes)
    {
        let text = "begins and ends with a quote, which is sent as a part of the secret; \
                    remove the quotes if they are not";
        warnings.push(text.to_owned());
    }
    let length = text.chars().count();
    let inner_space = |index: usize, c: char| c == ' ' && index > 0 && index + 1 < length;
    let unusual = |(index, c): &(usize, char)| !is_visible(*c) && !inner_space(*index, *c);
    if let Some((index, c)) = text.chars().enumerate().find(unusual) {
        let text = format!(
            "holds {} at position {} of {length}; remove it if it is no part of the secret",
            name(c),
            index + 1
        );
        warnings.push(text);
    }
    warnings
}

/// Whether a person sees the character. A blank or a format character can't be seen.
fn is_visible(c: char) -> bool {
    let is_format = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffd}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !c.is_whitespace() && !is_format
}

fn name(c: char) -> String {
    let name = NAMES.iter().find(|(known, _)| *known == c).map(|(_, name)| format!(" ({name})"));
    format!("U+{:04X}{}", u32::from(c), name.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_and_line_end_of_a_file_are_no_part_of_the_secret() {
        for text in ["abc", "abc\n", "abc\r\n", "\u{feff}abc\r\n", "\u{feff}\u{feff}abc\n\n", "abc\r"] {
            assert_eq!(of_file(text), "abc", "{text:?}");
        }
        assert_eq!(of_file(" a\u{feff}b \n"), " a\u{feff}b ");
    }

    #[test]
    fn character_that_cannot_be_sent_is_named_by_code_point_and_position() {
        use SecretForm::{Header, Text};
        for (form, text, expected) in [
            (Text, "hush\nhush", "holds U+000A (line feed) at position 5; write the secret alone"),
            (Text, "hush\u{0}", "holds U+0000 at position 5; write the secret alone"),
            (Text, "hush\u{85}", "holds U+0085 at position 5; write the secret alone"),
            (Header, "hush ", "holds U+0020 (space) at position 5, which a header can't carry"),
            (Header, "\u{200b}hush", "holds U+200B (zero width space) at position 1, which a header"),
            (Header, "hu\u{a0}sh", "holds U+00A0 (no-break space) at position 3, which a header"),
            (Header, "hush\u{feff}", "holds U+FEFF (byte order mark) at position 5, which a header"),
            (Header, "hushä", "holds a character at position 5, which a header can't carry"),
            (Header, "bEARER hush", "begins with \"Bearer \""),
            (Header, "", "is empty"),
        ] {
            let error = check(form, text).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("hush"), "{error}");
        }
        for text in ["hush hush", "p\u{a0}ä\u{200b}", "\"hush\""] {
            assert_eq!(check(Text, text), Ok(()));
        }
    }

    #[test]
    fn character_that_cannot_be_seen_is_a_warning_in_a_password() {
        for (text, expected) in [
            (" hush", "holds U+0020 (space) at position 1 of 5"),
            ("hush ", "holds U+0020 (space) at position 5 of 5"),
            ("hu\u{a0}sh", "holds U+00A0 (no-break space) at position 3 of 5"),
            ("hush\u{200d}", "holds U+200D (zero width joiner) at position 5 of 5"),
            ("hush\u{2003}x", "holds U+2003 at position 5 of 6"),
            ("hu\u{e0001}sh", "holds U+E0001 at position 3 of 5"),
        ] {
            let warnings = warnings(text);
            assert!(warnings.len() == 1 && warnings[0].starts_with(expected), "{text:?}: {warnings:?}");
        }
        for text in ["hush hush", "hush", "pässwörd", "密码", "\"", "\"hush", "'hush\"", "a'b"] {
            assert_eq!(warnings(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn quotes_around_a_secret_are_a_warning() {
        for text in ["\"hush\"", "'hush'", "`hush`", "\u{201c}hush\u{201d}", "\"\""] {
            let warnings = warnings(text);
            assert!(warnings[0].starts_with("begins and ends with a quote"), "{text}: {warnings:?}");
            assert!(!warnings[0].contains("hush"));
        }
    }
}
