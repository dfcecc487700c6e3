//! Keeps secrets out of what a vendor said.

use std::borrow::Cow;

use url::form_urlencoded;

use crate::{
    job::{BackendFault, FaultKind, JobFault, vendor_message},
    vendors::{Elements, percent_encoded},
};

const REDACTED: &str = "[redacted]";

/// A shorter beginning of a secret gives nothing away.
const TELLING: usize = 4;

/// A response's elements without `secrets`, should the vendor have repeated them in its
/// words for people. What it says of a job that it knows is passed on as it is.
pub(super) fn elements(mut elements: Elements, secrets: &[&str]) -> Elements {
    for fault in elements.faults_mut() {
        if let JobFault::Invalid { message } = fault {
            redact(message, secrets);
        }
    }
    elements
}

/// A fault without `secrets`.
pub(super) fn fault(mut fault: BackendFault, secrets: &[&str]) -> BackendFault {
    if let FaultKind::Rejected { message } = &mut fault.kind {
        redact(message, secrets);
    }
    fault
}

/// A line for people without `secrets`.
pub(super) fn text(line: &mut String, secrets: &[&str]) {
    redact(line, secrets);
}

fn redact(message: &mut String, secrets: &[&str]) {
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        for spelling in spellings(secret) {
            if message.contains(&*spelling) {
                *message = message.replace(&*spelling, REDACTED);
            }
            // The words end after 512 characters, in the middle of a secret perhaps.
            let cut = (TELLING..spelling.len()).rev().filter(|end| spelling.is_char_boundary(*end));
            let cut = cut.map(|end| &spelling[..end]).find(|beginning| message.ends_with(beginning));
            if let Some(beginning) = cut {
                message.truncate(message.len() - beginning.len());
                message.push_str(REDACTED);
            }
        }
    }
    *message = vendor_message(message);
}

/// How a secret may come back: as it is, with its white space folded as in every
/// message, or as a part of a URL.
fn spellings(secret: &str) -> [Cow<'_, str>; 4] {
    let folded = vendor_message(secret);
    let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    // One that is nothing but white space would fold to nothing, which is everywhere.
    let folded = if folded.is_empty() { Cow::Borrowed(secret) } else { folded.into() };
    [secret.into(), folded, percent_encoded(secret), form.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(message: &str, secret: &str) -> String {
        let kind = FaultKind::Rejected { message: vendor_message(message) };
        match fault(kind.into(), &[secret]).kind {
            FaultKind::Rejected { message } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn secret_is_known_in_every_spelling() {
        for (message, secret) in [
            ("no s3cret here", "s3cret"),
            ("no p  w here", "p  w"),
            ("no p%26w%20%2F here", "p&w /"),
            ("no p%26w+%2F here", "p&w /"),
            ("no 1|abc here", "1|abc"),
        ] {
            assert_eq!(said(message, secret), "no [redacted] here", "{secret}");
        }
        assert_eq!(said("a b", ""), "a b");
        assert_eq!(said("a b", "  "), "a b");
    }

    #[test]
    fn secret_that_the_end_of_the_message_cuts_is_redacted_too() {
        let secret = "0123456789abcdef";
        for shown in 4..16 {
            let before = "x".repeat(512 - shown);
            let message = said(&format!("{before}{secret}"), secret);
            assert_eq!(message, vendor_message(&format!("{before}[redacted]")));
        }
    }
}
