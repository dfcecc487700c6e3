//! WatchJob: one job that changes, and thousands of streams that receive it, beside a
//! bare tonic server that sends the same events.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use jobwatch::proto::v1::{WatchJobRequest, watch_job_response::Event};
use prost::Message;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use super::{Bench, client, ratios};
use crate::{
    Outcome, floor,
    gateway::{Gateway, IMMUTA, Poll, job},
    http2::{Connection, StreamEvent, framed},
    load::{Meter, Series},
    message::part,
    process::Process,
    report::{Goal, Row},
    vendor::{Mode, Vendor},
};

const CONNECTIONS: usize = 10;
const STREAMS: usize = 10_000;

/// Between two events.
const TICK: Duration = Duration::from_millis(500);

/// Requests that a server may have unanswered while the streams are opened.
const OPENED_AT_ONCE: usize = 100;

pub(super) async fn row(bench: &Bench) -> Outcome<Row> {
    let vendor = Vendor::start(bench.cores).await?;
    vendor.set(Mode::Change).await?;
    let poll = Poll { interval: TICK, batch: 200, concurrency: 8 };
    let gateway = bench.gateway(&vendor, poll).await?;
    let event = first_event(&gateway).await?;
    let floor = floor::start(&[], &event, TICK, bench.cores).await?;

    let request = WatchJobRequest { job: Some(job(IMMUTA, 0)), ..WatchJobRequest::default() };
    let request = framed(&request);
    let mut sides = [Side::new(&floor), Side::new(&gateway)];
    for side in &mut sides {
        side.open(&request).await?;
        side.server.pause()?;
    }
    for _ in 0..bench.pick(8, 4) {
        for side in &mut sides {
            side.server.resume()?;
            // What was due meanwhile comes first.
            side.listen(TICK * 2).await?;
            let meter = Meter::start(side.server, Some(&vendor))?;
            let heard = side.listen(bench.slice() * 2).await?;
            side.series.add(heard.events, meter.stop(side.server, Some(&vendor))?);
            side.last.push(heard.last()?);
            side.server.pause()?;
        }
    }
    let [floor, gateway] = sides;
    let title = format!("WatchJob: 1 job, {STREAMS} streams over {CONNECTIONS} connections");
    let mut row = Row::new("fan-out", title);
    let cpu = ratios(&gateway.series.cpu, &floor.series.cpu);
    row.goal("CPU an event, by bare tonic's", "", &cpu, Goal::AtMost(1.25));
    let last = ratios(&gateway.last, &floor.last);
    row.goal("time to the last watcher, by bare tonic's", "", &last, Goal::AtMost(1.5));
    row.goal("gateway: memory a stream", "kB", &[gateway.memory], Goal::AtMost(12.0));
    row.note("bare tonic: memory a stream", "kB", &[floor.memory]);
    for (name, side) in [("bare tonic", floor), ("gateway", gateway)] {
        row.note(format!("{name}: time to the last watcher"), "ms", &side.last);
        side.series.note(&mut row, name, "an event");
    }
    Ok(row)
}

/// An event that has a status, with a client as anybody has it.
async fn first_event(gateway: &Gateway) -> Outcome<Vec<u8>> {
    let request = WatchJobRequest { job: Some(job(IMMUTA, 0)), ..WatchJobRequest::default() };
    let mut events = client(gateway).await?.watch_job(request).await?.into_inner();
    let event = events.message().await?.ok_or("the watch has ended")?;
    match &event.event {
        Some(Event::Status(_)) => Ok(event.encode_to_vec()),
        other => Err(format!("the watch began with {other:?}").into()),
    }
}

