//! Fake vendors that are fast enough not to be the bottleneck: hand-written HTTP/1.1, and
//! responses assembled from parts. One process serves Immuta, Claret and Kinetica.
//!
//! All jobs are in one state, which `/control` sets: they run unchanged, change with
//! each response, or have ended. `/control` also makes requests for some jobs fail, sets
//! the size of Immuta's outputs, and reports the requests that were received.

use std::{
    collections::HashSet,
    fmt::{Display, Write as _},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{Outcome, machine::Cores, process::Process};

/// First segment of Claret's paths.
pub(crate) const TENANT: &str = "demo";

/// Prefix of all Immuta ids, before twelve digits.
const PREFIX: &str = "cefb58a0-cd71-11ec-8e29-";

/// Name of the n-th job at Immuta.
pub(crate) fn immuta_id(number: usize) -> String {
    format!("{PREFIX}{number:012}")
}

/// Name of the n-th job at Claret.
pub(crate) fn claret_id(number: usize) -> String {
    (number + 1).to_string()
}

/// The behaviour of all jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// They run and do not change: the initial mode.
    Run,
    /// They run, and their output differs in each response.
    Change,
    /// They have ended.
    End,
}

/// The number of requests received.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Received {
    /// Requests.
    pub(crate) requests: u64,
    /// Jobs in them.
    pub(crate) jobs: u64,
}

/// The polls of single jobs at Claret, since [`Vendor::record`].
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Record {
    /// The vendor's clock now, in microseconds.
    pub(crate) now: u64,
    /// When each poll arrived by that clock, and the id of its job.
    pub(crate) polls: Vec<(u64, u64)>,
}

/// The vendors' process.
#[derive(Debug)]
pub(crate) struct Vendor {
    process: Process,
    client: reqwest::Client,
}

impl Vendor {
    pub(crate) async fn start(cores: Cores) -> Outcome<Self> {
        let process = Process::role("vendor", [""; 0], cores.load, cores).await?;
        Ok(Self { process, client: reqwest::Client::builder().no_proxy().build()? })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        self.process.cpu()
    }

    pub(crate) async fn set(&self, mode: Mode) -> Outcome {
        self.control(&format!("{}", mode as u8)).await.map(drop)
    }

    /// The requests received so far.
    pub(crate) async fn received(&self) -> Outcome<Received> {
        Ok(serde_json::from_str(&self.control("received").await?)?)
    }

    /// Responds with HTTP 500 to each request at Immuta for one of these jobs, alone or
    /// in a batch.
    pub(crate) async fn fail(&self, jobs: impl IntoIterator<Item = usize>) -> Outcome {
        let jobs: Vec<String> = jobs.into_iter().map(|job| job.to_string()).collect();
        self.control(&format!("fail/{}", jobs.join(","))).await.map(drop)
    }

    /// Gives each job at Immuta an output of so many bytes.
    pub(crate) async fn set_output(&self, bytes: usize) -> Outcome {
        self.control(&format!("output/{bytes}")).await.map(drop)
    }

    /// Records the polls at Claret from now on.
    pub(crate) async fn record(&self) -> Outcome {
        self.control("record").await.map(drop)
    }

    /// The polls that were recorded so far.
    pub(crate) async fn recorded(&self) -> Outcome<Record> {
        Ok(serde_json::from_str(&self.control("recorded").await?)?)
    }

    async fn control(&self, what: &str) -> Outcome<String> {
        let url = format!("http://{}/control/{what}", self.address());
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }
}

#[derive(Debug)]
struct World {
    mode: AtomicU8,
    /// Counts responses while jobs change.
    ticks: AtomicU64,
    requests: AtomicU64,
    jobs: AtomicU64,
    /// Ids of the jobs at Immuta for which every request fails.
    failing: Mutex<HashSet<String>>,
    /// Bytes of each output at Immuta; 0 for the ordinary small ones.
    output: AtomicUsize,
    began: Instant,
    recorded: Mutex<Option<Vec<(u64, u64)>>>,
}

