//! The wait that a vendor asks for, read once for every response that failed.
//!
//! | where | form |
//! | --- | --- |
//! | `Retry-After` (RFC 9110, section 10.2.3) | seconds or a date, also several of them |
//! | `Retry-After-Ms`, `X-Ms-Retry-After-Ms` | milliseconds |
//! | `RateLimit` (draft-ietf-httpapi-ratelimit-headers) | `limit=9, remaining=0, reset=5` or `"default";r=0;t=5` |
//! | `RateLimit-Reset`, `X-RateLimit-Reset`, `X-Rate-Limit-Reset` | seconds, or a time, where nothing remains |
//! | `errors[].extensions` of GraphQL | `retryAfter`, `retry_after_ms`, ... |
//!
//! Of several values the longest counts; one that can't be read counts as absent. A wait of
//! zero, and a time that has passed, are no wait. Times are read against the response's own
//! Date header, since the gateway's clock may differ; the transport adds one where it is
//! missing.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use super::json::{self, Object, Value};

/// Longest wait that is believed, so that one wrong value can't switch a backend off for
/// days.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// A number of seconds this close to the response's date is a time since 1970.
const EPOCH_WINDOW: f64 = 366.0 * 86_400.0;

/// How deep below `extensions` a wait is looked for.
const DEPTH: u8 = 3;

/// What the headers of a response with this status ask for.
///
/// Rate limits count where the response was refused because of them or by a server that is
/// not well: another refusal may be the last response that the limit allowed.
pub(super) fn of_head(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    let at = headers.get(header::DATE).and_then(|value| date(value.to_str().ok()?));
    let millis =
        ["retry-after-ms", "x-ms-retry-after-ms"].map(|name| longest(headers, name, Unit::Millis, at));
    let retry_after = longest(headers, "retry-after", Unit::Seconds, at);
    let asked_for = millis.into_iter().chain([retry_after]).flatten().max();
    let rate_limit = || match status.as_u16() {
        401 | 403 | 408 | 420 | 425 | 429 | 430 | 449 | 500.. => rate_limit(status, headers, at),
        _ => None,
    };
    asked_for.or_else(rate_limit)
}

/// What the body of a failed response asks for, in the extensions of GraphQL errors.
pub(super) fn of_body(headers: &HeaderMap, body: &[u8]) -> Option<Duration> {
    let at = headers.get(header::DATE).and_then(|value| date(value.to_str().ok()?));
    let body = Object::parse(body)?;
    let errors = body.get("errors").map(json::elements).unwrap_or_default();
    let of_errors = errors.into_iter().filter_map(|error| Object::of(error)?.get("extensions"));
    let waits = of_errors.chain(body.get("extensions")).filter_map(|it| within(it, DEPTH, at));
    waits.max().and_then(believed)
}

fn believed(wait: Duration) -> Option<Duration> {
    (!wait.is_zero()).then_some(wait.min(LONGEST_RETRY_AFTER))
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Seconds,
    Millis,
}

/// The longest of all values of a header.
fn longest(headers: &HeaderMap, name: &str, unit: Unit, at: Option<SystemTime>) -> Option<Duration> {
    let lines = headers.get_all(name).into_iter();
    let waits =
        lines.filter_map(|line| waits(&String::from_utf8_lossy(line.as_bytes()), unit, at).into_iter().max());
    waits.max().and_then(believed)
}

/// Every value of one line that can be read. A date may have a comma, as may a list.
fn waits(line: &str, unit: Unit, at: Option<SystemTime>) -> Vec<Duration> {
    let parts: Vec<&str> = line.split(',').collect();
    let mut waits = Vec::new();
    let mut next = 0;
    while let Some(part) = parts.get(next) {
        let dated = parts.get(next + 1).map(|rest| format!("{part},{rest}"));
        if let Some(wait) = dated.and_then(|dated| until(unquoted(&dated), at)) {
            waits.push(wait);
            next += 2;
        } else {
            waits.extend(wait(part, unit, at));
            next += 1;
        }
    }
    waits
}

