//! Decides what is polled next, as a function of the state and the time.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Admission, Pause,
    isolation::{Part, Split},
    job_table::{Interruption, JobEntry},
    scheduler::Class,
    state::{LOOKED_AT, State},
};

/// Most jobs that one step interrupts because of a pause.
const INTERRUPTED_AT_ONCE: usize = 4096;

/// What there is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// A batch can be taken.
    Ready,
    /// Nothing before this time.
    At(Instant),
    /// Nothing until something changes.
    Idle,
    /// Nothing: another replica polls the backend.
    Following,
}

/// Why a batch is polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its jobs are due.
    Regular,
    /// It is a part of a batch that failed.
    Part(Split),
    /// One quarantined job.
    Quarantined,
    /// One job, while the circuit breaker is half-open.
    Probe,
    /// One job that was never polled, while the backend is paused because it refused
    /// others: that says nothing of this one. Paced as quarantined jobs are.
    NeverPolled,
}

/// The numbers of the jobs of the next batch.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) kind: Kind,
    pub(super) jobs: Vec<usize>,
    /// Retained jobs that the poll refreshes.
    pub(super) refreshed: Vec<usize>,
}

/// Says what there is to do. While the backend is paused, tells the subscribers of jobs
/// that fall due that they can't be polled.
pub(super) fn readiness(state: &mut State, now: Instant) -> Readiness {
    if state.sharing.is_following {
        return Readiness::Following;
    }
    state.expire(now);
    stop_isolation_unless_closed(state, now);
    state.release_suspects(now);
    state.advance(now);
    let admission = state.breaker.admission(now);
    if let Admission::Paused(pause) = &admission {
        interrupt_due(state, pause, now);
    }
    let has = |class| state.scheduler.has(class);
    let waiting = state.waiting_ready(now);
    let due = waiting == Ok(true) || has(Class::Repoll);
    let mut wake_at = [state.scheduler.next_due(), state.retained.next_expiry(), waiting.err()];
    let ready = match admission {
        Admission::Closed if has(Class::Quarantined) && state.quarantine.has_slot() => {
            match state.quarantine.next_poll(now) {
                None => true,
                at => {
                    wake_at[1] = wake_at[1].into_iter().chain(at).min();
                    due || state.isolation.is_ready()
                }
            }
        }
        Admission::Closed => due || state.isolation.is_ready(),
        Admission::HalfOpen => due || has(Class::Quarantined),
        // What is ready is what was never polled.
        Admission::Paused(_) if due => match state.quarantine.next_poll(now) {
            None => true,
            at => {
                wake_at[1] = wake_at[1].into_iter().chain(at).min();
                false
            }
        },
        Admission::Probing | Admission::Paused(_) => false,
    };
    match wake_at.into_iter().flatten().min() {
        _ if ready => Readiness::Ready,
        Some(at) => Readiness::At(at),
        None => Readiness::Idle,
    }
}

/// Parts of a failed batch are polled only while the circuit breaker is closed. Otherwise
/// their jobs wait with the rest: a probe may be all that is polled for a long time.
fn stop_isolation_unless_closed(state: &mut State, now: Instant) {
    if !state.isolation.has_waiting() {
        return;
    }
    let pause = match state.breaker.admission(now) {
        Admission::Closed => return,
        Admission::Paused(pause) => Some(pause),
        Admission::HalfOpen | Admission::Probing => state.breaker.trouble(now),
    };
    if let Some(pause) = pause {
        state.stop_isolation(&Pause { until: pause.until.max(now), ..pause }, now);
    }
}

/// Puts off what is ready while the backend is paused.
fn interrupt_due(state: &mut State, pause: &Pause, now: Instant) {
    let interruption = Interruption::of_pause(pause, now);
    let lets_pass = pause.fault.is_refusal();
    let passes = |entry: &JobEntry| lets_pass && entry.polled_at.is_none() && !entry.quarantined;
    let waits = |number: &usize| !passes(&state.jobs[*number]);
    let ready: Vec<usize> = state.scheduler.ready().filter(waits).take(INTERRUPTED_AT_ONCE).collect();
    for (place, number) in (0..).zip(ready) {
        state.jobs[number].interrupted(&interruption);
        // One after the other, so that they keep their order.
        state.schedule(number, pause.until + Duration::from_nanos(place));
    }
}

/// Takes what is polled next out of the schedule; `dice` in `0.0..1.0` picks a probe.
pub(super) fn next(state: &mut State, now: Instant, dice: f64) -> Option<Planned> {
    state.advance(now);
    let single = |kind, number| Some(Planned { kind, jobs: vec![number], refreshed: Vec::new() });
    match state.breaker.admission(now) {
        Admission::Probing => None,
        Admission::HalfOpen => {
            let number = probe(state, now, dice)?;
            state.scheduler.remove(number);
            single(Kind::Probe, number)
        }
        Admission::Paused(pause) if !pause.fault.is_refusal() => None,
        Admission::Paused(_) => {
            if state.quarantine.next_poll(now).is_some() {
                return None;
            }
            let number = state.scheduler.ready().find(|number| state.jobs[*number].polled_at.is_none())?;
            state.quarantine.polled(now);
            state.scheduler.remove(number);
            single(Kind::NeverPolled, number)
        }
        Admission::Closed => {
            let may_poll = state.quarantine.has_slot() && state.quarantine.next_poll(now).is_none();
            if state.scheduler.has(Class::Quarantined) && may_poll {
                state.quarantine.polled(now);
                let (number, _) = state.scheduler.pop(Class::Quarantined)?;
                return single(Kind::Quarantined, number);
            }
            let due = state.scheduler.has(Class::Waiting) || state.scheduler.has(Class::Repoll);
            let isolates = state.isolation.is_ready() && !(due && state.isolation_had_its_turn);
            state.isolation_had_its_turn = isolates;
            if isolates { part(state) } else { batch(state, now) }
        }
    }
}

