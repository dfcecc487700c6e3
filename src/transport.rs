//! The only I/O towards vendors: HTTP, credentials, time-outs, limits.
//!
//! An [`Endpoint`] is an [`Upstream`] that sends the request that an adapter writes and
//! splits the response with it. A rejected token is refreshed once; a second rejection is a
//! fault. Redirects are never followed. No secret reaches a log or an error: errors name
//! what failed, never a URL, a header or a body.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::{sync::Notify, time::Instant};

use crate::{
    config,
    job::{BackendFault, JobRef},
    telemetry::traces::traceparent,
    vendors::{Adapter, BaseUrl, BuildError, Clusters, StandbyCluster},
};

mod address;
mod backoff;
mod collector;
mod connector;
mod content_coding;
mod credentials;
mod document;
mod download;
mod failover;
mod http_client;
mod intervals;
mod known_answers;
mod pool;
mod probe;
mod rate_limiter;
mod redaction;
mod response_body;
mod response_budget;
mod tls;
mod trial;
mod upstream;

pub use crate::vendors::LONGEST_RETRY_AFTER;
pub use backoff::Backoff;
pub use collector::CollectorClient;
pub use credentials::RejectedCredentials;
use credentials::{Credentials, Purpose};
pub use document::Document;
pub use download::{File, Files};
use failover::{Failover, Standby};
use http_client::{HttpClient, NamesJobs};
pub use rate_limiter::{Permit, RateLimiter};
pub use response_budget::{DEFAULT_RESPONSE_BYTES, Reservation, ResponseBudget};
pub use trial::{Trial, TrialFailure};
pub use upstream::{PollResponse, Upstream};

pub use crate::vendors::FileVersion;

/// One backend on the network.
#[derive(Debug)]
pub struct Endpoint {
    adapter: Arc<dyn Adapter>,
    /// Where there is more than one cluster.
    failover: Option<Failover>,
    credentials: Arc<Credentials>,
    http: Arc<HttpClient>,
    files: download::FileClient,
    other_origins: download::OtherOrigins,
    settings: probe::Settings,
    rotated: Notify,
}

/// Why an endpoint can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetupError(String);

impl From<BuildError> for SetupError {
    fn from(error: BuildError) -> Self {
        Self(error.to_string())
    }
}

