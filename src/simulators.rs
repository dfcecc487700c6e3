//! Simulators of the four vendors on loopback, for the demo and the tests. They imitate
//! the vendors on the wire and do not use the adapters.
//!
//! A [`Simulator`] is one vendor: jobs with a [`Plan`], a log of the [`Call`]s that
//! arrived, and [`Fault`]s that a test injects. Where a vendor's pages leave something
//! open, the simulator makes a choice, which the vendor's module documents.
//!
//! ```text
//! connections (listener) -> call log, faults (interceptor) -> the vendor's routes -> jobs
//!                  <- bytes (raw_response) <- changes to them (distortion)
//! ```
//!
//! The admin API below `/_simulator` offers the same in JSON, without credentials, to
//! clients in other languages; `jobwatch simulate` runs one vendor for them:
//!
//! | request | body | does |
//! | --- | --- | --- |
//! | `POST jobs` | a [`Plan`] | starts a job; returns `{"id": .., "tag": ..}` |
//! | `PUT jobs/{id}/state` | `{"state": word}` | holds the job in this state |
//! | `PUT jobs/{id}/progress` | `{"percent": n}` | of a held job |
//! | `POST jobs/{id}/finish` | an [`End`], or none | ends the job now |
//! | `DELETE jobs/{id}` | | makes the job unknown |
//! | `GET calls`, `DELETE calls` | | reads, empties the call log |
//! | `POST faults` | a [`Fault`] | injects it |
//! | `POST poison/{id}` | an [`Effect`], or none | applies it to any request that lists this job; without one, refuses them |
//! | `DELETE poison/{id}` | | removes the faults of this job |
//! | `DELETE faults` | | removes all faults, poison too |
//! | `POST tokens` | | returns `{"token": ..}`, a valid bearer token |
//! | `PUT credentials` | `{"reject": bool, "expire_tokens": bool, "secret": .., "token_lifetime_ms": n}`, each optional | |
//!
//! Names of enum variants are in snake case there and durations in milliseconds:
//! `{"effect": {"status": {"code": 503}}, "path": "/jobs", "times": 1}` is a fault,
//! `{"running_for_ms": 5000, "end": {"success": {"json": [1, 2]}}}` a plan.

mod admin;
mod auth;
mod calls;
mod claret;
mod datasaur;
mod distortion;
mod faults;
mod immuta;
mod interceptor;
mod job_state;
mod jobs;
mod json_fault;
mod kinetica;
mod listener;
mod plan;
mod raw_response;
mod simulator_set;
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

use self::{auth::Auth, calls::CallLog, faults::Faults, jobs::Jobs, listener::HttpServer};
pub use self::{
    calls::{Authorization, Call},
    distortion::Distortion,
    faults::{CustomResponse, Effect, Elements, Fault, GraphQlError},
    jobs::Job,
    json_fault::{InvalidValue, JsonFault},
    plan::{Category, Content, End, File, Outcome, Plan},
    raw_response::{Delivery, RawResponse},
    simulator_set::{DemoJob, SimulatorSet},
    vendor::Vendor,
};

/// What the simulators accept at first. See [`Simulator::set_secret`].
pub mod credentials {
    /// Immuta's API key.
    pub const IMMUTA_API_KEY: &str = "5f0c9e1a7b2d4e8fa3c61d90";
    /// Kinetica's user.
    pub const KINETICA_USER: &str = "admin";
    /// Kinetica's password; with a colon, to test the parsing of Basic.
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

/// The state of one simulator, shared by all requests.
#[derive(Debug)]
struct SimulatorState {
    vendor: Vendor,
    jobs: Jobs,
    calls: CallLog,
    faults: Faults,
    auth: Auth,
    counter: AtomicI64,
}

impl SimulatorState {
    fn new(vendor: Vendor) -> Self {
        Self {
            vendor,
            jobs: Jobs::new(vendor.words()),
            calls: CallLog::default(),
            faults: Faults::default(),
            auth: Auth::new(vendor.secret()),
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
        let received = vendor.layer(middleware::from_fn_with_state(Arc::clone(self), interceptor::intercept));
        received.merge(admin::routes(Arc::clone(self)))
    }
}

/// One vendor on loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct Simulator {
    state: Arc<SimulatorState>,
    host: HttpServer,
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
        let state = Arc::new(SimulatorState::new(vendor));
        let host = HttpServer::start(addr, state.routes()).await?;
        Ok(Self { state, host })
    }

