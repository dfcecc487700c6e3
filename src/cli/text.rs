//! A vendor's text on a terminal: without control characters, and measured in columns.

/// Whether a character could move the cursor, change colours, or reorder the text around it.
fn is_unsafe(c: char) -> bool {
    c.is_control() || is_bidi(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// Unicode's bidirectional controls, see UAX #9, and the byte order mark.
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text without control characters and bidirectional controls.
pub(super) fn clean(text: &str) -> String {
    text.chars().filter(|c| !is_bidi(*c)).map(|c| if is_unsafe(c) { ' ' } else { c }).collect()
}

/// Several lines, each cleaned.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(|line| clean(line) + "\n").collect()
}

/// The same in one line, with single spaces.
pub(super) fn one_line(text: &str) -> String {
    clean(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Columns on a terminal.
pub(super) fn columns(text: &str) -> usize {
    console::measure_text_width(text)
}

/// A text filled with spaces up to this many columns.
pub(super) fn padded(text: &str, width: usize) -> String {
    let missing = width.saturating_sub(columns(text));
    format!("{text}{:missing$}", "")
}

/// Lines of at most `width` columns, broken at spaces where possible.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let gap = usize::from(!line.is_empty());
        if !line.is_empty() && columns(&line) + gap + columns(word) > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            let mut buffer = [0; 4];
            if columns(&line) + columns(c.encode_utf8(&mut buffer)) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

/// Narrower columns are left to the terminal.
const NARROWEST: usize = 20;

/// Lines of at most `width` columns, broken only at spaces: names and URLs stay whole, so that they
/// can be copied. Spaces at the beginning stay.
pub(super) fn folded(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| *width >= NARROWEST && columns(text) > *width) else {
        return vec![text.to_owned()];
    };
    let margin: String = text.chars().take_while(|c| *c == ' ').collect();
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if line.is_empty() {
            line = margin.clone() + word;
        } else if columns(&line) + 1 + columns(word) > width {
            lines.push(std::mem::replace(&mut line, margin.clone() + word));
        } else {
            line = line + " " + word;
        }
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bidirectional_and_control_characters_are_removed() {
        assert_eq!(one_line("a\u{202e}cba\u{2066}x\u{2069}\u{200f} \x1b[2J\r\nb\u{2028}c"), "acbax [2J b c");
    }

    #[test]
    fn wide_characters_are_padded_by_columns() {
        assert_eq!(padded("日本", 6), "日本  ");
        assert_eq!(padded("toolong", 3), "toolong");
    }

    #[test]
    fn text_is_wrapped_without_loss() {
        let text = "no such column: sku in row 7 of file stock_2024.csv";
        for width in 1..60 {
            let lines = wrapped(text, width);
            assert!(lines.iter().all(|line| columns(line) <= width), "{width}: {lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
        assert_eq!(wrapped("ab 日本語", 4), ["ab", "日本", "語"]);
    }

    #[test]
    fn folded_text_keeps_its_words_whole() {
        let url = "https://gateway.example.com/a/very/long/path";
        let text = format!("  see {url} for more than one word");
        assert_eq!(folded(&text, Some(20)), ["  see", &format!("  {url}"), "  for more than one", "  word"]);
        assert_eq!(folded(&text, None), [&*text]);
        assert_eq!(folded(&text, Some(5)), [&*text]);
    }
}
