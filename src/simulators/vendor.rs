//! What differs between the vendors, behind one enum.

use std::{fmt, str::FromStr, sync::Arc};

use axum::{Router, http::request::Parts, response::Response};
use uuid::Uuid;

use super::{SimulatorState, claret, credentials, datasaur, immuta, job_state::StateWords, kinetica};

/// The vendor whose API a simulator imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Immuta.
    Immuta,
    /// Kinetica.
    Kinetica,
    /// Claret.
    Claret,
    /// Datasaur.
    Datasaur,
}

impl Vendor {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Immuta, Self::Kinetica, Self::Claret, Self::Datasaur];

    /// Its name in lower case, as in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Immuta => "immuta",
            Self::Kinetica => "kinetica",
            Self::Claret => "claret",
            Self::Datasaur => "datasaur",
        }
    }

    pub(super) fn routes(self, state: &Arc<SimulatorState>) -> Router {
        let state = Arc::clone(state);
        match self {
            Self::Immuta => immuta::routes(state),
            Self::Kinetica => kinetica::routes(state),
            Self::Claret => claret::routes(state),
            Self::Datasaur => datasaur::routes(state),
        }
    }

    pub(super) fn words(self) -> StateWords {
        match self {
            Self::Immuta => immuta::WORDS,
            Self::Kinetica => kinetica::WORDS,
            Self::Claret => claret::WORDS,
            Self::Datasaur => datasaur::WORDS,
        }
    }

    /// Ids of the jobs that a request lists, or their tags where it has no id.
    pub(super) fn job_ids(self, parts: &Parts, body: &[u8]) -> Vec<String> {
        match self {
            Self::Immuta => immuta::job_ids(body),
            Self::Kinetica => kinetica::job_ids(parts, body),
            Self::Claret => claret::job_ids(parts),
            Self::Datasaur => datasaur::job_ids(body),
        }
    }

    /// The vendor's response to a valid request that it refuses.
    pub(super) fn refusal(self, parts: &Parts, message: &str) -> Response {
        match self {
            Self::Immuta => immuta::refusal(message),
            Self::Kinetica => kinetica::refusal(&parts.headers, message),
            Self::Claret => claret::refusal(message),
            Self::Datasaur => datasaur::refusal(message),
        }
    }

    pub(super) fn secret(self) -> &'static str {
        match self {
            Self::Immuta => credentials::IMMUTA_API_KEY,
            Self::Kinetica => credentials::KINETICA_PASSWORD,
            Self::Claret => credentials::CLARET_PASSWORD,
            Self::Datasaur => credentials::DATASAUR_CLIENT_SECRET,
        }
    }

    pub(super) fn new_id(self, count: i64) -> String {
        match self {
            Self::Immuta => Uuid::new_v4().to_string(),
            // Beyond 2^53, so that a client which reads numbers as doubles is found out.
            Self::Kinetica => rand::random_range(1_i64 << 60..1 << 62).to_string(),
            Self::Claret => count.to_string(),
            Self::Datasaur => format!("AutoLabelQueue:{}", Uuid::new_v4()),
        }
    }

    /// Why no job of this vendor can have this id.
    pub(super) fn id_problem(self, id: &str) -> Option<&'static str> {
        let is_whole = id.parse::<i64>().is_ok();
        match self {
            Self::Kinetica | Self::Claret if !is_whole => Some("the id must be a whole number of 64 bits"),
            _ => None,
        }
    }

    pub(super) fn new_token(self) -> String {
        let (one, other) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        match self {
            Self::Immuta | Self::Kinetica => one,
            // The form of Laravel Sanctum: an id, a bar, forty characters.
            Self::Claret => format!("{}|{one}{}", rand::random_range(1..100), &other[..8]),
            Self::Datasaur => format!("{one}{}", &other[..8]),
        }
    }
}

impl fmt::Display for Vendor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

impl FromStr for Vendor {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|vendor| vendor.name() == name).ok_or_else(|| {
            format!("{name:?} is not a vendor; they are immuta, kinetica, claret and datasaur")
        })
    }
}
