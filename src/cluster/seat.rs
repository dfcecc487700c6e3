//! Decides for one backend whether this replica polls it, follows another one, or is
//! isolated.
//!
//! ```text
//!            this replica has the lease                 another one has it
//!   polling <─────────────────────────── any ───────────────────────────> following
//!                                                                          │     ^
//!                     no session with the owner for three seconds, or      │     │ session
//!                     nothing known of an owner                            v     │
//!                                                                        isolated
//! ```
//!
//! An isolated replica polls for its own callers, within its own share of the rate.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    follower::Follower,
    lease::Ownership,
    link::SILENCE,
    member::{Heard, Member},
    share::Share,
    status::{self, Record, Restart, RoleName},
};
use crate::{
    engine::{Backend, Pause},
    proto::cluster::v1::refused::Reason,
};

/// Pause between two attempts to begin a session.
const RETRY: Duration = Duration::from_millis(500);

/// Sessions in a row that begin at once though the one before ended soon.
const MOST_SHORT: u32 = 5;

/// Longest wait for the first sign of an owner.
const OPENS: Duration = Duration::from_secs(1);

/// What a replica may use of a backend's limits, and which backend that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of `requests_per_second`.
    pub rate: Share,
    /// Of `max_concurrency`.
    pub concurrency: Share,
    /// Replicas whose backends differ in this do not share.
    pub digest: u64,
}

/// What a replica does for a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It does not know yet, and neither polls nor follows.
    Starting,
    /// It polls for all replicas.
    Owner,
    /// Another one polls for it.
    Follower {
        /// Which.
        owner: u64,
    },
    /// It polls for its own callers.
    Isolated,
}

/// One backend of one replica.
pub struct Seat {
    member: Arc<Member>,
    backend: Arc<Backend>,
    limits: watch::Receiver<Limits>,
    ownership: watch::Receiver<Ownership>,
    role: watch::Sender<Role>,
    record: Arc<Record>,
    /// When it was last polled for, by this replica or another.
    served_at: Instant,
}

impl Seat {
    /// The backend is neither polled nor followed until [`run`](Self::run) decides.
    pub fn new(
        member: Arc<Member>,
        backend: Arc<Backend>,
        limits: watch::Receiver<Limits>,
        ownership: watch::Receiver<Ownership>,
    ) -> (Self, watch::Receiver<Role>) {
        backend.begin_following();
        let (role, roles) = watch::channel(Role::Starting);
        let seat = Self {
            member,
            backend,
            limits,
            ownership,
            role,
            record: Arc::new(Record::new()),
            served_at: Instant::now(),
        };
        seat.allow(false, None);
        // This replica may be in the place of one that was killed less than a second ago.
        let own = seat.limits.borrow().rate.own;
        seat.backend.count_as_sent(own);
        (seat, roles)
    }

    /// Goes on with the record of the seat before.
    pub(super) fn with_record(self, record: Arc<Record>) -> Self {
        Self { record, ..self }
    }