/// Seconds, milliseconds or a time.
fn wait(text: &str, unit: Unit, at: Option<SystemTime>) -> Option<Duration> {
    let text = unquoted(text);
    let text = text.split(';').next().unwrap_or(text).trim_end();
    number(text, unit, at).or_else(|| until(text, at))
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
}

/// A number with or without the name of its unit.
fn number(text: &str, unit: Unit, at: Option<SystemTime>) -> Option<Duration> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let (number, name) = text.split_at(number_length(text));
    let value: f64 = number.parse().ok()?;
    let seconds = match (name.trim().to_ascii_lowercase().as_str(), unit) {
        ("", Unit::Millis) | ("ms" | "msec" | "millis" | "milliseconds", _) => value / 1e3,
        ("", Unit::Seconds) => seconds(value, at),
        ("s" | "sec" | "secs" | "second" | "seconds", _) => value,
        ("m" | "min" | "mins" | "minute" | "minutes", _) => value * 60.0,
        ("h" | "hr" | "hour" | "hours", _) => value * 3600.0,
        _ => return None,
    };
    // What no duration can hold is long enough.
    Some(Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_RETRY_AFTER))
}

/// Bytes of the number at the beginning: digits, a point, and an exponent, which JSON allows.
fn number_length(text: &str) -> usize {
    let is_of_mantissa = |c: char| c.is_ascii_digit() || c == '.';
    let mantissa = text.find(|c| !is_of_mantissa(c)).unwrap_or(text.len());
    let exponent = text[mantissa..].strip_prefix(['e', 'E']).unwrap_or_default();
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let unsigned = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if unsigned == 0 { mantissa } else { mantissa + 1 + exponent.len() - digits.len() + unsigned }
}

/// Seconds to wait, where the number may also be a time in seconds or milliseconds since
/// 1970.
fn seconds(value: f64, at: Option<SystemTime>) -> f64 {
    let since_1970 = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    let Some(now) = since_1970.map(|since| since.as_secs_f64()).filter(|now| *now > EPOCH_WINDOW) else {
        return value;
    };
    let is_near = |time: &f64| (time - now).abs() < EPOCH_WINDOW;
    [value, value / 1e3].into_iter().find(is_near).map_or(value, |time| (time - now).max(0.0))
}

/// The time between the response and a date. Zero where it has passed.
fn until(text: &str, at: Option<SystemTime>) -> Option<Duration> {
    let date = date(text)?;
    Some(date.duration_since(at?).unwrap_or(Duration::ZERO))
}

/// A date in one of the three forms of RFC 9110, section 5.6.7, or another that RFC 2822
/// or RFC 3339 allows, such as one with a numeric zone. Lenient in what says nothing: another
/// day of the week, the dashes of cookies' dates, and `UTC` for `GMT`.
pub(super) fn date(text: &str) -> Option<SystemTime> {
    const PARSER: DateTimeParser = DateTimeParser::new().relaxed_weekday(true);
    let text = text.trim();
    let mail_date = || {
        let (date, zone) = text.rsplit_once(' ')?;
        let zone = if zone.eq_ignore_ascii_case("utc") || zone == "Z" { "GMT" } else { zone };
        let plain = format!("{} {zone}", date.replace('-', " "));
        PARSER.parse_timestamp(text).or_else(|_| PARSER.parse_timestamp(plain)).ok()
    };
    let timestamp = || text.parse::<Timestamp>().ok();
    httpdate::parse_http_date(text).ok().or_else(|| mail_date().or_else(timestamp).map(SystemTime::from))
}

