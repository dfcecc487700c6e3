use http::HeaderValue;
use proptest::prelude::*;

use super::*;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const HOUR: f64 = 3600.0;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let lines =
        lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()));
    lines.collect()
}

/// Seconds that these lines ask for beside a date, at a status.
fn at(status: u16, lines: &[(&'static str, &str)]) -> Option<f64> {
    let lines = [&[("date", DATE)], lines].concat();
    of_head(StatusCode::from_u16(status).unwrap(), &headers(&lines)).map(|wait| wait.as_secs_f64())
}

fn retry_after(value: &str) -> Option<f64> {
    at(429, &[("retry-after", value)])
}

#[test]
fn retry_after_in_any_form_is_the_wait() {
    for (value, seconds) in [
        ("7", 7.0),
        (" 7 ", 7.0),
        ("+7", 7.0),
        ("007", 7.0),
        ("6.0", 6.0),
        ("5.734", 5.734),
        (".5", 0.5),
        ("6.", 6.0),
        ("\"6\"", 6.0),
        ("6s", 6.0),
        ("6 seconds", 6.0),
        ("6;comment", 6.0),
        ("1500ms", 1.5),
        ("2 min", 120.0),
        ("6, 6", 6.0),
        ("6,7 , 5", 7.0),
        ("soon, 6", 6.0),
        ("6, soon", 6.0),
        ("0, 6", 6.0),
        ("1e1", 10.0),
        ("6.5E+0", 6.5),
        ("65e-1 s", 6.5),
        ("1e3", 1000.0),
        ("1e999", HOUR),
        ("Sun, 06 Nov 1994 08:50:00 GMT", 23.0),
        ("Mon, 06 Nov 1994 08:50:00 GMT", 23.0),
        ("sun, 06 nov 1994 08:50:00 gmt", 23.0),
        ("Sun, 6 Nov 1994 08:50:00 GMT", 23.0),
        ("Sun, 06 Nov 1994 08:50:00 UTC", 23.0),
        ("Sun, 06-Nov-1994 08:50:00 GMT", 23.0),
        ("Sun, 06 Nov 1994 03:50:00 -0500", 23.0),
        ("Sun, 06 Nov 1994 03:50:00 EST", 23.0),
        ("Sun, 06 Nov 1994 08:50:00 +0000 (UTC)", 23.0),
        ("1994-11-06 08:50:00Z", 23.0),
        ("1994-11-06T08:50:00.000+00:00", 23.0),
        ("\"Sun, 06 Nov 1994 08:50:00 GMT\"", 23.0),
        ("Sunday, 06-Nov-94 08:50:00 GMT", 23.0),
        ("Sun Nov  6 08:50:00 1994", 23.0),
        ("6 Nov 1994 08:50:00 +0000", 23.0),
        ("Sun, 06 Nov 1994 09:50:00 +0100", 23.0),
        ("1994-11-06T08:50:00Z", 23.0),
        ("6, Sun, 06 Nov 1994 08:50:00 GMT", 23.0),
        ("Sun, 06 Nov 1994 08:50:00 GMT, 6", 23.0),
        ("Sun, 06 Nov 1994 08:50:00 GMT, Sun, 06 Nov 1994 08:50:01 GMT", 24.0),
        ("784111777", HOUR),
        ("784111800", 23.0),
        ("784111800000", 23.0),
        ("3601", HOUR),
        ("86400", HOUR),
        ("18446744073709551616", HOUR),
        ("99999999999999999999999999999999999999999999", HOUR),
        ("Sun, 06 Nov 2094 08:50:00 GMT", HOUR),
    ] {
        // The response's own time, in seconds since 1970, has passed.
        let expected = (value != "784111777").then_some(seconds);
        assert_eq!(retry_after(value), expected, "{value}");
    }
}

#[test]
fn value_that_is_no_wait_counts_as_absent() {
    for value in [
        "",
        " ",
        "0",
        "0.0",
        "000",
        "-1",
        "soon",
        "nan",
        "inf",
        "0e9",
        "1e-999",
        "-1e3",
        "6e",
        "0x10",
        "1.2.3",
        "6 parsecs",
        ",",
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:00:00 GMT",
        "Sun, 06 Nov 1994",
    ] {
        assert_eq!(retry_after(value), None, "{value}");
    }
}

#[test]
fn longest_of_several_lines_counts() {
    let lines =
        |values: &[&str]| at(503, &values.iter().map(|value| ("retry-after", *value)).collect::<Vec<_>>());
    assert_eq!(lines(&["6", "7"]), Some(7.0));
    assert_eq!(lines(&["7", "6"]), Some(7.0));
    assert_eq!(lines(&["junk", "6"]), Some(6.0));
    assert_eq!(lines(&["6", ""]), Some(6.0));
    assert_eq!(lines(&["0", "Sun, 06 Nov 1994 08:50:00 GMT"]), Some(23.0));
    assert_eq!(at(503, &[("retry-after-ms", "1500")]), Some(1.5));
    assert_eq!(at(503, &[("retry-after-ms", "1500"), ("retry-after", "2")]), Some(2.0));
    let mut bytes = headers(&[("retry-after", "6")]);
    bytes.append("retry-after", HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(of_head(StatusCode::TOO_MANY_REQUESTS, &bytes), Some(Duration::from_secs(6)));
}

#[test]
fn date_without_the_date_of_the_response_is_no_wait() {
    let headers = headers(&[("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT")]);
    assert_eq!(of_head(StatusCode::TOO_MANY_REQUESTS, &headers), None);
}

#[test]
fn rate_limit_counts_where_nothing_remains() {
    for (lines, wait) in [
        (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "5")][..], Some(5.0)),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "5.5")], Some(5.5)),
        (&[("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "784111800")], Some(23.0)),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111800125")], Some(23.125)),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1994-11-06T08:50:00Z")], Some(23.0)),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111700")], None),
        (&[("ratelimit-remaining", "1"), ("ratelimit-reset", "5")], None),
        (&[("ratelimit-reset", "5")], None),
        (&[("ratelimit-remaining", "0")], None),
        (&[("ratelimit-remaining", "0, 9"), ("ratelimit-reset", "5, 900")], Some(5.0)),
        (&[("ratelimit-remaining", "0"), ("x-ratelimit-reset", "5")], None),
        (&[("ratelimit", "limit=100, remaining=0, reset=5")], Some(5.0)),
        (&[("ratelimit", "limit=100;remaining=0;reset=5")], Some(5.0)),
        (&[("ratelimit", "limit=100, remaining=3, reset=5")], None),
        (&[("ratelimit", "\"default\";r=0;t=5")], Some(5.0)),
        (&[("ratelimit", "\"burst\";r=7;t=5, \"daily\";r=0;t=50")], Some(50.0)),
        (&[("ratelimit", "\"default\";r=1;t=5")], None),
        (&[("ratelimit", "junk")], None),
        (&[("retry-after", "2"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "5")], Some(2.0)),
        (&[("retry-after", "0"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "5")], Some(5.0)),
        (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "7200")], Some(HOUR)),
    ] {
        for status in [403, 503] {
            assert_eq!(at(status, lines), wait, "{status}: {lines:?}");
        }
    }
    assert_eq!(at(429, &[("ratelimit-reset", "5")]), Some(5.0), "a 429 says that nothing remains");
    let used_up = [("ratelimit-remaining", "0"), ("ratelimit-reset", "5")];
    assert_eq!(at(404, &used_up), None, "the last response that the limit allowed");
}

