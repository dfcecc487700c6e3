//! Failed calls as text: what happened, and what to do about it.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{render::Paint, text::one_line};
use crate::client::{connection_fault, retry_delay};

/// Where values begin.
const MARGIN: usize = 13;

/// Renders code, message, reason and advice in several lines, each with a line break.
pub(super) fn render(subject: &str, status: &Status, paint: Paint) -> String {
    let mut text = String::new();
    let message = one_line(status.message());
    let head = format!("error: {subject}: {}: {message}", code(status.code()));
    for (n, line) in paint.folded(&head, 2).iter().enumerate() {
        let line = match line.strip_prefix("error:") {
            Some(rest) if n == 0 => paint.red("error:") + rest,
            _ => format!("  {line}"),
        };
        text = text + &line + "\n";
    }
    let mut row = |label: &str, value: &str| {
        for (n, line) in paint.folded(value, MARGIN).iter().filter(|line| !line.is_empty()).enumerate() {
            let label = paint.dim(&format!("{:<9}", if n == 0 { label } else { "" }));
            text = format!("{text}  {label}  {line}\n");
        }
    };
    let info = status.get_details_error_info();
    if let Some(info) = &info {
        row("reason", &one_line(&info.reason));
        row("vendor", &info.metadata.get("vendor_message").map(|words| one_line(words)).unwrap_or_default());
        row(
            "backends",
            &info.metadata.get("known_backends").map(|names| one_line(names)).unwrap_or_default(),
        );
        row("HTTP", &info.metadata.get("http_status").map(|code| one_line(code)).unwrap_or_default());
    }
    for violation in status.get_details_bad_request().into_iter().flat_map(|request| request.field_violations)
    {
        row("field", &format!("{}: {}", one_line(&violation.field), one_line(&violation.description)));
    }
    let retry = retry_delay(status).map(|delay| format!(" in {}", seconds(delay))).unwrap_or_default();
    let reason = info.as_ref().map(|info| info.reason.as_str()).unwrap_or_default();
    let detail = info.as_ref().and_then(|info| info.metadata.get("detail")).map(String::as_str);
    let advice = match detail {
        Some("not_ended") => "wait until the job has ended, with jobwatch watch",
        Some(detail) if reason == "ARTIFACT_NOT_FOUND" => of_file(detail),
        Some("standby_needs_job_tag") => "give the job's tag with --tag, or try again{in}",
        _ => advice(reason, status.code()),
    };
    row("do", &advice.replace("{in}", &retry));
    text
}

/// Code and message in one line.
pub(super) fn line(status: &Status) -> String {
    format!("{}: {}", code(status.code()), one_line(status.message()))
}

/// Why a call failed in one line: in words if its connection did.
pub(super) fn cause(status: &Status) -> String {
    connection_fault(status).map_or_else(|| line(status), |words| one_line(&words))
}

/// A short wait in words.
pub(super) fn seconds(delay: Duration) -> String {
    format!("{:.1} s", delay.as_secs_f64())
}

/// The code in gRPC's spelling.
pub(super) fn code(code: Code) -> String {
    let mut text = String::new();
    for c in format!("{code:?}").chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_uppercase());
    }
    text
}

/// What the user can do about a file that the gateway may not fetch.
fn of_file(detail: &str) -> &'static str {
    match detail {
        "other_origin" | "redirect" => {
            "have the gateway's operator decide whether files may come from where the message says"
        }
        "not_encrypted" => "have the vendor give an https location, or get the file from the vendor yourself",
        "private_address" => {
            "have the gateway's operator allow the address itself, if files may come from there"
        }
        "expired" => {
            "try again, for a new URL; if that fails too, have the gateway's operator check the permissions there"
        }
        "no_files" => "get the file from the vendor yourself: the gateway has none of this backend",
        _ => "get the file from the vendor yourself: the gateway does not follow such a location",
    }
}

