//! Text of vendors and callers, made harmless to look at, and addresses of pages.
//!
//! The templates escape what means something in HTML. What is left are characters that an
//! operator can't see, or that change the order of those that they can.

use std::{borrow::Cow, fmt::Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::job::JobRef;

/// Characters that are encoded in a path or a query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Most characters of one text on a page.
const LONGEST: usize = 600;

/// The text with control characters, invisible ones and those that change its direction as
/// `\u{..}`; cut if it is long.
pub(super) fn shown(text: &str) -> Cow<'_, str> {
    if text.len() <= LONGEST && !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    let mut characters = text.chars();
    for c in characters.by_ref().take(LONGEST) {
        if is_hidden(c) {
            // Writing to a string can't fail.
            let _ = write!(shown, "{}", c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    Cow::Owned(shown)
}

fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The same for one value of a path or a query.
pub(super) fn encoded(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, ENCODED)
}

/// The page of a job.
pub(super) fn job_href(job: &JobRef) -> String {
    let JobRef { backend, id, tag } = job;
    let mut href = format!("/jobs/{}", encoded(backend));
    // A browser removes segments of dots, even encoded ones.
    let is_dots = matches!(&**id, "" | "." | "..");
    let mut query = '?';
    if is_dots {
        let _ = write!(href, "?id={}", encoded(id));
        query = '&';
    } else {
        let _ = write!(href, "/{}", encoded(id));
    }
    if let Some(tag) = tag {
        let _ = write!(href, "{query}tag={}", encoded(tag));
    }
    href
}

/// The address of a job's page at the vendor, if it is one that a link may lead to.
pub(super) fn vendor_href(address: &str) -> Option<String> {
    let url = url::Url::parse(address).ok()?;
    let is_web = matches!(url.scheme(), "http" | "https");
    let has_user = !url.username().is_empty() || url.password().is_some();
    (is_web && !has_user).then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_hidden_characters_is_unchanged() {
        for text in ["", "job-1", "Ärger <b>&amp;", "日本語", "שלום", "👍"] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn hidden_characters_are_shown_as_their_numbers() {
        for (text, wanted) in [
            ("a\u{202e}b", "a\\u{202e}b"),
            ("\u{2066}x\u{2069}", "\\u{2066}x\\u{2069}"),
            ("a\u{200b}\u{200f}", "a\\u{200b}\\u{200f}"),
            ("a\r\nb\t\u{0}\u{9b}", "a\\u{d}\\u{a}b\\u{9}\\u{0}\\u{9b}"),
            ("\u{feff}\u{ad}\u{e0041}", "\\u{feff}\\u{ad}\\u{e0041}"),
        ] {
            assert_eq!(shown(text), wanted);
        }
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(shown(&"ä".repeat(10_000)), format!("{}…", "ä".repeat(LONGEST)));
        assert_eq!(shown(&"ä".repeat(LONGEST)), "ä".repeat(LONGEST));
    }

    #[test]
    fn address_of_a_job_has_its_id_in_one_segment() {
        let href = |id: &str| job_href(&JobRef::new("immuta", id));
        assert_eq!(href("a-1_2.b~"), "/jobs/immuta/a-1_2.b~");
        assert_eq!(href("a/../b?c#d%2F"), "/jobs/immuta/a%2F..%2Fb%3Fc%23d%252F");
        assert_eq!(href("\"><script>"), "/jobs/immuta/%22%3E%3Cscript%3E");
        assert_eq!(href(".."), "/jobs/immuta?id=..");
        assert_eq!(job_href(&JobRef::new("k", "..").with_tag("a&b")), "/jobs/k?id=..&tag=a%26b");
        assert_eq!(job_href(&JobRef::new("k", "7").with_tag("ä")), "/jobs/k/7?tag=%C3%A4");
    }

    #[test]
    fn only_web_addresses_without_a_user_are_links() {
        assert_eq!(vendor_href("https://vendor.example/jobs/1").unwrap(), "https://vendor.example/jobs/1");
        for address in
            ["javascript:alert(1)", "data:text/html,x", "https://u:p@v.example/", "/jobs/1", "", "http://"]
        {
            assert_eq!(vendor_href(address), None, "{address}");
        }
    }
}
