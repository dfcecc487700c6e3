//! What traces cost: `GetJobStatus` of a job that has ended, with traces off, with one in a
//! hundred sampled, and with all.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use jobwatch::proto::v1::GetJobStatusRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use prost::Message;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::{Bench, client, ratios};
use crate::{
    Outcome,
    gateway::{IMMUTA, Poll, Setup, job},
    http2::framed,
    load::{Calls, Load, Meter, Series},
    report::Row,
    vendor::{Mode, Vendor},
};

const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 32;

/// Takes spans and drops them.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let service = TraceServiceServer::new(Sink);
    let serving = Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    Ok(address)
}

pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    vendor.set(Mode::End).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 8 };
    let collector = collector().await?;
    let request = GetJobStatusRequest { job: Some(job(IMMUTA, 0)), ..GetJobStatusRequest::default() };
    let (mut gateways, mut loads) = (Vec::new(), Vec::new());
    for ratio in [None, Some(0.01), Some(1.0)] {
        let setup = Setup { traces: ratio.map(|ratio| (collector, ratio)), ..Setup::from(poll) };
        let gateway = bench.gateway(&vendor, setup).await?;
        let response = client(&gateway).await?.get_job_status(request.clone()).await?.into_inner();
        if !response.status.as_ref().is_some_and(|status| status.terminal) {
            return Err("the job has not ended".into());
        }
        let response = response.encode_to_vec();
        let calls = Arc::new(Calls {
            method: "GetJobStatus",
            requests: vec![framed(&request)],
            is_response: Box::new(move |_, message| message == response),
        });
        let mut load = Load::open(gateway.address, CONNECTIONS, IN_FLIGHT, &calls).await?;
        load.run(bench.slice() / 2).await?;
        loads.push(load);
        gateways.push(gateway);
    }
    let mut series = [Series::default(), Series::default(), Series::default()];
    for _ in 0..bench.pick(10, 4) {
        for ((gateway, load), series) in gateways.iter().zip(&mut loads).zip(&mut series) {
            let meter = Meter::start(&**gateway, None)?;
            let completed = load.run(bench.slice()).await?;
            series.add(completed, meter.stop(&**gateway, None)?);
        }
    }
    let [off, few, all] = series;
    let mut row = Row::new("traces", "GetJobStatus of a job that has ended, with traces");
    row.note("CPU per call with 1 % sampled, by that with traces off", "", &ratios(&few.cpu, &off.cpu));
    row.note("CPU per call with all sampled, by that with traces off", "", &ratios(&all.cpu, &off.cpu));
    off.note(&mut row, "traces off", "a call");
    all.note(&mut row, "all sampled", "a call");
    Ok(row)
}
