//! Ends the calls of a site in a browser that a reload takes from `server.web.origins`.

use std::{convert::Infallible, sync::Arc};

use arc_swap::ArcSwap;
use http::{HeaderValue, Response};
use tonic::{body::Body, codegen::BoxFuture};

use super::{
    ending_body::{End, ending},
    web::Web,
};
use crate::api;

/// The site that sends a request and may read the response, as an extension of the request.
#[derive(Clone, Debug)]
pub(super) struct Site {
    origin: HeaderValue,
    current: Arc<ArcSwap<Web>>,
}

impl Site {
    pub(super) fn new(origin: HeaderValue, current: &Arc<ArcSwap<Web>>) -> Self {
        Self { origin, current: Arc::clone(current) }
    }

    /// Completes when the site may send no more requests.
    async fn refused(self) {
        loop {
            let web = self.current.load_full();
            if !web.lists(&self.origin) {
                return;
            }
            web.replaced().await;
        }
    }

    /// The response, or the end of it once the site may not read it.
    pub(super) fn while_listed(
        self,
        response: BoxFuture<Response<Body>, Infallible>,
    ) -> BoxFuture<Response<Body>, Infallible> {
        Box::pin(async move {
            let response = tokio::select! {
                biased;
                response = response => response?,
                () = self.clone().refused() => return Ok(api::of_changed_access().into_http()),
            };
            Ok(ending(response, vec![End::of_site(self.refused())]))
        })
    }
}