impl Endpoint {
    /// Sets a backend up; connects to nothing yet. Responses are read within `budget`.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub fn new(backend: &config::Backend, budget: &Arc<ResponseBudget>) -> Result<Self, SetupError> {
        let config::Backend { name, vendor, base_url, poll, network, .. } = backend;
        let Clusters { primary, standbys } = vendor.build(base_url, poll.max_batch)?;
        let http_client = |url: &BaseUrl, adapter: &dyn Adapter| {
            let identifies_jobs = adapter.capabilities().identifies_jobs;
            HttpClient::new(url, poll, network, identifies_jobs, Arc::clone(budget))
        };
        let standby = |StandbyCluster { base_url, adapter }: StandbyCluster| {
            Ok(Standby { http: http_client(&base_url, &*adapter)?, adapter, base_url })
        };
        let settings = probe::Settings {
            base_url: base_url.clone(),
            key_in_path: vendor.key_in_path(),
            secret: backend.credentials.secret().map(config::Secret::origin),
            proxy: probe::proxy_settings(&network.proxy),
        };
        // The headers of the configuration are for the vendor alone.
        let foreign = config::Network { headers: http::HeaderMap::new(), ..network.clone() };
        let elsewhere = primary.token_exchange().and_then(|exchange| exchange.elsewhere());
        let elsewhere = elsewhere.map(|url| HttpClient::new(url, poll, &foreign, true, Arc::clone(budget)));
        let standbys = standbys.into_iter().map(standby).collect::<Result<_, SetupError>>()?;
        let backoff = Backoff { min: poll.min_interval, max: poll.max_backoff };
        Ok(Self {
            failover: Failover::new(name, standbys, backoff),
            credentials: Arc::new(Credentials::new(backend, elsewhere.transpose()?)?),
            http: Arc::new(http_client(base_url, &*primary)?),
            other_origins: download::OtherOrigins::new(name, &*primary, poll, network)?,
            adapter: primary,
            files: download::FileClient::new(base_url, poll, network)?,
            settings,
            rotated: Notify::new(),
        })
    }

    /// Takes another secret in place of the configured one. A request that the
    /// vendor rejects meanwhile is sent once more, with the new one.
    ///
    /// # Errors
    /// No header can hold the secret.
    pub fn rotate(&self, secret: SecretString) -> Result<(), SetupError> {
        self.credentials.rotate(secret)?;
        self.rotated.notify_one();
        Ok(())
    }

    /// The vendor's translation.
    pub fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// Polls one cluster with credentials. Where the vendor rejects a token, refreshes it
    /// and polls once more.
    async fn poll_at(
        &self,
        adapter: &Arc<dyn Adapter>,
        http: &HttpClient,
        jobs: &[JobRef],
        permit: &mut Permit,
    ) -> Result<PollResponse, BackendFault> {
        let mut is_repeat = false;
        let names_jobs = |response: &_| adapter.names_jobs(jobs, response);
        // Only a tag can be named: an id that a response holds may be another cluster's.
        let names_jobs: NamesJobs<'_> =
            if jobs.iter().all(|job| job.tag.is_some()) { Some(&names_jobs) } else { None };
        loop {
            let authorization =
                self.credentials.authorization(&**adapter, http, Purpose::Poll, permit).await?;
            let request = || {
                let mut request = adapter.request(jobs);
                if let Some(value) = &authorization.header {
                    adapter.authorize(&mut request, value.clone());
                }
                traceparent(request.headers_mut());
                request
            };
            // The room of a rejected response is released before the token is refreshed.
            let outcome = match http.send_about(&request, names_jobs, permit).await {
                Ok((response, room)) => adapter.split(jobs, &response).map(|elements| (elements, room)),
                Err(fault) => Err(fault),
            };
            if self.credentials.judge(&authorization, outcome.as_ref().err(), is_repeat) {
                is_repeat = true;
                continue;
            }
            let (outcome, room) = match outcome {
                Ok((elements, room)) => (Ok(elements), room),
                Err(fault) => (Err(fault), Reservation::default()),
            };
            let elements = authorization.redact(outcome)?;
            return Ok(PollResponse::authorized(Arc::clone(adapter), elements, authorization, room));
        }
    }
}

impl Upstream for Endpoint {
    /// Polls a standby where the primary gives no usable response. Each request consumes
    /// the permit: a token's, the poll's, its repeat's, another cluster's.
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        mut permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        // Two boxes: the future of a failover is larger.
        match &self.failover {
            None => Box::pin(async move { self.poll_at(&self.adapter, &self.http, jobs, &mut permit).await }),
            Some(failover) => Box::pin(self.poll_with_failover(failover, jobs, permit)),
        }
    }

    fn credentials_rotated(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.rotated.notified())
    }

    fn rejected_credentials(&self) -> Option<RejectedCredentials> {
        self.credentials.rejected()
    }

    fn login_paused_until(&self) -> Option<Instant> {
        self.credentials.paused_until()
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

/// Decodes a body that comes in pieces, for the fuzz targets: the whole, if it can be
/// decoded, and what is known of it before its end.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decoded<'a>(
    headers: &http::HeaderMap,
    limit: usize,
    pieces: impl Iterator<Item = &'a [u8]> + Clone,
) -> (Option<bytes::Bytes>, bytes::Bytes) {
    let decoder = |mut pieces: std::iter::Take<_>| {
        let mut decoder = content_coding::Decoder::new(headers, limit, None);
        let pushed = pieces.try_for_each(|piece| decoder.push(piece));
        (pushed, decoder)
    };
    let (pushed, whole) = decoder(pieces.clone().take(usize::MAX));
    let (_, partial) = decoder(pieces.take(2));
    (pushed.and_then(|()| whole.finish()).ok(), partial.into_partial())
}

#[cfg(test)]
mod tests;
