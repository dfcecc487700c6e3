use http::{HeaderMap, HeaderValue};
use tokio::sync::mpsc::{Receiver, channel};

use super::*;

const ALL: Sampling = Sampling { ratio: 1.0, parent_based: true, propagate: false };

fn tracer(sampling: Sampling, queue: usize) -> (Tracer, Receiver<SpanData>) {
    let (sender, spans) = channel(queue);
    (Tracer::new(sampling, sender), spans)
}

fn headers(flags: &str) -> HeaderMap {
    let text = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
    [("traceparent".parse().unwrap(), HeaderValue::from_str(&text).unwrap())].into_iter().collect()
}

fn waiter(tracer: &Tracer) -> (CallSpan, Box<Waiter>) {
    let call = tracer.begin_call(&HeaderMap::new()).unwrap();
    let waiter = call.enter(Waiter::current).unwrap();
    (call, waiter)
}

#[test]
fn call_is_sampled_as_its_caller_or_else_the_ratio_says() {
    let sampled = |ratio, parent_based, flags: &str| {
        let (tracer, _spans) = tracer(Sampling { ratio, parent_based, propagate: false }, 1);
        let headers = if flags.is_empty() { HeaderMap::new() } else { headers(flags) };
        tracer.begin_call(&headers).is_some()
    };
    assert!(sampled(1.0, true, "") && !sampled(0.0, true, ""));
    assert!(sampled(0.0, true, "01") && !sampled(1.0, true, "00"));
    assert!(!sampled(0.0, false, "01") && sampled(1.0, false, "00"));
}

#[tokio::test]
async fn span_beyond_the_queue_is_dropped_and_counted() {
    let (tracer, mut spans) = tracer(ALL, 2);
    let before = metrics().spans("queue_full").get();
    for method in ["a", "b", "c"] {
        tracer.begin_call(&HeaderMap::new()).unwrap().end("s", method, 0);
    }
    assert_eq!(metrics().spans("queue_full").get() - before, 1);
    let names = [spans.recv().await, spans.recv().await].map(|span| span.unwrap().name);
    assert_eq!(names, ["s/a", "s/b"]);
}

#[tokio::test]
async fn links_beyond_the_limit_are_counted() {
    let (tracer, mut spans) = tracer(ALL, 2 * LINKS);
    let poll = tracer.begin_poll(&"backend".into(), 1);
    for _ in 0..LINKS + 3 {
        let (_call, waiter) = waiter(&tracer);
        poll.span().serves(&waiter, None);
        poll.span().serves(&waiter, None);
    }
    poll.end("ok", LINKS + 3);
    let span = spans.recv().await.unwrap();
    assert_eq!((span.links.len(), span.links.dropped_count), (LINKS, 3));
}

#[tokio::test]
async fn poll_is_exported_if_a_sampled_call_joins_it_though_the_ratio_says_otherwise() {
    let (tracer, mut spans) = tracer(Sampling { ratio: 0.0, ..ALL }, 8);
    drop(tracer.begin_poll(&"backend".into(), 1));
    let poll = tracer.begin_poll(&"backend".into(), 1);
    let call = tracer.begin_call(&headers("01")).unwrap();
    poll.span().serves(&call.enter(Waiter::current).unwrap(), None);
    poll.end("ok", 1);
    let span = spans.recv().await.unwrap();
    assert_eq!(span.links[0].span_context.span_id(), call.context().span_id());
    assert!(spans.try_recv().is_err(), "the other poll serves nobody who is sampled");
}

#[tokio::test]
async fn poll_that_is_dropped_is_cancelled_and_ends_once() {
    let (tracer, mut spans) = tracer(ALL, 8);
    drop(tracer.begin_poll(&"backend".into(), 3));
    let span = spans.recv().await.unwrap();
    assert!(span.attributes.contains(&KeyValue::new("jobwatch.poll.outcome", "cancelled")));
    assert_eq!(span.status, Status::Unset);
    let poll = tracer.begin_poll(&"backend".into(), 1);
    poll.end("throttled", 1);
    drop(poll);
    let span = spans.recv().await.unwrap();
    assert!(span.attributes.contains(&KeyValue::new("error.type", "throttled")));
    assert!(spans.try_recv().is_err());
}

#[tokio::test]
async fn call_that_has_ended_is_linked_with_no_later_poll() {
    let (tracer, mut spans) = tracer(ALL, 8);
    let (call, waiter) = waiter(&tracer);
    call.end("s", "m", 14);
    let poll = tracer.begin_poll(&"backend".into(), 1);
    poll.span().serves(&waiter, None);
    poll.end("ok", 0);
    let ended = [spans.recv().await.unwrap(), spans.recv().await.unwrap()];
    assert_eq!(ended[0].status, Status::error(""));
    assert!(ended.iter().all(|span| span.links.is_empty()));
}

#[tokio::test]
async fn only_the_last_request_of_the_own_poll_is_noted() {
    let (tracer, mut spans) = tracer(ALL, 8);
    let request = |url: &str| http::Request::post(url).body(()).unwrap();
    http_request(&request("http://elsewhere.example/"));
    let poll = tracer.begin_poll(&"backend".into(), 1);
    let requests = poll.span().scope(async {
        http_request(&request("https://user:hush@vendor.example/token"));
        http_response(http::StatusCode::OK);
        http_request(&request("https://user:hush@vendor.example/jobs/hush"));
        let mut headers = HeaderMap::new();
        traceparent(&mut headers);
        assert!(headers.is_empty(), "it is not propagated");
    });
    requests.await;
    poll.end("unavailable", 1);
    let attributes = spans.recv().await.unwrap().attributes;
    let value = |name: &str| {
        let found = attributes.iter().find(|pair| pair.key.as_str() == name);
        found.map(|pair| pair.value.as_str().into_owned())
    };
    assert_eq!(value("server.address").as_deref(), Some("vendor.example"));
    assert_eq!(value("server.port").as_deref(), Some("443"));
    assert_eq!(value("jobwatch.poll.requests").as_deref(), Some("2"));
    assert_eq!(value("http.response.status_code"), None, "the last request had no response");
    assert!(!format!("{attributes:?}").contains("hush"));
}
