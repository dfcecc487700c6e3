//! The vendors that the gateway asks, fast enough not to be the limit: HTTP/1.1 by
//! hand, and answers put together from parts. One process plays Immuta and Claret.
//!
//! All jobs are in one state, which `/control` sets: they run unchanged, change with
//! each answer, or have ended. It also tells how much was asked.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{Outcome, machine::Cores, process::Process};

/// First segment of Claret's paths.
pub(crate) const TENANT: &str = "demo";

/// What all Immuta ids begin with; twelve digits follow.
const PREFIX: &str = "cefb58a0-cd71-11ec-8e29-";

/// Name of the n-th job at Immuta.
pub(crate) fn immuta_id(number: usize) -> String {
    format!("{PREFIX}{number:012}")
}

/// Name of the n-th job at Claret.
pub(crate) fn claret_id(number: usize) -> String {
    (number + 1).to_string()
}

/// What all jobs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// They run, and nothing changes: so it begins.
    Run,
    /// They run, and their output is another in each answer.
    Change,
    /// They have ended.
    End,
}

/// How much was asked.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Asked {
    /// Requests.
    pub(crate) requests: u64,
    /// Jobs in them.
    pub(crate) jobs: u64,
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

    /// What was asked so far.
    pub(crate) async fn asked(&self) -> Outcome<Asked> {
        Ok(serde_json::from_str(&self.control("asked").await?)?)
    }

    async fn control(&self, what: &str) -> Outcome<String> {
        let url = format!("http://{}/control/{what}", self.address());
        Ok(self.client.get(url).send().await?.error_for_status()?.text().await?)
    }
}

#[derive(Debug)]
struct World {
    mode: AtomicU8,
    /// Counts answers while jobs change.
    ticks: AtomicU64,
    requests: AtomicU64,
    jobs: AtomicU64,
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
    let (mut answer, mut outbound) = (String::new(), Vec::new());
    loop {
        while let Some((head, body)) = request(&inbound) {
            answer.clear();
            let whole = world.answer(&inbound[..head], &inbound[head..body], &mut answer);
            let status = if whole { "200 OK" } else { "404 Not Found" };
            let length = answer.len();
            outbound.extend_from_slice(
                format!("HTTP/1.1 {status}\r\ncontent-type: application/json; charset=utf-8\r\ncache-control: no-cache\r\ncontent-length: {length}\r\n\r\n")
                    .as_bytes(),
            );
            outbound.extend_from_slice(answer.as_bytes());
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
    fn answer(&self, head: &[u8], body: &[u8], answer: &mut String) -> bool {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if method == "POST" && path == "/jobs/statuses" {
            return self.immuta(body, answer);
        }
        let path = path.trim_start_matches('/');
        let status = path.strip_prefix(TENANT).and_then(|path| path.strip_prefix("/api/v1/imports/status/"));
        if let Some(id) = status {
            self.count(1);
            self.claret(id, answer);
            return true;
        }
        let Some(what) = path.strip_prefix("control/") else { return false };
        if let Ok(mode) = what.parse() {
            self.mode.store(mode, Relaxed);
        }
        let (requests, jobs) = (self.requests.load(Relaxed), self.jobs.load(Relaxed));
        write!(answer, "{{\"requests\":{requests},\"jobs\":{jobs}}}").is_ok()
    }

    fn count(&self, jobs: u64) {
        self.requests.fetch_add(1, Relaxed);
        self.jobs.fetch_add(jobs, Relaxed);
    }

    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Relaxed) == mode as u8
    }

    /// Every string in the request that looks like an id is one.
    fn immuta(&self, body: &[u8], answer: &mut String) -> bool {
        let Ok(body) = std::str::from_utf8(body) else { return false };
        let rest = if self.is(Mode::End) {
            r#""state":"completed","output":{"rows":1184},"retryCount":0}"#.to_owned()
        } else if self.is(Mode::Change) {
            format!(
                r#""state":"active","output":{},"retryCount":0}}"#,
                output(self.ticks.fetch_add(1, Relaxed))
            )
        } else {
            r#""state":"active","output":null,"retryCount":0}"#.to_owned()
        };
        let mut jobs = 0;
        for id in body.split('"').filter(|text| text.starts_with(PREFIX)) {
            let before = if jobs == 0 { "{\"" } else { ",\"" };
            for part in [before, id, "\":{\"id\":\"", id, "\",", &rest] {
                answer.push_str(part);
            }
            jobs += 1;
        }
        answer.push_str(if jobs == 0 { "{}" } else { "}" });
        self.count(jobs);
        true
    }

    fn claret(&self, id: &str, answer: &mut String) {
        let (word, done) = if self.is(Mode::End) { ("completed", 8) } else { ("in_progress", 3) };
        let end = if self.is(Mode::End) { "\"2024-01-01T10:02:30.000000Z\"" } else { "null" };
        let files = "user-uploads/inventory-import/2024-01-01/1/inventory_20240101";
        let written = write!(
            answer,
            r#"{{"message":"Job status retrieved successfully","content":{{"job_log_id":{id},"status":"{word}","type":"inventory-import","description":"Inventory Import","progress":{{"completed_steps":{done},"total_steps":8,"current_step":"match"}},"files":{{"input":["/{TENANT}/download/{TENANT}/{files}_untouched.csv"],"staging":["/{TENANT}/download/{TENANT}/{files}_staging.csv"],"output":[],"errors":[]}},"job_status_link":"https://plan.claret.app/{TENANT}/settings/application-maintenance/job-management/imports/logs/{id}","timestamps":{{"started_at":"2024-01-01T10:00:00.000000Z","completed_at":{end}}},"user_id":42}}}}"#
        );
        written.expect("a string grows");
    }
}

/// An output that no other answer has, with the time at which it was made.
pub(crate) fn output(tick: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{{\"tick\":{tick},\"at\":{now}}}")
}
