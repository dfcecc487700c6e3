//! Tries a backend, and says which setting to change where it does not work.
//!
//! Nothing here decides what a poll means: a failed probe is looked at once more, by the
//! head of the response, for people.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, Uri, header};
use secrecy::SecretString;
use uuid::Uuid;

use super::{Endpoint, HttpClient, Permit, credentials::Purpose};
use crate::{
    job::{BackendFault, FaultKind, JobFault, JobRef},
    vendors::{Adapter, BaseUrl},
};

mod advice;

use advice::Wrong;
pub(super) use advice::{Settings, has_answered, proxy_settings};

/// A request without its query, and the status of its response.
struct Seen<'a> {
    method: &'a Method,
    uri: &'a Uri,
    status: Option<u16>,
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.uri.path())?;
        self.status.map_or(Ok(()), |status| write!(f, ": HTTP {status}"))
    }
}

impl Endpoint {
    /// Polls a job that does not exist, to see whether address and credentials work; at
    /// each cluster, where there are several. Consumes `permit`.
    ///
    /// # Errors
    /// What does not work and what to do, for people.
    pub async fn probe(&self, mut permit: Permit) -> Result<(), String> {
        self.probe_at(&self.adapter, &self.http, None, &mut permit).await?;
        for (index, standby) in self.failover.iter().flat_map(super::Failover::standbys).enumerate() {
            let url = Some(&standby.base_url);
            let outcome = self.probe_at(&standby.adapter, &standby.http, url, &mut permit).await;
            outcome.map_err(|failure| format!("standby_urls[{index}]: {failure}"))?;
        }
        Ok(())
    }

    async fn probe_at(
        &self,
        adapter: &Arc<dyn Adapter>,
        http: &HttpClient,
        url: Option<&BaseUrl>,
        permit: &mut Permit,
    ) -> Result<(), String> {
        let job = [JobRef::new("probe", adapter.probe_id(Uuid::new_v4()))];
        let Err(fault) = self.probe_job(adapter, http, &job, permit).await else { return Ok(()) };
        let base_url = url.unwrap_or(&self.settings.base_url);
        let request = match adapter.token_exchange().filter(|_| fault.token_refresh) {
            // The secret is not needed to see where the request leads.
            Some(exchange) => exchange.request(&SecretString::from("probe")).ok(),
            None => Some(adapter.request(&job)),
        };
        let Some(request) = request else { return Err(fault.to_string()) };
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let head = if is_looked_at(&fault) { self.head(adapter, http, request, permit).await } else { None };
        let status = head.as_ref().map(|head| head.status().as_u16()).or(fault.http_status);
        let seen = Seen { method: &method, uri: &uri, status };
        let (wrong, advice) = match &head {
            Some(head) => self.settings.of_head(base_url, &uri, head),
            None => self.settings.of_fault(base_url, &fault),
        };
        Err(report(wrong, &fault, &seen, &advice))
    }

    async fn probe_job(
        &self,
        adapter: &Arc<dyn Adapter>,
        http: &HttpClient,
        jobs: &[JobRef; 1],
        permit: &mut Permit,
    ) -> Result<(), BackendFault> {
        let response = self.poll_at(adapter, http, jobs, permit).await?;
        let [element] = response.elements() else { return Ok(()) };
        let observed = element.as_ref().map_err(Clone::clone);
        match observed.and_then(|element| response.observe(&jobs[0], element)) {
            Ok(_) | Err(JobFault::NotFound | JobFault::Standby(_)) => Ok(()),
            Err(JobFault::Forbidden) => Err(FaultKind::Forbidden.into()),
            Err(JobFault::Invalid { message }) => Err(FaultKind::Rejected { message }.into()),
            Err(JobFault::Malformed { why }) => Err(FaultKind::Malformed { why }.into()),
        }
    }

    /// The head of the response to the same request.
    async fn head(
        &self,
        adapter: &Arc<dyn Adapter>,
        http: &HttpClient,
        mut request: Request<Bytes>,
        permit: &mut Permit,
    ) -> Option<Response<Bytes>> {
        if !request.headers().contains_key(header::AUTHORIZATION)
            && let Ok(authorization) =
                self.credentials.authorization(&**adapter, http, Purpose::Poll, permit).await
            && let Some(value) = authorization.header
        {
            adapter.authorize(&mut request, value);
        }
        self.begin_file(request, 0, permit).await.ok().map(|(head, _body)| head)
    }
}

/// Whether the head of a response may say more than the fault.
fn is_looked_at(fault: &BackendFault) -> bool {
    match fault.kind {
        FaultKind::Rejected { .. } | FaultKind::Malformed { .. } => true,
        FaultKind::CredentialsRejected => fault.http_status.is_none_or(|status| status < 400),
        FaultKind::Forbidden => fault.http_status.is_some(),
        _ => false,
    }
}

fn report(wrong: Wrong, fault: &BackendFault, seen: &Seen<'_>, advice: &str) -> String {
    let text = fault.to_string();
    let seen = seen.to_string();
    // The fault may have said it already.
    if text.contains(&seen) {
        format!("{wrong}: {text}; {advice}")
    } else {
        format!("{wrong}: {seen}: {text}; {advice}")
    }
}
