//! The text that somebody pastes: an answer in JSON, with the head of a response or without.

use super::secrets::Cleaner;

/// Longest pasted text in bytes.
pub(super) const LONGEST: usize = 512 << 10;

/// An answer of the vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pasted {
    pub(super) status: u16,
    /// In the order of the response, with names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// JSON, with `\n` for line ends.
    pub(super) body: String,
}

impl Pasted {
    /// Reads JSON, or what `curl -i` prints.
    ///
    /// # Errors
    /// What is wrong with it, and what to paste.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > LONGEST {
            return Err(format!(
                "is longer than {} KiB; shorten its lists and texts, two elements of a list are enough",
                LONGEST >> 10
            ));
        }
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err("is not text; paste the answer in JSON, not compressed".to_owned());
        };
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let (mut status, mut headers, mut rest) = (200, Vec::new(), text.trim());
        // A proxy's answer and 100 Continue stand before the vendor's.
        while rest.starts_with("HTTP/") {
            let (head, body) = rest.split_once("\n\n").unwrap_or((rest, ""));
            (status, headers) = head_of(head)?;
            rest = body.trim();
        }
        match status {
            200..=299 => {}
            300..=399 => {
                return Err(format!(
                    "is HTTP {status}, a redirect, and none is followed; paste the answer of the API itself"
                ));
            }
            _ => {
                return Err(format!(
                    "is HTTP {status}, which is about no job; paste the answer about a job that exists, and add this \
                     one to cases.toml later"
                ));
            }
        }
        if rest.is_empty() {
            return Err("is empty; paste what the API answers about a job, in JSON".to_owned());
        }
        if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(rest) {
            return Err(not_json(rest, &error));
        }
        Ok(Self { status, headers, body: rest.to_owned() })
    }
}

/// Status and headers of a response's head.
fn head_of(head: &str) -> Result<(u16, Vec<(String, String)>), String> {
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let status = first.split_whitespace().nth(1).and_then(|status| status.parse::<u16>().ok());
    let Some(status @ 100..=599) = status else {
        return Err(format!(
            "begins with {first:?}, which is no status line; write one such as HTTP/1.1 200 OK"
        ));
    };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.trim().to_lowercase(), value.trim().to_owned()))
    };
    // 1xx is followed by the answer itself.
    let status = if status < 200 { 200 } else { status };
    Ok((status, lines.filter_map(header).collect()))
}

/// The title of a page, on one line.
fn title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let begin = lower.find("<title")?;
    let begin = begin + lower[begin..].find('>')? + 1;
    let end = begin + lower[begin..].find("</title")?;
    let words: Vec<&str> = page[begin..end].split_whitespace().collect();
    let title: String = Cleaner::default().text(&words.join(" ")).chars().take(60).collect();
    (!title.is_empty()).then_some(title)
}

fn not_json(text: &str, error: &serde_json::Error) -> String {
    let start = text.get(..512.min(text.len())).unwrap_or(text).to_lowercase();
    if start.starts_with("<!doctype html") || start.starts_with("<html") || start.contains("<head") {
        let title = title(text).map(|title| format!(" ({title:?})")).unwrap_or_default();
        return format!(
            "is a page in HTML{title}, not JSON: something before the API wrote it, such as a login page; send the \
             request with its credentials, and paste what the API answers"
        );
    }
    if start.starts_with('<') {
        return "is XML, which definitions can't read; ask the API for JSON, such as with the header Accept: \
                application/json"
            .to_owned();
    }
    if error.is_eof() {
        return format!(
            "is JSON that ends too early, at line {}, column {}; paste all of it",
            error.line(),
            error.column()
        );
    }
    let is_lines = text.lines().count() > 1
        && text.lines().all(|line| {
            line.trim().is_empty() || serde_json::from_str::<serde::de::IgnoredAny>(line).is_ok()
        });
    if is_lines {
        return "is a JSON value a line, which definitions can't read; paste one of the lines".to_owned();
    }
    format!(
        "is not JSON, from line {}, column {} on; paste the answer as the API sends it",
        error.line(),
        error.column()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Pasted::read(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn head_of_a_response_gives_status_and_headers() {
        let text = "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/2 202 \r\n\
                    Content-Type: application/json\r\nRetry-After: 3\r\n\r\n{\"id\": 1}\r\n";
        let pasted = Pasted::read(text.as_bytes()).unwrap();
        assert_eq!((pasted.status, &*pasted.body), (202, "{\"id\": 1}"));
        assert_eq!(pasted.headers[1], ("retry-after".to_owned(), "3".to_owned()));
        let plain = Pasted::read("\u{feff}  [1,\r\n2]\n".as_bytes()).unwrap();
        assert_eq!((plain.status, &*plain.body, plain.headers.len()), (200, "[1,\n2]", 0));
    }

    #[test]
    fn text_that_is_no_answer_is_refused_with_what_to_paste() {
        for (text, expected) in [
            ("", "is empty; paste"),
            ("  \n", "is empty; paste"),
            ("HTTP/1.1 204 No Content\n\n", "is empty; paste"),
            ("<!DOCTYPE html><html></html>", "is a page in HTML, not JSON"),
            ("\n<html><body>Sign in</body>", "is a page in HTML, not JSON"),
            (
                "<html><head><TITLE lang='en'>Sign in\n - Example</title></head></html>",
                "is a page in HTML (\"Sign in - Example\"), not JSON",
            ),
            ("<?xml version=\"1.0\"?><job/>", "is XML, which definitions can't read"),
            ("{\"id\": 1,", "ends too early, at line 1, column 9; paste all of it"),
            ("{\"id\": 1}\n{\"id\": 2}", "is a JSON value a line"),
            ("id: 1", "is not JSON, from line 1, column 1 on"),
            ("HTTP/1.1 404 Not Found\n\n{}", "is HTTP 404, which is about no job"),
            ("HTTP/1.1 302 Found\nLocation: /login\n\n", "is HTTP 302, a redirect"),
            ("HTTP/1.1 OK\n\n{}", "is no status line"),
        ] {
            let found = refused(text);
            assert!(found.contains(expected), "{text:?}: {found}");
        }
        assert!(refused(&format!("[{}1]", "1,".repeat(LONGEST / 2))).contains("is longer than 512 KiB"));
        assert!(Pasted::read(&[0x1f, 0x8b, 0xff]).unwrap_err().contains("is not text"));
    }
}
