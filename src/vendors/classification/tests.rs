use std::time::Duration;

use proptest::prelude::*;

use super::*;

const BASE: &str = "https://vendor.example/prefix";

fn head(status: u16, headers: &[(&'static str, &str)]) -> Response<Bytes> {
    let mut head = Response::builder().status(status);
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    head.body(Bytes::new()).unwrap()
}

/// The head of a response to a GET of a job.
fn answered(status: u16, headers: &[(&'static str, &str)]) -> Response<Bytes> {
    let mut request = Request::get(format!("{BASE}/jobs/7?secret=s3cret")).body(()).unwrap();
    request.extensions_mut().insert(PathTemplate("/prefix/jobs/{id}".into()));
    let mut head = head(status, headers);
    head.extensions_mut().insert(Asked::of(&request));
    head
}

fn fault(response: &Response<Bytes>) -> BackendFault {
    let refused = || Err::<(), _>(response::rejected("", response.status()));
    HeadRules::default().read(response, refused).unwrap_err()
}

#[test]
fn status_has_one_class() {
    for (statuses, class) in [
        (&[200_u16, 201, 202, 203, 206, 226, 299][..], Class::Success),
        (&[100, 103, 199, 204, 205], Class::NoContent),
        (&[304], Class::NotModified),
        (&[300, 301, 302, 303, 305, 307, 308, 399], Class::Redirect),
        (&[401], Class::Credentials),
        (&[407], Class::ProxyCredentials),
        (&[403], Class::Denied),
        (&[420, 429, 430], Class::Throttled),
        (
            &[
                408, 421, 425, 444, 449, 460, 499, 500, 502, 503, 504, 509, 511, 520, 527, 529, 530, 598,
                600, 999,
            ],
            Class::Transient,
        ),
        (&[400, 402, 404, 405, 406, 409, 410, 413, 415, 418, 419, 422, 440, 451], Class::Other),
    ] {
        for status in statuses {
            assert_eq!(Class::of(StatusCode::from_u16(*status).unwrap()), class, "{status}");
        }
    }
}

#[test]
fn fault_names_what_was_asked_and_what_came_back() {
    for (status, headers, exchange) in [
        (404, &[][..], "GET /prefix/jobs/{id}: HTTP 404"),
        (503, &[], "GET /prefix/jobs/{id}: HTTP 503"),
        (200, &[], "GET /prefix/jobs/{id}: HTTP 200"),
        (403, &[("content-type", "text/html")], "GET /prefix/jobs/{id}: HTTP 403, a page in HTML"),
    ] {
        let fault = fault(&answered(status, headers));
        assert_eq!(fault.exchange.as_deref(), Some(exchange));
        assert!(fault.to_string().ends_with(&format!(" ({exchange})")), "{fault}");
        assert_eq!(fault.without_vendor_message().exchange, fault.exchange);
    }
}

#[test]
fn redirect_names_its_target_without_query_user_or_job() {
    for (location, target) in [
        ("https://vendor.example/prefix/jobs/7", "https://vendor.example/prefix/jobs/{id}"),
        ("http://user:s3cret@other.example:81/a/b?token=s3cret#s3cret", "http://other.example:81/a/b"),
        ("/elsewhere?token=s3cret", "https://vendor.example/elsewhere"),
        ("elsewhere", "https://vendor.example/prefix/jobs/elsewhere"),
        ("//other.example", "https://other.example/"),
        ("mailto:s3cret@other.example", "a location with the scheme mailto"),
        ("http://[", "an invalid location"),
    ] {
        let fault = fault(&answered(301, &[("location", location)]));
        let message = format!("a redirect (HTTP 301) to {target}");
        assert_eq!(fault.kind, FaultKind::Rejected { message }, "{location}");
        assert_eq!(fault.exchange.as_deref(), Some("GET /prefix/jobs/{id}: HTTP 301"));
    }
    let message = "a redirect (HTTP 308) without a location".to_owned();
    assert_eq!(fault(&answered(308, &[])).kind, FaultKind::Rejected { message });
}

#[test]
fn denial_that_asks_for_a_wait_is_throttling() {
    let fault = |headers: &[(&'static str, &str)]| fault(&head(403, headers));
    assert_eq!(fault(&[]).kind, FaultKind::Forbidden);
    assert_eq!(fault(&[("retry-after", "0")]).kind, FaultKind::Forbidden);
    assert_eq!(
        fault(&[("x-ratelimit-remaining", "9"), ("x-ratelimit-reset", "7")]).kind,
        FaultKind::Forbidden
    );
    for headers in
        [&[("retry-after", "7")][..], &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "7")]]
    {
        let fault = fault(headers);
        assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, Some(Duration::from_secs(7))));
    }
}

#[test]
fn refusal_that_asks_for_a_wait_is_throttling() {
    for status in [400, 404, 409, 413, 418, 423, 440, 451] {
        assert!(matches!(fault(&head(status, &[])).kind, FaultKind::Rejected { .. }), "{status}");
        let fault = fault(&head(status, &[("retry-after", "7")]));
        let seven = Some(Duration::from_secs(7));
        assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, seven), "{status}");
    }
    let fault = fault(&head(302, &[("retry-after", "7"), ("location", "/busy")]));
    assert!(matches!(fault.kind, FaultKind::Rejected { .. }), "its target is worth more: {fault:?}");
}

#[test]
fn accepted_request_without_an_answer_is_tried_again() {
    let malformed = || Err::<(), _>(FaultKind::Malformed { why: "not an object" }.into());
    for (status, is_outage) in [(200, false), (202, true)] {
        let fault = HeadRules::default().read(&head(status, &[("retry-after", "7")]), malformed).unwrap_err();
        assert_eq!(fault.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(matches!(fault.kind, FaultKind::Unavailable { .. }), is_outage, "{fault:?}");
    }
}

#[test]
fn long_path_is_cut() {
    let request = Request::get(format!("{BASE}/{}", "a".repeat(9000))).body(()).unwrap();
    let fault = Asked::of(&request).unanswered(FaultKind::TooLarge.into());
    assert_eq!(fault.exchange.unwrap().len(), "GET ".len() + LONGEST_PATH);
}

proptest! {
    #[test]
    fn any_location_gives_one_short_line_without_its_query(location in "[ -~]{0,300}", status in 300_u16..400) {
        let response = answered(status, &[("location", &location)]);
        let fault = fault(&response);
        prop_assert_eq!(fault.http_status, Some(status));
        if let FaultKind::Rejected { message } = &fault.kind {
            prop_assert!(message.chars().count() <= 512 && !message.contains(['?', '#', '\n']));
        }
    }
}
