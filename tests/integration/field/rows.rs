//! The table: faults, and what callers see of each.

use std::time::Duration;

use jobwatch::simulators::{Delivery, RawResponse, Vendor};
use tonic::Code;

use super::{
    change::Change,
    front::{Protocol, Purpose},
};

/// What a caller sees while the fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sees {
    /// The job's status, without any sign of the fault.
    Status,
    Fails(Code, &'static str),
}

const OUTAGE: Sees = Sees::Fails(Code::Unavailable, "BACKEND_UNAVAILABLE");
const THROTTLED: Sees = Sees::Fails(Code::Unavailable, "BACKEND_THROTTLED");
const CREDENTIALS: Sees = Sees::Fails(Code::FailedPrecondition, "BACKEND_CREDENTIALS_REJECTED");
const FORBIDDEN: Sees = Sees::Fails(Code::FailedPrecondition, "BACKEND_FORBIDDEN");
const REJECTED: Sees = Sees::Fails(Code::FailedPrecondition, "BACKEND_REJECTED");
const MALFORMED: Sees = Sees::Fails(Code::Internal, "BACKEND_MALFORMED");

/// When the backend is polled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// After the gateway's own back-off, which is short here.
    BackOff,
    /// After the wait that the vendor asked for, and not before.
    Of(Duration),
    /// Whenever it is.
    Any,
}

/// Long enough that no machine is too busy to see that it lasts.
const WAIT: Wait = Wait::Of(Duration::from_secs(30));

#[derive(Clone, Debug)]
pub(super) enum Fault {
    Change(Change),
    Raw(fn(&RawResponse) -> Delivery),
}

/// A row of docs/faults.md.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) cases: Vec<Case>,
}

/// One form of the fault.
pub(super) struct Case {
    pub(super) label: String,
    pub(super) vendors: Vec<Vendor>,
    /// Of the requests whose responses have it.
    pub(super) purpose: Purpose,
    /// Only so many of them; all if absent.
    pub(super) times: Option<usize>,
    pub(super) fault: Fault,
    pub(super) sees: Sees,
    pub(super) wait: Wait,
    /// Whether the end of the fault is seen soon.
    pub(super) recovers: bool,
    /// Logins that it costs.
    pub(super) logins: usize,
    /// What the message has to contain.
    pub(super) says: Vec<String>,
    /// Comes after the right base_url.
    pub(super) base_path: Option<&'static str>,
    /// Of a failure without a change of the status.
    status: Option<u16>,
}

fn row(name: &'static str, cases: impl IntoIterator<Item = Case>) -> Row {
    Row { name, cases: cases.into_iter().collect() }
}

fn case(label: impl Into<String>, sees: Sees, change: Change) -> Case {
    Case {
        label: label.into(),
        vendors: Vendor::ALL.into(),
        purpose: Purpose::Poll,
        times: None,
        status: change.failure(),
        fault: Fault::Change(change),
        sees,
        wait: Wait::BackOff,
        recovers: true,
        logins: 0,
        says: Vec::new(),
        base_path: None,
    }
}

fn raw(label: &str, sees: Sees, change: fn(&RawResponse) -> Delivery) -> Case {
    Case { fault: Fault::Raw(change), ..case(label, sees, Change::none()) }
}

impl Case {
    fn at(self, vendors: &[Vendor]) -> Self {
        Self { vendors: vendors.into(), ..self }
    }

    fn of_logins(self) -> Self {
        Self { purpose: Purpose::Login, ..self }.at(&[Vendor::Immuta, Vendor::Claret, Vendor::Datasaur])
    }

    fn once(self) -> Self {
        Self { times: Some(1), ..self }
    }

    fn waits(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// A rejected secret is not tried again soon.
    fn stays(self) -> Self {
        Self { wait: Wait::Any, recovers: false, ..self }
    }

    fn says(mut self, part: impl Into<String>) -> Self {
        self.says.push(part.into());
        self
    }

    pub(super) fn http_status(&self) -> Option<u16> {
        self.status
    }

    pub(super) fn protocols(&self) -> &'static [Protocol] {
        match self.fault {
            Fault::Change(_) => &Protocol::ALL,
            Fault::Raw(_) => &Protocol::TEXT,
        }
    }
}

type Rows = fn() -> Vec<Row>;

