//! What a replica does among the others, for operators: the metrics, the page, `/cluster` and
//! `jobwatch cluster status` are made of it.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{lease::Ownership, seat::Role};
use crate::proto::cluster::v1::refused::Reason;

/// What a replica does among the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// `cluster.name`.
    pub cluster: String,
    /// `cluster.member`.
    pub member: String,
    /// Which run of the program this is, as 16 hexadecimal digits.
    pub incarnation: String,
    /// `cluster.replicas`.
    pub replicas: u32,
    /// How many replicas this one knows of, with itself: those that follow it. 0 of a release
    /// that does not count them.
    #[serde(default)]
    pub replicas_known: usize,
    /// Its connection to NATS.
    pub nats: NatsStatus,
    /// Sessions of replicas that follow this one, each counted for each backend.
    pub sessions: usize,
    /// One for each backend, sorted by name.
    pub backends: Vec<SeatStatus>,
}

/// A connection to NATS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum NatsStatus {
    /// There is one.
    Connected {
        /// The server's name.
        server: String,
    },
    /// There is none.
    Disconnected {
        /// Why.
        why: String,
        /// Since when.
        #[serde(with = "time")]
        since: Timestamp,
    },
}

/// What a replica does for one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeatStatus {
    /// The backend.
    pub backend: String,
    /// What this replica does for it.
    pub role: RoleName,
    /// Since when.
    #[serde(with = "time")]
    pub since: Timestamp,
    /// Which replica has the lease, as far as this one knows.
    pub owner: Option<OwnerStatus>,
    /// Sessions of replicas that follow this one.
    pub sessions: usize,
    /// What it may send of `requests_per_second`.
    pub requests_per_second: ShareStatus,
    /// How often another replica became the owner, as far as this one has seen.
    pub owner_changes: u64,
    /// How often its own sessions ended, or were refused.
    pub session_restarts: SessionRestarts,
    /// Why the owner refuses a session, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The holder of a lease.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OwnerStatus {
    /// Its `cluster.member`.
    pub member: String,
    /// Which run of the program.
    pub incarnation: String,
    /// Grows with each change of the holder.
    pub epoch: u64,
}

/// A replica's part of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShareStatus {
    /// At any time.
    pub own: u32,
    /// While it is the owner.
    pub owner: u32,
}

/// [`Role`] without the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleName {
    /// It neither polls nor follows yet.
    Starting,
    /// It polls for all replicas.
    Owner,
    /// Another one polls for it.
    Follower,
    /// It polls for its own callers.
    Isolated,
}

/// Sessions that had to begin again, by why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRestarts {
    /// A message was lost.
    pub gap: u64,
    /// Nothing was heard from the owner for three seconds.
    pub silence: u64,
    /// The owner ended or refused it.
    pub refused: u64,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Restart {
    Gap,
    Silence,
    Refused,
}

impl RoleName {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Owner, Self::Follower, Self::Isolated];

    /// Its name in metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Owner => "owner",
            Self::Follower => "follower",
            Self::Isolated => "isolated",
        }
    }
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Starting => Self::Starting,
            Role::Owner => Self::Owner,
            Role::Follower { .. } => Self::Follower,
            Role::Isolated => Self::Isolated,
        }
    }
}

impl SessionRestarts {
    /// Each reason and how often it was the one.
    pub fn by_reason(self) -> [(&'static str, u64); 3] {
        let Self { gap, silence, refused } = self;
        [("gap", gap), ("silence", silence), ("refused", refused)]
    }
}

impl ReplicaStatus {
    /// The backends that it polls for its own callers only.
    pub fn isolated(&self) -> impl Iterator<Item = &SeatStatus> {
        self.backends.iter().filter(|seat| seat.role == RoleName::Isolated)
    }
}

/// An incarnation as it is shown.
pub(super) fn incarnation(number: u64) -> String {
    format!("{number:016x}")
}

/// No process has this incarnation.
const THIS: u64 = 0;

/// What happened to one seat since it exists.
#[derive(Debug)]
pub(super) struct Record(Mutex<Recorded>);

/// What a [`Record`] holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recorded {
    pub(super) role: RoleName,
    pub(super) since: Timestamp,
    pub(super) owner_changes: u64,
    pub(super) session_restarts: SessionRestarts,
    /// Why the owner refused the last session.
    refused: Option<Reason>,
    /// The owner that was known last; [`THIS`] for this replica.
    last_owner: Option<u64>,
}

impl Record {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Recorded {
            role: RoleName::Starting,
            since: Timestamp::now(),
            owner_changes: 0,
            session_restarts: SessionRestarts::default(),
            refused: None,
            last_owner: None,
        }))
    }

    pub(super) fn get(&self) -> Recorded {
        *self.recorded()
    }

    /// The replica does something else now.
    pub(super) fn role_changed(&self, role: Role) {
        let mut recorded = self.recorded();
        recorded.role = role.into();
        recorded.since = Timestamp::now();
    }

    /// Counts changes of the owner.
    pub(super) fn owner_seen(&self, ownership: &Ownership) {
        let owner = match ownership {
            Ownership::Owner { .. } => THIS,
            Ownership::HeldBy { incarnation, .. } => *incarnation,
            Ownership::Unknown => return,
        };
        let mut recorded = self.recorded();
        let before = recorded.last_owner.replace(owner);
        recorded.owner_changes += u64::from(before.is_some_and(|before| before != owner));
    }

    /// A session with the owner has to begin again.
    pub(super) fn session_ended(&self, why: Restart) {
        let restarts = &mut self.recorded().session_restarts;
        let count = match why {
            Restart::Gap => &mut restarts.gap,
            Restart::Silence => &mut restarts.silence,
            Restart::Refused => &mut restarts.refused,
        };
        *count += 1;
    }

    /// The owner refused a session for this reason; `None`: it has not. Returns whether that is
    /// new.
    pub(super) fn refused(&self, why: Option<Reason>) -> bool {
        let mut recorded = self.recorded();
        std::mem::replace(&mut recorded.refused, why) != why
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recorded {
    /// Why the owner refuses a session, and what to do.
    pub(super) fn why(&self) -> Option<&'static str> {
        self.refused.map(words)
    }
}

