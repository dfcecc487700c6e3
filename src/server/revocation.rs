//! Ends open calls whose callers a reload has taken rights from.
//!
//! A call goes on if its caller may still do all that it could when the call began. Another
//! ends at once, whatever it has to send. It may be made again, and is then judged anew.
//! A response of one message that was made before is sent.
//!
//! A body ends where it is asked for its next frame. While a client takes nothing, nobody asks:
//! the response has its call's permission for that wait.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, body::Body, codegen::BoxFuture};
use tracing::info;

use crate::{
    access::{Access, Grant},
    api,
    telemetry::Sampled,
};

/// What lets a call go on.
pub(super) struct Permission {
    current: Arc<ArcSwap<Access>>,
    /// The version of the access that allows the call.
    version: u64,
    grant: Grant,
    /// Ready when that access is replaced. Only calls that wait have it.
    replaced: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    /// Whether the call has to end, where several look at that: a later reload changes it no more.
    revoked: Option<Arc<AtomicBool>>,
}

impl Clone for Permission {
    fn clone(&self) -> Self {
        Self {
            current: Arc::clone(&self.current),
            version: self.version,
            grant: self.grant.clone(),
            replaced: None,
            revoked: self.revoked.clone(),
        }
    }
}

impl Permission {
    /// Of a call to which `access` has granted this.
    pub(super) fn new(current: &Arc<ArcSwap<Access>>, access: &Access, grant: Grant) -> Self {
        Self { current: Arc::clone(current), version: access.version(), grant, replaced: None, revoked: None }
    }

    /// Whether the call has to end now.
    fn is_revoked(&mut self) -> bool {
        self.current.load().version() != self.version && self.is_revoked_by(&self.current.load_full())
    }

    fn is_revoked_by(&mut self, access: &Access) -> bool {
        if self.revoked.as_ref().is_some_and(|revoked| revoked.load(Relaxed)) {
            return true;
        }
        if access.version() == self.version {
            return false;
        }
        (self.version, self.replaced) = (access.version(), None);
        let is_kept = access.keeps(&self.grant);
        if let Some(revoked) = self.revoked.as_ref().filter(|_| !is_kept) {
            revoked.store(true, Relaxed);
        }
        !is_kept
    }

    /// The status of a call that has to end.
    fn end(&self) -> Status {
        static LINES: Sampled = Sampled::new(10);
        if let Some(left_out) = LINES.next_line() {
            let left_out = (left_out > 0).then_some(left_out);
            let principal = self.grant.principal().unwrap_or("none");
            info!(principal, left_out, "call ended: its caller may do less since the reload");
        }
        api::of_changed_access()
    }

    /// Whether the call has to end now. Wakes the task when that may have changed.
    pub(super) fn poll_revoked(&mut self, cx: &mut Context<'_>) -> bool {
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
    /// Until there is a response, where it may be revoked.
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

    /// A response that a permission has no part in, or has already.
    pub(super) fn without_permission(response: BoxFuture<Response<Body>, Infallible>) -> Self {
        Self { response, permission: None, streams: false }
    }
}

impl Future for Revocable {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(permission) = &mut this.permission else { return this.response.as_mut().poll(cx) };
        if permission.is_revoked() {
            return Poll::Ready(Ok(permission.end().into_http()));
        }
        match this.response.as_mut().poll(cx) {
            Poll::Pending if permission.poll_revoked(cx) => Poll::Ready(Ok(permission.end().into_http())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(response) => {
                let permission = this.permission.take().filter(|_| this.streams);
                Poll::Ready(response.map(|response| match permission {
                    Some(permission) => streaming(response, permission),
                    None => response,
                }))
            }
        }
    }
}

/// A response of many messages, which ends when its call's permission does.
fn streaming(response: Response<Body>, permission: Permission) -> Response<Body> {
    let permission = Permission { revoked: Some(Arc::default()), ..permission };
    let (mut head, body) = response.into_parts();
    head.extensions.insert(permission.clone());
    Response::from_parts(head, Body::new(RevocableBody { body, permission: Some(permission) }))
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
        let this = &mut *self;
        let Some(permission) = &mut this.permission else { return Poll::Ready(None) };
        if !permission.is_revoked() {
            match Pin::new(&mut this.body).poll_frame(cx) {
                Poll::Pending if permission.poll_revoked(cx) => {}
                frame => return frame,
            }
        }
        let (head, ()) = permission.end().into_http::<()>().into_parts();
        (this.body, this.permission) = (Body::empty(), None);
        Poll::Ready(Some(Ok(Frame::trailers(head.headers))))
    }

    fn is_end_stream(&self) -> bool {
        self.permission.is_none() || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
