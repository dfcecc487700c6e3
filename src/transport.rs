//! The only I/O towards vendors: HTTP, credentials, time-outs, the size limit.
//!
//! An [`Endpoint`] sends what an adapter writes and hands back what the adapter
//! reads. A rejected token is renewed once; a second rejection is a fault.
//! Redirects are never followed. No secret reaches a log or an error: errors name
//! what failed, never a URL, a header or a body.

use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use reqwest::{Client, redirect};

use crate::{
    adapters::{Adapter, BackendFault, Claret, Datasaur, FaultKind, Immuta, Interpretation, Kinetica},
    config::{self, Vendor},
    job::JobRef,
    poller::Upstream,
};

mod credentials;
mod download;

use credentials::Credentials;
pub use download::{File, Files};

const USER_AGENT: &str = concat!("jobwatch/", env!("CARGO_PKG_VERSION"));

/// One backend on the network.
#[derive(Debug)]
pub struct Endpoint {
    vendor: Vendor,
    adapter: Arc<dyn Adapter>,
    credentials: Credentials,
    http: Http,
    files: download::FileClient,
}

/// Why an endpoint can't be set up.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client can't be set up: {0}")]
pub struct SetupError(String);

impl Endpoint {
    /// Sets a backend up; connects to nothing yet.
    pub fn new(backend: &config::Backend) -> Result<Self, SetupError> {
        let config::Backend { name: _, vendor, base_url, credentials, poll } = backend;
        let base_url = base_url.clone();
        let adapter: Arc<dyn Adapter> = match (vendor, credentials) {
            (Vendor::Immuta, credentials) => {
                let exchange = matches!(credentials, config::Credentials::ApiKeyExchange(_));
                Arc::new(Immuta::new(base_url, poll.max_batch, exchange))
            }
            (Vendor::Kinetica, _) => Arc::new(Kinetica::new(base_url)),
            (Vendor::Claret { tenant }, credentials) => {
                let email = match credentials {
                    config::Credentials::Login { email, .. } => Some(email.clone()),
                    _ => None,
                };
                Arc::new(Claret::new(base_url, tenant, email))
            }
            (Vendor::Datasaur, credentials) => {
                let client = match credentials {
                    config::Credentials::OAuthClient { client_id, client_auth, .. } => {
                        Some((client_id.clone(), *client_auth))
                    }
                    _ => None,
                };
                Arc::new(Datasaur::new(base_url, poll.max_batch, client))
            }
        };
        Ok(Self {
            vendor: vendor.clone(),
            adapter,
            credentials: Credentials::new(credentials)?,
            http: Http::new(poll)?,
            files: download::FileClient::new(poll)?,
        })
    }

    /// The vendor's translation.
    pub fn adapter(&self) -> &Arc<dyn Adapter> {
        &self.adapter
    }

    /// Asks about jobs.
    pub async fn ask(&self, jobs: &[JobRef]) -> Interpretation {
        let outcome =
            self.exchange(|| self.adapter.request(jobs), |response| self.adapter.interpret(jobs, response));
        outcome.await.map_err(|fault| self.credentials.redact(fault))
    }

    /// Asks about a job that does not exist, to see whether address and
    /// credentials work.
    pub async fn probe(&self) -> Result<(), BackendFault> {
        let uuid = uuid::Uuid::new_v4();
        let id = match self.vendor {
            Vendor::Immuta => uuid.to_string(),
            Vendor::Datasaur => format!("AutoLabelQueue:{uuid}"),
            Vendor::Kinetica => i64::MAX.to_string(),
            Vendor::Claret { .. } => i32::MAX.to_string(),
        };
        self.ask(&[JobRef::new("probe", id)]).await.map(drop)
    }

    /// Sends a request with credentials and reads the answer. Where the vendor
    /// rejects a token that was traded for, trades for another and sends the
    /// request once more.
    async fn exchange<T>(
        &self,
        request: impl Fn() -> Request<Bytes>,
        interpret: impl Fn(&Response<Bytes>) -> Result<T, BackendFault>,
    ) -> Result<T, BackendFault> {
        let mut renewed = false;
        loop {
            let authorization = self.credentials.authorization(&*self.adapter, &self.http).await?;
            let mut request = request();
            if let Some(value) = authorization.header {
                request.headers_mut().insert(header::AUTHORIZATION, value);
            }
            match interpret(&self.http.send(request).await?) {
                Err(BackendFault { kind: FaultKind::CredentialsRejected, .. })
                    if !renewed && self.credentials.forget(authorization.issue) =>
                {
                    renewed = true;
                }
                outcome => return outcome,
            }
        }
    }
}

impl Upstream for Endpoint {
    fn ask<'a>(&'a self, jobs: &'a [JobRef]) -> Pin<Box<dyn Future<Output = Interpretation> + Send + 'a>> {
        Box::pin(Self::ask(self, jobs))
    }

    fn files(&self) -> Option<&dyn Files> {
        Some(self)
    }
}

/// An HTTP client with the backend's limits.
struct Http {
    client: Client,
    timeout: Duration,
    max_response_bytes: usize,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

impl Http {
    fn new(poll: &config::Poll) -> Result<Self, SetupError> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(redirect::Policy::none())
            .connect_timeout(poll.connect_timeout)
            .timeout(poll.timeout)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| SetupError(reason(&error)))?;
        Ok(Self { client, timeout: poll.timeout, max_response_bytes: poll.max_response_bytes })
    }

    /// Sends a request and reads the whole answer, decompressed, up to the limit.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, BackendFault> {
        let request = request.try_into().map_err(|error| self.unavailable(&error))?;
        let mut answer = self.client.execute(request).await.map_err(|error| self.unavailable(&error))?;
        let too_large =
            || BackendFault::from(FaultKind::Malformed { why: "it is larger than max_response_bytes" });
        let announced = answer.content_length().unwrap_or(0);
        if usize::try_from(announced).map_or(true, |announced| announced > self.max_response_bytes) {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.unavailable(&error))? {
            if body.len() + chunk.len() > self.max_response_bytes {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let mut response = Response::new(body.freeze());
        *response.status_mut() = answer.status();
        *response.headers_mut() = std::mem::take(answer.headers_mut());
        Ok(response)
    }

    fn unavailable(&self, error: &reqwest::Error) -> BackendFault {
        let why = if error.is_timeout() && error.is_connect() {
            "connecting took too long".to_owned()
        } else if error.is_timeout() {
            format!("no whole answer within {:?}", self.timeout)
        } else if error.is_connect() {
            format!("no connection: {}", reason(error))
        } else {
            format!("the connection broke: {}", reason(error))
        };
        FaultKind::Unavailable { retry_after: None, why }.into()
    }
}

/// The innermost cause, which names neither URL nor header.
fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if std::ptr::addr_eq(cause, error) { "the request can't be sent".to_owned() } else { cause.to_string() }
}

#[cfg(test)]
mod tests;
