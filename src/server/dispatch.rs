//! Routes requests: those for the job status service go to it once their caller is known,
//! all others through tonic's router. Sets how messages are compressed.
//!
//! Tonic's router is axum's. For each request it matches the path, clones and boxes the
//! service, and boxes the bodies of the request and of the response once more.

use std::{
    convert::Infallible,
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use arc_swap::{ArcSwap, Guard};
use http::{Request, Response};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status, body::Body, codec::CompressionEncoding, codegen::BoxFuture, service::Routes,
    transport::server::TcpConnectInfo,
};
use tower::Service;

use super::{
    ending_body::{End, ending},
    observe::{Observed, Principal},
    other_protocols,
    revocation::{Permission, Revocable},
};
use crate::{
    access::{self, Access, Evidence, Grant, Refused},
    api::{self, ConnectionEnd},
    engine::Engine,
    proto::served::job_status_service_server::{JobStatusServiceServer, SERVICE_NAME},
    telemetry::traces::Tracer,
};

/// How the paths of both versions of reflection begin.
const REFLECTION: &str = "/grpc.reflection.";

/// The methods whose response is a stream.
const STREAMING: [&str; 3] = ["WatchJob", "WatchJobs", "DownloadArtifact"];

type Jobs = JobStatusServiceServer<api::Service<Engine>>;

/// The names in a connection's client certificate, read once for each connection.
#[derive(Clone, Debug)]
pub(super) struct CertificateNames(Arc<str>);

impl CertificateNames {
    /// The names in a verified certificate, in DER.
    pub(super) fn of(der: &[u8]) -> Option<Self> {
        access::names_of_certificate(der).map(|names| Self(names.into()))
    }
}

/// The job status service, and a router for the other services.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    jobs: Jobs,
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
}

impl Live {
    pub(super) fn new(access: Access, access_log: bool) -> Self {
        Self { access: Arc::new(ArcSwap::from_pointee(access)), access_log: Arc::new(access_log.into()) }
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
        let mut jobs = JobStatusServiceServer::new(service)
            .max_decoding_message_size(api::LONGEST_REQUEST)
            .max_encoding_message_size(usize::MAX);
        for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
            jobs = jobs.accept_compressed(encoding).send_compressed(encoding);
        }
        Self { jobs, live, tracer, others, draining }
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
        if let Some(refusal) = other_protocols::refusal(request.headers()) {
            return Box::pin(ready(Ok(refusal)));
        }
        if let Some(method) = method_of_jobs(request.uri().path()) {
            let streams = STREAMING.contains(&method);
            let access = self.live.access.load();
            let access_log = self.live.access_log.load(Relaxed);
            let observed = Observed::begin(&mut request, !access.is_open(), access_log, self.tracer.as_ref());
            if access.is_open() {
                let permission = Permission::new(&self.live.access, &access, Grant::unrestricted(None));
                observed.response(Revocable::new(self.jobs.call(request), permission, streams))
            } else {
                observed.response(self.call_identified(Guard::into_inner(access), request, streams))
            }
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
}

impl Dispatch {
    /// Calls the job status service for a caller that its policy allows to call now.
    fn call_identified(
        &mut self,
        access: Arc<Access>,
        request: Request<Body>,
        streams: bool,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let extensions = request.extensions();
        let tcp = extensions.get::<TcpConnectInfo>();
        let address = tcp.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip());
        let certificate = extensions.get::<CertificateNames>().map(|CertificateNames(names)| &**names);
        let identified = access.identify_now(Evidence { headers: request.headers(), certificate, address });
        if let Some(identified) = identified {
            return self.begin(&access, request, identified, streams);
        }
        let mut dispatch = self.clone();
        Box::pin(async move {
            let identified = match access::bearer_token(request.headers()) {
                Some(Ok(token)) => access.identify(token, address).await,
                Some(Err(refused)) => Err(refused),
                None => Err(Refused::Unverifiable),
            };
            dispatch.begin(&access, request, identified, streams).await
        })
    }

    fn begin(
        &mut self,
        access: &Access,
        mut request: Request<Body>,
        identified: Result<Grant, Refused>,
        streams: bool,
    ) -> BoxFuture<Response<Body>, Infallible> {
        let refuse = |status: Status| Box::pin(ready(Ok(status.into_http()))) as BoxFuture<_, _>;
        let grant = match identified {
            Ok(grant) => grant,
            Err(refused) => return refuse(api::of_refused(&refused)),
        };
        Principal::note(&request, &grant);
        if let Some(Err(exceeded)) = grant.usage().map(|usage| usage.begin_call()) {
            return refuse(api::of_rate_exceeded(exceeded));
        }
        request.extensions_mut().insert(grant.clone());
        let permission = Permission::new(&self.live.access, access, grant);
        Box::pin(Revocable::new(self.jobs.call(request), permission, streams))
    }
}

/// The method of a path `/service/method` of the job status service.
fn method_of_jobs(path: &str) -> Option<&str> {
    path.strip_prefix('/')?.strip_prefix(SERVICE_NAME)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use tonic::server::NamedService;

    use super::*;

    #[test]
    fn path_of_the_job_status_service_is_recognized() {
        assert_eq!(SERVICE_NAME, Jobs::NAME);
        for method in ["GetJobStatus", "NoSuchMethod"] {
            assert_eq!(method_of_jobs(&format!("/jobwatch.v1.JobStatusService/{method}")), Some(method));
        }
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
            assert_eq!(method_of_jobs(path), None, "{path}");
        }
    }
}
