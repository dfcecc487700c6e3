//! The four vendors on loopback, for the demo and the tests. They imitate the
//! wire behaviour and know nothing of the adapters.
//!
//! A [`Simulator`] is one vendor with jobs that follow a [`Plan`], a log of the
//! [`Call`]s that it got, and [`Fault`]s that it shows on demand. What no public page
//! says of a vendor is this simulator's choice, and the vendor's module names it.
//!
//! ```text
//! listener (host) -> call log, faults (reception) -> the vendor's routes -> jobs
//!        <- bytes (delivery) <- how they are wrong (distortion)
//! ```
//!
//! All of it is also at hand over HTTP below `/_simulator`, for people who write
//! clients in other languages (`jobwatch simulate` runs one vendor for them), without
//! credentials and in JSON:
//!
//! | request | body | does |
//! | --- | --- | --- |
//! | `POST jobs` | a [`Plan`] | starts a job; answers `{"id": .., "tag": ..}` |
//! | `PUT jobs/{id}/state` | `{"state": word}` | holds the job in this state |
//! | `PUT jobs/{id}/progress` | `{"percent": n}` | of a held job |
//! | `POST jobs/{id}/finish` | an [`End`], or none | ends the job now |
//! | `DELETE jobs/{id}` | | makes the job unknown |
//! | `GET calls`, `DELETE calls` | | reads, empties the call log |
//! | `POST faults` | a [`Fault`] | injects it |
//! | `POST poison/{id}` | | refuses any request about this job |
//! | `DELETE faults` | | heals all faults and poison |
//! | `POST tokens` | | answers `{"token": ..}`, a bearer token that is good now |
//! | `PUT credentials` | `{"reject": bool, "expire_tokens": bool, "secret": .., "token_lifetime_ms": n}`, each optional | |
//!
//! Names of enum variants are in snake case there and durations in milliseconds:
//! `{"effect": {"status": {"code": 503}}, "path": "/jobs", "times": 1}` is a fault,
//! `{"running_for_ms": 5000, "end": {"success": {"json": [1, 2]}}}` a plan.

mod admin;
mod calls;
mod claret;
mod datasaur;
mod delivery;
mod distortion;
mod faults;
mod fleet;
mod gate;
mod host;
mod immuta;
mod jobs;
mod kinetica;
mod life;
mod misfit;
mod plan;
mod reception;
mod vendor;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use axum::{Router, middleware};

use self::{calls::CallLog, faults::Faults, gate::Gate, host::Host, jobs::Jobs};
pub use self::{
    calls::{Authorization, Call},
    delivery::{Delivery, RawAnswer},
    distortion::Distortion,
    faults::{Answer, Effect, Fault, GraphQlError},
    fleet::{DemoJob, Fleet},
    jobs::Job,
    misfit::{Misfit, Oddity},
    plan::{Category, Content, End, File, Outcome, Plan},
    vendor::Vendor,
};

/// What the simulators accept at first. See [`Simulator::set_secret`].
pub mod credentials {
    /// Immuta's API key.
    pub const IMMUTA_API_KEY: &str = "5f0c9e1a7b2d4e8fa3c61d90";
    /// Kinetica's user.
    pub const KINETICA_USER: &str = "admin";
    /// Kinetica's password; with a colon, since Basic must not trip over it.
    pub const KINETICA_PASSWORD: &str = "simulated:kinetica";
    /// Claret's tenant.
    pub const CLARET_TENANT: &str = "demo";
    /// Claret's email.
    pub const CLARET_EMAIL: &str = "planner@example.com";
    /// Claret's password; with characters that a query has to escape.
    pub const CLARET_PASSWORD: &str = "simulated & claret+1";
    /// Datasaur's client id.
    pub const DATASAUR_CLIENT_ID: &str = "6b1f8a52-demo";
    /// Datasaur's client secret; with characters that a form has to escape.
    pub const DATASAUR_CLIENT_SECRET: &str = "simulated=datasaur&2";
}

/// What the rooms of one simulator share.
#[derive(Debug)]
struct World {
    vendor: Vendor,
    jobs: Jobs,
    calls: CallLog,
    faults: Faults,
    gate: Gate,
    counter: AtomicI64,
}

impl World {
    fn new(vendor: Vendor) -> Self {
        Self {
            vendor,
            jobs: Jobs::new(vendor.words()),
            calls: CallLog::default(),
            faults: Faults::default(),
            gate: Gate::new(vendor.secret()),
            counter: AtomicI64::new(12_345),
        }
    }

    fn start_job(&self, mut plan: Plan) -> Job {
        let count = self.counter.fetch_add(1, Ordering::Relaxed);
        let id = plan.id.take().unwrap_or_else(|| self.vendor.new_id(count));
        let tag = plan.tag.take().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        self.jobs.start(id.clone(), tag.clone(), plan);
        Job { id, tag: (self.vendor == Vendor::Kinetica).then_some(tag) }
    }

    fn routes(self: &Arc<Self>) -> Router {
        let vendor = self.vendor.routes(self);
        let received = vendor.layer(middleware::from_fn_with_state(Arc::clone(self), reception::receive));
        received.merge(admin::routes(Arc::clone(self)))
    }
}

