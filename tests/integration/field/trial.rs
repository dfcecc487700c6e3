//! One case at one vendor over one HTTP version.

use std::{fmt, time::Duration};

use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Plan, Simulator, Vendor, credentials},
};
use tonic::{Code, Status};

use super::{
    front::{Front, Protocol, Purpose},
    rows::{Case, Fault, Row, Sees, Wait},
    tunnel::Tunnel,
};
use crate::{
    harness::*,
    proxy::{self, Proxy},
};

/// How late an error may be at the caller, at most, on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// The server of a trial.
enum Upstream {
    Front(Front),
    /// For faults that HTTP libraries do not produce.
    Raw(Proxy, Tunnel),
}

/// A case, with its own server and backend.
pub(super) struct Trial<'a> {
    row: &'a Row,
    case: &'a Case,
    simulator: &'a Simulator,
    protocol: Protocol,
    upstream: Upstream,
    name: String,
}

impl fmt::Display for Trial<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vendor = self.simulator.vendor();
        write!(out, "{}: {}, {vendor}, {:?}", self.row.name, self.case.label, self.protocol)
    }
}

impl<'a> Trial<'a> {
    pub(super) async fn of(
        row: &'a Row,
        case: &'a Case,
        number: usize,
        simulator: &'a Simulator,
        protocol: Protocol,
    ) -> Self {
        let upstream = match case.fault {
            Fault::Change(_) => Upstream::Front(Front::before(simulator, protocol).await),
            Fault::Raw(_) => {
                let proxy = Proxy::before(simulator).await;
                let tunnel = Tunnel::terminating(protocol, proxy.address()).await;
                Upstream::Raw(proxy, tunnel)
            }
        };
        Self { row, case, simulator, protocol, upstream, name: format!("trial-{number}") }
    }

    pub(super) fn backend(&self) -> Backend {
        let port = match &self.upstream {
            Upstream::Front(front) => front.port,
            Upstream::Raw(_, tunnel) => tunnel.port,
        };
        let mut backend = Backend::at(self.simulator.vendor(), self.protocol.url(port)).named(&self.name);
        if self.case.purpose == Purpose::Login && self.simulator.vendor() == Vendor::Immuta {
            let key = credentials::IMMUTA_API_KEY;
            backend = backend.credentials(format!("{{ api_key = {key:?}, exchange = true }}"));
        }
        if let Some(path) = self.case.base_path {
            backend = backend.path(path);
        }
        // Only one request at a time, so that none is in flight when a wait begins.
        let backend = backend.poll("max_concurrency", "1").poll("max_response_bytes", "65536");
        backend.poll("timeout", "\"30s\"")
    }

    fn set(&self) {
        match (&self.upstream, &self.case.fault) {
            (Upstream::Front(front), Fault::Change(change)) => {
                let times = self.case.times.unwrap_or(usize::MAX);
                front.change_next(times, self.case.purpose, change.clone());
            }
            (Upstream::Raw(proxy, _), Fault::Raw(change)) => proxy.set(proxy::Fault::changed(*change)),
            _ => unreachable!("the upstream is the fault's"),
        }
    }

    fn heal(&self) {
        match &self.upstream {
            Upstream::Front(front) => front.heal(),
            Upstream::Raw(proxy, _) => proxy.heal(),
        }
    }

    /// Polls and logins so far.
    fn requests(&self) -> usize {
        match &self.upstream {
            Upstream::Front(front) => front.traffic().requests.len(),
            Upstream::Raw(proxy, _) => proxy.seen().requests,
        }
    }

    fn logins(&self) -> usize {
        match &self.upstream {
            Upstream::Front(front) => front.count(Purpose::Login),
            Upstream::Raw(..) => 0,
        }
    }

    /// Returns once one more request of the case's purpose has arrived.
    async fn request_comes(&self) {
        match &self.upstream {
            Upstream::Front(front) => front.requests_come(self.case.purpose, 1).await,
            Upstream::Raw(proxy, _) => proxy.requests_come(1).await,
        }
    }

