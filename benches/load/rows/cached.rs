//! `GetJobStatus` of a job that has ended, beside a bare tonic server that returns the
//! same bytes.

use std::{sync::Arc, time::Duration};

use jobwatch::proto::v1::{GetJobStatusRequest, WatchJobResponse};
use prost::Message;

use super::{Bench, client, ratios};
use crate::{
    Outcome, floor,
    gateway::{IMMUTA, Poll, job},
    http2::framed,
    load::{Calls, Load, Meter, Series},
    process::Process,
    report::{Goal, Row},
    vendor::{Mode, Vendor},
};

const CONNECTIONS: usize = 8;
const IN_FLIGHT: usize = 32;

pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    vendor.set(Mode::End).await?;
    let poll = Poll { interval: Duration::from_secs(1), batch: 200, concurrency: 8 };
    let gateway = bench.gateway(&vendor, poll).await?;
    let request = GetJobStatusRequest { job: Some(job(IMMUTA, 0)), ..GetJobStatusRequest::default() };
    let response = client(&gateway).await?.get_job_status(request.clone()).await?.into_inner();
    if !response.status.as_ref().is_some_and(|status| status.terminal) {
        return Err("the job has not ended".into());
    }
    let response = response.encode_to_vec();
    let event = WatchJobResponse::default().encode_to_vec();
    let floor = floor::start(&response, &event, Duration::from_hours(1), bench.cores).await?;

    let bytes = response.len();
    let calls = Arc::new(Calls {
        method: "GetJobStatus",
        requests: vec![framed(&request)],
        is_response: Box::new(move |_, message| message == response),
    });
    let sides: [&Process; 2] = [&floor, &gateway];
    let mut loads = Vec::new();
    for server in sides {
        let mut load = Load::open(server.address, CONNECTIONS, IN_FLIGHT, &calls).await?;
        load.run(bench.slice() / 2).await?;
        loads.push(load);
    }
    let mut series = [Series::default(), Series::default()];
    for _ in 0..bench.pick(10, 4) {
        for ((server, load), series) in sides.iter().zip(&mut loads).zip(&mut series) {
            let meter = Meter::start(*server, None)?;
            let completed = load.run(bench.slice()).await?;
            series.add(completed, meter.stop(*server, None)?);
        }
    }
    let received = vendor.received().await?;
    if received.requests != 1 {
        return Err(format!(
            "the vendor got {} requests for a job with a cached terminal status",
            received.requests
        )
        .into());
    }

    let [floor, gateway] = series;
    let mut row = Row::new("cached", format!("GetJobStatus of a job that has ended ({bytes} bytes)"));
    let goal = Goal::AtLeast(0.85);
    row.goal("calls per second of CPU, by bare tonic's", "", &ratios(&floor.cpu, &gateway.cpu), goal);
    row.goal("calls per second, by bare tonic's", "", &ratios(&gateway.rate, &floor.rate), goal);
    floor.note(&mut row, "bare tonic", "a call");
    gateway.note(&mut row, "gateway", "a call");
    Ok(row)
}