/// One vendor on loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    world: Arc<World>,
    host: Host,
}

impl Simulator {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start(vendor: Vendor) -> io::Result<Self> {
        Self::start_at(vendor, (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts it at this address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn start_at(vendor: Vendor, addr: SocketAddr) -> io::Result<Self> {
        let world = Arc::new(World::new(vendor));
        let host = Host::start(addr, world.routes()).await?;
        Ok(Self { world, host })
    }

    /// Whose API it is.
    pub fn vendor(&self) -> Vendor {
        self.world.vendor
    }

    /// Where it listens, down or not.
    pub fn addr(&self) -> SocketAddr {
        self.host.addr()
    }

    /// `http://` and the address, without a path; Claret's tenant comes after it.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// Closes the listener and all connections; jobs, log and faults stay.
    pub async fn go_down(&self) {
        self.host.go_down().await;
    }

    /// Listens again at the same address.
    ///
    /// # Errors
    /// If somebody else took the port meanwhile.
    pub async fn come_back(&self) -> io::Result<()> {
        self.host.come_back().await
    }

    /// Starts a job.
    pub fn start_job(&self, plan: Plan) -> Job {
        self.world.start_job(plan)
    }

    /// Starts the demo's jobs of this vendor: a few that end in different ways
    /// within 5 to 60 s.
    pub fn start_demo_jobs(&self) -> Vec<(Job, &'static str)> {
        fleet::demo_plans(self.vendor())
            .into_iter()
            .map(|(title, plan)| (self.start_job(plan), title))
            .collect()
    }

    /// Holds a job in the state with this word from now on, whatever its plan was;
    /// `false` if there is no such job. A word that the vendor doesn't know counts
    /// as running; Kinetica's CANCELLED still runs until [`Simulator::finish`].
    pub fn set_state(&self, id: &str, word: &str) -> bool {
        self.world.jobs.set_word(id, word)
    }

    /// Sets the progress of a job in a state that was set; `false` if there is none.
    pub fn set_progress(&self, id: &str, percent: u8) -> bool {
        self.world.jobs.set_progress(id, percent)
    }

    /// Ends a job now as its plan says; `false` if there is no such job.
    pub fn finish(&self, id: &str) -> bool {
        self.world.jobs.finish(id, None)
    }

    /// Ends a job now like this; `false` if there is no such job.
    pub fn finish_with(&self, id: &str, end: End) -> bool {
        self.world.jobs.finish(id, Some(end))
    }

    /// Makes a job unknown; `false` if it was.
    pub fn forget(&self, id: &str) -> bool {
        self.world.jobs.forget(id)
    }

    /// The calls that arrived, oldest first; the last 100,000 at most.
    pub fn calls(&self) -> Vec<Call> {
        self.world.calls.all()
    }

    /// How many of them had a path that contains `path`.
    pub fn count(&self, path: &str) -> usize {
        self.world.calls.count(|call| call.path.contains(path))
    }

    /// Empties the log.
    pub fn clear_calls(&self) {
        self.world.calls.clear();
    }

    /// Returns once the log holds `count` calls with a path that contains `path`,
    /// answered or not.
    pub async fn wait_for_calls(&self, path: &str, count: usize) {
        self.world.calls.wait_for(count, |call| call.path.contains(path)).await;
    }

    /// Returns once the log holds `count` answered calls with a path that contains
    /// `path`.
    pub async fn wait_for_answers(&self, path: &str, count: usize) {
        self.world.calls.wait_for(count, |call| call.status.is_some() && call.path.contains(path)).await;
    }

    /// Lets something go wrong from now on.
    pub fn inject(&self, fault: Fault) {
        self.world.faults.inject(fault);
    }

    /// Refuses every request that asks about this job, as a whole.
    pub fn poison(&self, job_id: &str) {
        self.world.faults.poison(job_id);
    }

    /// Heals all faults and poison; credentials stay as they are.
    pub fn clear_faults(&self) {
        self.world.faults.clear();
    }

    /// Makes every token that was given out invalid.
    pub fn expire_tokens(&self) {
        self.world.gate.expire_tokens();
    }

    /// Refuses all credentials, good ones too, until told otherwise.
    pub fn reject_credentials(&self, reject: bool) {
        self.world.gate.reject_all(reject);
    }

    /// How long the tokens live that it gives out from now on; an hour at first.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.world.gate.set_lifetime(lifetime);
    }

    /// Takes this API key, password or client secret from now on, and no longer the
    /// one before. Tokens stay good.
    pub fn set_secret(&self, secret: &str) {
        self.world.gate.set_secret(secret);
    }

    /// A bearer token that is good now, as one that an operator has.
    pub fn issue_token(&self) -> String {
        self.world.issue_token().0
    }
}

impl World {
    fn issue_token(&self) -> (String, Duration) {
        let token = self.vendor.new_token();
        let lifetime = self.gate.admit(token.clone());
        (token, lifetime)
    }
}

#[cfg(test)]
mod tests;
