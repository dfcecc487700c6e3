//! Datasaur.

use bytes::Bytes;
use http::{Request, Response};

use super::{Adapter, BaseUrl, Interpretation, InvalidJobRef};
use crate::job::JobRef;

/// Datasaur.
#[derive(Debug)]
pub struct Datasaur;

impl Adapter for Datasaur {
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

/// How the client id and secret are sent for a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// In the form body.
    #[default]
    Form,
    /// As HTTP Basic credentials.
    Basic,
}

impl Datasaur {
    /// The adapter for the workspace at `base_url`. With a client id (and how it
    /// is sent) the secret is the client secret and is traded for a token.
    pub fn new(
        _base_url: BaseUrl,
        _max_batch: std::num::NonZeroUsize,
        _client: Option<(String, ClientAuth)>,
    ) -> Self {
        todo!()
    }
}
