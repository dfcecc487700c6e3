//! The load: calls as fast as a server completes them, and their cost.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    Outcome,
    http2::{Connection, StreamEvent},
    process::{Process, Worker, own_cpu},
    report::Row,
    vendor::Vendor,
};

/// Longest wait for the calls in flight.
const PATIENCE: Duration = Duration::from_secs(10);

/// The call to repeat.
pub(crate) struct Calls {
    pub(crate) method: &'static str,
    /// The framed requests, taken in turn.
    pub(crate) requests: Vec<Bytes>,
    /// Whether this is the response to the request of this number.
    pub(crate) is_response: IsAnswer,
}

type IsAnswer = Box<dyn Fn(usize, &[u8]) -> bool + Send + Sync>;

/// Calls in flight to one server, over several connections.
pub(crate) struct Load {
    lanes: Vec<Lane>,
    calls: Arc<Calls>,
}

struct Lane {
    connection: Connection,
    in_flight: usize,
    /// Number of the request that its first call sends.
    first: usize,
    begun: usize,
}

impl Load {
    /// Opens connections, over each of which so many calls will be in flight.
    pub(crate) async fn open(
        address: SocketAddr,
        connections: usize,
        in_flight: usize,
        calls: &Arc<Calls>,
    ) -> Outcome<Self> {
        let mut lanes = Vec::with_capacity(connections);
        for lane in 0..connections {
            let connection = Connection::open(address, calls.method).await?;
            let first = lane * calls.requests.len() / connections;
            lanes.push(Lane { connection, in_flight, first, begun: 0 });
        }
        Ok(Self { lanes, calls: Arc::clone(calls) })
    }

    /// Calls for this long, and until the last call is complete. Returns how many calls
    /// were.
    pub(crate) async fn run(&mut self, time: Duration) -> Outcome<u64> {
        let until = Instant::now() + time;
        let mut running = JoinSet::new();
        for lane in self.lanes.drain(..) {
            let calls = Arc::clone(&self.calls);
            running.spawn(async move { lane.run(&calls, until).await });
        }
        let mut completed = 0;
        let limit = until + PATIENCE;
        while let Some(lane) =
            tokio::time::timeout_at(limit, running.join_next()).await.map_err(|_| "a call got no response")?
        {
            let (lane, calls) = lane??;
            completed += calls;
            self.lanes.push(lane);
        }
        Ok(completed)
    }
}

impl Lane {
    async fn run(mut self, calls: &Calls, until: Instant) -> Outcome<(Self, u64)> {
        let (mut messages, mut ended) = (0_u64, 0_u64);
        let mut open = 0;
        loop {
            let more = if Instant::now() < until { self.in_flight - open } else { 0 };
            for _ in 0..more {
                let request = &calls.requests[(self.first + self.begun) % calls.requests.len()];
                self.connection.call(request);
                self.begun += 1;
            }
            open += more;
            if open == 0 {
                break;
            }
            let mut wrong = false;
            let turn = self.connection.turn(|stream, event| match event {
                StreamEvent::Message(message) => {
                    let number = (self.first + stream as usize / 2) % calls.requests.len();
                    wrong |= !(calls.is_response)(number, message);
                    messages += 1;
                }
                StreamEvent::End => {
                    ended += 1;
                    open -= 1;
                    wrong |= messages < ended;
                }
            });
            turn.await?;
            if wrong {
                return Err(format!("{} got a wrong response, or failed", calls.method).into());
            }
        }
        if messages == ended { Ok((self, ended)) } else { Err("a call has failed".into()) }
    }
}

/// A process whose CPU time is measured.
pub(crate) trait Measured {
    fn cpu(&self) -> Outcome<Duration>;
}

impl Measured for Process {
    fn cpu(&self) -> Outcome<Duration> {
        Self::cpu(self)
    }
}

impl Measured for Worker {
    fn cpu(&self) -> Outcome<Duration> {
        Self::cpu(self)
    }
}

/// What a time has cost, from [`Meter::start`] to [`Meter::stop`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// How long it was.
    pub(crate) wall: f64,
    /// Seconds of CPU that the server used.
    pub(crate) server: f64,
    /// Seconds of CPU that the load and the vendor used, on the other core.
    pub(crate) load: f64,
}

/// What one side did, slice by slice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// Things done in a second.
    pub(crate) rate: Vec<f64>,
    /// Microseconds of the server's CPU for each.
    pub(crate) cpu: Vec<f64>,
    /// How busy the server was on its core, in percent.
    busy: Vec<f64>,
    /// How busy load and vendor were on theirs.
    load_busy: Vec<f64>,
}

impl Series {
    /// Adds a slice in which so many things were done.
    #[expect(clippy::cast_precision_loss, reason = "a count of a few seconds")]
    pub(crate) fn add(&mut self, done: u64, cost: Cost) {
        let done = done as f64;
        self.rate.push(done / cost.wall);
        self.cpu.push(1e6 * cost.server / done);
        self.busy.push(100.0 * cost.server / cost.wall);
        self.load_busy.push(100.0 * cost.load / cost.wall);
    }

    /// Adds notes about a `side` that repeated `a_thing`.
    pub(crate) fn note(&self, row: &mut Row, side: &str, a_thing: &str) {
        let things = a_thing.split_once(' ').map_or(a_thing, |(_, thing)| thing);
        row.note(format!("{side}: {things}s a second"), "", &self.rate);
        row.note(format!("{side}: CPU {a_thing}"), "µs", &self.cpu);
        row.note(format!("{side}: busy on its core"), "%", &self.busy);
        row.note("load and vendor: busy on theirs", "%", &self.load_busy);
    }
}

/// Measures what a time costs.
#[derive(Debug)]
pub(crate) struct Meter {
    began: Instant,
    server: Duration,
    load: Duration,
}

impl Meter {
    pub(crate) fn start(server: &impl Measured, vendor: Option<&Vendor>) -> Outcome<Self> {
        Ok(Self { server: server.cpu()?, load: load_cpu(vendor)?, began: Instant::now() })
    }

    pub(crate) fn stop(&self, server: &impl Measured, vendor: Option<&Vendor>) -> Outcome<Cost> {
        Ok(Cost {
            wall: self.began.elapsed().as_secs_f64(),
            server: server.cpu()?.saturating_sub(self.server).as_secs_f64(),
            load: load_cpu(vendor)?.saturating_sub(self.load).as_secs_f64(),
        })
    }
}

fn load_cpu(vendor: Option<&Vendor>) -> Outcome<Duration> {
    Ok(own_cpu()? + vendor.map_or(Ok(Duration::ZERO), Vendor::cpu)?)
}
