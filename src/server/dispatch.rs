//! Routes requests: those for the job status service go straight to it, all others
//! through tonic's router.
//!
//! Tonic's router is axum's. For each request it matches the path, clones and boxes the
//! service, and boxes the bodies of the request and of the response once more.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use http::{Request, Response};
use tonic::{body::Body, codegen::BoxFuture, service::Routes};
use tower::{Layer, Service};

use crate::{
    api,
    engine::Engine,
    proto::served::job_status_service_server::{JobStatusServiceServer, SERVICE_NAME},
};

type Jobs = JobStatusServiceServer<api::Service<Engine>>;

/// Puts the job status service in front of the router.
#[derive(Clone, Debug)]
pub(super) struct DispatchLayer {
    jobs: Jobs,
}

impl DispatchLayer {
    pub(super) fn new(jobs: Jobs) -> Self {
        Self { jobs }
    }
}

impl Layer<Routes> for DispatchLayer {
    type Service = Dispatch;

    fn layer(&self, others: Routes) -> Dispatch {
        Dispatch { jobs: self.jobs.clone(), others }
    }
}

/// The job status service, and a router for the other services.
#[derive(Clone, Debug)]
pub(super) struct Dispatch {
    jobs: Jobs,
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
            self.jobs.call(request)
        } else {
            Box::pin(self.others.call(request))
        }
    }
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
