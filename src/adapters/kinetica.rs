//! Kinetica.

use bytes::Bytes;
use http::{Request, Response};

use super::{Adapter, BaseUrl, Interpretation, InvalidJobRef};
use crate::job::JobRef;

/// Kinetica.
#[derive(Debug)]
pub struct Kinetica;

impl Adapter for Kinetica {
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

impl Kinetica {
    /// The adapter for the cluster at `base_url`.
    pub fn new(_base_url: BaseUrl) -> Self {
        todo!()
    }
}
