//! Immuta.

use bytes::Bytes;
use http::{Request, Response};

use super::{Adapter, BaseUrl, Interpretation, InvalidJobRef};
use crate::job::JobRef;

/// Immuta.
#[derive(Debug)]
pub struct Immuta;

impl Adapter for Immuta {
    fn check(&self, _job: &JobRef) -> Result<(), InvalidJobRef> {
        todo!()
    }

    fn request(&self, _jobs: &[JobRef]) -> Request<Bytes> {
        todo!()
    }

    fn interpret(&self, _jobs: &[JobRef], _response: &Response<Bytes>) -> Interpretation {
        todo!()
    }
}

impl Immuta {
    /// The adapter for the tenant at `base_url`. With `exchange` the API key is
    /// traded for a token, otherwise it (or a bearer token) is sent as it is.
    pub fn new(_base_url: BaseUrl, _max_batch: std::num::NonZeroUsize, _exchange: bool) -> Self {
        todo!()
    }
}
