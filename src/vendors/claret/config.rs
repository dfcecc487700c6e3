//! How a backend of Claret is configured: a tenant, and an email with its password.

use std::{num::NonZeroUsize, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

use super::Claret;
use crate::vendors::{
    BaseUrl, BuildError, Clusters, Key, OwnCredentials, Scheme, SecretForm, SignIn, UnusableKeys,
    VendorConfig, VendorKind,
    kind::{self, Rules},
};

const TENANT: Key = Key::new("tenant", "the tenant's name, the first path segment, such as \"demo\"");
const EMAIL: Key = Key::new("email", "the account's email address");

/// Claret.
pub(in crate::vendors) static KIND: VendorKind = VendorKind {
    name: "Claret",
    key: "claret",
    batches: false,
    keys: &[TENANT],
    credentials: OwnCredentials {
        secret: "password",
        form: SecretForm::Text,
        keys: &[EMAIL],
        optional: false,
        example: "{ email = \"..\", password = { env = \"CLARET_PASSWORD\" } } or { bearer = { env = \"NAME\" } }",
    },
    read,
    schema: Keys::json_schema,
};

/// Claret's own configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaretConfig {
    /// First segment of every path.
    pub tenant: String,
    /// The account whose password is exchanged for a token; `None` where the token comes
    /// from elsewhere.
    pub email: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Keys {
    /// The tenant, the first segment of every path.
    #[schemars(required)]
    tenant: Option<String>,
    credentials: Option<SignInKeys>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct SignInKeys {
    /// The account's email address.
    #[schemars(required)]
    email: Option<String>,
}

fn read(keys: Table, _base_url: Option<&BaseUrl>) -> Result<Arc<dyn VendorConfig>, UnusableKeys> {
    let Keys { tenant, credentials } = kind::read(keys)?;
    let mut rules = Rules::default();
    let tenant = tenant_name(&mut rules, tenant);
    let email = match credentials {
        Some(SignInKeys { email }) => rules.text(EMAIL, email).map(Some),
        None => Some(None),
    };
    rules.finish(tenant.zip(email).map(|(tenant, email)| ClaretConfig { tenant, email }))
}

fn tenant_name(rules: &mut Rules, tenant: Option<String>) -> Option<String> {
    let tenant = rules.required("", TENANT, tenant)?;
    let is_plain = tenant.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    if is_plain && !tenant.is_empty() {
        return Some(tenant);
    }
    let text = format!("is {tenant:?}; write {}, of letters, digits, '-' and '_'", TENANT.example);
    rules.problem(TENANT.name, text);
    None
}

impl VendorConfig for ClaretConfig {
    fn kind(&self) -> &'static VendorKind {
        &KIND
    }

    fn key_in_path(&self) -> Option<&'static str> {
        Some("tenant")
    }

    fn sign_in(&self) -> SignIn {
        SignIn { scheme: Scheme::Exchange, description: "email and password" }
    }

    fn build(&self, base_url: &BaseUrl, _max_batch: NonZeroUsize) -> Result<Clusters, BuildError> {
        let claret = Claret::new(base_url.clone(), &self.tenant, self.email.clone());
        claret.map(Clusters::single).map_err(|error| BuildError(error.to_string()))
    }
}