    /// What happens to it, for operators.
    pub(super) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.record)
    }

    /// Runs until `stop`, or until nothing can change any more. Afterwards no session publishes
    /// to the backend or reads from it.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => {
                // Before the lease is released: others may be the owner then.
                self.allow(false, None);
                self.member.disown(&self.backend);
                self.member.sessions_ended(&self.backend).await;
            }
            () = self.decide() => {
                // The lease was released, since this replica ends. Until then it polls for the
                // calls that it still has.
                self.lose();
                self.become_role(Role::Isolated);
            }
        }
    }

    async fn decide(&mut self) {
        loop {
            let ownership = self.ownership.borrow_and_update().clone();
            let digest = self.limits.borrow_and_update().digest;
            self.record.owner_seen(&ownership);
            if !matches!(ownership, Ownership::Owner { .. }) {
                self.lose();
            }
            match ownership {
                Ownership::Owner { until, full_rate_from, pause, .. } => {
                    if self.role() != Role::Owner {
                        if let Some(pause) = pause.filter(|pause| [0, digest].contains(&pause.digest)) {
                            self.backend.follow_pause(Pause { until: pause.until, fault: pause.fault });
                        }
                        self.become_role(Role::Owner);
                    }
                    self.member.own(&self.backend, digest);
                    let is_early = Instant::now() < full_rate_from;
                    self.allow(true, (!is_early).then_some(until));
                    tokio::select! {
                        changed = self.ownership.changed() => if changed.is_err() { return },
                        changed = self.limits.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep_until(full_rate_from), if is_early => {}
                    }
                }
                Ownership::HeldBy { incarnation, .. } => {
                    self.record.refused(None);
                    let mut ownership = self.ownership.clone();
                    let mut limits = self.limits.clone();
                    tokio::select! {
                        () = self.follow(incarnation, digest) => {}
                        changed = other_owner(&mut ownership, incarnation) => if changed.is_err() { return },
                        changed = limits.changed() => if changed.is_err() { return },
                    }
                }
                Ownership::Unknown => {
                    self.record.refused(None);
                    let isolated_at = self.served_at + SILENCE;
                    let is_isolated = self.role() == Role::Isolated;
                    tokio::select! {
                        changed = self.ownership.changed() => if changed.is_err() { return },
                        changed = self.limits.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep_until(isolated_at), if !is_isolated => {
                            self.become_role(Role::Isolated);
                        }
                    }
                }
            }
        }
    }

    fn role(&self) -> Role {
        *self.role.borrow()
    }

    /// This replica is not the owner, or no longer.
    fn lose(&mut self) {
        self.allow(false, None);
        self.member.disown(&self.backend);
        if self.role() == Role::Owner {
            self.served_at = Instant::now();
            // With another owner, its jobs are registered there before they are due again.
            let has_owner = matches!(*self.ownership.borrow(), Ownership::HeldBy { .. });
            self.become_role(if has_owner { Role::Starting } else { Role::Isolated });
        }
    }

    fn become_role(&self, role: Role) {
        match role {
            Role::Owner | Role::Isolated => self.backend.end_following(),
            Role::Follower { .. } | Role::Starting => self.backend.begin_following(),
        }
        if matches!(role, Role::Owner | Role::Follower { .. }) {
            self.record.refused(None);
        }
        if self.role.send_if_modified(|now| std::mem::replace(now, role) != role) {
            self.record.role_changed(role);
            self.log_role(role);
        }
    }

    fn log_role(&self, role: Role) {
        let backend = &**self.backend.name();
        let ownership = self.ownership.borrow();
        let owner = match &*ownership {
            _ if role == Role::Owner => "this replica",
            Ownership::HeldBy { member, .. } => member,
            Ownership::Owner { .. } | Ownership::Unknown => "unknown",
        };
        let name = RoleName::from(role);
        match role {
            Role::Isolated if self.member.is_ending() => {
                info!(backend, role = %name, owner, "role changed: this replica ends");
            }
            Role::Isolated => {
                warn!(backend, role = %name, owner, "role changed: this replica polls for its own callers only");
            }
            Role::Starting | Role::Owner | Role::Follower { .. } => {
                info!(backend, role = %name, owner, "role changed");
            }
        }
    }

    /// The owner refused a session.
    fn refused(&self, reason: Reason) {
        // Without an owner or a session there is another soon.
        let passes = matches!(reason, Reason::NotOwner | Reason::UnknownSession);
        if self.record.refused(Some(reason)) && !passes {
            let backend = &**self.backend.name();
            warn!(backend, why = status::words(reason), "the owner refuses to share this backend");
        }
    }

    /// Sets what may be used of the limits: the owner's part until this time.
    fn allow(&self, is_owner: bool, owner_until: Option<Instant>) {
        let Limits { rate, concurrency, .. } = *self.limits.borrow();
        let parts = |share: Share| (share.own, share.owner);
        self.backend.set_allowance(parts(rate), parts(concurrency), is_owner, owner_until);
    }

    /// Follows an owner, in one session after the other.
    async fn follow(&mut self, owner: u64, digest: u64) {
        // Sessions in a row that ended soon, and when the first of them began.
        let (mut short, mut served_at) = (0_u32, self.served_at);
        loop {
            let began = Instant::now();
            let (end, was_open) = self.session(owner, digest).await;
            if was_open || end == Restart::Refused {
                self.record.session_ended(end);
            }
            let is_short = was_open && end == Restart::Gap && began.elapsed() < SILENCE;
            if !is_short {
                (short, served_at) = (0, self.served_at);
            }
            short += u32::from(is_short);
            if was_open && end == Restart::Gap && short < MOST_SHORT {
                continue;
            }
            if short >= MOST_SHORT {
                // What ends them may do so for ever, for example a message that never arrives.
                self.served_at = served_at;
                if short == MOST_SHORT {
                    warn!(
                        backend = &**self.backend.name(),
                        "sessions with the owner end as soon as they begin, {short} in a row: messages are lost \
                         or can't be read; this replica tries ever more rarely"
                    );
                }
            }
            let retry_in = RETRY.saturating_mul(1 << short.saturating_sub(MOST_SHORT).min(6));
            let retry_at = Instant::now() + retry_in;
            let isolated_at = self.served_at + SILENCE;
            if self.role() != Role::Isolated && isolated_at <= retry_at {
                tokio::time::sleep_until(isolated_at).await;
                self.become_role(Role::Isolated);
            }
            tokio::time::sleep_until(retry_at).await;
        }
    }

    /// One session. Returns why it ended, and whether it had begun.
    async fn session(&mut self, owner: u64, digest: u64) -> (Restart, bool) {
        let began = Instant::now();
        let (number, mut inbox) = self.member.begin(owner, self.backend.name(), digest);
        let _ending = Ending { member: Arc::clone(&self.member), owner, number };
        let mut session = Follower::new(Arc::clone(&self.backend), began);
        session.limit_frames(self.member.frame_bytes());
        loop {
            let now = Instant::now();
            let is_open = session.is_open();
            if !is_open && now >= began + OPENS {
                return (Restart::Silence, false);
            }
            match session.next_frame(now) {
                Ok(Some(frame)) => {
                    self.member.send_frame(owner, number, frame).await;
                    continue;
                }
                Ok(None) => {}
                Err(_) => return (Restart::Silence, is_open),
            }
            let wakes_at = if is_open { session.wakes_at() } else { began + OPENS };
            tokio::select! {
                heard = inbox.recv() => match heard {
                    Some(Heard::Frame(frame, _)) => {
                        if !is_open {
                            // Before anything is registered.
                            self.become_role(Role::Follower { owner });
                        }
                        if session.receive(Instant::now(), frame).is_err() {
                            return (Restart::Gap, true);
                        }
                        self.served_at = Instant::now();
                    }
                    // A message was lost.
                    Some(Heard::Refused(Reason::UnknownSession)) if is_open => return (Restart::Gap, true),
                    Some(Heard::Refused(reason)) => {
                        self.refused(reason);
                        return (Restart::Refused, is_open);
                    }
                    None => return (Restart::Silence, is_open),
                },
                () = self.backend.due(), if is_open && session.has_room() => {}
                () = tokio::time::sleep_until(wakes_at) => {}
            }
        }
    }
}

/// Waits until the replica of this number is not the owner any more.
async fn other_owner(
    ownership: &mut watch::Receiver<Ownership>,
    owner: u64,
) -> Result<(), watch::error::RecvError> {
    let is_same =
        |now: &Ownership| matches!(now, Ownership::HeldBy { incarnation, .. } if *incarnation == owner);
    ownership.wait_for(|now| !is_same(now)).await.map(drop)
}

/// Ends a session when it is dropped.
struct Ending {
    member: Arc<Member>,
    owner: u64,
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.member.end(self.owner, self.number);
    }
}
