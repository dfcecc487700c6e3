//! Routes requests: those for the job status service and for operations go there once their
//! caller is known, all others through tonic's router. Sets how messages are compressed.
//! Requests of gRPC-Web and of HTTP with JSON become requests of gRPC first.
//!
//! Tonic's router is axum's. For each request it matches the path, clones and boxes the
//! service, and boxes the bodies of the request and of the response once more.

use std::{
    convert::Infallible,
    future::ready,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::{ArcSwap, Guard};
use http::{Extensions, HeaderValue, Method, Request, Response, Uri, request::Parts};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, body::Body, codec::CompressionEncoding, codegen::BoxFuture, service::Routes,
    transport::server::TcpConnectInfo,
};
use tower::Service;

use super::{
    ending_body::{End, ending},
    form::{Form, Kind},
    incoming,
    observe::{Observed, Principal},
    revocation::{Permission, Revocable},
    site::Site,
    web::{self, Web},
};
use crate::{
    access::{self, Access, Evidence, Grant, Refused},
    api::{self, ConnectionEnd},
    engine::Engine,
    proto::{
        longrunning::operations_server::{OperationsServer, SERVICE_NAME as OPERATIONS},
        served::job_status_service_server::{JobStatusServiceServer, SERVICE_NAME as JOBS},
    },
    telemetry::traces::Tracer,
};

/// How the paths of both versions of reflection begin.
const REFLECTION: &str = "/grpc.reflection.";

/// The methods whose response is a stream.
const STREAMING: [&str; 3] = ["WatchJob", "WatchJobs", "DownloadArtifact"];

type Jobs = JobStatusServiceServer<api::Service<Engine>>;
type Operations = OperationsServer<api::Service<Engine>>;

/// The names in a connection's client certificate, read once for each connection.
#[derive(Clone, Debug)]
pub(super) struct CertificateNames(Arc<str>);

impl CertificateNames {
    /// The names in a verified certificate, in DER.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        access::names_of_certificate(der).map(|names| Self(names.into()))
    }
}

/// The services whose callers are identified, and a router for the others.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    jobs: Jobs,
    operations: Operations,
    live: Live,
    tracer: Option<Tracer>,
    others: Routes,
    /// The server drains.
    draining: CancellationToken,
}

/// What a reload of the configuration replaces.
#[derive(Clone, Debug)]
pub(super) struct Live {
    pub(super) access: Arc<ArcSwap<Access>>,
    /// Whether each call has a line in the log.
    pub(super) access_log: Arc<AtomicBool>,
    /// The sites in browsers that may call.
    pub(super) web: Arc<ArcSwap<Web>>,
}

impl Live {
    pub(super) fn new(access: Access, access_log: bool, web: Web) -> Self {
        Self {
            access: Arc::new(ArcSwap::from_pointee(access)),
            access_log: Arc::new(access_log.into()),
            web: Arc::new(ArcSwap::from_pointee(web)),
        }
    }
}

impl Dispatch {
    pub(super) fn new(
        service: api::Service<Engine>,
        live: Live,
        others: Routes,
        tracer: Option<Tracer>,
        draining: CancellationToken,
    ) -> Self {
        let mut operations = OperationsServer::new(service.clone()).max_encoding_message_size(usize::MAX);
        let mut jobs = JobStatusServiceServer::new(service)
            .max_decoding_message_size(api::LONGEST_REQUEST)
            .max_encoding_message_size(usize::MAX);
        for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
            jobs = jobs.accept_compressed(encoding).send_compressed(encoding);
            operations = operations.accept_compressed(encoding).send_compressed(encoding);
        }
        Self { jobs, operations, live, tracer, others, draining }
    }
}

impl Service<Request<Body>> for Dispatch {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The job status service is always ready.
        Service::<Request<Body>>::poll_ready(&mut self.others, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Plain gRPC has none.
        match request.extensions_mut().remove::<Form>() {
            None => self.call_grpc(request),
            Some(form) => self.call_web(request, form),
        }
    }
}