/// A job for a probe: any that is neither quarantined nor suspected, so that one job that
/// always fails can't keep the circuit breaker open for the others. For the same reason it
/// is one of those whose last poll is the longest ago: each job has its turn. `dice`
/// chooses among jobs that were polled together. A job that was never polled comes last:
/// there may always be new ones.
fn probe(state: &State, now: Instant, dice: f64) -> Option<usize> {
    let ready = || state.scheduler.ready().take(LOOKED_AT);
    let trusted = || ready().filter(|number| !state.jobs[*number].is_polled_alone());
    let polled_at = |number: &usize| state.jobs[*number].polled_at.unwrap_or(now);
    let oldest = trusted().map(|number| polled_at(&number)).min();
    let is_oldest = |number: &usize| Some(polled_at(number)) == oldest;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let pick = (trusted().filter(is_oldest).count() as f64 * dice) as usize;
    trusted().filter(is_oldest).nth(pick).or_else(|| ready().next())
}

/// The next part of a batch that failed.
fn part(state: &mut State) -> Option<Planned> {
    if state.isolation.wants_canary()
        && let Some(number) = canary(state)
    {
        state.scheduler.remove(number);
        let kind = Kind::Part(state.isolation.canary_taken());
        return Some(Planned { kind, jobs: vec![number], refreshed: Vec::new() });
    }
    loop {
        let jobs = &state.jobs;
        let is_current = |taken: &super::poll::Taken| {
            jobs.get(taken.number).is_some_and(|entry| std::sync::Arc::ptr_eq(&entry.shared, &taken.shared))
        };
        let trusted = |taken: &super::poll::Taken| {
            let entry = jobs.get(taken.number).filter(|_| is_current(taken));
            entry.map_or(0, |entry| 1 + u8::from(!entry.suspect) + 2 * u8::from(entry.is_answered()))
        };
        let Part { jobs: part, split, .. } = state.isolation.take(trusted)?;
        let jobs: Vec<usize> =
            part.iter().filter(|taken| is_current(taken)).map(|taken| taken.number).collect();
        if jobs.len() < part.len() {
            // The failing job may be one whose subscribers have left.
            state.isolation.unlink(split);
        }
        if !jobs.is_empty() {
            return Some(Planned { kind: Kind::Part(split), jobs, refreshed: Vec::new() });
        }
        state.isolation.part_dropped(split);
    }
}

/// A scheduled job whose last poll was answered.
fn canary(state: &State) -> Option<usize> {
    let timers = state.scheduler.timers().map(|(_, number)| number);
    let mut scheduled = timers.chain(state.scheduler.ready()).take(LOOKED_AT);
    scheduled.find(|number| {
        let entry = &state.jobs[*number];
        entry.is_answered() && !entry.is_polled_alone()
    })
}

/// The jobs that are due, at most as many as one poll holds. Room that is left is filled
/// with jobs that are due soon: they cost nothing then, and stay together from then on.
fn batch(state: &mut State, now: Instant) -> Option<Planned> {
    let limit = state.batch_limit.get();
    let class = state.scheduler.next_class()?;
    state.window_ends = None;
    let mut jobs = Vec::new();
    for class in [class, Class::Waiting, Class::Repoll] {
        while jobs.len() < limit
            && let Some((number, _)) = state.scheduler.pop(class)
        {
            jobs.push(number);
        }
    }
    if jobs.len() < limit {
        let soon = due_soon(state, limit - jobs.len(), now);
        for number in &soon {
            state.scheduler.remove(*number);
        }
        jobs.extend(soon);
    }
    let refreshed = state.refresh_retained(limit - jobs.len(), now);
    Some(Planned { kind: Kind::Regular, jobs, refreshed })
}

/// Jobs that may be polled though they are not due: half of their wait is over, or they
/// are new and wait for others to share a poll.
fn due_soon(state: &State, room: usize, now: Instant) -> Vec<usize> {
    let mut jobs = Vec::new();
    let mut passed_over = 0;
    for (at, number) in state.scheduler.timers().take(LOOKED_AT) {
        if at > now + state.plan.interval.max
            || passed_over == state.plan.max_batch.get()
            || jobs.len() == room
        {
            break;
        }
        let entry = &state.jobs[number];
        let is_soon = match entry.polled_at {
            None => at <= now + state.plan.collection_window,
            Some(polled) => at.saturating_duration_since(now) <= now.saturating_duration_since(polled),
        };
        if is_soon && !entry.is_polled_alone() {
            jobs.push(number);
        } else {
            passed_over += 1;
        }
    }
    jobs
}
