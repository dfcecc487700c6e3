//! Answers calls for the status of one job or many.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{Failure, Hub};
use crate::{
    job::FaultKind,
    job::JobRef,
    poller::{Follow, Interest, Latest, Mailbox, News, Standing},
};

/// How long calls that were under way at shutdown may still take.
const DRAIN: Duration = Duration::from_secs(5);

/// What a caller of get or batch is content with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// Oldest observation that will do. `None`: one whose upstream request began
    /// after the call arrived or was in flight then.
    pub max_age: Option<Duration>,
    /// How long to wait for the job to end.
    pub wait: Duration,
    /// When the call must have been answered.
    pub deadline: Option<Instant>,
}

/// One job of a call, until it is answered.
struct Inquiry {
    follow: Follow,
    attempts: u64,
    answers: u64,
    grace_ends: Instant,
    max_age: Option<Duration>,
}

type Answer = Result<Latest, Failure>;

impl Hub {
    /// The status of each of `jobs`, in their order. One job's failure is its own.
    pub async fn get(&self, jobs: &[JobRef], ask: Ask) -> Vec<Answer> {
        let started = Instant::now();
        let mailbox = Arc::new(Mailbox::default());
        let mut answers: Vec<Option<Answer>> = Vec::with_capacity(jobs.len());
        let mut open: Vec<Option<Inquiry>> = Vec::with_capacity(jobs.len());
        let mut unanswered = 0;
        for (slot, job) in (0..).zip(jobs) {
            let (inquiry, answer) = match self.inquire(job, ask, &mailbox, slot) {
                Ok(inquiry) => {
                    let answer = inquiry.judge(started, !ask.wait.is_zero());
                    (answer.is_none().then_some(inquiry), answer)
                }
                Err(answer) => (None, Some(answer)),
            };
            unanswered += usize::from(inquiry.is_some());
            open.push(inquiry);
            answers.push(answer);
        }

        // At the end of the wait, whatever is known will do.
        let settle = |open: &[Option<Inquiry>], answers: &mut [Option<Answer>]| {
            let now = Instant::now();
            for (inquiry, answer) in open.iter().zip(answers) {
                if let Some(inquiry) = inquiry {
                    *answer = inquiry.judge(now, false);
                }
            }
        };
        let wait_ends = started.checked_add(ask.wait);
        let mut waiting = !ask.wait.is_zero();
        let mut deadline = ask.deadline;
        let mut stopping = false;
        let mut close = Failure::Deadline;
        while unanswered > 0 {
            let changed = tokio::select! {
                biased;
                () = at(deadline) => {
                    settle(&open, &mut answers);
                    break;
                }
                () = self.shutdown.cancelled(), if !stopping => {
                    stopping = true;
                    if waiting {
                        close = Failure::ShuttingDown;
                        break;
                    }
                    let drained = Instant::now() + DRAIN;
                    if deadline.is_none_or(|deadline| deadline > drained) {
                        (deadline, close) = (Some(drained), Failure::ShuttingDown);
                    }
                    continue;
                }
                () = at(wait_ends), if waiting => {
                    waiting = false;
                    0..open.len()
                }
                slot = mailbox.next() => slot as usize..slot as usize + 1,
            };
            let now = Instant::now();
            for slot in changed {
                if let Some(inquiry) = &open[slot]
                    && let Some(answer) = inquiry.judge(now, waiting)
                {
                    answers[slot] = Some(answer);
                    open[slot] = None;
                    unanswered -= 1;
                }
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(close.clone()))).collect()
    }

    fn inquire(&self, job: &JobRef, ask: Ask, mailbox: &Arc<Mailbox>, slot: u32) -> Result<Inquiry, Answer> {
        let backend = self.backend_of(job).map_err(Err)?;
        if let Some(last) = self.ended.get(job) {
            return Err(Ok(last));
        }
        if let Some(max_age) = ask.max_age.filter(|_| ask.wait.is_zero())
            && let Some(latest) = backend.roster.recent(job, max_age)
        {
            return Err(Ok(latest));
        }
        let interest = Interest { mailbox: Arc::clone(mailbox), slot, eager: true, interval: None };
        let mut follow = backend.roster.join(job, interest);
        if let Some(max_age) = ask.max_age {
            follow.keep(max_age);
        }
        let News { attempts, answers, latest, .. } = follow.news();
        let now = Instant::now();
        let recent =
            |latest: &Latest| ask.max_age.is_some_and(|age| now.saturating_duration_since(latest.at) <= age);
        if !latest.as_ref().is_some_and(recent) {
            follow.hurry();
        }
        Ok(Inquiry { attempts, answers, grace_ends: now + backend.grace, max_age: ask.max_age, follow })
    }
}

impl Inquiry {
    /// The answer, if there is one by now. While `waiting`, only one that can't
    /// change any more.
    fn judge(&self, now: Instant, waiting: bool) -> Option<Answer> {
        let news = self.follow.news();
        let attempted = news.attempts > self.attempts;
        let fresh = news.latest.as_ref().filter(|latest| {
            news.answers > self.answers
                || latest.snapshot.is_terminal()
                || self.max_age.is_some_and(|age| now.saturating_duration_since(latest.at) <= age)
        });
        let failing = match (&news.standing, self.follow.held()) {
            (Standing::Interrupted(interruption), _) if attempted => {
                Some((&interruption.fault, interruption.until))
            }
            (_, Some(hold)) if !attempted => Some((&hold.fault, hold.until)),
            _ => None,
        };
        match (&news.standing, fresh) {
            (_, Some(latest)) if latest.snapshot.is_terminal() => Some(Ok(latest.clone())),
            (Standing::Missing { .. }, _) if attempted => match news.latest {
                Some(latest) => Some(Err(Failure::Gone { last: Some(Box::new(latest)) })),
                None if waiting && now < self.grace_ends => None,
                None => Some(Err(Failure::NotFound)),
            },
            (Standing::Invalid(message), _) => Some(Err(Failure::refused_id(message))),
            (_, Some(latest)) => (!waiting).then(|| Ok(latest.clone())),
            (_, None) => {
                let (fault, until) = failing?;
                let passes = matches!(
                    fault.kind,
                    FaultKind::Unreachable { .. }
                        | FaultKind::Unavailable { .. }
                        | FaultKind::Overloaded
                        | FaultKind::Throttled { .. }
                );
                if waiting && passes {
                    return None;
                }
                let retry_in = until.saturating_duration_since(now);
                Some(Err(Failure::Backend { fault: fault.clone(), retry_in }))
            }
        }
    }
}

/// Ends at this time, or never.
pub(super) async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