/// The tests, and what each tries.
pub(super) const TABLES: [(&str, Rows); 7] = [
    ("transient_status_is_an_outage", transient_statuses),
    ("requested_wait_in_any_form_is_honoured", requested_waits),
    ("head_of_an_error_decides_whatever_its_body_is", bodies_of_errors),
    ("graphql_error_with_http_200_is_judged_by_its_code", graphql_errors),
    ("response_that_browsers_read_is_read", lenient_responses),
    ("page_at_any_status_keeps_the_token", pages),
    ("wrong_address_is_named_in_the_message", wrong_addresses),
];

fn transient_statuses() -> Vec<Row> {
    let statuses = [408, 421, 425, 460, 499, 520, 521, 522, 523, 524, 525, 526, 527, 530, 598, 999];
    let any = |status: u16| case(status.to_string(), OUTAGE, Change::page(status));
    vec![
        row("a transient status other than 500 to 504, such as a balancer's 408", statuses.map(any)),
        row(
            "a transient status of the token endpoint",
            [408, 425, 499, 520, 503].map(|status| any(status).of_logins()),
        ),
    ]
}

fn limited(value: &str) -> Change {
    Change::json(429, "{}").header("retry-after", value)
}

fn throttled(label: &str, change: Change) -> Case {
    case(label, THROTTLED, change).waits(WAIT)
}

/// The forms of HTTP's dates: RFC 9110, section 5.6.7.
const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

