//! The floor of a poll: reqwest, set up as the gateway sets it up, sends the same
//! vendor the same thing and decodes the same JSON, and nothing else.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use reqwest::{Client, redirect};
use serde::Deserialize;
use tokio::{runtime::Runtime, task::JoinSet, time::Instant};

use crate::{Outcome, gateway::KINETICA, machine::Cores, process::Worker, vendor};

/// Starts the caller of `vendor`, with so many requests in flight about so many jobs.
pub(crate) fn start(
    backend: &str,
    vendor: SocketAddr,
    in_flight: usize,
    jobs: usize,
    cores: Cores,
) -> Outcome<Worker> {
    let args = [backend.to_owned(), vendor.to_string(), in_flight.to_string(), jobs.to_string()];
    Worker::start("caller", &args, cores.server, cores)
}

/// The parts of a response that the gateway reads, as types.
#[derive(Debug, Deserialize)]
struct Response {
    content: Content,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "to decode them is the point")]
struct Content {
    job_log_id: i64,
    status: String,
    r#type: String,
    description: String,
    progress: Progress,
    files: Files,
    job_status_link: String,
    timestamps: Timestamps,
    user_id: i64,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "to decode them is the point")]
struct Progress {
    completed_steps: i64,
    total_steps: i64,
    current_step: Option<String>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "to decode them is the point")]
struct Files {
    input: Vec<String>,
    staging: Vec<String>,
    output: Vec<String>,
    errors: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "to decode them is the point")]
struct Timestamps {
    started_at: Option<String>,
    completed_at: Option<String>,
}

/// What Kinetica wraps a record in.
#[derive(Debug, Deserialize)]
struct Wrapper {
    status: String,
    data_str: String,
}

#[derive(Debug, Deserialize)]
#[expect(dead_code, reason = "to decode them is the point")]
struct Record {
    endpoint: String,
    job_status: String,
    running: bool,
    progress: i64,
    successful: bool,
    response_encoding: String,
    job_response: String,
    job_response_str: String,
}

/// Plays the caller: each line is the number of milliseconds to send requests for, and
/// the reply is the number of responses.
pub(crate) fn work(runtime: &Runtime, args: &[String]) -> Outcome {
    let [backend, vendor, in_flight, jobs] = args else {
        return Err("the caller takes four arguments".into());
    };
    let client = Client::builder()
        .user_agent("bench")
        .redirect(redirect::Policy::none())
        .no_proxy()
        .timeout(Duration::from_secs(15))
        .tcp_nodelay(true)
        .build()?;
    let caller = Caller {
        client,
        is_kinetica: backend == KINETICA,
        vendor: vendor.clone(),
        jobs: jobs.parse()?,
        next: Arc::new(AtomicUsize::new(0)),
    };
    let in_flight = in_flight.parse()?;
    for line in std::io::stdin().lines() {
        let time = Duration::from_millis(line?.parse()?);
        println!("{}", runtime.block_on(caller.ask_for(time, in_flight))?);
    }
    Ok(())
}

#[derive(Clone)]
struct Caller {
    client: Client,
    is_kinetica: bool,
    vendor: String,
    jobs: usize,
    next: Arc<AtomicUsize>,
}

impl Caller {
    async fn ask_for(&self, time: Duration, in_flight: usize) -> Outcome<u64> {
        let end = Instant::now() + time;
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            let caller = self.clone();
            clients.spawn(async move {
                let mut responses = 0_u64;
                while Instant::now() < end {
                    caller.send().await?;
                    responses += 1;
                }
                Outcome::Ok(responses)
            });
        }
        let mut responses = 0;
        while let Some(client_task) = clients.join_next().await {
            responses += client_task??;
        }
        Ok(responses)
    }

    async fn send(&self) -> Outcome {
        let id = vendor::claret_id(self.next.fetch_add(1, Relaxed) % self.jobs);
        if self.is_kinetica { self.send_to_kinetica(&id).await } else { self.send_to_claret(&id).await }
    }

    async fn send_to_kinetica(&self, id: &str) -> Outcome {
        let request = self
            .client
            .post(format!("http://{}/get/job", self.vendor))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(format!("{{\"job_id\":{id},\"options\":{{}}}}"));
        let body = request.send().await?.error_for_status()?.bytes().await?;
        let wrapper: Wrapper = serde_json::from_slice(&body)?;
        let record: Record = serde_json::from_str(&wrapper.data_str)?;
        if wrapper.status == "OK" && record.running { Ok(()) } else { Err("a job has ended".into()) }
    }

    async fn send_to_claret(&self, id: &str) -> Outcome {
        let url = format!("http://{}/{}/api/v1/imports/status/{id}", self.vendor, vendor::TENANT);
        let request = self
            .client
            .get(url)
            .header("accept", "application/json")
            .header("x-requested-with", "XMLHttpRequest")
            .bearer_auth("token");
        let body = request.send().await?.error_for_status()?.bytes().await?;
        let response: Response = serde_json::from_slice(&body)?;
        if response.content.job_log_id.to_string() == id {
            Ok(())
        } else {
            Err("a response is another job's".into())
        }
    }
}
