//! Bounds the memory of vendors' responses, over all backends.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// `limits.response_bytes`, where it is not configured.
pub const DEFAULT_RESPONSE_BYTES: usize = 256 << 20;

/// What room is counted in: a semaphore's permits are 32-bit numbers.
const UNIT: usize = 1024;

/// The room for the bodies of vendors' responses that are being read, or whose elements are
/// still held. A response acquires its room once, between its head and its body, so that
/// a vendor that never sends a head holds none, and no response waits for another while it
/// holds some. First come, first served.
#[derive(Debug)]
pub struct ResponseBudget {
    room: Arc<Semaphore>,
    units: u32,
}

impl ResponseBudget {
    /// Room for so many bytes in all, rounded up to a KiB.
    pub fn new(bytes: usize) -> Arc<Self> {
        let units = units(bytes).max(1);
        let permits = usize::try_from(units).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Arc::new(Self { room: Arc::new(Semaphore::new(permits)), units })
    }

    /// Waits for room for `bytes`, or for all there is if that is less: a response may then
    /// be read alone. A wait that is dropped takes nothing.
    pub async fn acquire(&self, bytes: usize) -> Reservation {
        let units = units(bytes).min(self.units);
        let permit = Arc::clone(&self.room).acquire_many_owned(units).await;
        Reservation(Some(permit.expect("the semaphore is never closed")))
    }

    /// Bytes that nothing holds.
    pub fn available(&self) -> usize {
        self.room.available_permits().saturating_mul(UNIT)
    }
}

/// Room for one response. Released when it is dropped.
#[derive(Debug, Default)]
#[must_use = "the room is released when it is dropped"]
pub struct Reservation(Option<OwnedSemaphorePermit>);

impl Reservation {
    /// Releases what is not needed for `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let Some(permit) = &mut self.0 else { return };
        let held = permit.num_permits();
        let needed = usize::try_from(units(bytes)).unwrap_or(usize::MAX);
        drop(permit.split(held.saturating_sub(needed)));
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures_util::FutureExt;
    use proptest::prelude::*;
    use tokio::{
        task::JoinSet,
        time::{Instant, sleep, timeout},
    };

    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn response_waits_until_there_is_room_for_it() {
        let budget = ResponseBudget::new(3 * MIB);
        let first = budget.acquire(2 * MIB).await;
        let holder = tokio::spawn(async move {
            sleep(Duration::from_secs(5)).await;
            drop(first);
        });
        let began = Instant::now();
        let second = budget.acquire(2 * MIB).await;
        assert_eq!((began.elapsed(), budget.available()), (Duration::from_secs(5), MIB));
        holder.await.unwrap();
        drop(second);
        assert_eq!(budget.available(), 3 * MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_given_in_the_order_of_arrival() {
        let budget = ResponseBudget::new(2 * MIB);
        let held = budget.acquire(MIB).await;
        let mut large = pin!(budget.acquire(2 * MIB));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = pin!(budget.acquire(MIB));
        assert!(small.as_mut().now_or_never().is_none(), "the large response came first");
        drop(held);
        let large = large.now_or_never().expect("all the room is free");
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn wait_that_is_dropped_holds_up_no_other() {
        let budget = ResponseBudget::new(2 * MIB);
        let _held = budget.acquire(MIB).await;
        assert!(timeout(Duration::from_secs(1), budget.acquire(2 * MIB)).await.is_err());
        assert!(budget.acquire(MIB).now_or_never().is_some());
    }

    #[tokio::test]
    async fn response_larger_than_the_budget_is_read_alone() {
        let budget = ResponseBudget::new(MIB);
        let alone = budget.acquire(usize::MAX).await;
        assert_eq!(budget.available(), 0);
        drop(alone);
        assert_eq!(budget.available(), MIB);
        assert_eq!(ResponseBudget::new(0).available(), UNIT);
        assert!(ResponseBudget::new(usize::MAX).acquire(usize::MAX).now_or_never().is_some());
    }

    #[tokio::test]
    async fn reservation_that_shrinks_releases_the_rest() {
        let budget = ResponseBudget::new(8 * MIB);
        let mut reservation = budget.acquire(8 * MIB).await;
        reservation.shrink_to(UNIT + 1);
        assert_eq!(budget.available(), 8 * MIB - 2 * UNIT);
        reservation.shrink_to(4 * MIB);
        assert_eq!(budget.available(), 8 * MIB - 2 * UNIT, "it does not grow again");
        reservation.shrink_to(0);
        assert_eq!(budget.available(), 8 * MIB);
        Reservation::default().shrink_to(0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each response: its bytes, the milliseconds before it comes and for which it is
        /// held, and the patience after which it is given up.
        #[test]
        fn responses_never_hold_more_than_the_budget_and_all_are_served(
            budget in 1..64_usize,
            responses in prop::collection::vec((0..100_usize, 0..50_u64, 0..50_u64, prop::option::of(0..50_u64)), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let budget = ResponseBudget::new(budget * UNIT);
                let all = budget.available();
                let mut polls = JoinSet::new();
                for (bytes, wait, hold, patience) in responses {
                    let budget = Arc::clone(&budget);
                    polls.spawn(async move {
                        sleep(Duration::from_millis(wait)).await;
                        let room = budget.acquire(bytes * UNIT);
                        let mut room = match patience {
                            None => room.await,
                            Some(patience) => match timeout(Duration::from_millis(patience), room).await {
                                Ok(room) => room,
                                Err(_) => return,
                            },
                        };
                        sleep(Duration::from_millis(hold / 2)).await;
                        room.shrink_to(bytes * UNIT / 2);
                        sleep(Duration::from_millis(hold / 2)).await;
                    });
                }
                // Each holds its room for 50 ms at most, one after another in the worst case.
                let end = timeout(Duration::from_secs(40), polls.join_all()).await;
                assert!(end.is_ok(), "a response waits for ever");
                assert_eq!(budget.available(), all, "all room is released");
            });
        }
    }
}
