//! The floor: a bare tonic server, as its documentation has one written, with the
//! gateway's messages. It returns a fixed message, without layers or logic.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use jobwatch::proto::v1::{
    BatchGetStatusesRequest, BatchGetStatusesResponse, DownloadArtifactRequest, DownloadArtifactResponse,
    GetJobStatusRequest, GetJobStatusResponse, JobStatus, ListBackendsRequest, ListBackendsResponse,
    ListJobsRequest, ListJobsResponse, WatchJobRequest, WatchJobResponse, WatchJobsRequest,
    WatchJobsResponse,
    job_status_service_server::{JobStatusService, JobStatusServiceServer},
    watch_job_response::Event,
};
use prost::Message;
use tokio::{net::TcpListener, sync::watch, time::MissedTickBehavior};
use tokio_stream::{Stream, StreamExt, wrappers::WatchStream};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};

use crate::{Outcome, caller::Caller, machine::Cores, process::Process, vendor};

/// Starts the floor. It returns `status` for every `GetJobStatus`, and sends every
/// `WatchJob` an event like `event` each `tick`, all with the same new output.
pub(crate) async fn start(status: &[u8], event: &[u8], tick: Duration, cores: Cores) -> Outcome<Process> {
    let args = [hex(status), hex(event), tick.as_millis().to_string()];
    Process::role("floor", args, cores.server, cores).await
}

/// Starts a tonic server that calls reqwest: it sends `vendor` one request for each
/// `GetJobStatus` and returns what it decodes from the response, and does nothing else.
pub(crate) async fn start_calling(backend: &str, vendor: SocketAddr, cores: Cores) -> Outcome<Process> {
    Process::role("upstream", [backend.to_owned(), vendor.to_string()], cores.server, cores).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Outcome<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?)).collect()
}

/// Plays the floor.
pub(crate) async fn serve(args: &[String]) -> Outcome {
    let [status, event, tick] = args else { return Err("the floor takes three arguments".into()) };
    let status = GetJobStatusResponse::decode(&*unhex(status)?)?;
    let event = WatchJobResponse::decode(&*unhex(event)?)?;
    let (sender, latest) = watch::channel(event);
    let tick = Duration::from_millis(tick.parse()?);
    tokio::spawn(async move {
        let mut clock = tokio::time::interval(tick);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            clock.tick().await;
            sender.send_modify(|event| {
                if let Some(Event::Status(status)) = &mut event.event {
                    let result = status.result.get_or_insert_default();
                    result.data = vendor::output(number).into();
                }
            });
        }
    });
    listen(Floor { source: Source::Fixed(Box::new(status)), latest }).await
}

/// Plays the server that calls reqwest.
pub(crate) async fn serve_calling(args: &[String]) -> Outcome {
    let [backend, vendor] = args else { return Err("the server takes two arguments".into()) };
    let (_sender, latest) = watch::channel(WatchJobResponse::default());
    listen(Floor { source: Source::Vendor(Caller::new(backend, vendor)?), latest }).await
}

async fn listen(floor: Floor) -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let service = JobStatusServiceServer::new(floor);
    Ok(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?)
}

/// Where the status of `GetJobStatus` comes from.
enum Source {
    Fixed(Box<GetJobStatusResponse>),
    Vendor(Caller),
}

struct Floor {
    source: Source,
    latest: watch::Receiver<WatchJobResponse>,
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl JobStatusService for Floor {
    type WatchJobStream = Events<WatchJobResponse>;
    type WatchJobsStream = Events<WatchJobsResponse>;
    type DownloadArtifactStream = Events<DownloadArtifactResponse>;

    async fn get_job_status(
        &self,
        request: Request<GetJobStatusRequest>,
    ) -> Result<Response<GetJobStatusResponse>, Status> {
        let caller = match &self.source {
            Source::Fixed(response) => return Ok(Response::new(GetJobStatusResponse::clone(response))),
            Source::Vendor(caller) => caller,
        };
        let job = request.into_inner().job.ok_or_else(|| Status::invalid_argument("no job"))?;
        let decoded =
            caller.send(&job.job_id).await.map_err(|error| Status::unavailable(error.to_string()))?;
        let status = JobStatus { job: Some(job), ..decoded.into_status() };
        Ok(Response::new(GetJobStatusResponse { status: Some(status) }))
    }

    async fn watch_job(&self, _: Request<WatchJobRequest>) -> Result<Response<Self::WatchJobStream>, Status> {
        Ok(Response::new(Box::pin(WatchStream::new(self.latest.clone()).map(Ok))))
    }

    async fn batch_get_statuses(
        &self,
        _: Request<BatchGetStatusesRequest>,
    ) -> Result<Response<BatchGetStatusesResponse>, Status> {
        Err(Status::unimplemented("not part of the floor"))
    }

    async fn watch_jobs(
        &self,
        _: Request<Streaming<WatchJobsRequest>>,
    ) -> Result<Response<Self::WatchJobsStream>, Status> {
        Err(Status::unimplemented("not part of the floor"))
    }

    async fn download_artifact(
        &self,
        _: Request<DownloadArtifactRequest>,
    ) -> Result<Response<Self::DownloadArtifactStream>, Status> {
        Err(Status::unimplemented("not part of the floor"))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Result<Response<ListJobsResponse>, Status> {
        Err(Status::unimplemented("not part of the floor"))
    }

    async fn list_backends(
        &self,
        _: Request<ListBackendsRequest>,
    ) -> Result<Response<ListBackendsResponse>, Status> {
        Err(Status::unimplemented("not part of the floor"))
    }
}
