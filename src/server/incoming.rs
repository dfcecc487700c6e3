//! A request as it arrives over either version of HTTP: its form, who sent it, and what its
//! call may use.

use std::sync::Arc;

use http::{Request, Version, header, request};
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
    self, ConnectionEnd, SilenceLimit,
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
    if let Err(status) = check_authority(head) {
        return refused(head, status);
    }
    match service.site(head, peer.is_encrypted) {
        Ok(origin) => (Form::of(head, origin), None),
        Err(status) => refused(head, status),
    }
}

/// Checks that a request names this address without user information: a name before it could
/// pass for the one of the address.
fn check_authority(head: &request::Parts) -> Result<(), Status> {
    let in_target = head.uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    if in_target {
        return Err(api::of_bad_host("in the target of the request has user information; leave it out"));
    }
    if head.headers.get(header::HOST).is_some_and(|host| host.as_bytes().contains(&b'@')) {
        return Err(api::of_bad_host("has user information; leave it out"));
    }
    Ok(())
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
    match form.kind {
        Kind::Http => _ = head.extensions.insert(SilenceLimit::JSON),
        Kind::GrpcWeb if head.version != Version::HTTP_2 => {
            head.extensions.insert(SilenceLimit::GRPC_WEB);
        }
        Kind::GrpcWeb | Kind::Grpc => {}
    }
    if let Some(refused) = refused {
        head.extensions.insert(refused);
    }
    let mut request = Request::from_parts(head, Body::new(body));
    api::note_deadline(&mut request);
    let deadline = api::deadline(request.extensions());
    (request, Call { received, usage, deadline, must_be_taken, form })
}
