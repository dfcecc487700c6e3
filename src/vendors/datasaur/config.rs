//! How a backend of Datasaur is configured: an OAuth client.

use std::{num::NonZeroUsize, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

use super::{ClientAuth, Datasaur};
use crate::vendors::{
    BaseUrl, BuildError, Clusters, Key, OwnCredentials, Scheme, SecretForm, SignIn, UnusableKeys,
    VendorConfig, VendorKind,
    kind::{self, Rules},
};

const CLIENT_ID: Key = Key::new("client_id", "the OAuth client's id");

/// Datasaur.
pub(in crate::vendors) static KIND: VendorKind = VendorKind {
    name: "Datasaur",
    key: "datasaur",
    batches: true,
    keys: &[],
    credentials: OwnCredentials {
        secret: "client_secret",
        form: SecretForm::Text,
        keys: &[CLIENT_ID, Key::word("client_auth", "\"form\" or \"basic\"")],
        optional: false,
        example: "{ client_id = \"..\", client_secret = { env = \"DATASAUR_CLIENT_SECRET\" } } or { bearer = { env = \"NAME\" } }",
    },
    read,
    schema: Keys::json_schema,
};

/// Datasaur's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasaurConfig {
    /// The id of the client whose secret is exchanged for a token, and how both are sent;
    /// `None` where the token comes from elsewhere.
    pub client: Option<(String, ClientAuth)>,
}

#[derive(Deserialize, JsonSchema)]
struct Keys {
    credentials: Option<SignInKeys>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct SignInKeys {
    /// The OAuth client's id.
    #[schemars(required)]
    client_id: Option<String>,
    /// How the client id and secret are sent for a token.
    #[serde(default)]
    client_auth: ClientAuth,
}

fn read(keys: Table, _base_url: Option<&BaseUrl>) -> Result<Arc<dyn VendorConfig>, UnusableKeys> {
    let Keys { credentials } = kind::read(keys)?;
    let mut rules = Rules::default();
    let client = match credentials {
        Some(SignInKeys { client_id, client_auth }) => {
            rules.text(CLIENT_ID, client_id).map(|id| Some((id, client_auth)))
        }
        None => Some(None),
    };
    rules.finish(client.map(|client| DatasaurConfig { client }))
}

impl VendorConfig for DatasaurConfig {
    fn kind(&self) -> &'static VendorKind {
        &KIND
    }

    fn sign_in(&self) -> SignIn {
        SignIn { scheme: Scheme::Exchange, description: "OAuth client" }
    }

    fn build(&self, base_url: &BaseUrl, max_batch: NonZeroUsize) -> Result<Clusters, BuildError> {
        Ok(Clusters::single(Datasaur::new(base_url.clone(), max_batch, self.client.clone())))
    }
}