struct Side<'a> {
    server: &'a Process,
    connections: Vec<Connection>,
    /// Kilobytes a stream.
    memory: f64,
    series: Series,
    /// Milliseconds from the making of an event until the last stream had it.
    last: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(server: &'a Process) -> Self {
        Self { server, connections: Vec::new(), memory: 0.0, series: Series::default(), last: Vec::new() }
    }

    #[expect(clippy::cast_precision_loss, reason = "megabytes")]
    async fn open(&mut self, request: &Bytes) -> Outcome {
        let idle = self.server.memory()?;
        for _ in 0..CONNECTIONS {
            let mut connection = Connection::open(self.server.address, "WatchJob").await?;
            for opened in (0..STREAMS / CONNECTIONS).step_by(OPENED_AT_ONCE) {
                for _ in 0..OPENED_AT_ONCE {
                    connection.call(request);
                }
                let first = opened * 2 + 1;
                let mut heard = [false; OPENED_AT_ONCE];
                let all = async {
                    while heard.contains(&false) {
                        let note = |stream: u32, _: StreamEvent<'_>| {
                            let at = (stream as usize).checked_sub(first).map(|after| after / 2);
                            if let Some(heard) = at.and_then(|at| heard.get_mut(at)) {
                                *heard = true;
                            }
                        };
                        connection.turn(note).await?;
                    }
                    Outcome::Ok(())
                };
                timeout(Duration::from_secs(10), all).await.map_err(|_| "a stream receives nothing")??;
            }
            self.connections.push(connection);
        }
        self.listen(TICK * 8).await?;
        self.memory = (self.server.memory()?.saturating_sub(idle)) as f64 / 1000.0 / STREAMS as f64;
        Ok(())
    }

    async fn listen(&mut self, time: Duration) -> Outcome<Heard> {
        let until = Instant::now() + time;
        let mut running = JoinSet::new();
        for connection in self.connections.drain(..) {
            running.spawn(listen(connection, until));
        }
        let mut sum = Heard::default();
        while let Some(heard) = running.join_next().await {
            let (connection, heard) = heard??;
            self.connections.push(connection);
            sum.events += heard.events;
            for (event, round) in heard.rounds {
                let all = sum.rounds.entry(event).or_default();
                all.streams += round.streams;
                all.last = all.last.max(round.last);
            }
        }
        Ok(sum)
    }
}

/// What was heard in a time.
#[derive(Debug, Default)]
struct Heard {
    events: u64,
    /// By when the event was made.
    rounds: BTreeMap<u128, Round>,
}

#[derive(Debug, Default)]
struct Round {
    streams: usize,
    /// When the last of them had it, in nanoseconds.
    last: u128,
}

impl Heard {
    /// The median of the times to the last watcher, in milliseconds. An event that
    /// some had before this was listened to, or have after it, does not count.
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    fn last(&self) -> Outcome<f64> {
        let whole = self.rounds.iter().filter(|(_, round)| round.streams == STREAMS);
        let mut times: Vec<_> =
            whole.map(|(made, round)| round.last.saturating_sub(*made) as f64 / 1e6).collect();
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().ok_or_else(|| "no event reached all streams".into())
    }
}

async fn listen(mut connection: Connection, until: Instant) -> Outcome<(Connection, Heard)> {
    let mut heard = Heard::default();
    let mut wrong = None;
    while Instant::now() < until {
        let now = |()| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let turn = connection.turn(|_, event| match event {
            StreamEvent::Message(message) => match made(message) {
                Some(made) => {
                    heard.events += 1;
                    let round = heard.rounds.entry(made).or_default();
                    round.streams += 1;
                    round.last = now(());
                }
                None => wrong = Some("an event differs from the vendor's status"),
            },
            StreamEvent::End => wrong = Some("a stream has ended"),
        });
        if let Ok(turn) = timeout_at(until, turn).await {
            turn?;
        }
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
    }
    Ok((connection, heard))
}

/// When the status of this event was made.
fn made(message: &[u8]) -> Option<u128> {
    let output = std::str::from_utf8(part(message, &[1, 6, 1])?).ok()?;
    output.split_once("\"at\":")?.1.strip_suffix('}')?.parse().ok()
}
