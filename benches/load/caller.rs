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

use jobwatch::proto::v1::{JobState, JobStatus, Progress as Steps};

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
pub(crate) struct Content {
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
pub(crate) struct Record {
    endpoint: String,
    job_status: String,
    running: bool,
    progress: f64,
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
    let caller = Caller::new(backend, vendor)?;
    let (in_flight, jobs) = (in_flight.parse()?, jobs.parse()?);
    let next = Arc::new(AtomicUsize::new(0));
    for line in std::io::stdin().lines() {
        let time = Duration::from_millis(line?.parse()?);
        println!("{}", runtime.block_on(caller.ask_for(time, in_flight, jobs, &next))?);
    }
    Ok(())
}

#[derive(Clone, Debug)]
pub(crate) struct Caller {
    client: Client,
    is_kinetica: bool,
    vendor: String,
}

impl Caller {
    pub(crate) fn new(backend: &str, vendor: &str) -> Outcome<Self> {
        let client = Client::builder()
            .user_agent("bench")
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_secs(15))
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, is_kinetica: backend == KINETICA, vendor: vendor.to_owned() })
    }

    async fn ask_for(
        &self,
        time: Duration,
        in_flight: usize,
        jobs: usize,
        next: &Arc<AtomicUsize>,
    ) -> Outcome<u64> {
        let end = Instant::now() + time;
        let mut clients = JoinSet::new();
        for _ in 0..in_flight {
            let (caller, next) = (self.clone(), next.clone());
            clients.spawn(async move {
                let mut responses = 0_u64;
                while Instant::now() < end {
                    caller.send(&vendor::claret_id(next.fetch_add(1, Relaxed) % jobs)).await?;
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

    /// Asks the vendor for one job and decodes its response.
    pub(crate) async fn send(&self, id: &str) -> Outcome<Decoded> {
        if self.is_kinetica { self.send_to_kinetica(id).await } else { self.send_to_claret(id).await }
    }

    async fn send_to_kinetica(&self, id: &str) -> Outcome<Decoded> {
        let request = self
            .client
            .post(format!("http://{}/get/job", self.vendor))
            .header("accept", "application/json")
            .header("content-type", "application/json")
            .body(format!("{{\"job_id\":{id},\"options\":{{}}}}"));
        let body = request.send().await?.error_for_status()?.bytes().await?;
        let wrapper: Wrapper = serde_json::from_slice(&body)?;
        let record: Record = serde_json::from_str(&wrapper.data_str)?;
        if wrapper.status == "OK" && record.running {
            Ok(Decoded::Kinetica(record))
        } else {
            Err("a job has ended".into())
        }
    }

    async fn send_to_claret(&self, id: &str) -> Outcome<Decoded> {
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
            Ok(Decoded::Claret(response.content))
        } else {
            Err("a response is another job's".into())
        }
    }
}

/// The response of a vendor.
#[derive(Debug)]
pub(crate) enum Decoded {
    Claret(Content),
    Kinetica(Record),
}

impl Decoded {
    /// The same in the words of the contract.
    pub(crate) fn into_status(self) -> JobStatus {
        let state = JobState::Running.into();
        match self {
            Self::Claret(content) => JobStatus {
                state,
                vendor_state: content.status,
                job_type: content.r#type,
                description: content.description,
                vendor_url: content.job_status_link,
                progress: Some(Steps {
                    completed_steps: Some(content.progress.completed_steps),
                    total_steps: Some(content.progress.total_steps),
                    current_step: content.progress.current_step.unwrap_or_default(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            Self::Kinetica(record) => JobStatus {
                state,
                vendor_state: record.job_status,
                job_type: record.endpoint,
                progress: Some(Steps { percent: Some(record.progress), ..Default::default() }),
                ..Default::default()
            },
        }
    }
}
