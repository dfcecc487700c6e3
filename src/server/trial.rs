//! One poll of one job, for people who write a definition.

pub use crate::transport::{Trial, TrialFailure};
use crate::{
    config::Config,
    transport::{Endpoint, RateLimiter, ResponseBudget},
};

/// Polls one job of a backend once, with what is sent and how the answer is read.
///
/// # Errors
/// Why there is no answer, for people.
pub async fn try_job(config: &Config, backend: &str, job_id: &str) -> Result<Trial, TrialFailure> {
    let Some(backend) = config.backends.iter().find(|known| *known.name == *backend) else {
        let known: Vec<&str> = config.backends.iter().map(|known| &*known.name).collect();
        let text = format!("{backend} is not a backend; write one of {}", known.join(", "));
        return Err(TrialFailure::Usage(text));
    };
    if backend.vendor.definition_version().is_none() {
        let text = format!(
            "the vendor of {} is built in and has no definition to read an answer by; poll a job of it with \
             jobwatch serve and jobwatch get {}/{job_id}, or test its address and credentials with jobwatch check --connect",
            backend.name, backend.name
        );
        return Err(TrialFailure::Usage(text));
    }
    let budget = ResponseBudget::new(backend.poll.max_response_bytes);
    let endpoint = Endpoint::new(backend, &budget).map_err(|error| TrialFailure::Usage(error.to_string()))?;
    let limiter = RateLimiter::new(backend.poll.requests_per_second);
    endpoint.try_poll(job_id, limiter.deferred()).await
}