fn requested_waits() -> Vec<Row> {
    let forms = |forms: &[&str]| forms.iter().map(|form| throttled(form, limited(form))).collect::<Vec<_>>();
    let used_up = |label: &str, headers: &[(&'static str, &str)]| {
        let change =
            headers.iter().fold(Change::json(429, "{}"), |change, (name, value)| change.header(name, *value));
        throttled(label, change)
    };
    let lines = |values: &[&str]| {
        let change =
            values.iter().fold(Change::json(429, "{}"), |it, value| it.header("retry-after", *value));
        throttled(&values.join(" / "), change)
    };
    let date = |form: &'static str| {
        let own_clock = Change::json(429, "{}").without("date").time_header("retry-after", 30, form);
        throttled(form, own_clock)
    };
    let epoch = Change::json(429, "{}").header("x-ratelimit-remaining", "0");
    let epoch = epoch.time_header("x-ratelimit-reset", 30, "%s");
    let then = "Sun, 06 Nov 1994 08:49:37 GMT";
    let vendors_clock =
        ["Sun, 06 Nov 1994 08:50:07 GMT", "Sunday, 06-Nov-94 08:50:07 GMT", "Sun Nov  6 08:50:07 1994"];
    let vendors_clock =
        vendors_clock.map(|value| throttled(value, limited(value).without("date").header("date", then)));
    let status = |status: u16| {
        case(status.to_string(), OUTAGE, Change::page(status).header("retry-after", "30")).waits(WAIT)
    };
    let forbidden = |value: &str| {
        case(format!("403, {value}"), THROTTLED, Change::page(403).header("retry-after", value)).waits(WAIT)
    };
    let left = |label: &str, headers: &[(&'static str, &str)]| Case {
        wait: Wait::BackOff,
        ..used_up(label, headers)
    };
    vec![
        row("Retry-After with a fraction or blanks", forms(&["30.0", "29.734", " 30 ", "30."])),
        row(
            "several values of Retry-After",
            [forms(&["30, 30", "5, 30", "30,5.5"]), vec![lines(&["5", "30"]), lines(&["30", "5", "soon"])]]
                .concat_cases(),
        ),
        row("Retry-After as a date against the vendor's clock", vendors_clock),
        row("Retry-After as a date without a Date header", DATES.map(date)),
        row("Retry-After at a transient status", [408, 425, 499, 500, 502, 503, 504, 520].map(status)),
        row("403 with Retry-After", ["30", "29.5", "5, 30"].map(forbidden)),
        row(
            "a rate limit that is used up, without Retry-After",
            [
                used_up("X-RateLimit", &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")]),
                throttled("epoch", epoch),
                used_up("X-Rate-Limit", &[("x-rate-limit-remaining", "0"), ("x-rate-limit-reset", "30")]),
                used_up("RateLimit-Reset", &[("ratelimit-remaining", "0"), ("ratelimit-reset", "30")]),
                used_up("RateLimit", &[("ratelimit", "limit=10, remaining=0, reset=30")]),
                used_up("RateLimit, structured", &[("ratelimit", "\"default\";r=0;t=30")]),
            ],
        ),
        row(
            "a rate limit that is not used up",
            [left("X-RateLimit", &[("x-ratelimit-remaining", "7"), ("x-ratelimit-reset", "300")])],
        ),
        row(
            "Retry-After of the token endpoint",
            [
                throttled("429", limited("30")).of_logins(),
                status(503).of_logins(),
                throttled("5, 30.0", limited("5, 30.0")).of_logins(),
            ],
        ),
    ]
}

trait ConcatCases {
    fn concat_cases(self) -> Vec<Case>;
}

impl<const N: usize> ConcatCases for [Vec<Case>; N] {
    fn concat_cases(self) -> Vec<Case> {
        self.into_iter().flatten().collect()
    }
}

/// Each head with this body.
fn heads(spoil: fn(Change) -> Change) -> Vec<Case> {
    const WITH_TOKENS: [Vendor; 2] = [Vendor::Claret, Vendor::Datasaur];
    const WITH_SECRETS: [Vendor; 2] = [Vendor::Immuta, Vendor::Kinetica];
    let with = |label: &str, sees, change| case(label, sees, spoil(change));
    let renewed = with("401", Sees::Status, Change::page(401)).at(&WITH_TOKENS).once();
    vec![
        with("429", THROTTLED, Change::page(429).header("retry-after", "30")).waits(WAIT),
        with("429 without a wait", THROTTLED, Change::json(429, r#"{"message":"BODY"}"#)),
        with("503", OUTAGE, Change::page(503).header("retry-after", "30")).waits(WAIT),
        with("500", OUTAGE, Change::json(500, r#"{"message":"BODY"}"#)),
        with("408", OUTAGE, Change::page(408)),
        with("403", FORBIDDEN, Change::page(403)),
        with("401", CREDENTIALS, Change::page(401)).at(&WITH_SECRETS).stays(),
        Case { logins: 1, ..renewed },
        with("302", REJECTED, Change::page(302).header("location", "https://vendor.example/elsewhere"))
            .says("https://vendor.example/elsewhere"),
    ]
}

fn bodies_of_errors() -> Vec<Row> {
    vec![
        row("an error whose body is not the gzip that it says", heads(Change::mislabelled)),
        row(
            "an error whose body is larger than max_response_bytes",
            [heads(|change| change.too_large(true)), heads(|change| change.too_large(false))].concat_cases(),
        ),
        row("an error whose body is truncated", heads(Change::truncated)),
        row("an error whose body stalls", heads(Change::stalled)),
    ]
}

/// An error without data, with these extensions.
pub(super) fn graphql(extensions: &str) -> Change {
    let error = format!(r#"{{"message":"no","locations":[],"path":["jobs"],"extensions":{extensions}}}"#);
    Change::json(200, format!(r#"{{"errors":[{error}],"data":null}}"#))
}

fn graphql_errors() -> Vec<Row> {
    let only = |case: Case| case.at(&[Vendor::Datasaur]);
    let code = |code: &str, sees| only(case(code, sees, graphql(&format!(r#"{{"code":"{code}"}}"#))));
    let outages =
        ["INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "TIMEOUT", "GATEWAY_TIMEOUT", "BAD_GATEWAY"];
    let limits = ["RATE_LIMITED", "THROTTLED", "TOO_MANY_REQUESTS"];
    let extended =
        |label: &str, extensions: &str| only(case(label, THROTTLED, graphql(extensions)).waits(WAIT));
    vec![
        row(
            "a GraphQL outage with HTTP 200",
            outages.into_iter().flat_map(|it| [code(it, OUTAGE), code(&it.to_lowercase(), OUTAGE)]).chain([
                only(case("status 503", OUTAGE, graphql(r#"{"http":{"status":503}}"#))),
                only(case(
                    "Retry-After",
                    OUTAGE,
                    graphql(r#"{"code":"TIMEOUT"}"#).header("retry-after", "30"),
                ))
                .waits(WAIT),
            ]),
        ),
        row(
            "a GraphQL rate limit with HTTP 200",
            limits
                .into_iter()
                .flat_map(|it| [code(it, THROTTLED), code(&it.to_lowercase(), THROTTLED)])
                .chain([
                    only(case("status 429", THROTTLED, graphql(r#"{"http":{"status":429}}"#))),
                    only(throttled(
                        "Retry-After",
                        graphql(r#"{"code":"THROTTLED"}"#).header("retry-after", "30"),
                    )),
                    extended("retryAfter", r#"{"code":"RATE_LIMITED","retryAfter":30}"#),
                    extended("retry_after", r#"{"code":"THROTTLED","retry_after":"30"}"#),
                    extended("retryAfterMs", r#"{"code":"RATE_LIMITED","retryAfterMs":30000}"#),
                ]),
        ),
        row("a GraphQL refusal with HTTP 200", [code("FORBIDDEN", FORBIDDEN), code("forbidden", FORBIDDEN)]),
    ]
}

fn lenient_responses() -> Vec<Row> {
    let reads = |label: &str, change| case(label, Sees::Status, change);
    let coded = |label: &str, members| reads(label, Change::none().gzip(label, members));
    let typed = |kind: &str| reads(kind, Change::none().content_type(kind));
    let plain = |label: &str| reads(label, Change::none().header("content-encoding", label));
    let bom = || Change::none().prefix(b"\xef\xbb\xbf");
    vec![
        row(
            "gzip under another name of it",
            [coded("GZIP", 1), coded("x-gzip", 1), coded("Gzip", 1), coded("GZip", 1).of_logins()],
        ),
        row("gzip of several members", [coded("gzip", 3), coded("gzip", 7), coded("gzip", 2).of_logins()]),
        row("a coding that is none", [plain("identity"), plain("none"), plain("utf-8"), plain("")]),
        row(
            "a BOM before JSON",
            [reads("BOM", bom()), reads("BOM, gzip", bom().gzip("gzip", 1)), {
                reads("BOM of a token", bom()).of_logins()
            }],
        ),
        row(
            "another type of JSON",
            [
                typed("application/json; charset=UTF-8"),
                typed("application/json;Charset=\"utf-8\""),
                typed("text/json"),
                typed("application/vnd.vendor.v1+json"),
                typed("APPLICATION/JSON"),
                typed("text/plain; charset=utf-8"),
                reads("none", Change::none().without("content-type")),
            ],
        ),
        row(
            "a folded header line",
            [
                raw("blank", Sees::Status, |it| {
                    folded(it, "x-policy: default-src 'self';\r\n  img-src *\r\n")
                }),
                raw("tab", Sees::Status, |it| folded(it, "x-policy: a\r\n\tb\r\n\tc\r\n")),
                raw("before the type", Sees::Status, |it| folded(it, "x-a: 1\r\n 2\r\nx-b: 3\r\n")),
            ],
        ),
    ]
}

fn folded(response: &RawResponse, lines: &str) -> Delivery {
    let length = format!("content-length: {}\r\n", response.body.len());
    Delivery::of(response.with_body(&format!("{lines}{length}"), &response.body))
}

/// A token is not to blame for what a firewall or a captive portal says.
fn pages() -> Vec<Row> {
    let claret = |case: Case| case.at(&[Vendor::Claret]);
    vec![
        row(
            "a page of a firewall or a captive portal",
            [
                case("403", FORBIDDEN, Change::page(403)),
                case("200", MALFORMED, Change::page(200)),
                case("404", REJECTED, Change::page(404)),
                case("511", OUTAGE, Change::page(511)),
                case(
                    "a portal's redirect",
                    REJECTED,
                    Change::page(302).header("location", "https://portal.example/login?QUERY"),
                )
                .says("https://portal.example/login"),
            ],
        ),
        row(
            "a redirect to the vendor's own login page",
            [claret(Case {
                logins: 1,
                ..case("302", Sees::Status, Change::page(302).header("location", "/demo/login")).once()
            })],
        ),
    ]
}

fn wrong_addresses() -> Vec<Row> {
    let moved = |status: u16| {
        let there = "https://vendor.example/here?QUERY=1";
        case(status.to_string(), REJECTED, Change::page(status).header("location", there))
            .says("https://vendor.example/here")
    };
    let path = Case {
        base_path: Some("/elsewhere"),
        status: Some(404),
        recovers: false,
        ..case("a path too much", REJECTED, Change::none())
    };
    // Claret and Datasaur log in below the same path.
    let path = path.at(&[Vendor::Immuta, Vendor::Kinetica]);
    vec![
        row("http in place of https, which the vendor redirects", [301, 302, 303, 307, 308].map(moved)),
        row(
            "a base_url with a wrong path or of another service",
            [
                path,
                case("another service", REJECTED, Change::page(404)),
                case("nothing", REJECTED, Change::none().status(404).body("text/plain", "")),
                case("405", REJECTED, Change::page(405)),
            ],
        ),
    ]
}
