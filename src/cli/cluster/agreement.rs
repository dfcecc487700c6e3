//! Whether replicas share the work as they should, from what each of them says.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::{
    cli::inspect::short,
    cluster::{
        ReplicaStatus,
        status::{NatsStatus, RoleName, SeatStatus},
    },
};

/// What one replica says of one backend.
type Claim<'a> = (&'a ReplicaStatus, &'a SeatStatus);

/// What is wrong, in sentences. The replicas are not asked at one moment, so that a change of
/// owner meanwhile is one for a moment.
pub(super) fn problems(replicas: &[&ReplicaStatus], now: Timestamp) -> Vec<String> {
    // Two addresses may lead to one replica.
    let replicas: BTreeMap<&str, &ReplicaStatus> =
        replicas.iter().map(|replica| (&*replica.incarnation, *replica)).collect();
    let replicas: Vec<&ReplicaStatus> = replicas.into_values().collect();
    let mut problems = Vec::new();
    let names = distinct(&replicas, |replica| &replica.cluster);
    if names.len() > 1 {
        let names = names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        problems.push(format!("the replicas belong to different clusters, which share nothing: {names}"));
    }
    for name in distinct(&replicas, |replica| &replica.member) {
        let same = replicas.iter().filter(|replica| replica.member == *name).count();
        if same > 1 {
            problems.push(format!("{same} replicas are named {name}; give each its own cluster.member"));
        }
    }
    // Some may not have been asked, and are known to an owner.
    let running =
        replicas.iter().map(|replica| replica.replicas_known).max().unwrap_or(0).max(replicas.len());
    if let Some(most) = replicas.iter().map(|replica| replica.replicas).min()
        && running > most as usize
    {
        problems.push(format!(
            "{running} replicas run, and cluster.replicas is {most}: together they may exceed requests_per_second"
        ));
    }
    for ReplicaStatus { member, nats, .. } in &replicas {
        if let NatsStatus::Disconnected { why, .. } = nats {
            problems.push(format!("{member} is not connected to NATS: {why}"));
        }
    }
    let mut backends: BTreeMap<&str, Vec<Claim<'_>>> = BTreeMap::new();
    for replica in &replicas {
        for seat in &replica.backends {
            backends.entry(&seat.backend).or_default().push((replica, seat));
        }
    }
    for (backend, claims) in backends {
        let found = problems_of_backend(&replicas, &claims, now);
        problems.extend(found.into_iter().map(|problem| format!("{backend}: {problem}")));
    }
    problems
}

fn problems_of_backend(replicas: &[&ReplicaStatus], claims: &[Claim<'_>], now: Timestamp) -> Vec<String> {
    let mut problems = Vec::new();
    for (replica, seat) in claims {
        let time = short(now.duration_since(seat.since));
        match (seat.role, &replica.nats) {
            (RoleName::Isolated, NatsStatus::Connected { .. }) => {
                let why = seat.why.as_deref().unwrap_or("it has no session with an owner");
                problems.push(format!("{} has been isolated for {time}: {why}", replica.member));
            }
            (RoleName::Isolated, NatsStatus::Disconnected { .. }) => {
                problems.push(format!("{} has been isolated for {time}", replica.member));
            }
            (RoleName::Starting, _) => {
                problems.push(format!("{} has been without an owner to follow for {time}", replica.member));
            }
            (RoleName::Owner | RoleName::Follower, _) => {}
        }
    }
    let owners: Vec<_> = claims.iter().filter(|(_, seat)| seat.role == RoleName::Owner).collect();
    if owners.len() > 1 {
        let names: Vec<_> = owners.iter().map(|(replica, _)| &*replica.member).collect();
        problems.push(format!("{} replicas say that they own it: {}", names.len(), names.join(", ")));
    }
    let known: BTreeSet<_> = claims.iter().filter_map(|(_, seat)| seat.owner.as_ref()).collect();
    if known.len() > 1 {
        let says = |(replica, seat): &Claim<'_>| {
            let owner = seat.owner.as_ref()?;
            Some(format!("{} in epoch {} says {}", owner.member, owner.epoch, replica.member))
        };
        let says: Vec<_> = claims.iter().filter_map(says).collect();
        problems.push(format!("the replicas disagree about its owner: {}", says.join("; ")));
    }
    let shares: BTreeSet<_> = claims.iter().map(|(_, seat)| seat.requests_per_second).collect();
    if shares.len() > 1 {
        let of = |(replica, seat): &Claim<'_>| {
            format!(
                "{}/{} at {}",
                seat.requests_per_second.own, seat.requests_per_second.owner, replica.member
            )
        };
        let shares: Vec<_> = claims.iter().map(of).collect();
        problems.push(format!(
            "the replicas split requests_per_second differently, so that together they may exceed it: {}",
            shares.join(", ")
        ));
    }
    for replica in replicas {
        if !claims.iter().any(|(known, _)| known.incarnation == replica.incarnation) {
            problems.push(format!("{} does not have this backend", replica.member));
        }
    }
    problems
}