    pub(super) async fn run(&self, client: &Client) {
        let vendor = self.simulator.vendor();
        let started = self.simulator.start_job(Plan::fixed(running(vendor)));
        let job = job(&self.name, &started.id);
        let begins_faulty = self.case.purpose == Purpose::Login || self.case.base_path.is_some();
        if begins_faulty {
            self.set();
        }
        let mut watch = Watch::of(client, &job).await;
        if begins_faulty {
            self.case.sees.check(self, get(client, &job).await.map(|status| status.state()));
        } else {
            assert_eq!(watch.next_status().await.state(), S::Running, "{self}");
            let logins = self.logins();
            self.set();
            self.request_comes().await;
            self.case.sees.check(self, get(client, &job).await.map(|status| status.state()));
            let more = self.logins() - logins;
            assert_eq!(more, self.case.logins, "{self}: {more} logins");
        }
        if self.case.sees == Sees::Status {
            let first = if begins_faulty { Some(watch.status().await) } else { None };
            assert!(first.is_none_or(|first| first.state() == S::Running), "{self}");
            self.simulator.finish(&started.id);
            assert_eq!(watch.status().await.state(), S::Succeeded, "{self}");
            watch.end().await.unwrap();
            return;
        }
        let (interruption, _) = watch.interruption().await;
        let cause = from_message(&interruption.cause.unwrap());
        self.case.sees.check(self, Err(cause));
        if let Wait::Of(_) = self.case.wait {
            let before = self.requests();
            for _ in 0..3 {
                self.case.sees.check(self, get(client, &job).await.map(|status| status.state()));
            }
            assert_eq!(self.requests(), before, "{self}: requests during the wait");
            return;
        }
        if self.case.recovers {
            self.heal();
            self.simulator.finish(&started.id);
            assert_eq!(watch.terminal_status().await.state(), S::Succeeded, "{self}");
        }
    }
}

impl Sees {
    /// Whether a caller saw it.
    fn check(self, trial: &Trial<'_>, seen: Result<S, Status>) {
        let (expected, error) = match (self, seen) {
            (Self::Status, Ok(state)) => return assert_eq!(state, S::Running, "{trial}"),
            (Self::Status, Err(error)) => panic!("{trial}: {error}"),
            (_, Ok(state)) => panic!("{trial}: {state:?}"),
            (Self::Fails(code, reason), Err(error)) => ((code, reason), error),
        };
        let decoded = decode_error(&error);
        assert_eq!((decoded.code, &*decoded.reason), expected, "{trial}: {}", decoded.message);
        let case = trial.case;
        trial.assert_discreet(&error);
        match (case.wait, decoded.retry_delay()) {
            (Wait::Of(wait), Some(delay)) => {
                // The time between two looks at the clock may be on either side of it.
                assert!(delay.abs_diff(wait) < SLACK, "{trial}: {delay:?} instead of {wait:?}");
            }
            (Wait::Any, _) => {}
            (Wait::BackOff, Some(delay)) => assert!(delay <= SLACK, "{trial}: {delay:?}"),
            (Wait::BackOff, None) => assert_ne!(decoded.code, Code::Unavailable, "{trial}"),
            (Wait::Of(_), None) => panic!("{trial}: no RetryInfo"),
        }
        for said in &case.says {
            assert!(decoded.message.contains(said), "{trial}: {said:?} is missing in {:?}", decoded.message);
        }
        if let Some(status) = case.http_status() {
            let shown = decoded.metadata.get("http_status");
            assert_eq!(shown, Some(&status.to_string()), "{trial}: {}", decoded.message);
            let parts = [format!("HTTP {status}"), format!("{} ", trial.method()), trial.path()];
            for part in parts {
                assert!(
                    decoded.message.contains(&part),
                    "{trial}: {part:?} is missing in {:?}",
                    decoded.message
                );
            }
        }
    }
}

impl Trial<'_> {
    fn method(&self) -> &'static str {
        let is_login = self.case.purpose == Purpose::Login;
        if self.simulator.vendor() == Vendor::Claret && !is_login { "GET" } else { "POST" }
    }

    fn path(&self) -> String {
        let path = match (self.simulator.vendor(), self.case.purpose) {
            (Vendor::Immuta, Purpose::Login) => "/bim/apikey/authenticate",
            (Vendor::Immuta, _) => "/jobs/statuses",
            (Vendor::Kinetica, _) => "/get/job",
            (Vendor::Claret, Purpose::Login) => "/demo/api/v1/tokens/create",
            (Vendor::Claret, _) => "/demo/api/v1/imports/status/",
            (Vendor::Datasaur, Purpose::Login) => "/api/oauth/token",
            (Vendor::Datasaur, _) => "/graphql",
        };
        format!("{}{path}", self.case.base_path.unwrap_or_default())
    }

    fn assert_discreet(&self, error: &Status) {
        let more = [credentials::CLARET_EMAIL, "localhost", "QUERY"];
        assert_shows_none_of(error, &self.to_string(), &more);
    }
}