/// When the limit that is used up begins anew.
fn rate_limit(status: StatusCode, headers: &HeaderMap, at: Option<SystemTime>) -> Option<Duration> {
    let lines = |name: &str| {
        let lines = headers.get_all(name).into_iter().map(|line| String::from_utf8_lossy(line.as_bytes()));
        lines.collect::<Vec<_>>().join(",")
    };
    let pairs = ["ratelimit", "x-ratelimit", "x-rate-limit"].into_iter().filter_map(|prefix| {
        let (remaining, reset) = (lines(&format!("{prefix}-remaining")), lines(&format!("{prefix}-reset")));
        reset_of(status, &remaining, &reset, at)
    });
    pairs.chain(structured(&lines("ratelimit"), at)).max().and_then(believed)
}

/// The longest reset of the limits of which nothing remains. A 429 that does not say what
/// remains says by itself that nothing does.
fn reset_of(status: StatusCode, remaining: &str, reset: &str, at: Option<SystemTime>) -> Option<Duration> {
    let is_used_up: Vec<bool> =
        remaining.split(',').filter_map(leading_number).map(|left| left <= 0.0).collect();
    let any = is_used_up.contains(&true) || is_used_up.is_empty() && status == StatusCode::TOO_MANY_REQUESTS;
    if !any {
        return None;
    }
    let resets: Vec<&str> = reset.split(',').collect();
    if is_used_up.len() == resets.len() {
        let used_up = resets.iter().zip(&is_used_up).filter(|(_, is_used_up)| **is_used_up);
        return used_up.filter_map(|(reset, _)| wait(reset, Unit::Seconds, at)).max();
    }
    waits(reset, Unit::Seconds, at).into_iter().max()
}

/// What is before the parameters of a value such as `0;w=60`.
fn leading_number(text: &str) -> Option<f64> {
    unquoted(text.split(';').next()?).parse().ok()
}

/// The RateLimit header in either of its forms.
fn structured(line: &str, at: Option<SystemTime>) -> Option<Duration> {
    /// What one item says; the older form spreads it over the items of the list.
    #[derive(Clone, Copy, Default)]
    struct Limit<'a> {
        remaining: Option<f64>,
        reset: Option<&'a str>,
    }
    let used_up = |limit: Limit<'_>| {
        let reset = limit.reset.filter(|_| limit.remaining.is_some_and(|left| left <= 0.0));
        reset.and_then(|reset| wait(reset, Unit::Seconds, at))
    };
    let (mut whole, mut waits) = (Limit::default(), Vec::new());
    for item in line.split(',') {
        let mut own = Limit::default();
        for (name, value) in item.split(';').filter_map(|part| part.split_once('=')) {
            match name.trim().to_ascii_lowercase().as_str() {
                "r" | "remaining" => own.remaining = leading_number(value),
                "t" | "reset" => own.reset = Some(value),
                _ => {}
            }
        }
        waits.extend(used_up(own));
        whole.remaining = own.remaining.or(whole.remaining);
        whole.reset = own.reset.or(whole.reset);
    }
    if waits.is_empty() && !line.contains(';') { used_up(whole) } else { waits.into_iter().max() }
}

/// The longest wait that a member of this object, or of one within it, asks for.
fn within(value: Value<'_>, depth: u8, at: Option<SystemTime>) -> Option<Duration> {
    let depth = depth.checked_sub(1)?;
    let object = Object::of(value)?;
    let waits = object.members().filter_map(|(name, value)| {
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let unit = match name.to_ascii_lowercase().as_str() {
            "retryafter" | "retryafterseconds" | "retryaftersecs" | "retryafters" | "retryin"
            | "retryinseconds" | "retrydelay" => Unit::Seconds,
            "retryafterms"
            | "retryaftermillis"
            | "retryaftermilliseconds"
            | "retryinms"
            | "retryinmilliseconds"
            | "retrydelayms" => Unit::Millis,
            _ => return within(value, depth, at),
        };
        wait(&json::plain(value), unit, at)
    });
    waits.max()
}

#[cfg(test)]
mod tests;