/// What the user can do.
fn advice(reason: &str, code: Code) -> &'static str {
    match reason {
        "INVALID_REQUEST" | "INVALID_JOB_ID" => "correct what the message names",
        "INVALID_RESUME_TOKEN" => "begin a new watch, without a resume token",
        "UNKNOWN_BACKEND" => "check the name before the slash: it is a key of the gateway's configuration",
        "JOB_NOT_FOUND" => "check the id and the backend; a vendor may have forgotten an old job",
        "JOB_GONE" => "look at the vendor: it knew the job before and no longer does",
        "ARTIFACT_NOT_FOUND" => "check the file's id against the job's files",
        "CALLER_UNAUTHENTICATED" => {
            "present credentials that the gateway accepts, with --token-file or with --cert and --key"
        }
        "BACKEND_NOT_ALLOWED" => "request access to this backend from the gateway's operator",
        "BACKEND_CREDENTIALS_REJECTED" => "have the gateway's operator correct this backend's credentials",
        "BACKEND_FORBIDDEN" => "have the vendor grant the permission to the gateway's account",
        "BACKEND_REJECTED" => "have the gateway's operator check this backend's base_url and settings",
        "BACKEND_UNAVAILABLE" => "try again{in}; the job itself is not affected",
        "BACKEND_THROTTLED" => "try again{in}; the vendor limits the request rate",
        "BACKEND_MALFORMED" => "have the gateway's operator check its log",
        "BACKEND_OVERLOADED" => "try again{in}, allow more time, or accept an older status with --max-age",
        "BACKEND_RETIRED" => "try again{in}; the gateway's configuration of this backend changed",
        "TOO_MANY_BYTES" => {
            "request fewer jobs at once or --view basic, or have the operator raise the limit that the message names"
        }
        "TOO_MANY_WATCHES" | "TOO_MANY_JOBS" | "TOO_MANY_DOWNLOADS" => {
            "use fewer at once, or have the operator raise the limit"
        }
        "READER_STALLED" => "resume with --offset; see download --help",
        "ACCESS_CHANGED" => "try again{in}; the gateway's operator changed what this caller may do",
        "CONNECTION_EXPIRED" => {
            "try again{in}; the gateway ends old connections, see server.max_connection_age"
        }
        "SHUTTING_DOWN" => "try again{in}; the gateway is shutting down",
        _ => match code {
            Code::Unavailable => "try again{in}",
            Code::DeadlineExceeded => "try again, or allow more time",
            Code::Unimplemented => "check that the address is that of a jobwatch gateway of this version",
            _ => "",
        },
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn error_with_details_is_rendered_with_reason_and_advice() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_secs(2)));
        details.set_error_info(
            "BACKEND_THROTTLED",
            "jobwatch",
            [("http_status".to_owned(), "429".to_owned())],
        );
        let status = Status::with_error_details(Code::Unavailable, "the vendor is throttling", details);
        let expected = "\
error: immuta/1: UNAVAILABLE: the vendor is throttling
  reason     BACKEND_THROTTLED
  HTTP       429
  do         try again in 2.0 s; the vendor limits the request rate
";
        assert_eq!(render("immuta/1", &status, Paint::NONE), expected);
    }

    #[test]
    fn error_of_overload_or_exceeded_limit_has_advice() {
        let advice_for = |code, reason| {
            let mut details = ErrorDetails::with_error_info(reason, "jobwatch", []);
            details.set_retry_info(Some(Duration::from_secs(2)));
            let text = render("a/1", &Status::with_error_details(code, "no", details), Paint::NONE);
            text.lines().find_map(|line| line.strip_prefix("  do         ").map(str::to_owned)).unwrap()
        };
        for (code, reason, advice) in [
            (Code::ResourceExhausted, "BACKEND_OVERLOADED", "try again in 2.0 s, allow more time"),
            (Code::Unavailable, "BACKEND_RETIRED", "try again in 2.0 s; the gateway's configuration"),
            (Code::ResourceExhausted, "TOO_MANY_BYTES", "request fewer jobs at once or --view basic"),
            (Code::ResourceExhausted, "TOO_MANY_JOBS", "use fewer at once"),
        ] {
            let text = advice_for(code, reason);
            assert!(text.starts_with(advice), "{reason}: {text}");
        }
    }

    #[test]
    fn field_violation_is_rendered() {
        let details = ErrorDetails::with_bad_request_violation("job.job_id", "write a decimal number");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);
        let text = render("kinetica/x", &status, Paint::NONE);
        assert!(text.contains("  field      job.job_id: write a decimal number\n"), "{text}");
    }

    #[test]
    fn code_has_grpc_spelling() {
        assert_eq!(code(Code::NotFound), "NOT_FOUND");
        assert_eq!(code(Code::Ok), "OK");
    }

    #[test]
    fn error_without_details_is_one_line() {
        let text = render("a/b", &Status::internal("x\ny"), Paint::NONE);
        assert_eq!(text, "error: a/b: INTERNAL: x y\n");
    }
}
