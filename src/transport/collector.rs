//! Where OTLP over HTTP is sent.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri, header};

use super::{HttpClient, RateLimiter, ResponseBudget, SetupError};
use crate::{
    config::{Network, Poll},
    vendors::BaseUrl,
};

/// Most bytes of a response, which says little more than whether spans were taken.
const MAX_BYTES: usize = 64 << 10;

/// Requests come one after another, and each waits for its response.
const REQUESTS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1000).expect("it is not zero");

/// Posts to one URL. Redirects are not followed.
#[derive(Debug)]
pub struct CollectorClient {
    url: Uri,
    http: HttpClient,
    limiter: Arc<RateLimiter>,
}

impl CollectorClient {
    /// Posts to `url`; connects to nothing yet.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(url: &BaseUrl, network: &Network, timeout: Duration) -> Result<Self, SetupError> {
        let poll =
            Poll { timeout, connect_timeout: timeout, max_response_bytes: MAX_BYTES, ..Poll::default() };
        let http = HttpClient::new(url, &poll, network, true, ResponseBudget::new(MAX_BYTES))?;
        let url = url.as_str().parse().map_err(|_| SetupError("it is not a URL".to_owned()))?;
        Ok(Self { url, http, limiter: RateLimiter::new(REQUESTS_PER_SECOND) })
    }

    /// Posts protobuf.
    ///
    /// # Errors
    /// Why there is no response, for an operator.
    pub async fn post(&self, body: Bytes) -> Result<Response<Bytes>, String> {
        let media_type = HeaderValue::from_static("application/x-protobuf");
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, media_type);
        let response = self.http.send(request, &mut self.limiter.deferred()).await;
        response.map(|(response, _room)| response).map_err(|fault| fault.kind.to_string())
    }
}