#[test]
fn graphql_error_may_ask_for_a_wait() {
    let wait =
        |body: &str| of_body(&headers(&[("date", DATE)]), body.as_bytes()).map(|wait| wait.as_secs_f64());
    for (extensions, seconds) in [
        (r#"{"retryAfter":5}"#, Some(5.0)),
        (r#"{"retryAfter":"5"}"#, Some(5.0)),
        (r#"{"retryAfter":"5s"}"#, Some(5.0)),
        (r#"{"retry_after":5.5}"#, Some(5.5)),
        (r#"{"retry-after":5}"#, Some(5.0)),
        (r#"{"RetryAfter":5}"#, Some(5.0)),
        (r#"{"retryAfterMs":1500}"#, Some(1.5)),
        (r#"{"retry_after_ms":1500}"#, Some(1.5)),
        (r#"{"retryAfterMilliseconds":1500}"#, Some(1.5)),
        (r#"{"retryAfterSeconds":5,"retryAfter":3}"#, Some(5.0)),
        (r#"{"retryAfter":"Sun, 06 Nov 1994 08:50:00 GMT"}"#, Some(23.0)),
        (r#"{"http":{"headers":{"Retry-After":"5"}}}"#, Some(5.0)),
        (r#"{"retryAfter":0}"#, None),
        (r#"{"retryAfter":-1}"#, None),
        (r#"{"retryAfter":null}"#, None),
        (r#"{"retryAfter":[5]}"#, None),
        (r#"{"retryAfter":1e1}"#, Some(10.0)),
        (r#"{"retryAfter":1e9}"#, Some(HOUR)),
        (r#"{"retryAfter":5E+0}"#, Some(5.0)),
        (r#"{"a":{"b":{"c":{"retryAfter":5}}}}"#, None),
        ("5", None),
    ] {
        let body = format!(r#"{{"data":null,"errors":[{{"message":"x"}},{{"extensions":{extensions}}}]}}"#);
        assert_eq!(wait(&body), seconds, "{extensions}");
    }
    assert_eq!(wait(r#"{"errors":{"extensions":{"retryAfter":5}}}"#), None);
    assert_eq!(wait(r#"{"extensions":{"retryAfter":5}}"#), Some(5.0));
    assert_eq!(wait("{"), None);
    assert_eq!(wait(&"{\"extensions\":".repeat(1 << 16)), None);
}

proptest! {
    #[test]
    fn any_header_asks_for_no_wait_or_one_within_the_hour(
        values in prop::collection::vec(prop_oneof![
            "[0-9a-zA-Z,.;:=\" +-]{0,40}",
            "[ -~]{0,40}",
            (0..u64::MAX).prop_map(|seconds| seconds.to_string()),
            any::<f64>().prop_map(|seconds| seconds.to_string()),
        ], 0..4),
        status in 200_u16..=999,
    ) {
        let mut all = headers(&[("date", DATE)]);
        for value in &values {
            for name in ["retry-after", "ratelimit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-reset"] {
                all.append(name, HeaderValue::from_str(value).unwrap());
            }
        }
        if let Some(wait) = of_head(StatusCode::from_u16(status).unwrap(), &all) {
            prop_assert!(!wait.is_zero() && wait <= LONGEST_RETRY_AFTER);
        }
    }

    #[test]
    fn any_number_of_seconds_is_that_wait(millis in 1..3_600_000_u32) {
        let seconds = f64::from(millis) / 1e3;
        for value in [seconds.to_string(), format!("junk, {seconds}, 0.0001")] {
            prop_assert!(retry_after(&value).is_some_and(|wait| (wait - seconds).abs() < 1e-6), "{}", value);
        }
        let extensions = format!(r#"{{"errors":[{{"extensions":{{"retryAfterMs":{millis}}}}}]}}"#);
        let wait = of_body(&HeaderMap::new(), extensions.as_bytes()).map(|wait| wait.as_secs_f64());
        prop_assert!(wait.is_some_and(|wait| (wait - seconds).abs() < 1e-6));
    }

    #[test]
    fn any_body_is_survived(body in "[\\[\\]{}\",:0-9a-zA-Z ]{0,128}") {
        of_body(&HeaderMap::new(), body.as_bytes());
        let within = format!(r#"{{"errors":[{{"extensions":{body}}}]}}"#);
        of_body(&HeaderMap::new(), within.as_bytes());
    }
}
