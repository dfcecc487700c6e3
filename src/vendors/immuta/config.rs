//! How a backend of Immuta is configured: an API key, sent as it is or exchanged for a token.

use std::{num::NonZeroUsize, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

use super::Immuta;
use crate::vendors::{
    BaseUrl, BuildError, Clusters, Key, OwnCredentials, Scheme, SecretForm, SignIn, UnusableKeys,
    VendorConfig, VendorKind,
    kind::{self, Rules},
};

/// Immuta.
pub(in crate::vendors) static KIND: VendorKind = VendorKind {
    name: "Immuta",
    key: "immuta",
    batches: true,
    keys: &[],
    credentials: OwnCredentials {
        secret: "api_key",
        form: SecretForm::Header,
        keys: &[Key::new("exchange", "true or false")],
        optional: false,
        example: "{ api_key = { env = \"IMMUTA_API_KEY\" } } or { bearer = { env = \"NAME\" } }",
    },
    read,
    schema: Keys::json_schema,
};

/// Immuta's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImmutaConfig {
    /// Whether the API key is exchanged for a token.
    pub exchange: bool,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Keys {
    credentials: SignInKeys,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
#[schemars(inline)]
struct SignInKeys {
    /// Whether the API key is exchanged for a token.
    #[serde(deserialize_with = "kind::flag")]
    exchange: bool,
}

fn read(keys: Table, _base_url: Option<&BaseUrl>) -> Result<Arc<dyn VendorConfig>, UnusableKeys> {
    let Keys { credentials: SignInKeys { exchange } } = kind::read(keys)?;
    Rules::default().finish(Some(ImmutaConfig { exchange }))
}

impl VendorConfig for ImmutaConfig {
    fn kind(&self) -> &'static VendorKind {
        &KIND
    }

    fn sign_in(&self) -> SignIn {
        if self.exchange {
            SignIn { scheme: Scheme::Exchange, description: "API key, exchanged" }
        } else {
            SignIn { scheme: Scheme::Bare, description: "API key" }
        }
    }

    fn build(&self, base_url: &BaseUrl, max_batch: NonZeroUsize) -> Result<Clusters, BuildError> {
        Ok(Clusters::single(Immuta::new(base_url.clone(), max_batch, self.exchange)))
    }
}
