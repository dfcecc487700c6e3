//! Claret.

use bytes::Bytes;
use http::{Request, Response};

use super::{Adapter, BaseUrl, Interpretation, InvalidJobRef};
use crate::job::JobRef;

/// Claret.
#[derive(Debug)]
pub struct Claret;

impl Adapter for Claret {
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

impl Claret {
    /// The adapter for `tenant`. With an `email` the secret is its password and
    /// is traded for a token.
    pub fn new(_base_url: BaseUrl, _tenant: &str, _email: Option<String>) -> Self {
        todo!()
    }
}
