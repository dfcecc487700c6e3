//! Routes requests: those for the job status service go to it once their caller is known,
//! all others through tonic's router.
//!
//! Tonic's router is axum's. For each request it matches the path, clones and boxes the
//! service, and boxes the bodies of the request and of the response once more.

use std::{
    convert::Infallible,
    future::ready,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{
    Status,
    body::Body,
    codegen::BoxFuture,
    service::Routes,
    transport::server::{TcpConnectInfo, TlsConnectInfo},
};
use tower::{Layer, Service};

use super::observe::{Observed, Principal};
use crate::{
    access::{self, Access, Evidence, Grant, Refused},
    api,
    engine::Engine,
    proto::served::job_status_service_server::{JobStatusServiceServer, SERVICE_NAME},
};

type Jobs = JobStatusServiceServer<api::Service<Engine>>;

/// Puts the job status service in front of the router.
#[derive(Clone, Debug)]
pub(super) struct DispatchLayer {
    jobs: Jobs,
    access: Arc<Access>,
    access_log: bool,
}

impl DispatchLayer {
    pub(super) fn new(jobs: Jobs, access: Arc<Access>, access_log: bool) -> Self {
        Self { jobs, access, access_log }
    }
}

impl Layer<Routes> for DispatchLayer {
    type Service = Dispatch;

    fn layer(&self, others: Routes) -> Dispatch {
        let Self { jobs, access, access_log } = self.clone();
        Dispatch { jobs, access, access_log, others }
    }
}

/// The job status service, and a router for the other services.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    jobs: Jobs,
    access: Arc<Access>,
    access_log: bool,
    others: Routes,
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
        if is_for_jobs(request.uri().path()) {
            api::note_deadline(&mut request);
            let is_open = self.access.is_open();
            let observed = Observed::begin(&mut request, !is_open, self.access_log);
            observed.response(if is_open { self.jobs.call(request) } else { self.call_identified(request) })
        } else {
            Box::pin(self.others.call(request))
        }
    }
}

impl Dispatch {
    /// Calls the job status service for a caller that its policy allows to call now.
    fn call_identified(&mut self, request: Request<Body>) -> BoxFuture<Response<Body>, Infallible> {
        let extensions = request.extensions();
        let tls = extensions.get::<TlsConnectInfo<TcpConnectInfo>>();
        let tcp = extensions.get::<TcpConnectInfo>().or(tls.map(TlsConnectInfo::get_ref));
        let address = tcp.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip());
        let certificates = tls.and_then(TlsConnectInfo::peer_certs);
        let certificate =
            certificates.as_ref().and_then(|chain| access::names_of_certificate(chain.first()?));
        let certificate = certificate.as_deref();
        let identified =
            self.access.identify_now(Evidence { headers: request.headers(), certificate, address });
        if let Some(identified) = identified {
            return begin(&mut self.jobs, request, identified);
        }
        let (mut jobs, access) = (self.jobs.clone(), Arc::clone(&self.access));
        Box::pin(async move {
            let identified = match access::bearer_token(request.headers()) {
                Some(Ok(token)) => access.identify(token, address).await,
                Some(Err(refused)) => Err(refused),
                None => Err(Refused::Unverifiable),
            };
            begin(&mut jobs, request, identified).await
        })
    }
}

fn begin(
    jobs: &mut Jobs,
    mut request: Request<Body>,
    identified: Result<Grant, Refused>,
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
    request.extensions_mut().insert(grant);
    jobs.call(request)
}

/// Whether the path is `/service/method` of the job status service.
fn is_for_jobs(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE_NAME));
    method.is_some_and(|method| method.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use tonic::server::NamedService;

    use super::*;

    #[test]
    fn path_of_the_job_status_service_is_recognized() {
        assert_eq!(SERVICE_NAME, Jobs::NAME);
        assert!(is_for_jobs("/jobwatch.v1.JobStatusService/GetJobStatus"));
        assert!(is_for_jobs("/jobwatch.v1.JobStatusService/NoSuchMethod"));
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
            assert!(!is_for_jobs(path), "{path}");
        }
    }
}
