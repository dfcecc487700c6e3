use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::Request;
use http_body::{Frame, SizeHint};
use http_body_util::Full;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 100 * 1024;

/// How a body ends after its bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Whole,
    Broken,
    Stalled,
    /// The same bytes again and again.
    Endless,
}

struct Scripted {
    bytes: Option<Bytes>,
    end: End,
    announced: Option<u64>,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let bytes = if self.end == End::Endless { self.bytes.clone() } else { self.bytes.take() };
        match (bytes, self.end) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, End::Broken) => Poll::Ready(Some(Err("reset"))),
            (None, End::Stalled) => Poll::Pending,
            (None, End::Whole | End::Endless) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn head(status: u16, headers: &[(&'static str, &str)]) -> Response<()> {
    let mut head = Response::builder().status(status);
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    head.body(()).unwrap()
}

async fn read_within<B>(
    budget: &ResponseBudget,
    head: Response<()>,
    body: B,
) -> Result<(Response<Bytes>, Reservation), BackendFault>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Debug,
{
    let request = Request::post("http://vendor.example/jobs/statuses?secret=s3cret").body(()).unwrap();
    let limits = Limits { max_bytes: MAX_BYTES, budget, sent_at: Instant::now(), timeout: TIMEOUT };
    let broken = |error: &B::Error| FaultKind::Unavailable { why: format!("broke: {error:?}") }.into();
    super::read(Asked::of(&request), head.map(|()| body), limits, broken).await
}

async fn read(
    status: u16,
    headers: &[(&'static str, &str)],
    body: &[u8],
    end: End,
) -> Result<Response<Bytes>, BackendFault> {
    let budget = ResponseBudget::new(usize::MAX);
    let body = Scripted { bytes: Some(Bytes::copy_from_slice(body)), end, announced: None };
    read_within(&budget, head(status, headers), body).await.map(|(response, _)| response)
}

#[tokio::test(start_paused = true)]
async fn head_decides_whatever_becomes_of_the_body() {
    let gzip = [("content-encoding", "gzip"), ("retry-after", "7")];
    let long = vec![b' '; 2 * MAX_REFUSAL_BYTES];
    for status in [301, 401, 403, 404, 408, 425, 429, 500, 503, 520] {
        for end in [End::Whole, End::Broken, End::Stalled, End::Endless] {
            for (headers, body) in [
                (&gzip[1..], &b"{\"message\":\"x\"}"[..]),
                (&gzip, b"{\"message\":\"x\"}"),
                (&gzip, b"\x1f\x8b\x08junk"),
                (&gzip[1..], &long),
            ] {
                let began = Instant::now();
                let response = read(status, headers, body, end).await.unwrap();
                assert_eq!(response.status(), status);
                assert_eq!(response.headers()["retry-after"], "7");
                assert!(response.body().len() <= MAX_REFUSAL_BYTES);
                assert!(began.elapsed() <= REFUSAL_PATIENCE, "{status} {end:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn body_that_says_everything_is_an_outage_if_it_breaks_off() {
    for status in [400, 422] {
        for end in [End::Broken, End::Stalled] {
            let fault = read(status, &[("retry-after", "7")], b"{\"message\":", end).await.unwrap_err();
            assert!(matches!(fault.kind, FaultKind::Unavailable { .. }), "{fault:?}");
            let exchange = format!("POST /jobs/statuses: HTTP {status}");
            assert_eq!(fault.exchange.as_deref(), Some(&*exchange));
            assert_eq!(fault.retry_after, Some(Duration::from_secs(7)));
        }
        let response = read(status, &[], b"{}", End::Whole).await.unwrap();
        assert_eq!(response.body(), "{}");
        let long = vec![b' '; 2 * MAX_REFUSAL_BYTES];
        let cut = read(status, &[], &long, End::Whole).await.unwrap();
        assert!(cut.body().len() <= MAX_REFUSAL_BYTES);
    }
}

#[tokio::test(start_paused = true)]
async fn success_that_breaks_off_is_an_outage() {
    let fault = read(200, &[], b"{", End::Broken).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable { why: "broke: \"reset\"".into() });
    assert_eq!(fault.exchange.as_deref(), Some("POST /jobs/statuses: HTTP 200"));
    let began = Instant::now();
    let fault = read(200, &[], b"{", End::Stalled).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Unavailable { why: "no whole response within 10s".into() });
    assert_eq!(began.elapsed(), TIMEOUT);
    let gzip = [("content-encoding", "gzip")];
    let fault = read(200, &gzip, b"\x1f\x8b\x08\0", End::Whole).await.unwrap_err();
    assert!(matches!(fault.kind, FaultKind::Unavailable { .. }), "{fault:?}");
    let fault = read(200, &[], b"    ", End::Endless).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn success_over_the_limit_is_refused_before_it_is_read() {
    let budget = ResponseBudget::new(usize::MAX);
    let body = Scripted { bytes: None, end: End::Stalled, announced: Some(MAX_BYTES as u64 + 1) };
    let fault = read_within(&budget, head(200, &[]), body).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::TooLarge);
}

#[tokio::test]
async fn byte_order_mark_is_skipped_once() {
    for status in [200, 400] {
        let response = read(status, &[], b"\xef\xbb\xbf{}", End::Whole).await.unwrap();
        assert_eq!(response.body(), "{}");
    }
    let twice = read(200, &[], b"\xef\xbb\xbf\xef\xbb\xbf{}", End::Whole).await.unwrap();
    assert_eq!(twice.body(), "\u{feff}{}");
}

#[tokio::test]
async fn response_without_a_usable_date_has_the_time_of_its_arrival() {
    for headers in [&[][..], &[("date", "junk")], &[("date", "")]] {
        let response = read(503, headers, b"", End::Whole).await.unwrap();
        let date = httpdate::parse_http_date(response.headers()["date"].to_str().unwrap()).unwrap();
        assert!(date <= SystemTime::now() && response.headers().get_all("date").iter().count() == 1);
    }
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    let response = read(503, &[("date", date)], b"", End::Whole).await.unwrap();
    assert_eq!(response.headers()["date"], date);
}

#[tokio::test(start_paused = true)]
async fn refusal_needs_no_room_to_be_known() {
    let budget = ResponseBudget::new(MAX_BYTES);
    let _held = budget.acquire(MAX_BYTES).await;
    let full = || Full::<Bytes>::from("{}");
    for status in [401, 429, 503] {
        let response: Result<_, BackendFault> = read_within(&budget, head(status, &[]), full()).await;
        assert_eq!(response.unwrap().0.status(), status);
    }
    for status in [200, 400] {
        let fault = read_within(&budget, head(status, &[]), full()).await.unwrap_err();
        assert_eq!(fault.kind, FaultKind::Overloaded, "the body has to be read");
    }
}
