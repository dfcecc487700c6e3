//! A document behind a URL, such as an issuer's keys.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, header};

use super::{HttpClient, RateLimiter, ResponseBudget, SetupError};
use crate::{
    config::{Network, Poll, Proxies},
    vendors::BaseUrl,
};

/// Most requests in a second, whatever asks for the document.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1).expect("it is not zero");

/// Fetches one document.
#[derive(Debug)]
pub struct Document {
    url: BaseUrl,
    http: HttpClient,
    limiter: Arc<RateLimiter>,
}

impl Document {
    /// The document at `url`, of at most `max_bytes`.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(
        url: &BaseUrl,
        proxy: &Proxies,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let poll =
            Poll { timeout, connect_timeout: timeout, max_response_bytes: max_bytes, ..Poll::default() };
        let network = Network { proxy: proxy.clone(), ..Network::default() };
        let http = HttpClient::new(url, &poll, &network, true, ResponseBudget::new(max_bytes))?;
        Ok(Self { url: url.clone(), http, limiter: RateLimiter::new(REQUESTS_PER_SECOND) })
    }

    /// Requests it. Redirects are not followed.
    ///
    /// # Errors
    /// Why it can't be had, for an operator.
    pub async fn fetch(&self) -> Result<Bytes, String> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = self.url.as_str().parse().map_err(|_| "it is not a URL".to_owned())?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.http.send(request, &mut self.limiter.deferred()).await;
        let (response, _room) = response.map_err(|fault| fault.to_string())?;
        if response.status().is_success() {
            Ok(response.into_body())
        } else {
            Err(format!("HTTP {}", response.status().as_u16()))
        }
    }
}
