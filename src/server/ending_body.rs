//! The response of a service that knows nothing of the server's state: health, reflection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};

use crate::api::{self, ConnectionEnd};

/// What ends a response, and its status then.
pub(super) struct End {
    when: Pin<Box<dyn Future<Output = ()> + Send>>,
    status: fn() -> Status,
}

impl End {
    /// The connection has become too old.
    pub(super) fn of_connection(end: &ConnectionEnd) -> Self {
        Self { when: Box::pin(end.ended()), status: api::of_expired_connection }
    }

    /// The site in a browser that reads the response may do so no more.
    pub(super) fn of_site(refused: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { when: Box::pin(refused), status: api::of_changed_access }
    }

    /// The server drains.
    pub(super) fn of_server(draining: &CancellationToken) -> Self {
        Self { when: Box::pin(draining.clone().cancelled_owned()), status: api::of_shutdown }
    }
}

/// A body that ends with a status when one of its ends has come and it has nothing to send.
struct EndingBody {
    body: Body,
    /// Empty after its end.
    ends: Vec<End>,
}

/// Ends the response with the first of these ends.
pub(super) fn ending(response: Response<Body>, ends: Vec<End>) -> Response<Body> {
    if ends.is_empty() {
        return response;
    }
    response.map(|body| Body::new(EndingBody { body, ends }))
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ends.is_empty() {
            return Poll::Ready(None);
        }
        let ended =
            self.ends.iter_mut().find_map(|end| end.when.as_mut().poll(cx).is_ready().then_some(end.status));
        match (Pin::new(&mut self.body).poll_frame(cx), ended) {
            (Poll::Pending, Some(status)) => {
                self.ends.clear();
                let (head, ()) = status().into_http::<()>().into_parts();
                Poll::Ready(Some(Ok(Frame::trailers(head.headers))))
            }
            (frame, _) => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ends.is_empty() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
