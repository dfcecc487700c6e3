//! Ends of calls whose client does not take the response.

use http::Request;
use http_body_util::Full;
use tokio::io::duplex;

use super::*;
use crate::server::{
    form::Form,
    request_body::{self, Expected, Framing, Source},
    usage::{Room, Usage},
};

fn expected() -> Expected {
    Expected { framing: Framing::Messages, limit: 1 << 10, streaming: false, announced: None }
}

/// How long the server sends a response of a mebibyte to a client that takes only the first
/// bytes. `None` if it still does after a day.
async fn ends_after(must_be_taken: bool, deadline: Option<Duration>) -> Option<Duration> {
    let (near, far) = duplex(1 << 20);
    let server = tokio::spawn(async move {
        let mut connection = h2::server::Builder::new().handshake::<_, Piece>(far).await.unwrap();
        let (request, respond) = connection.accept().await.unwrap().unwrap();
        let usage = Usage::new(Room::new(1 << 30, 0, 1, 1)).connect([127, 0, 0, 1].into()).unwrap();
        let (received, _body) = request_body::receive(Source::Http2(request.into_body()), &usage, expected());
        let began = Instant::now();
        let usage = usage.begin_call(0).unwrap();
        let deadline = deadline.map(|deadline| began + deadline);
        let call = Call { received, usage, deadline, must_be_taken, form: Form::GRPC };
        let body = Body::new(Full::new(Bytes::from(vec![0; 1 << 20])));
        let run = call.run(async { Ok::<_, Ended>(Response::new(body)) }, respond);
        let connection = async { while connection.accept().await.is_some() {} };
        tokio::select! {
            () = run => Some(began.elapsed()),
            () = connection => panic!("the connection ended"),
            () = tokio::time::sleep(Duration::from_hours(24)) => None,
        }
    });
    let mut builder = h2::client::Builder::new();
    let (mut client, connection) =
        builder.initial_window_size(100).handshake::<_, Bytes>(near).await.unwrap();
    let _connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::post("http://a/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let _response = response.await.unwrap();
    server.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn unary_response_that_nobody_takes_ends_after_a_minute_whatever_its_deadline() {
    for deadline in [None, Some(Duration::from_hours(24 * 365))] {
        let ended = ends_after(true, deadline).await.unwrap();
        assert!((TAKE..TAKE + Duration::from_secs(1)).contains(&ended), "{ended:?}");
    }
    let ended = ends_after(true, Some(Duration::from_secs(5))).await.unwrap();
    assert!((5..=7).contains(&ended.as_secs()), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn watch_that_nobody_takes_goes_on_until_its_deadline() {
    assert_eq!(ends_after(false, None).await, None);
    let ended = ends_after(false, Some(Duration::from_mins(5))).await.unwrap();
    assert!((300..=302).contains(&ended.as_secs()), "{ended:?}");
}
