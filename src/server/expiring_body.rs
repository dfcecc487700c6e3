//! The response of a service that knows nothing of the age of connections: health, reflection.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body};

use crate::api::{self, ConnectionEnd};

/// A body that ends with a status when its connection has become too old.
struct ExpiringBody {
    body: Body,
    /// `None` after its end.
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// Ends the response with the calls of its connection.
pub(super) fn expiring(response: Response<Body>, end: &ConnectionEnd) -> Response<Body> {
    response.map(|body| Body::new(ExpiringBody { body, end: Some(Box::pin(end.ended())) }))
}

impl http_body::Body for ExpiringBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(end) = &mut self.end else { return Poll::Ready(None) };
        let has_ended = end.as_mut().poll(cx).is_ready();
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending if has_ended => {
                self.end = None;
                let (head, ()) = api::of_expired_connection().into_http::<()>().into_parts();
                Poll::Ready(Some(Ok(Frame::trailers(head.headers))))
            }
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.end.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
