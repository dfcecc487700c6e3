//! How a limit of one backend is split between the replicas.

/// What one replica may use of a limit that holds for all replicas together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// At any time, whatever the others do.
    pub own: u32,
    /// While it owns the backend; contains its own share.
    pub owner: u32,
}

impl Share {
    /// Splits `limit` between at most `replicas` replicas. `isolated_share` of it, from 0.0 to
    /// 1.0, is divided evenly, with at least 1 for each; the owner has the rest. Where the limit
    /// is less than one for each, the owner has all of it.
    pub fn of_rate(limit: u32, replicas: u32, isolated_share: f64) -> Self {
        let replicas = replicas.max(1);
        if limit < replicas {
            return Self { own: 0, owner: limit };
        }
        let even = limit / replicas;
        let wanted = f64::from(limit) * isolated_share / f64::from(replicas);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a float saturates, and the result is bounded by `even`"
        )]
        let own = (wanted.floor() as u32).clamp(1, even);
        Self { own, owner: limit - (replicas - 1) * own }
    }

    /// As [`of_rate`](Self::of_rate), but each replica has at least 1, so that it can send
    /// requests at all: with a limit below `replicas`, the sum is `replicas`.
    pub fn of_concurrency(limit: u32, replicas: u32, isolated_share: f64) -> Self {
        if limit < replicas {
            return Self { own: 1, owner: 1 };
        }
        Self::of_rate(limit, replicas, isolated_share)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limit_is_split_into_even_shares_and_the_owners_rest() {
        let split = |limit, replicas, isolated_share| {
            let Share { own, owner } = Share::of_rate(limit, replicas, isolated_share);
            (own, owner)
        };
        assert_eq!(split(20, 3, 0.2), (1, 18));
        assert_eq!(split(300, 3, 0.2), (20, 260));
        assert_eq!(split(20, 1, 0.2), (4, 20));
        assert_eq!(split(9, 3, 1.0), (3, 3));
        assert_eq!(split(9, 3, 0.0), (1, 7), "at least one a second");
        assert_eq!(split(3, 3, 0.2), (1, 1));
        assert_eq!(split(2, 3, 0.2), (0, 2), "too few for each");
        assert_eq!(split(7, 0, 0.2), (1, 7));
    }

    #[test]
    fn each_replica_may_send_one_request_at_a_time() {
        let split = |limit, replicas| Share::of_concurrency(limit, replicas, 0.2);
        assert_eq!(split(8, 3), Share { own: 1, owner: 6 });
        assert_eq!(split(2, 3), Share { own: 1, owner: 1 });
    }

    proptest! {
        #[test]
        fn shares_of_all_replicas_never_exceed_the_limit(
            limit in 1..=1_000_000_u32,
            replicas in 1..=2000_u32,
            isolated_share in 0.0..=1.0_f64,
        ) {
            let sum = |share: Share| u64::from(replicas - 1) * u64::from(share.own) + u64::from(share.owner);
            let rate = Share::of_rate(limit, replicas, isolated_share);
            prop_assert_eq!(sum(rate), u64::from(limit), "nothing is lost, either");
            prop_assert!(rate.owner >= rate.own.max(1));
            prop_assert_eq!(rate.own == 0, limit < replicas);
            let concurrency = Share::of_concurrency(limit, replicas, isolated_share);
            prop_assert!(concurrency.own >= 1);
            prop_assert!(sum(concurrency) <= u64::from(limit.max(replicas)));
        }
    }
}