/// Why a session is refused, for operators.
pub(super) fn words(reason: Reason) -> &'static str {
    match reason {
        Reason::NotOwner => "the replica that has the lease does not poll the backend at present",
        Reason::DifferentBackend => {
            "the owner polls another vendor or URL under this name; make the configurations equal"
        }
        Reason::TooManySessions => {
            "the owner has as many sessions as it can have; run fewer replicas, or give them fewer backends"
        }
        Reason::UnknownSession => "the owner does not know the session",
        Reason::Unspecified => {
            "the owner refuses for a reason of a later release; run one release at all replicas"
        }
    }
}

/// Times as text, such as `2026-11-26T03:00:00.5Z`.
mod time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    fn held_by(incarnation: u64) -> Ownership {
        Ownership::HeldBy { member: "other".into(), incarnation, epoch: incarnation }
    }

    #[tokio::test]
    async fn changes_of_the_owner_are_counted_and_renewals_are_not() {
        let owner =
            Ownership::Owner { epoch: 1, until: Instant::now(), full_rate_from: Instant::now(), pause: None };
        let record = Record::new();
        for (ownership, changes) in [
            (Ownership::Unknown, 0),
            (held_by(2), 0),
            (Ownership::Unknown, 0),
            (held_by(2), 0),
            (owner.clone(), 1),
            (owner, 1),
            (held_by(3), 2),
            (held_by(2), 3),
        ] {
            record.owner_seen(&ownership);
            assert_eq!(record.get().owner_changes, changes, "{ownership:?}");
        }
    }

    #[test]
    fn session_restarts_are_counted_by_reason() {
        let record = Record::new();
        for why in [Restart::Gap, Restart::Silence, Restart::Silence, Restart::Refused] {
            record.session_ended(why);
        }
        let counted = record.get().session_restarts.by_reason();
        assert_eq!(counted, [("gap", 1), ("silence", 2), ("refused", 1)]);
    }

    #[test]
    fn refusal_is_new_once_and_its_words_say_what_to_do() {
        let record = Record::new();
        assert_eq!(record.get().why(), None);
        assert!(!record.refused(None));
        assert!(record.refused(Some(Reason::DifferentBackend)));
        assert!(!record.refused(Some(Reason::DifferentBackend)));
        let why = record.get().why().unwrap();
        assert!(
            why.ends_with("another vendor or URL under this name; make the configurations equal"),
            "{why}"
        );
        assert!(record.refused(Some(Reason::TooManySessions)));
        assert!(record.get().why().unwrap().contains("; run fewer replicas"));
        assert!(record.refused(None));
        assert_eq!(record.get().why(), None);
    }

    #[test]
    fn status_is_readable_json_and_is_read_back() {
        let since: Timestamp = "2026-11-26T03:00:00.5Z".parse().unwrap();
        let seat = SeatStatus {
            backend: "db".into(),
            role: RoleName::Follower,
            since,
            owner: Some(OwnerStatus { member: "gateway-1".into(), incarnation: incarnation(10), epoch: 7 }),
            sessions: 0,
            requests_per_second: ShareStatus { own: 1, owner: 18 },
            owner_changes: 2,
            session_restarts: SessionRestarts { gap: 1, ..SessionRestarts::default() },
            why: Some("refused".into()),
        };
        let status = ReplicaStatus {
            cluster: "prod".into(),
            member: "gateway-0".into(),
            incarnation: incarnation(1),
            replicas: 3,
            replicas_known: 1,
            nats: NatsStatus::Disconnected { why: "refused".into(), since },
            sessions: 0,
            backends: vec![seat],
        };
        let json = serde_json::to_value(&status).unwrap();
        let wanted = json!({
            "cluster": "prod",
            "member": "gateway-0",
            "incarnation": "0000000000000001",
            "replicas": 3,
            "replicas_known": 1,
            "nats": { "state": "disconnected", "why": "refused", "since": "2026-11-26T03:00:00.5Z" },
            "sessions": 0,
            "backends": [{
                "backend": "db",
                "role": "follower",
                "since": "2026-11-26T03:00:00.5Z",
                "owner": { "member": "gateway-1", "incarnation": "000000000000000a", "epoch": 7 },
                "sessions": 0,
                "requests_per_second": { "own": 1, "owner": 18 },
                "owner_changes": 2,
                "session_restarts": { "gap": 1, "silence": 0, "refused": 0 },
                "why": "refused",
            }],
        });
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_value::<ReplicaStatus>(json).unwrap(), status);
        let mut following = status;
        following.backends[0].why = None;
        let json = serde_json::to_value(&following).unwrap();
        assert_eq!(json["backends"][0].get("why"), None);
        // A release that does not say why has the same form.
        assert_eq!(serde_json::from_value::<ReplicaStatus>(json).unwrap(), following);
        for role in RoleName::ALL {
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}
