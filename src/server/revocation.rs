//! Ends open calls whose callers a reload has taken rights from.
//!
//! A call goes on if its caller may still do all that it could when the call began. Another
//! ends at once, whatever it has to send. It may be made again, and is then judged anew.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body, codegen::BoxFuture};

use crate::{
    access::{Access, Grant},
    api,
};

/// What lets a call go on.
pub(super) struct Permission {
    current: Arc<ArcSwap<Access>>,
    /// The version of the access that allows the call.
    version: u64,
    grant: Grant,
    /// Ready when that access is replaced. Only calls that wait have it.
    replaced: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl Permission {
    /// Of a call to which `access` has granted this.
    pub(super) fn new(current: &Arc<ArcSwap<Access>>, access: &Access, grant: Grant) -> Self {
        Self { current: Arc::clone(current), version: access.version(), grant, replaced: None }
    }

    /// Whether the call has to end now.
    fn is_revoked(&mut self) -> bool {
        self.current.load().version() != self.version && self.is_revoked_by(&self.current.load_full())
    }

    fn is_revoked_by(&mut self, access: &Access) -> bool {
        if access.version() == self.version {
            return false;
        }
        (self.version, self.replaced) = (access.version(), None);
        !access.keeps(&self.grant)
    }

    /// Whether the call has to end now. Wakes the task when that may have changed.
    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            let access = self.current.load_full();
            if self.is_revoked_by(&access) {
                return true;
            }
            let replaced = self.replaced.get_or_insert_with(|| Box::pin(access.replaced()));
            if replaced.as_mut().poll(cx).is_pending() {
                return false;
            }
        }
    }
}

/// A response that ends when its call's permission does.
pub(super) struct Revocable {
    response: BoxFuture<Response<Body>, Infallible>,
    /// Until there is a response.
    permission: Option<Permission>,
    /// The response is more than one message.
    streams: bool,
}

impl Revocable {
    pub(super) fn new(
        response: BoxFuture<Response<Body>, Infallible>,
        permission: Permission,
        streams: bool,
    ) -> Self {
        Self { response, permission: Some(permission), streams }
    }
}

impl Future for Revocable {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.permission.as_mut().is_some_and(Permission::is_revoked) {
            return Poll::Ready(Ok(api::of_changed_access().into_http()));
        }
        match self.response.as_mut().poll(cx) {
            Poll::Pending
                if self.permission.as_mut().is_some_and(|permission| permission.poll_revoked(cx)) =>
            {
                Poll::Ready(Ok(api::of_changed_access().into_http()))
            }
            Poll::Pending => Poll::Pending,
            Poll::Ready(response) => {
                let permission = self.permission.take().filter(|_| self.streams);
                Poll::Ready(response.map(|response| match permission {
                    Some(permission) => {
                        response.map(|body| Body::new(RevocableBody { body, permission: Some(permission) }))
                    }
                    None => response,
                }))
            }
        }
    }
}

struct RevocableBody {
    body: Body,
    /// Until it is revoked.
    permission: Option<Permission>,
}

impl http_body::Body for RevocableBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(permission) = &mut self.permission else { return Poll::Ready(None) };
        if !permission.is_revoked() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending
                    if self.permission.as_mut().is_some_and(|permission| permission.poll_revoked(cx)) => {}
                frame => return frame,
            }
        }
        (self.body, self.permission) = (Body::empty(), None);
        let (head, ()) = api::of_changed_access().into_http::<()>().into_parts();
        Poll::Ready(Some(Ok(Frame::trailers(head.headers))))
    }

    fn is_end_stream(&self) -> bool {
        self.permission.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