impl Dispatch {
    /// The site that sends a request from a browser, if one does.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(super) fn site(&self, head: &Parts, is_encrypted: bool) -> Result<Option<HeaderValue>, Status> {
        let needs_name = !is_encrypted && self.live.access.load().is_open();
        self.live.web.load().site(head, needs_name)
    }

    /// Serves a request that is not plain gRPC.
    fn call_web(&self, request: Request<Body>, form: Form) -> BoxFuture<Response<Body>, Infallible> {
        let (mut head, body) = request.into_parts();
        if let Some(incoming::Refused(status)) = head.extensions.remove() {
            return self.refuse(head, form, status);
        }
        if let Some(response) = web::preflight(&head, &form) {
            return Box::pin(ready(Ok(response)));
        }
        // Before its body is read.
        if head.method == Method::POST
            && let Some(Err(refused)) = identified_now(&self.live.access.load(), &head)
        {
            return self.refuse(head, form, api::of_refused(&refused));
        }
        if let Some(origin) = &form.origin {
            head.extensions.insert(Site::new(origin.clone(), &self.live.web));
        }
        let request = Request::from_parts(head, body);
        let mut dispatch = self.clone();
        let mut grpc = move |request| dispatch.call_grpc(request);
        match form.kind {
            Kind::Grpc => grpc(request),
            Kind::GrpcWeb => web::call(request, form, grpc),
            Kind::Http => Box::pin(api::http::call(request, grpc)),
        }
    }

    /// Refuses a request before its body is read. It counts as the call that it would be.
    fn refuse(&self, mut head: Parts, form: Form, status: Status) -> BoxFuture<Response<Body>, Infallible> {
        if form.kind == Kind::Http
            && let Some(path) = api::http::call_path(&head)
        {
            head.uri = Uri::from_static(path);
        }
        let service = [JOBS, OPERATIONS].into_iter().find(|service| is_for(service, head.uri.path()));
        let Some(service) = service else { return Box::pin(ready(Ok(form.failure(&status)))) };
        let mut request = Request::from_parts(head, ());
        let observed = self.observe(&mut request, service).response(ready(Ok(status.into_http())));
        Box::pin(async move { Ok(form.refusal(&observed.await?)) })
    }

    fn call_grpc(&mut self, mut request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        let path = request.uri().path();
        if is_for(JOBS, path) {
            let observed = self.observe(&mut request, JOBS);
            observed.response(call_identified(&self.live, &mut self.jobs, request))
        } else if is_for(OPERATIONS, path) {
            let observed = self.observe(&mut request, OPERATIONS);
            observed.response(call_identified(&self.live, &mut self.operations, request))
        } else {
            let end = request.extensions().get::<ConnectionEnd>();
            let mut ends: Vec<_> = end.map(End::of_connection).into_iter().collect();
            // `Upkeep` ends the watches of health, once they have their last status.
            if request.uri().path().starts_with(REFLECTION) {
                ends.push(End::of_server(&self.draining));
            }
            let response = self.others.call(request);
            Box::pin(async move { Ok(ending(response.await?, ends)) })
        }
    }

    fn observe<B>(&self, request: &mut Request<B>, service: &'static str) -> Observed {
        let identifies = !self.live.access.load().is_open();
        let access_log = self.live.access_log.load(Relaxed);
        Observed::begin(request, service, identifies, access_log, self.tracer.as_ref())
    }
}

/// A service of gRPC.
trait Grpc:
    Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future = BoxFuture<Response<Body>, Infallible>,
    > + Clone
    + Send
    + 'static
{
}

impl Grpc for Jobs {}
impl Grpc for Operations {}

