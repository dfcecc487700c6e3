use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(per_second: u32) -> Arc<RateLimiter> {
    RateLimiter::new(NonZeroU32::new(per_second).unwrap())
}

#[tokio::test(start_paused = true)]
async fn permit_that_is_not_consumed_is_released() {
    let limiter = limiter(1);
    let began = Instant::now();
    for _ in 0..10 {
        drop(limiter.acquire().await);
    }
    let mut permit = limiter.acquire().await;
    permit.release();
    limiter.acquire().await.consume().await;
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert!(limiter.acquire().now_or_never().is_none(), "dropped while it waits");
    permit.consume().await;
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn permits_are_given_in_the_order_of_arrival() {
    let limiter = limiter(1);
    limiter.acquire().await.consume().await;
    let mut early = std::pin::pin!(limiter.acquire());
    let mut late = std::pin::pin!(limiter.acquire());
    assert!(early.as_mut().now_or_never().is_none());
    assert!(late.as_mut().now_or_never().is_none());
    tokio::time::advance(SECOND).await;
    assert!(late.as_mut().now_or_never().is_none());
    let permit = early.now_or_never().expect("it came first");
    assert!(late.as_mut().now_or_never().is_none());
    drop(permit);
    assert!(late.now_or_never().is_some(), "a released permit is given at once");
}

#[tokio::test(start_paused = true)]
async fn each_further_request_waits_for_a_permit() {
    let limiter = limiter(2);
    let began = Instant::now();
    let mut permit = limiter.acquire().await;
    let mut sent = Vec::new();
    for _ in 0..4 {
        permit.consume().await;
        sent.push(began.elapsed().as_secs());
    }
    permit.another().consume().await;
    sent.push(began.elapsed().as_secs());
    assert_eq!(sent, [0, 0, 1, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn limit_that_is_raised_or_lowered_counts_what_was_sent_before() {
    let limiter = limiter(1);
    let began = Instant::now();
    limiter.acquire().await.consume().await;
    let mut waits = std::pin::pin!(limiter.acquire());
    assert!(waits.as_mut().now_or_never().is_none());
    limiter.set_per_second(NonZeroU32::new(3).unwrap());
    waits.await.consume().await;
    limiter.acquire().await.consume().await;
    assert_eq!(began.elapsed(), Duration::ZERO, "a raised limit holds at once");
    limiter.set_per_second(NonZeroU32::new(2).unwrap());
    tokio::time::advance(SECOND / 2).await;
    limiter.acquire().await.consume().await;
    assert_eq!((began.elapsed(), limiter.per_second().get()), (SECOND, 2));
}

#[tokio::test(start_paused = true)]
async fn rate_in_use_is_the_share_of_the_last_second() {
    let limiter = limiter(4);
    let shares = |limiter: &RateLimiter| (limiter.in_use(Instant::now()) * 4.0).to_string();
    assert_eq!((limiter.per_second().get(), shares(&limiter).as_str()), (4, "0"));
    limiter.acquire().await.consume().await;
    drop(limiter.acquire().await);
    assert_eq!(shares(&limiter), "1", "a released permit does not count");
    tokio::time::advance(SECOND / 2).await;
    for _ in 0..3 {
        limiter.acquire().await.consume().await;
    }
    assert_eq!(shares(&limiter), "4");
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(shares(&limiter), "3");
    tokio::time::advance(SECOND / 2).await;
    assert_eq!(shares(&limiter), "0");
}

#[tokio::test(start_paused = true)]
async fn owners_limit_ends_by_itself_at_its_time() {
    let limiter = limiter(100);
    let began = Instant::now();
    limiter.set_allowance(1, 3, Some(began + 2 * SECOND));
    let mut sent = Vec::new();
    for _ in 0..9 {
        limiter.acquire().await.consume().await;
        sent.push(began.elapsed().as_secs());
    }
    assert_eq!(sent, [0, 0, 0, 1, 1, 1, 2, 3, 4], "three a second, then one");
    limiter.set_per_second(NonZeroU32::new(50).unwrap());
    assert!(limiter.acquire().now_or_never().is_none(), "an allowance is a share of it");
    assert!((limiter.in_use(Instant::now()) - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(start_paused = true)]
async fn requests_counted_as_sent_use_the_limit_for_a_second() {
    let limiter = limiter(100);
    limiter.set_allowance(2, 5, None);
    limiter.count_as_sent(2);
    let began = Instant::now();
    limiter.acquire().await.consume().await;
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn replica_without_a_share_waits_until_it_has_one() {
    let limiter = limiter(100);
    limiter.set_allowance(0, 2, None);
    let mut waits = std::pin::pin!(limiter.acquire());
    tokio::time::advance(100 * SECOND).await;
    assert!(waits.as_mut().now_or_never().is_none());
    assert!((limiter.in_use(Instant::now()) - 1.0).abs() < f64::EPSILON);
    limiter.set_allowance(0, 2, Some(Instant::now() + SECOND));
    waits.now_or_never().expect("a share wakes").consume().await;
    limiter.acquire().await.consume().await;
    assert!(limiter.acquire().now_or_never().is_none());
    tokio::time::advance(SECOND).await;
    assert!(limiter.acquire().now_or_never().is_none(), "the owner's time is over");
}

#[tokio::test(start_paused = true)]
async fn permit_of_the_owner_that_is_consumed_too_late_is_checked_again() {
    let limiter = limiter(100);
    limiter.set_allowance(1, 3, Some(Instant::now() + SECOND));
    let mut permits = [limiter.acquire().await, limiter.acquire().await, limiter.acquire().await];
    tokio::time::advance(SECOND).await;
    let mut sent = 0;
    for permit in &mut permits {
        sent += usize::from(permit.consume().now_or_never().is_some());
    }
    assert_eq!(sent, 1, "only its own share");
}

#[tokio::test(start_paused = true)]
async fn permits_from_before_a_stop_of_the_process_count_when_they_are_consumed() {
    let limiter = limiter(2);
    let mut permits = [limiter.acquire().await, limiter.acquire().await];
    tokio::time::advance(60 * SECOND).await;
    limiter.acquire().await.consume().await;
    let mut sent = 1;
    for permit in &mut permits {
        sent += usize::from(permit.consume().now_or_never().is_some());
    }
    assert_eq!(sent, 2, "two in one second, whenever they were acquired");
}

#[tokio::test(start_paused = true)]
async fn permit_that_is_no_longer_allowed_waits_and_gives_its_place_to_others() {
    let limiter = limiter(100);
    limiter.set_allowance(0, 1, Some(Instant::now() + SECOND));
    let mut permit = limiter.acquire().await;
    limiter.set_allowance(0, 1, None);
    let mut consumed = std::pin::pin!(permit.consume());
    assert!(consumed.as_mut().now_or_never().is_none());
    tokio::time::advance(10 * SECOND).await;
    assert!(consumed.as_mut().now_or_never().is_none());
    limiter.set_allowance(0, 1, Some(Instant::now() + SECOND));
    assert!(consumed.now_or_never().is_some());
}

proptest! {
    #[test]
    fn no_second_ever_holds_more_requests_than_allowed(
        steps in proptest::collection::vec((0..400_u64, any::<bool>(), prop::option::weighted(0.1, 1..6_u32)), 1..200),
        limit in 1..6_u32,
    ) {
        let mut rate = Rate::new(NonZeroU32::new(limit).unwrap());
        let mut now = Instant::now();
        // Each with the limit at that time.
        let mut sent: Vec<(Instant, usize)> = Vec::new();
        let mut limit = limit;
        // Places that were taken, and may be given back one step later.
        let mut place = None;
        for (step, is_sent, other_limit) in steps {
            now += Duration::from_millis(step);
            if let Some(other) = other_limit {
                limit = other;
                rate.per_second = NonZeroU32::new(other).unwrap();
            }
            let before = place.take();
            match rate.take(now) {
                Ok(()) if is_sent => sent.push((now, limit as usize)),
                Ok(()) => place = Some(now),
                Err(at) => prop_assert!(at.is_some_and(|at| at > now)),
            }
            if let Some(at) = before {
                rate.release(at);
            }
        }
        for (index, &(at, limit)) in sent.iter().enumerate() {
            let before = sent[..=index].iter().filter(|&&(other, _)| other + SECOND > at).count();
            prop_assert!(before <= limit, "{before} within a second, at a limit of {limit}");
        }
    }

    #[test]
    fn no_second_holds_more_than_the_allowance_of_its_end(
        steps in proptest::collection::vec(
            (0..400_u64, any::<bool>(), prop::option::weighted(0.2, (0..4_u32, 0..6_u32, prop::option::of(0..1500_u64)))),
            1..200,
        ),
    ) {
        let mut rate = Rate::new(NonZeroU32::MIN);
        let mut now = Instant::now();
        let (mut own, mut owner, mut until) = (1, 1, None);
        rate.allowance = Some(Allowance { own, owner, owner_until: until, suspended: suspended() });
        let mut sent: Vec<(Instant, usize)> = Vec::new();
        let mut acquired: Vec<Instant> = Vec::new();
        for (step, is_consumed_at_once, change) in steps {
            now += Duration::from_millis(step);
            if let Some((new_own, more, for_ms)) = change {
                (own, owner) = (new_own, new_own + more);
                until = for_ms.map(|ms| now + Duration::from_millis(ms));
                rate.allowance = Some(Allowance { own, owner, owner_until: until, suspended: suspended() });
            }
            let limit = if until.is_some_and(|until| now < until) { owner } else { own } as usize;
            match rate.take(now) {
                Ok(()) if is_consumed_at_once => sent.push((now, limit)),
                Ok(()) => acquired.push(now),
                Err(None) => prop_assert_eq!(limit, 0),
                Err(Some(at)) => prop_assert!(at > now),
            }
            // A permit of an earlier step, as `confirm` counts it.
            if acquired.len() > 2 {
                rate.release(acquired.remove(0));
                if rate.take(now).is_ok() {
                    sent.push((now, limit));
                }
            }
        }
        for (index, &(at, limit)) in sent.iter().enumerate() {
            let before = sent[..=index].iter().filter(|&&(other, _)| other + SECOND > at).count();
            prop_assert!(before <= limit, "{before} within a second, at an allowance of {limit}");
        }
    }
}

#[test]
fn owners_part_ends_where_the_machine_was_suspended_meanwhile() {
    let now = Instant::now();
    let mut rate = Rate::new(NonZeroU32::new(5).unwrap());
    let mut limit = |suspended| {
        let owner_until = Some(now + SECOND);
        rate.allowance = Some(Allowance { own: 1, owner: 3, owner_until, suspended });
        rate.limit(now)
    };
    let since_the_start = suspended();
    assert_eq!(limit(since_the_start), 3);
    assert_eq!(limit(since_the_start + SECOND), 3, "a clock that was read late");
    if let Some(before) = since_the_start.checked_sub(SECOND) {
        assert_eq!(limit(before), 1);
    }
}
