//! A request as it arrives over either version of HTTP: its form, who sent it, and what its
//! call may use.

use std::sync::Arc;

use http::{Request, request};
use tonic::{Status, body::Body};

use super::{
    call::Call,
    connection::Peer,
    dispatch::Dispatch,
    form::{Form, Kind},
    request_body::{self, Source},
    usage::CallUsage,
};
use crate::api::{
    self, ConnectionEnd,
    http::{CountsBytes, Room},
};

/// Why a request is not served, with its form.
#[derive(Clone, Debug)]
pub(super) struct Refused(pub(super) Status);

/// Bytes that the headers of a request take.
pub(super) fn header_bytes(head: &request::Parts) -> usize {
    head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
}

/// The form of a request, and why it is refused if it is.
pub(super) fn form(head: &request::Parts, peer: &Peer, service: &Dispatch) -> (Form, Option<Refused>) {
    if Kind::of(head) == Kind::Grpc {
        return (Form::GRPC, None);
    }
    match service.site(head, peer.is_encrypted) {
        Ok(origin) => (Form::of(head, origin), None),
        Err(status) => refused(head, status),
    }
}

/// The form of a request that is refused for this reason.
pub(super) fn refused(head: &request::Parts, status: Status) -> (Form, Option<Refused>) {
    (Form::of(head, None), Some(Refused(status)))
}

/// The request for the service, and the call that it begins.
pub(super) fn begin(
    (mut head, source): (request::Parts, Source),
    (form, refused): (Form, Option<Refused>),
    peer: &Peer,
    usage: CallUsage,
    end: Option<&ConnectionEnd>,
) -> (Request<Body>, Call) {
    let path = head.uri.path();
    let must_be_taken = api::is_unary(path);
    let (received, body) = request_body::receive(source, usage.connection(), form.expected(&head));
    head.extensions.insert(peer.address.clone());
    if let Some(certificate) = &peer.certificate {
        head.extensions.insert(certificate.clone());
    }
    if let Some(end) = end {
        head.extensions.insert(end.clone());
    }
    if form.kind != Kind::Grpc {
        head.extensions.insert(form.clone());
        head.extensions.insert(Room::of(Arc::clone(usage.connection()) as Arc<dyn CountsBytes>));
    }
    if let Some(refused) = refused {
        head.extensions.insert(refused);
    }
    let mut request = Request::from_parts(head, Body::new(body));
    api::note_deadline(&mut request);
    let deadline = api::deadline(request.extensions());
    (request, Call { received, usage, deadline, must_be_taken, form })
}