/// Calls a service for a caller that its policy allows to call now, for as long as it does.
fn call_identified(live: &Live, service: &mut impl Grpc, request: Request<Body>) -> Revocable {
    let access = live.access.load();
    if access.is_open() {
        let permission = Permission::new(&live.access, &access, Grant::unrestricted(None));
        return permitted(service, request, permission);
    }
    let (head, body) = request.into_parts();
    let identified = identified_now(&access, &head);
    let request = Request::from_parts(head, body);
    if let Some(identified) = identified {
        return begin(live, &access, service, request, identified);
    }
    let address = address(request.extensions());
    let (live, mut service, access) = (live.clone(), service.clone(), Guard::into_inner(access));
    Revocable::without_permission(Box::pin(async move {
        let identified = match access::bearer_token(request.headers()) {
            Some(Ok(token)) => access.identify(token, address).await,
            Some(Err(refused)) => Err(refused),
            None => Err(Refused::Unverifiable),
        };
        begin(&live, &access, &mut service, request, identified).await
    }))
}

/// Who calls, if that is known without waiting.
fn identified_now(access: &Access, head: &Parts) -> Option<Result<Grant, Refused>> {
    let certificate = head.extensions.get().map(|CertificateNames(names)| &**names);
    access.identify_now(Evidence { headers: &head.headers, certificate, address: address(&head.extensions) })
}

fn address(extensions: &Extensions) -> Option<IpAddr> {
    let tcp = extensions.get::<TcpConnectInfo>();
    tcp.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip())
}

fn begin(
    live: &Live,
    access: &Access,
    service: &mut impl Grpc,
    mut request: Request<Body>,
    identified: Result<Grant, Refused>,
) -> Revocable {
    let refuse = |status: Status| Revocable::without_permission(Box::pin(ready(Ok(status.into_http()))));
    let grant = match identified {
        Ok(grant) => grant,
        Err(refused) => return refuse(api::of_refused(&refused)),
    };
    Principal::note(&request, &grant);
    if let Some(Err(exceeded)) = grant.usage().map(|usage| usage.begin_call()) {
        return refuse(api::of_rate_exceeded(exceeded));
    }
    request.extensions_mut().insert(grant.clone());
    permitted(service, request, Permission::new(&live.access, access, grant))
}

fn permitted(service: &mut impl Grpc, mut request: Request<Body>, permission: Permission) -> Revocable {
    if let Some(api::http::Unserved(status)) = request.extensions_mut().remove() {
        return Revocable::without_permission(Box::pin(ready(Ok(status.into_http()))));
    }
    let site = request.extensions_mut().remove::<Site>();
    let method = request.uri().path().rsplit('/').next();
    let streams = method.is_some_and(|method| STREAMING.contains(&method));
    let response = service.call(request);
    let response = match site {
        Some(site) => site.while_listed(response),
        None => response,
    };
    Revocable::new(response, permission, streams)
}

/// Whether the path is `/service/method` of this service.
fn is_for(service: &str, path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(service));
    method.is_some_and(|method| method.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use tonic::server::NamedService;

    use super::*;

    #[test]
    fn path_of_a_service_with_callers_is_recognized() {
        assert_eq!((JOBS, OPERATIONS), (Jobs::NAME, Operations::NAME));
        assert!(is_for(JOBS, "/jobwatch.v1.JobStatusService/GetJobStatus"));
        assert!(is_for(JOBS, "/jobwatch.v1.JobStatusService/NoSuchMethod"));
        assert!(is_for(OPERATIONS, "/google.longrunning.Operations/GetOperation"));
    }

    #[test]
    fn path_of_another_service_goes_to_the_router() {
        for path in [
            "",
            "/",
            "/jobwatch.v1.JobStatusService",
            "/jobwatch.v1.JobStatusServices/GetJobStatus",
            "jobwatch.v1.JobStatusService/GetJobStatus",
            "/grpc.health.v1.Health/Check",
        ] {
            assert!(!is_for(JOBS, path) && !is_for(OPERATIONS, path), "{path}");
        }
    }
}