fn distinct<'a, T: Ord>(
    replicas: &[&'a ReplicaStatus],
    of: impl Fn(&'a ReplicaStatus) -> &'a T,
) -> BTreeSet<&'a T> {
    replicas.iter().map(|replica| of(replica)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::cluster::status::{OwnerStatus, SessionRestarts, ShareStatus};

    pub(in crate::cli::cluster) const NOW: &str = "2026-11-26T03:00:20Z";

    fn replica(number: usize, role: RoleName, sessions: usize) -> ReplicaStatus {
        let owner = OwnerStatus { member: "gateway-0".into(), incarnation: "0".into(), epoch: 7 };
        ReplicaStatus {
            cluster: "prod".into(),
            member: format!("gateway-{number}"),
            incarnation: number.to_string(),
            replicas: 3,
            replicas_known: 0,
            nats: NatsStatus::Connected { server: format!("nats-{number}") },
            sessions,
            backends: vec![SeatStatus {
                backend: "db".into(),
                role,
                since: "2026-11-26T03:00:10Z".parse().unwrap(),
                owner: Some(owner),
                sessions,
                requests_per_second: ShareStatus { own: 1, owner: 18 },
                owner_changes: 0,
                session_restarts: SessionRestarts::default(),
                why: None,
            }],
        }
    }

    pub(in crate::cli::cluster) fn owner() -> ReplicaStatus {
        replica(0, RoleName::Owner, 1)
    }

    pub(in crate::cli::cluster) fn follower(number: usize) -> ReplicaStatus {
        replica(number, RoleName::Follower, 0)
    }

    pub(in crate::cli::cluster) fn isolated(number: usize) -> ReplicaStatus {
        let mut replica = replica(number, RoleName::Isolated, 0);
        let since = "2026-11-26T03:00:07Z".parse().unwrap();
        replica.nats = NatsStatus::Disconnected { why: "connection refused".into(), since };
        replica.backends[0].owner = None;
        replica
    }

    fn found(replicas: &[ReplicaStatus]) -> Vec<String> {
        problems(&replicas.iter().collect::<Vec<_>>(), NOW.parse().unwrap())
    }

    #[test]
    fn replicas_that_agree_have_no_problem() {
        assert_eq!(found(&[]), [""; 0]);
        assert_eq!(found(&[owner(), follower(1), follower(2)]), [""; 0]);
        assert_eq!(found(&[owner(), owner()]), [""; 0], "two addresses of one replica");
        assert_eq!(found(&[follower(1)]), [""; 0], "the owner was not asked");
    }

    #[test]
    fn isolated_replica_is_named_with_the_reason() {
        let without_session = replica(2, RoleName::Isolated, 0);
        assert_eq!(
            found(&[owner(), isolated(1), without_session]),
            [
                "gateway-1 is not connected to NATS: connection refused",
                "db: gateway-1 has been isolated for 10 s",
                "db: gateway-2 has been isolated for 10 s: it has no session with an owner",
            ]
        );
        let mut refused = replica(2, RoleName::Isolated, 0);
        refused.backends[0].why = Some("the owner polls another vendor".into());
        let text = "db: gateway-2 has been isolated for 10 s: the owner polls another vendor";
        assert_eq!(found(&[owner(), refused]), [text]);
        let starting = replica(1, RoleName::Starting, 0);
        assert_eq!(found(&[starting]), ["db: gateway-1 has been without an owner to follow for 10 s"]);
    }

    #[test]
    fn second_owner_and_another_epoch_are_disagreement() {
        let mut second = replica(1, RoleName::Owner, 0);
        second.backends[0].owner =
            Some(OwnerStatus { member: "gateway-1".into(), incarnation: "1".into(), epoch: 8 });
        assert_eq!(
            found(&[owner(), second]),
            [
                "db: 2 replicas say that they own it: gateway-0, gateway-1",
                "db: the replicas disagree about its owner: gateway-0 in epoch 7 says gateway-0; gateway-1 in \
                 epoch 8 says gateway-1",
            ]
        );
    }

    #[test]
    fn configurations_that_differ_are_named() {
        let (mut one, mut two) = (follower(1), follower(2));
        one.backends[0].requests_per_second.own = 2;
        two.backends.clear();
        assert_eq!(
            found(&[owner(), one, two]),
            [
                "db: the replicas split requests_per_second differently, so that together they may exceed it: \
                 1/18 at gateway-0, 2/18 at gateway-1",
                "db: gateway-2 does not have this backend",
            ]
        );
        let mut other = follower(1);
        other.cluster = "test".into();
        let text = "the replicas belong to different clusters, which share nothing: prod, test";
        assert_eq!(found(&[owner(), other]), [text]);
        let mut twin = follower(1);
        twin.member = "gateway-0".into();
        let text = "2 replicas are named gateway-0; give each its own cluster.member";
        assert_eq!(found(&[owner(), twin]), [text]);
        let many: Vec<_> = std::iter::once(owner()).chain((1..4).map(follower)).collect();
        let text = "4 replicas run, and cluster.replicas is 3: together they may exceed requests_per_second";
        assert_eq!(found(&many), [text]);
        // Three were asked.
        let mut knowing = owner();
        knowing.replicas_known = 4;
        assert_eq!(found(&[knowing, follower(1), follower(2)]), [text]);
    }
}