    /// The vendor whose API it imitates.
    pub fn vendor(&self) -> Vendor {
        self.state.vendor
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
    /// If another process uses the port now.
    pub async fn come_back(&self) -> io::Result<()> {
        self.host.come_back().await
    }

    /// Starts a job.
    pub fn start_job(&self, plan: Plan) -> Job {
        self.state.start_job(plan)
    }

    /// Starts the demo's jobs of this vendor: a few that end in different ways
    /// within 5 to 60 s.
    pub fn start_demo_jobs(&self) -> Vec<(Job, &'static str)> {
        simulator_set::demo_plans(self.vendor())
            .into_iter()
            .map(|(title, plan)| (self.start_job(plan), title))
            .collect()
    }

    /// Holds a job in the state with this word from now on, whatever its plan was;
    /// `false` if there is no such job. A word that the vendor doesn't know counts
    /// as running; Kinetica's CANCELLED still runs until [`Simulator::finish`].
    pub fn set_state(&self, id: &str, word: &str) -> bool {
        self.state.jobs.set_word(id, word)
    }

    /// Sets the progress of a job in a state that was set; `false` if there is none.
    pub fn set_progress(&self, id: &str, percent: u8) -> bool {
        self.state.jobs.set_progress(id, percent)
    }

    /// Ends a job now as its plan says; `false` if there is no such job.
    pub fn finish(&self, id: &str) -> bool {
        self.state.jobs.finish(id, None)
    }

    /// Ends a job now like this; `false` if there is no such job.
    pub fn finish_with(&self, id: &str, end: End) -> bool {
        self.state.jobs.finish(id, Some(end))
    }

    /// Makes a job unknown; `false` if it was.
    pub fn forget(&self, id: &str) -> bool {
        self.state.jobs.forget(id)
    }

    /// The calls that arrived, oldest first; the last 100,000 at most.
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.all()
    }

    /// How many of them had a path that contains `path`.
    pub fn count(&self, path: &str) -> usize {
        self.state.calls.count(|call| call.path.contains(path))
    }

    /// Empties the log.
    pub fn clear_calls(&self) {
        self.state.calls.clear();
    }

    /// Returns once the log holds `count` calls with a path that contains `path`,
    /// with or without a response.
    pub async fn wait_for_calls(&self, path: &str, count: usize) {
        self.state.calls.wait_for(count, |call| call.path.contains(path)).await;
    }

    /// Returns once the log holds `count` calls with a response and a path that
    /// contains `path`.
    pub async fn wait_for_responses(&self, path: &str, count: usize) {
        self.state.calls.wait_for(count, |call| call.status.is_some() && call.path.contains(path)).await;
    }

    /// Adds a fault.
    pub fn inject(&self, fault: Fault) {
        self.state.faults.inject(fault);
    }

    /// Refuses every request that lists this job, in the vendor's own form.
    pub fn poison(&self, job_id: &str) {
        self.state.faults.refuse(job_id);
    }

    /// Applies this effect to every request that lists this job, and to no other.
    pub fn poison_with(&self, job_id: &str, effect: Effect) {
        self.inject(Fault::new(effect).for_job(job_id));
    }

    /// Removes the faults that are limited to this job.
    pub fn heal(&self, job_id: &str) {
        self.state.faults.heal(job_id);
    }

    /// Removes all faults, poison too; credentials stay as they are.
    pub fn clear_faults(&self) {
        self.state.faults.clear();
    }

    /// Invalidates every issued token.
    pub fn expire_tokens(&self) {
        self.state.auth.expire_tokens();
    }

    /// Rejects all credentials, valid ones too, until it is set to `false`.
    pub fn reject_credentials(&self, reject: bool) {
        self.state.auth.reject_all(reject);
    }

    /// Lifetime of the tokens that are issued from now on; an hour by default.
    pub fn set_token_lifetime(&self, lifetime: Duration) {
        self.state.auth.set_lifetime(lifetime);
    }

    /// Replaces the accepted API key, password or client secret. Issued tokens stay
    /// valid.
    pub fn set_secret(&self, secret: &str) {
        self.state.auth.set_secret(secret);
    }

    /// A valid bearer token, such as an operator has.
    pub fn issue_token(&self) -> String {
        self.state.issue_token().0
    }
}

impl SimulatorState {
    fn issue_token(&self) -> (String, Duration) {
        let token = self.vendor.new_token();
        let lifetime = self.auth.add_token(token.clone());
        (token, lifetime)
    }
}

#[cfg(test)]
mod tests;
