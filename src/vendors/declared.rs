//! Vendors that a definition describes: a file in TOML in place of an adapter in Rust.
//!
//! A [`Definition`] says how a job is asked for, where its state stands in the answer, which
//! word is which state, and what the vendor's errors mean. [`Declared`] is the adapter that
//! follows one. What holds for every vendor holds here too and can't be declared away: an
//! answer about another job is malformed, no redirect is followed, credentials go to the
//! backend's own origin, and a word that the table does not have never ends a job.
//!
//! A value is read with a plain path over the bytes of the answer, or with an expression
//! where a path is not enough. `docs/vendors.md` describes the format.

use std::{num::NonZeroUsize, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use url::Url;
use uuid::Uuid;

use super::{
    Adapter, AllowedOrigin, BaseUrl, Capabilities, Elements, FileFault, FileOrigins, Part, Reading,
    RefusedLocation, TokenExchange,
    classification::{HeadRules, in_context},
    percent_encoded,
};
use crate::job::{BackendFault, FaultKind, InvalidJobRef, JobFault, JobRef, Observation};

pub mod backend;
pub mod cases;
mod credentials;
mod definition;
mod describe;
pub mod diff;
pub mod draft;
mod explain;
mod expression;
mod faults;
mod files;
mod id;
#[cfg(any(test, feature = "demo"))]
mod inverse;
mod native;
mod origins;
mod path;
mod place;
mod read;
mod reader;
mod reason;
pub mod schema;
mod shipped;
#[cfg(any(test, feature = "demo"))]
pub mod simulation;
mod source;
mod split;
mod table;
mod template;
mod time;
mod token;

use credentials::Placement;
use definition::{Batch, Question};
pub use definition::{Definition, InvalidDefinition, LONGEST as LONGEST_DEFINITION};
use faults::{Answer, FaultRule};
use id::Params;
pub use reader::{DefinitionProblem, closest};
pub use shipped::{SHIPPED, Shipped};
use source::Scope;
use token::DeclaredExchange;

/// The adapter that follows a definition.
#[derive(Debug)]
pub struct Declared {
    definition: Arc<Definition>,
    base_url: BaseUrl,
    params: Params,
    max_batch: NonZeroUsize,
    placement: Placement,
    /// Headers of every request, those that the way to sign in has among them.
    headers: HeaderMap,
    exchange: Option<DeclaredExchange>,
    origins: Option<FileOrigins>,
    is_graphql: bool,
}

impl Declared {
    /// The adapter for one backend that signs in by this way of the definition.
    fn new(
        definition: Arc<Definition>,
        base_url: BaseUrl,
        params: Params,
        max_batch: NonZeroUsize,
        (way, fields): (Option<usize>, &[(String, String)]),
        allowed: &[AllowedOrigin],
    ) -> Self {
        let scope = Scope { params: Some(&params), variables: fields, ..Scope::default() };
        let chosen = way.and_then(|way| definition.ways.get(way));
        let header = |(name, text): &(http::HeaderName, template::Text)| {
            Some((name.clone(), HeaderValue::from_str(&text.plain(&scope)?).ok()?))
        };
        let own = chosen.iter().flat_map(|way| &way.headers);
        let mut headers = HeaderMap::new();
        for (name, value) in definition.request_headers.iter().chain(own).filter_map(header) {
            headers.insert(name, value);
        }
        let placement = chosen.map_or(Placement::Authorization, credentials::Way::placement);
        let exchange =
            way.and_then(|way| DeclaredExchange::new(&definition, way, &base_url, &params, fields));
        let max_batch = max_batch.min(definition.max_batch());
        let origins = definition.file_origins(allowed, &headers);
        let is_graphql = definition.is_graphql();
        Self { definition, base_url, params, max_batch, placement, headers, exchange, origins, is_graphql }
    }

    /// The request that polls these jobs, and the batch that it is, if it is one.
    fn question(&self, jobs: &[JobRef]) -> (&Question, Option<&Batch>) {
        match (jobs, &self.definition.request, &self.definition.batch) {
            ([_], Some(question), _) | (_, Some(question), None) => (question, None),
            (_, _, Some(batch)) => (&batch.question, Some(batch)),
            (_, None, None) => unreachable!("a definition has a request or a batch"),
        }
    }

    /// `None` where a value is absent or no request can hold it.
    fn write(&self, jobs: &[JobRef]) -> Option<Request<Bytes>> {
        let ids: Vec<Vec<String>> =
            jobs.iter().map(|job| self.definition.id.parts(&job.id)).collect::<Result<_, _>>().ok()?;
        let scope = Scope {
            part_names: &self.definition.id.names,
            id: ids.first().map(Vec::as_slice).unwrap_or_default(),
            ids: &ids,
            params: Some(&self.params),
            ..Scope::default()
        };
        let (question, _) = self.question(jobs);
        question.request.write(&self.base_url, &self.headers, &scope)
    }

    /// What the first rule that applies says.
    fn fault(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Option<Result<JobFault, BackendFault>> {
        self.first_rule(jobs, response, |_, rule, answer| rule.fault(answer))
    }

    /// The number of the first rule that applies.
    fn fault_rule(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Option<usize> {
        self.first_rule(jobs, response, |place, _, _| place)
    }

    /// Why the rules that list the status of a response do not apply to it.
    fn unmet_rules(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Vec<String> {
        let status = response.status().as_u16();
        self.with_answer(jobs, response, |answer| {
            let rules = self.definition.faults.iter().enumerate().filter(|(_, rule)| rule.lists(status));
            let unmet = rules.filter_map(|(place, rule)| Some((place, rule.mismatch(answer)?)));
            unmet.map(|(place, mismatch)| format!("faults[{place}] {}", mismatch.text())).collect()
        })
    }

    fn first_rule<T>(
        &self,
        jobs: &[JobRef],
        response: &Response<Bytes>,
        read: impl FnOnce(usize, &FaultRule, &Answer<'_>) -> T,
    ) -> Option<T> {
        let status = response.status().as_u16();
        if !self.definition.faults.iter().any(|rule| rule.is_about(status)) {
            return None;
        }
        self.with_answer(jobs, response, |answer| {
            let mut rules = self.definition.faults.iter().enumerate();
            let (place, rule) = rules.find(|(_, rule)| rule.is_about(status) && rule.applies(answer))?;
            Some(read(place, rule, answer))
        })
    }

    fn with_answer<T>(
        &self,
        jobs: &[JobRef],
        response: &Response<Bytes>,
        read: impl FnOnce(&Answer<'_>) -> T,
    ) -> T {
        let http = self.http(response);
        let id = jobs.first().and_then(|job| self.definition.id.parts(&job.id).ok()).unwrap_or_default();
        let (body, members) = self.definition.body(response).unzip();
        let members = members.flatten();
        let scope = Scope {
            body,
            members: members.as_ref(),
            http: Some(&http),
            part_names: &self.definition.id.names,
            id: if jobs.len() == 1 { &id } else { &[] },
            params: Some(&self.params),
            ..Scope::default()
        };
        read(&Answer { definition: &self.definition, jobs, response, scope })
    }
}

impl Adapter for Declared {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            max_batch: self.max_batch,
            identifies_jobs: !self.definition.status.id.is_empty(),
            files: !self.definition.files.is_empty(),
        }
    }

    fn check(&self, job: &JobRef) -> Result<(), InvalidJobRef> {
        InvalidJobRef::refuse_tag(job)?;
        self.definition.id.check(job, &self.base_url)?;
        if self.write(std::slice::from_ref(job)).is_none() {
            return Err(InvalidJobRef {
                field: "job_id",
                reason: "can't be put into the vendor's request".to_owned(),
            });
        }
        Ok(())
    }

    fn probe_id(&self, unique: Uuid) -> String {
        self.definition.id.unknown(unique)
    }

    fn request(&self, jobs: &[JobRef]) -> Request<Bytes> {
        self.write(jobs).unwrap_or_else(|| {
            // Not for jobs that passed `check`. The vendor has no job there.
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = self.base_url.join("");
            request
        })
    }

    fn authorize(&self, request: &mut Request<Bytes>, credential: HeaderValue) {
        match &self.placement {
            Placement::Authorization => drop(request.headers_mut().insert(header::AUTHORIZATION, credential)),
            Placement::Header(name) => drop(request.headers_mut().insert(name.clone(), credential)),
            Placement::Query(name) => {
                let Ok(secret) = std::str::from_utf8(credential.as_bytes()) else { return };
                let uri = request.uri();
                let and = if uri.query().is_some() { "&" } else { "?" };
                let text = format!("{uri}{and}{}={}", percent_encoded(name), percent_encoded(secret));
                if let Ok(uri) = text.parse() {
                    *request.uri_mut() = uri;
                }
            }
        }
    }

    fn split(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        let context = |fault| in_context(fault, response);
        if let Some(fault) = self.fault(jobs, response) {
            return fault.map(|fault| Elements::all_failed(jobs, &fault)).map_err(context);
        }
        let status = response.status();
        if self.definition.answer.states_by_status.contains(&status.as_u16()) {
            return self.split_answer(jobs, response).map_err(context);
        }
        let rules = HeadRules { login_at: self.login_at(), secret_refusals: None };
        let elements = rules.read(response, || self.split_body(jobs, response))?;
        let is_empty = !jobs.is_empty() && elements.as_slice().iter().all(Result::is_err);
        if status == StatusCode::ACCEPTED && is_empty {
            return Err(context(FaultKind::Malformed { why: "no job of the request" }.into()));
        }
        Ok(elements)
    }

    fn split_body(&self, jobs: &[JobRef], response: &Response<Bytes>) -> Result<Elements, BackendFault> {
        if response.status().is_success() {
            self.split_answer(jobs, response)
        } else {
            self.split_refusal(jobs, response)
        }
    }

    fn login_at(&self) -> Option<&BaseUrl> {
        self.definition.answer.has_login_page.then_some(&self.base_url)
    }

    fn observe(&self, job: &JobRef, element: &Bytes) -> Result<Observation, JobFault> {
        self.read(job, element)
    }

    fn readings(&self, job: &JobRef, response: &Response<Bytes>) -> Option<(Vec<Reading>, bool)> {
        Some((Declared::readings(self, job, response), self.is_understood(job, response)))
    }

    fn file_request(&self, location: &str) -> Result<Request<Bytes>, RefusedLocation> {
        if self.definition.files.is_empty() {
            return Err(RefusedLocation::NoFiles);
        }
        let mut request = files::request(&self.base_url, location)?;
        request.headers_mut().extend(self.headers.clone());
        Ok(request)
    }

    fn file_origins(&self) -> Option<&FileOrigins> {
        self.origins.as_ref()
    }

    fn file_part(&self, offset: u64, head: &Response<Bytes>) -> Result<Part, FileFault> {
        files::part(self.login_at(), offset, head)
    }

    fn token_exchange(&self) -> Option<&dyn TokenExchange> {
        self.exchange.as_ref().map(|exchange| exchange as &dyn TokenExchange)
    }
}

/// The origin of a URL of http or https.
fn origin_of(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    let is_http =
        matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    is_http.then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
pub(crate) mod tests;