/// What the vendor responds with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    Ok,
    NotFound,
    Failed,
}

impl Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ok => "200 OK",
            Self::NotFound => "404 Not Found",
            Self::Failed => "500 Internal Server Error",
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Plays the vendors.
pub(crate) async fn serve() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("listening on {}", listener.local_addr()?);
    let world = Arc::new(World {
        mode: AtomicU8::new(Mode::Run as u8),
        ticks: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        jobs: AtomicU64::new(0),
        failing: Mutex::default(),
        output: AtomicUsize::new(0),
        began: Instant::now(),
        recorded: Mutex::default(),
    });
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let world = Arc::clone(&world);
        // A connection that breaks is the gateway's to report.
        tokio::spawn(async move { converse(socket, &world).await });
    }
}

async fn converse(mut socket: TcpStream, world: &World) -> Outcome {
    let mut inbound = BytesMut::with_capacity(64 << 10);
    let (mut response, mut outbound) = (String::new(), Vec::new());
    loop {
        while let Some((head, body)) = request(&inbound) {
            response.clear();
            let status = world.response(&inbound[..head], &inbound[head..body], &mut response);
            let length = response.len();
            outbound.extend_from_slice(
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\ncache-control: no-cache\r\ncontent-length: {length}\r\n\r\n")
                    .as_bytes(),
            );
            outbound.extend_from_slice(response.as_bytes());
            inbound.advance(body);
        }
        if !outbound.is_empty() {
            socket.write_all(&outbound).await?;
            outbound.clear();
        }
        if socket.read_buf(&mut inbound).await? == 0 {
            return Ok(());
        }
    }
}

