//! WatchJobs calls with any number of watches, of which a byte each is remembered.

use std::{collections::BTreeSet, net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use jobwatch::proto::v1::JobStatusView;
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    Outcome, gateway,
    http2::{Connection, StreamEvent, framed},
    message::{Field, fields, number, part},
};

/// What was heard of one watch.
const SEEN: u8 = 1;
const TERMINAL: u8 = 2;
const OVER: u8 = 4;

/// Longest wait for a message of every watch.
const PATIENCE: Duration = Duration::from_mins(2);

/// The request of a call's watches, and their expected end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watching {
    pub(crate) view: JobStatusView,
    /// Counts interruptions and failed watches, which are errors otherwise.
    pub(crate) tolerant: bool,
    /// Jobs whose watches are not counted: the vendor fails for them.
    pub(crate) failing: Arc<BTreeSet<usize>>,
}

/// One WatchJobs call.
#[derive(Debug)]
pub(crate) struct Call {
    connection: Connection,
    backend: &'static str,
    jobs: Range<usize>,
    watching: Watching,
    /// Watches that are counted.
    expected: usize,
    /// The next to be added.
    next: usize,
    heard: Vec<u8>,
    tally: Tally,
}

/// What was heard of all watches of a call, or of several.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Statuses.
    pub(crate) statuses: u64,
    /// Watches that had a status, a terminal one, and an end.
    pub(crate) seen: usize,
    pub(crate) terminal: usize,
    pub(crate) over: usize,
    /// Watches that had a status or have failed without one.
    settled: usize,
    pub(crate) interruptions: usize,
    /// Watches that failed with TOO_MANY_BYTES, and for other reasons.
    pub(crate) refused: usize,
    pub(crate) failed: usize,
}

/// Until when to listen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// Each watch has had a status, or has failed.
    Seen,
    /// Each watch is over.
    Over,
    Time(Instant),
}

/// How clients share jobs between them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    pub(crate) jobs: usize,
    pub(crate) clients: usize,
    /// Clients that have the same share, so that each job has as many.
    pub(crate) of_each_job: usize,
}

impl Shares {
    /// Each job is one client's.
    pub(crate) fn even(jobs: usize, clients: usize) -> Self {
        Self { jobs, clients, of_each_job: 1 }
    }

    /// The share of one client.
    pub(crate) fn of(&self, client: usize) -> Range<usize> {
        let (share, shares) = (client / self.of_each_job, self.clients / self.of_each_job);
        share * self.jobs / shares..(share + 1) * self.jobs / shares
    }
}

impl Call {
    /// A call that will watch these jobs of a backend.
    pub(crate) async fn open(
        address: SocketAddr,
        backend: &'static str,
        jobs: Range<usize>,
        watching: Watching,
    ) -> Outcome<Self> {
        let mut connection = Connection::open(address, "WatchJobs").await?;
        connection.open_stream();
        let (next, heard) = (jobs.start, vec![0; jobs.len()]);
        let expected = jobs.len() - watching.failing.range(jobs.clone()).count();
        Ok(Self { connection, backend, jobs, watching, expected, next, heard, tally: Tally::default() })
    }

    fn has_reached(&self, until: Until) -> bool {
        match until {
            Until::Seen => self.tally.settled == self.expected,
            Until::Over => self.tally.over == self.expected,
            Until::Time(time) => Instant::now() >= time,
        }
    }

    /// Reads responses until the condition `until` holds, or until `limit`.
    async fn listen(mut self, until: Until, limit: Instant) -> Outcome<Self> {
        loop {
            if self.has_reached(until) || Instant::now() >= limit {
                return Ok(self);
            }
            // Some at a time, so that they are never all in memory.
            while self.next < self.jobs.end && self.connection.waiting() < 1000 {
                self.connection.send(framed(&gateway::add(self.backend, self.next, self.watching.view)));
                self.next += 1;
            }
            let mut wrong = None;
            let (heard, tally, first) = (&mut self.heard, &mut self.tally, self.jobs.start);
            let watching = &self.watching;
            let turn = self.connection.turn(|_, event| match event {
                StreamEvent::Message(message) => {
                    if let Err(error) = note(message, first, watching, heard, tally) {
                        wrong = Some(error);
                    }
                }
                StreamEvent::End => wrong = Some("a call of watches has ended".to_owned()),
            });
            if let Ok(turn) = timeout_at(limit, turn).await {
                turn?;
            }
            if let Some(error) = wrong {
                return Err(error.into());
            }
        }
    }
}

