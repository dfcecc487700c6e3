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

use super::{
    follower::Follower,
    link::SILENCE,
    member::{Heard, Member},
};
use crate::{engine::Backend, proto::cluster::refused::Reason};

/// Pause between two attempts to begin a session.
const RETRY: Duration = Duration::from_millis(500);

/// Longest wait for the first sign of an owner.
const OPENS: Duration = Duration::from_secs(1);

/// Who polls a backend, as the lease says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nothing is known.
    Unknown,
    /// This replica.
    Own,
    /// The replica of this number.
    Other(u64),
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
    digest: u64,
    ownership: watch::Receiver<Ownership>,
    role: watch::Sender<Role>,
    /// When it was last polled for, by this replica or another.
    served_at: Instant,
}

impl Seat {
    /// The backend is neither polled nor followed until [`run`](Self::run) decides.
    pub fn new(
        member: Arc<Member>,
        backend: Arc<Backend>,
        digest: u64,
        ownership: watch::Receiver<Ownership>,
    ) -> (Self, watch::Receiver<Role>) {
        backend.begin_following();
        let (role, roles) = watch::channel(Role::Starting);
        let seat = Self { member, backend, digest, ownership, role, served_at: Instant::now() };
        (seat, roles)
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let stopped = stop.clone();
        tokio::select! {
            () = self.decide() => {}
            () = stopped.cancelled() => {}
        }
        self.member.disown(&self.backend);
    }

    async fn decide(&mut self) {
        loop {
            let ownership = *self.ownership.borrow_and_update();
            match ownership {
                Ownership::Own => {
                    self.member.own(&self.backend, self.digest);
                    self.become_role(Role::Owner);
                    if self.ownership.changed().await.is_err() {
                        return;
                    }
                    self.member.disown(&self.backend);
                    self.served_at = Instant::now();
                }
                Ownership::Other(owner) => {
                    if *self.role.borrow() == Role::Owner {
                        // Its jobs are in a session before they would be due again.
                        self.become_role(Role::Starting);
                    }
                    tokio::select! {
                        () = follow(&self.member, &self.backend, self.digest, owner, &self.role, &mut self.served_at) => {}
                        changed = self.ownership.changed() => if changed.is_err() { return },
                    }
                    if matches!(*self.role.borrow(), Role::Follower { .. }) {
                        self.served_at = Instant::now();
                    }
                }
                Ownership::Unknown => {
                    if *self.role.borrow() == Role::Owner {
                        self.become_role(Role::Isolated);
                    }
                    let isolated_at = self.served_at + SILENCE;
                    tokio::select! {
                        changed = self.ownership.changed() => if changed.is_err() { return },
                        () = tokio::time::sleep_until(isolated_at) => {
                            self.become_role(Role::Isolated);
                            if self.ownership.changed().await.is_err() {
                                return;
                            }
                        }
                    }
                }
            }
        }
    }

    fn become_role(&self, role: Role) {
        become_role(&self.backend, &self.role, role);
    }
}

fn become_role(backend: &Backend, roles: &watch::Sender<Role>, role: Role) {
    match role {
        Role::Owner | Role::Isolated => backend.end_following(),
        Role::Follower { .. } | Role::Starting => backend.begin_following(),
    }
    roles.send_if_modified(|now| std::mem::replace(now, role) != role);
}

/// Follows an owner, in one session after the other.
async fn follow(
    member: &Member,
    backend: &Arc<Backend>,
    digest: u64,
    owner: u64,
    role: &watch::Sender<Role>,
    served_at: &mut Instant,
) {
    loop {
        let began = Instant::now();
        let (number, mut inbox) = member.begin(owner, backend.name(), digest);
        let ending = Ending { member, owner, number };
        let mut session = Follower::new(Arc::clone(backend), began);
        let reason = loop {
            let now = Instant::now();
            if !session.is_open() && now >= began + OPENS {
                break None;
            }
            match session.next_frame(now) {
                Ok(Some(frame)) => {
                    member.send_frame(owner, number, frame).await;
                    continue;
                }
                Ok(None) => {}
                Err(_) => break None,
            }
            let wakes_at = if session.is_open() { session.wakes_at() } else { began + OPENS };
            let has_room = session.is_open() && session.has_room();
            let isolated_at = *served_at + SILENCE;
            tokio::select! {
                heard = inbox.recv() => match heard {
                    Some(Heard::Frame(frame)) => {
                        if !session.is_open() {
                            // Before anything is registered.
                            become_role(backend, role, Role::Follower { owner });
                        }
                        if session.receive(Instant::now(), frame).is_err() {
                            break None;
                        }
                        *served_at = Instant::now();
                    }
                    Some(Heard::Refused(reason)) => break Some(reason),
                    None => break None,
                },
                () = backend.due(), if has_room => {}
                () = tokio::time::sleep_until(wakes_at) => {}
                () = tokio::time::sleep_until(isolated_at), if !session.is_open() => {
                    if *role.borrow() != Role::Isolated {
                        become_role(backend, role, Role::Isolated);
                    }
                    *served_at = Instant::now();
                }
            }
        };
        drop(ending);
        if reason == Some(Reason::UnknownSession) && session.is_open() {
            // It had begun: a message was lost.
            continue;
        }
        let retry_at = Instant::now() + RETRY;
        if *role.borrow() != Role::Isolated && *served_at + SILENCE <= retry_at {
            tokio::time::sleep_until(*served_at + SILENCE).await;
            become_role(backend, role, Role::Isolated);
        }
        tokio::time::sleep_until(retry_at).await;
    }
}

/// Ends a session when it is dropped.
struct Ending<'a> {
    member: &'a Member,
    owner: u64,
    number: u64,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.member.end(self.owner, self.number);
    }
}