/// Where the head and the body of the first request end, if all of it is there.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let mut lines = bytes[..head].split(|byte| *byte == b'\n');
    let length = lines.find_map(|line| {
        let (name, value) = std::str::from_utf8(line).ok()?.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let end = head + length.unwrap_or(0);
    (bytes.len() >= end).then_some((head, end))
}

impl World {
    fn response(&self, head: &[u8], body: &[u8], response: &mut String) -> Code {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method == "POST" && path == "/jobs/statuses" {
            return self.immuta(body, response);
        }
        if method == "POST" && path == "/get/job" {
            self.count(1);
            self.kinetica(response);
            return Code::Ok;
        }
        let path = path.trim_start_matches('/');
        let status = path.strip_prefix(TENANT).and_then(|path| path.strip_prefix("/api/v1/imports/status/"));
        if let Some(id) = status {
            self.count(1);
            if let Some(polls) = &mut *lock(&self.recorded) {
                polls.push((self.clock(), id.parse().unwrap_or_default()));
            }
            self.claret(id, response);
            return Code::Ok;
        }
        let Some(what) = path.strip_prefix("control/") else { return Code::NotFound };
        self.control(what, response);
        Code::Ok
    }

    fn control(&self, what: &str, response: &mut String) {
        if let Ok(mode) = what.parse() {
            self.mode.store(mode, Relaxed);
        } else if let Some(jobs) = what.strip_prefix("fail/") {
            let jobs = jobs.split(',').filter_map(|job| job.parse().ok());
            *lock(&self.failing) = jobs.map(immuta_id).collect();
        } else if let Some(bytes) = what.strip_prefix("output/") {
            self.output.store(bytes.parse().unwrap_or_default(), Relaxed);
        } else if what == "record" {
            *lock(&self.recorded) = Some(Vec::new());
        } else if what == "recorded" {
            let polls = lock(&self.recorded).clone().unwrap_or_default();
            let polls = serde_json::json!({ "now": self.clock(), "polls": polls });
            return response.push_str(&polls.to_string());
        }
        let (requests, jobs) = (self.requests.load(Relaxed), self.jobs.load(Relaxed));
        write!(response, "{{\"requests\":{requests},\"jobs\":{jobs}}}").expect("a string grows");
    }

    /// Microseconds since the vendor began.
    fn clock(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn count(&self, jobs: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.jobs.fetch_add(jobs, Relaxed);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Relaxed) == mode as u8
    }

    /// Every string in the request that looks like an id is one.
    fn immuta(&self, body: &[u8], response: &mut String) -> Code {
        let Ok(body) = std::str::from_utf8(body) else { return Code::NotFound };
        let output_bytes = self.output.load(Relaxed);
        let rest = if output_bytes > 0 {
            let state = if self.is(Mode::End) { "completed" } else { "active" };
            let text = "x".repeat(output_bytes.saturating_sub(r#"{"data":""}"#.len()));
            format!(r#""state":"{state}","output":{{"data":"{text}"}},"retryCount":0}}"#)
        } else if self.is(Mode::End) {
            r#""state":"completed","output":{"rows":1184},"retryCount":0}"#.to_owned()
        } else if self.is(Mode::Change) {
            format!(
                r#""state":"active","output":{},"retryCount":0}}"#,
                output(self.ticks.fetch_add(1, Relaxed))
            )
        } else {
            r#""state":"active","output":null,"retryCount":0}"#.to_owned()
        };
        let failing = lock(&self.failing);
        let (mut jobs, mut fails) = (0, false);
        for id in body.split('"').filter(|text| text.starts_with(PREFIX)) {
            let before = if jobs == 0 { "{\"" } else { ",\"" };
            for part in [before, id, "\":{\"id\":\"", id, "\",", &rest] {
                response.push_str(part);
            }
            jobs += 1;
            fails |= failing.contains(id);
        }
        self.count(jobs);
        if fails {
            response.clear();
            response.push_str(r#"{"error":"internal"}"#);
            return Code::Failed;
        }
        response.push_str(if jobs == 0 { "{}" } else { "}" });
        Code::Ok
    }

    /// The record names no job.
    fn kinetica(&self, response: &mut String) {
        let (word, running) = if self.is(Mode::End) { ("DONE", false) } else { ("RUNNING", true) };
        let (progress, successful) = if running { (40, false) } else { (100, true) };
        let written = write!(
            response,
            r#"{{"status":"OK","message":"","data_type":"get_job_response","data":"","data_str":"{{\"endpoint\":\"/alter/table\",\"job_status\":\"{word}\",\"running\":{running},\"progress\":{progress},\"successful\":{successful},\"response_encoding\":\"json\",\"job_response\":\"\",\"job_response_str\":\"\",\"status_map\":{{}},\"info\":{{}}}}"}}"#
        );
        written.expect("a string grows");
    }

    fn claret(&self, id: &str, response: &mut String) {
        let (word, done) = if self.is(Mode::End) { ("completed", 8) } else { ("in_progress", 3) };
        let end = if self.is(Mode::End) { "\"2024-01-01T10:02:30.000000Z\"" } else { "null" };
        let files = "user-uploads/inventory-import/2024-01-01/1/inventory_20240101";
        let written = write!(
            response,
            r#"{{"message":"Job status retrieved successfully","content":{{"job_log_id":{id},"status":"{word}","type":"inventory-import","description":"Inventory Import","progress":{{"completed_steps":{done},"total_steps":8,"current_step":"match"}},"files":{{"input":["/{TENANT}/download/{TENANT}/{files}_untouched.csv"],"staging":["/{TENANT}/download/{TENANT}/{files}_staging.csv"],"output":[],"errors":[]}},"job_status_link":"https://plan.claret.app/{TENANT}/settings/application-maintenance/job-management/imports/logs/{id}","timestamps":{{"started_at":"2024-01-01T10:00:00.000000Z","completed_at":{end}}},"user_id":42}}}}"#
        );
        written.expect("a string grows");
    }
}

/// An output that differs from every other, with the time at which it was made.
pub(crate) fn output(tick: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{{\"tick\":{tick},\"at\":{now}}}")
}