fn note(
    message: &[u8],
    first: usize,
    watching: &Watching,
    heard: &mut [u8],
    tally: &mut Tally,
) -> Result<(), String> {
    let (mut id, mut event, mut end) = (0, None, None);
    for (number, field) in fields(message) {
        match (number, field) {
            (1, Field::Number(number)) => id = number,
            (2, Field::Bytes(bytes)) => event = Some(bytes),
            (3, Field::Bytes(bytes)) => end = Some(bytes),
            _ => {}
        }
    }
    let at = usize::try_from(id).ok().and_then(|id| id.checked_sub(first));
    let heard = at.and_then(|at| heard.get_mut(at)).ok_or("a response belongs to no watch")?;
    if at.is_some_and(|at| watching.failing.contains(&(first + at))) {
        return Ok(());
    }
    if let Some(end) = end {
        if number(end, 1) != 0 {
            let text = String::from_utf8_lossy(end);
            if !watching.tolerant {
                return Err(format!("a watch has failed: {text}"));
            }
            tally.settled += usize::from(*heard & SEEN == 0);
            tally.over += 1;
            if text.contains("TOO_MANY_BYTES") {
                tally.refused += 1;
            } else {
                tally.failed += 1;
            }
            *heard |= OVER;
            return Ok(());
        }
        if *heard != SEEN | TERMINAL {
            return Err("a watch is over without its terminal status".to_owned());
        }
        *heard |= OVER;
        tally.over += 1;
        return Ok(());
    }
    let event = event.ok_or("a response has no event")?;
    let Some(status) = part(event, &[1]) else {
        if part(event, &[3]).is_some() {
            if watching.tolerant {
                tally.interruptions += 1;
                return Ok(());
            }
            return Err(format!("a watch was interrupted: {}", String::from_utf8_lossy(event)));
        }
        return Ok(());
    };
    tally.statuses += 1;
    if *heard & SEEN == 0 {
        *heard |= SEEN;
        tally.seen += 1;
        tally.settled += 1;
    }
    if number(status, 4) == 1 {
        if *heard & TERMINAL != 0 {
            return Err("a terminal status came twice".to_owned());
        }
        *heard |= TERMINAL;
        tally.terminal += 1;
    }
    Ok(())
}

/// Calls that are listened to together.
#[derive(Debug)]
pub(crate) struct Calls(Vec<Call>);

impl Calls {
    /// A call for each client, to watch its share.
    pub(crate) async fn open(address: SocketAddr, backend: &'static str, shares: Shares) -> Outcome<Self> {
        Self::open_as(address, backend, shares, &Watching::default()).await
    }

    /// The same, with another request.
    pub(crate) async fn open_as(
        address: SocketAddr,
        backend: &'static str,
        shares: Shares,
        watching: &Watching,
    ) -> Outcome<Self> {
        let mut open = Vec::with_capacity(shares.clients);
        for client in 0..shares.clients {
            open.push(Call::open(address, backend, shares.of(client), watching.clone()).await?);
        }
        Ok(Self(open))
    }

    /// Adds the remaining watches and reads their statuses.
    pub(crate) async fn listen(&mut self, until: Until) -> Outcome {
        let limit = match until {
            Until::Time(time) => time,
            Until::Seen | Until::Over => Instant::now() + PATIENCE,
        };
        let reached = self.listen_before(until, limit).await?;
        if reached { Ok(()) } else { Err("the watches do not receive the expected statuses".into()) }
    }

    /// The same, until `limit` at most. Returns whether all calls have reached it.
    pub(crate) async fn listen_before(&mut self, until: Until, limit: Instant) -> Outcome<bool> {
        let mut running = JoinSet::new();
        for call in self.0.drain(..) {
            running.spawn(call.listen(until, limit));
        }
        while let Some(call) = running.join_next().await {
            self.0.push(call??);
        }
        Ok(self.0.iter().all(|call| call.has_reached(until)))
    }

    pub(crate) fn tally(&self) -> Tally {
        self.0.iter().fold(Tally::default(), |sum, call| Tally {
            statuses: sum.statuses + call.tally.statuses,
            seen: sum.seen + call.tally.seen,
            terminal: sum.terminal + call.tally.terminal,
            over: sum.over + call.tally.over,
            settled: sum.settled + call.tally.settled,
            interruptions: sum.interruptions + call.tally.interruptions,
            refused: sum.refused + call.tally.refused,
            failed: sum.failed + call.tally.failed,
        })
    }
}
