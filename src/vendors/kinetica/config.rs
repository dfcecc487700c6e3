//! How a backend of Kinetica is configured: its encoding, its standby clusters, and a user
//! with a password.

use std::{num::NonZeroUsize, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Table;

use super::{Encoding, Kinetica};
use crate::vendors::{
    BaseUrl, BuildError, Clusters, Key, OwnCredentials, Scheme, SecretForm, SignIn, StandbyCluster,
    UnusableKeys, VendorConfig, VendorKind,
    kind::{self, CREDENTIALS, Rules},
};

/// Standby clusters of one backend.
const MAX_STANDBYS: usize = 8;

const STANDBY_URLS: Key =
    Key::new("standby_urls", "a list of at most 8 URLs, such as [\"http://standby.example:9191\"]");
const USERNAME: Key = Key::new("username", "the user's name, such as \"admin\"");

/// Kinetica.
pub(in crate::vendors) static KIND: VendorKind = VendorKind {
    name: "Kinetica",
    key: "kinetica",
    batches: false,
    keys: &[Key::word("encoding", "\"json\" or \"binary\""), STANDBY_URLS],
    credentials: OwnCredentials {
        secret: "password",
        form: SecretForm::Text,
        keys: &[USERNAME],
        optional: true,
        example: "{ username = \"..\", password = { env = \"KINETICA_PASSWORD\" } }, { bearer = { env = \"NAME\" } } or \"none\"",
    },
    read,
    schema: Keys::json_schema,
};

/// Kinetica's own configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KineticaConfig {
    /// How requests and responses are written.
    pub encoding: Encoding,
    /// Standby clusters to poll while the one at `base_url` can't answer, in this order.
    pub standby_urls: Vec<BaseUrl>,
    /// The user whose password the secret is; empty where credentials are none or a token.
    pub username: String,
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default)]
struct Keys {
    /// How requests and responses are written.
    encoding: Encoding,
    /// Standby clusters to poll by job_tag while the one at base_url can't answer, in this order.
    #[schemars(length(max = 8))]
    standby_urls: Vec<BaseUrl>,
    credentials: Option<SignInKeys>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(inline)]
struct SignInKeys {
    /// The user's name.
    #[schemars(required)]
    username: Option<String>,
}

fn read(keys: Table, base_url: Option<&BaseUrl>) -> Result<Arc<dyn VendorConfig>, UnusableKeys> {
    let Keys { encoding, standby_urls, credentials } = kind::read(keys)?;
    let mut rules = Rules::default();
    check_standby_urls(&mut rules, base_url, &standby_urls);
    let username = match credentials {
        Some(SignInKeys { username }) => user_name(&mut rules, username),
        None => Some(String::new()),
    };
    rules.finish(username.map(|username| KineticaConfig { encoding, standby_urls, username }))
}

fn check_standby_urls(rules: &mut Rules, base_url: Option<&BaseUrl>, urls: &[BaseUrl]) {
    if urls.len() > MAX_STANDBYS {
        rules
            .problem(STANDBY_URLS.name, format!("holds {} URLs; write {}", urls.len(), STANDBY_URLS.example));
    }
    let mut known: Vec<&BaseUrl> = base_url.into_iter().collect();
    for (at, url) in urls.iter().enumerate() {
        if known.iter().any(|other| other.is_same_place(url)) {
            let text = "is a cluster that the backend has already; remove it";
            rules.problem(format!("{}[{at}]", STANDBY_URLS.name), text);
        }
        known.push(url);
    }
}

fn user_name(rules: &mut Rules, username: Option<String>) -> Option<String> {
    let username = rules.text(USERNAME, username)?;
    if username.contains(':') {
        // RFC 7617 ends the user name at the first colon.
        let text = "holds a colon, which HTTP Basic can't carry; write a user name without one";
        rules.problem(format!("{CREDENTIALS}{}", USERNAME.name), text);
        return None;
    }
    Some(username)
}

impl VendorConfig for KineticaConfig {
    fn kind(&self) -> &'static VendorKind {
        &KIND
    }

    fn sign_in(&self) -> SignIn {
        let scheme = Scheme::Basic { username: self.username.clone() };
        SignIn { scheme, description: "user name and password" }
    }

    fn other_urls(&self) -> Vec<(&'static str, &BaseUrl)> {
        self.standby_urls.iter().map(|url| (STANDBY_URLS.name, url)).collect()
    }

    fn build(&self, base_url: &BaseUrl, _max_batch: NonZeroUsize) -> Result<Clusters, BuildError> {
        let encoding = self.encoding;
        let standby = |url: &BaseUrl| StandbyCluster {
            base_url: url.clone(),
            adapter: Arc::new(Kinetica::standby(url.clone(), encoding)),
        };
        Ok(Clusters {
            primary: Arc::new(Kinetica::new(base_url.clone(), encoding)),
            standbys: self.standby_urls.iter().map(standby).collect(),
        })
    }
}
