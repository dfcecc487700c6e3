//! Watches one job for one caller, from its current status to its end.
//!
//! [`Progress`] decides what to send next, as a function of the job's record and the time.
//! [`Watch`] adds the clock and the notification queue: it looks only when the reader asks
//! for the next event, so a slow reader gets the newest status and nothing is queued for it.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    Caller, Configured, Engine, Failure, Interest, Interruption, JobRecord, LatestStatus, MissedDeadline,
    NotificationQueue, PollOutcome, Purpose, Subscription, quota::WatchLease,
};
use crate::job::{FaultKind, JobRef, Observed, ResumeToken, View};

/// How a caller wants to watch a job.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// What the caller is shown: nothing else counts as a change.
    pub view: View,
    /// From an earlier watch; empty for none.
    pub resume_token: String,
    /// Longest time between two polls that the caller accepts.
    pub interval: Option<Duration>,
    /// Longest silence.
    pub heartbeat: Duration,
    /// When the watch ends in any case.
    pub deadline: Option<Instant>,
}

/// An event of a watch, and how to go on after it.
#[derive(Clone, Debug)]
pub struct Update {
    /// The event.
    pub event: Event,
    /// What the caller is shown of it.
    pub view: View,
    /// Resumes after this event; empty where no status was sent yet.
    pub resume_token: String,
}

/// An event of a watch.
#[derive(Clone, Debug)]
pub enum Event {
    /// The job as first seen, or after a change.
    Status(LatestStatus),
    /// Nothing changed.
    Heartbeat {
        /// When the job was last observed.
        observed: Option<Timestamp>,
    },
    /// The job can't be polled.
    Interruption {
        /// Why, and when it is polled next.
        interruption: Arc<Interruption>,
        /// When the job was last observed.
        observed: Option<Timestamp>,
    },
}

/// Watches one job until it ends.
#[derive(Debug)]
pub struct Watch {
    pub(super) open: OpenWatch,
    queue: Arc<NotificationQueue>,
    deadline: Option<Instant>,
    sent_at: Instant,
    is_over: bool,
    /// The server stops, or its connection is too old, and the newest status was sent.
    sent_last: bool,
    /// Its connection is too old.
    connection_expired: bool,
    shutdown: CancellationToken,
    // Both are kept from one event to the next: setting them up takes about as long as
    // everything else that an event does here.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends when the watch may have been silent for too long, or before.
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// The job had ended before the watch began.
    Ended(Box<(JobRef, LatestStatus)>),
    Subscribed(Subscription),
}

/// What a watch has sent and seen.
#[derive(Debug)]
pub(super) struct Progress {
    view: View,
    sent: Option<ResumeToken>,
    /// A status of this engine was sent: what it observes later is newer.
    sent_own: bool,
    /// Interrupted in this way, and the caller knows.
    interrupted: Option<InterruptedBy>,
    opened_at: Instant,
    /// Polls that had ended when the watch began.
    polls: u64,
    /// Whether the terminal status was sent.
    has_ended: bool,
    backend: Arc<Configured>,
}

/// Interruptions of one kind are sent once.
type InterruptedBy = (mem::Discriminant<FaultKind>, Option<u16>);

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    Send {
        event: Event,
        /// There may be more to send at once.
        more: bool,
    },
    End(Option<Failure>),
    Wait,
    /// What is known can't be shown to this caller: the job has to be polled.
    Poll,
}

/// One watch, apart from when it sends.
#[derive(Debug)]
pub(super) struct OpenWatch {
    pub(super) source: Source,
    pub(super) progress: Progress,
    pub(super) heartbeat: Duration,
    /// A poll was asked for since this many polls had ended.
    asked_at: Option<u64>,
    _lease: WatchLease,
}

impl Engine {
    /// Watches a job.
    pub(super) fn watch_one(
        &self,
        job: &JobRef,
        caller: Caller,
        options: &WatchOptions,
    ) -> Result<Watch, Failure> {
        let queue = Arc::new(NotificationQueue::of_call(caller.key()));
        let open = self.open(job, caller, options, &queue, 0)?;
        let sent_at = Instant::now();
        let heartbeat = sent_at + open.heartbeat;
        let wake = options.deadline.map_or(heartbeat, |deadline| deadline.min(heartbeat));
        Ok(Watch {
            stopped: Box::pin(open.progress.backend.retired.clone().cancelled_owned()),
            open,
            queue,
            deadline: options.deadline,
            sent_at,
            is_over: false,
            sent_last: false,
            connection_expired: false,
            shutdown: self.shutdown.clone(),
            timer: Box::pin(sleep_until(wake)),
        })
    }

    pub(super) fn open(
        &self,
        job: &JobRef,
        caller: Caller,
        options: &WatchOptions,
        queue: &Arc<NotificationQueue>,
        slot: u32,
    ) -> Result<OpenWatch, Failure> {
        let backend = self.backend_of(job)?;
        let sent = match options.resume_token.as_str() {
            "" => None,
            text => Some(ResumeToken::decode(text, job)?),
        };
        let lease = self.quotas.lease(caller)?;
        let parts = options.view.parts();
        let opened_at = Instant::now();
        let source = if let Some(last) = self.terminal(job, parts) {
            Source::Ended(Box::new((job.clone(), last)))
        } else {
            let purpose = Purpose::Watch { interval: options.interval };
            let interest = Interest { queue: Arc::clone(queue), slot, parts, purpose };
            let subscription = backend.checked(job, || {
                backend.engine.subscribe(job, interest).map_err(|refusal| self.refused(refusal))
            });
            Source::Subscribed(subscription?)
        };
        let progress = Progress {
            view: options.view,
            sent,
            sent_own: false,
            interrupted: None,
            opened_at,
            polls: source.look(JobRecord::polls_before_now),
            has_ended: false,
            backend,
        };
        let heartbeat = options.heartbeat;
        Ok(OpenWatch { source, progress, heartbeat, asked_at: None, _lease: lease })
    }
}

impl OpenWatch {
    /// The job.
    pub(super) fn job(&self) -> &JobRef {
        match &self.source {
            Source::Subscribed(subscription) => subscription.job(),
            Source::Ended(ended) => &ended.0,
        }
    }

    /// What to do next. Has the job polled where that is needed.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let Self { source, progress, asked_at, .. } = self;
        let (step, polls) = source.look(|record| (progress.step(record, now), record.polls));
        if matches!(step, Step::Poll) {
            if asked_at.replace(polls) != Some(polls)
                && let Source::Subscribed(subscription) = source
            {
                subscription.poll_now();
            }
            return Step::Wait;
        }
        step
    }

    /// That the watch is alive.
    pub(super) fn heartbeat_event(&self) -> Event {
        self.source.look(Progress::heartbeat_event)
    }

    /// The event, with what resumes after it.
    pub(super) fn update(&self, event: Event) -> Update {
        let resume_token = self.progress.sent.map_or_else(String::new, |sent| sent.encode(self.job()));
        Update { event, view: self.progress.view, resume_token }
    }

    /// What the watch ends with when its backend was retired.
    pub(super) fn retirement(&self) -> Failure {
        self.progress.backend.retirement()
    }

    /// Whether the backend was retired, by a change of the configuration or at shutdown.
    pub(super) fn is_retired(&self) -> bool {
        self.progress.backend.retired.is_cancelled()
    }
}

impl Watch {
    /// The next update; `None` after the terminal status or a failure. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Update, Failure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Ends it with [`Failure::ConnectionExpired`], after its newest status.
    pub fn expire(&mut self) {
        self.connection_expired = true;
    }

    /// The same as [`next`](Self::next), polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, Failure>>> {
        while !self.is_over {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.is_over = true;
                return Poll::Ready(Some(Err(Failure::Deadline(MissedDeadline::Watch))));
            }
            let stopping = self.open.is_retired() || self.connection_expired;
            // Before the look at the newest status: a later one is queued again.
            let _ = self.queue.try_next();
            match self.open.step(now) {
                Step::Send { event, .. } if !self.sent_last => {
                    self.sent_last = stopping;
                    return Poll::Ready(Some(Ok(self.send(event, now))));
                }
                Step::End(failure) => {
                    self.is_over = true;
                    return Poll::Ready(failure.map(Err));
                }
                _ if stopping => {
                    self.is_over = true;
                    let failure = if self.shutdown.is_cancelled() {
                        Failure::ShuttingDown
                    } else if self.open.is_retired() {
                        self.open.retirement()
                    } else {
                        Failure::ConnectionExpired
                    };
                    return Poll::Ready(Some(Err(failure)));
                }
                _ => {}
            }
            if self.queue.poll_next(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready() {
                continue;
            }
            ready!(self.timer.as_mut().poll(cx));
            let heartbeat = self.sent_at + self.open.heartbeat;
            let now = Instant::now();
            let (is_due, sent_at) = if heartbeat <= now { (true, now) } else { (false, self.sent_at) };
            let heartbeat = sent_at + self.open.heartbeat;
            let wake = self.deadline.map_or(heartbeat, |deadline| deadline.min(heartbeat));
            self.timer.as_mut().reset(wake);
            if is_due {
                let event = self.open.heartbeat_event();
                return Poll::Ready(Some(Ok(self.send(event, now))));
            }
        }
        Poll::Ready(None)
    }

    fn send(&mut self, event: Event, now: Instant) -> Update {
        self.sent_at = now;
        self.open.update(event)
    }
}

impl Source {
    /// Looks at what is known now.
    fn look<T>(&self, look: impl FnOnce(&JobRecord) -> T) -> T {
        match self {
            Self::Subscribed(subscription) => subscription.look(look),
            Self::Ended(ended) => {
                let outcome = PollOutcome::Observed;
                look(&JobRecord { latest: Some(ended.1.clone()), outcome, ..JobRecord::default() })
            }
        }
    }
}

impl Progress {
    fn step(&mut self, record: &JobRecord, now: Instant) -> Step {
        if self.has_ended {
            return Step::End(None);
        }
        let mut needs_poll = false;
        if let Some(latest) = &record.latest {
            let fingerprint = latest.snapshot.fingerprint(self.view);
            let differs = self.sent.is_none_or(|sent| sent.fingerprint != fingerprint);
            let accepted = self.accepts(latest, record, differs);
            // The terminal status is sent even to a caller who has it: OK never comes without it.
            let is_news = differs || latest.snapshot.is_terminal();
            if accepted && is_news && latest.snapshot.holds(self.view.parts()) {
                self.sent = Some(ResumeToken { fingerprint, observed: Some(self.observed(latest)) });
                (self.interrupted, self.sent_own) = (None, true);
                self.has_ended = latest.snapshot.is_terminal();
                let more = self.has_ended || record.outcome != PollOutcome::Observed;
                return Step::Send { event: Event::Status(latest.clone()), more };
            }
            if accepted && !differs && latest.began >= self.opened_at {
                self.sent = Some(ResumeToken { fingerprint, observed: Some(self.observed(latest)) });
                self.sent_own = true;
            }
            // Older than what the caller has seen elsewhere, or a part of it is not held.
            needs_poll = is_news;
        }
        let was_polled = record.polls > self.polls;
        let step = match &record.outcome {
            PollOutcome::Missing { times } if record.latest.is_some() || self.sent.is_some() => {
                // One answer without the job may be the vendor's slip.
                if was_polled && *times >= 2 {
                    return Step::End(Some(Failure::Gone { last: record.latest.clone().map(Box::new) }));
                }
                Step::Wait
            }
            PollOutcome::Missing { .. }
                if was_polled && now >= self.opened_at + self.backend.settings().grace =>
            {
                return Step::End(Some(Failure::NotFound));
            }
            PollOutcome::Invalid(message) => return Step::End(Some(Failure::refused_id(message))),
            PollOutcome::Interrupted(interruption) => {
                let kind = (mem::discriminant(&interruption.fault.kind), interruption.fault.http_status);
                let event = Self::heartbeat_event(record);
                if self.interrupted.replace(kind) != Some(kind) {
                    return Step::Send { event, more: false };
                }
                // It is polled when the interruption is over.
                return Step::Wait;
            }
            PollOutcome::Observed if self.interrupted.take().is_some() => {
                let event = Self::heartbeat_event(record);
                return Step::Send { event, more: needs_poll };
            }
            _ => Step::Wait,
        };
        if needs_poll { Step::Poll } else { step }
    }

    /// Whether a status may follow what the caller has seen. After the first one that this
    /// engine showed, all later ones are newer. Before that:
    ///
    /// - one whose poll began after the watch did, and a terminal one, always may;
    /// - one may whose observer the token names, with nothing newer of it;
    /// - any other that differs may be older than what another replica has shown, and the
    ///   clocks of replicas differ. Where nothing was shown yet, what other watches see
    ///   now may be shown; what was retained for calls may not, since it is older than
    ///   that.
    fn accepts(&self, latest: &LatestStatus, record: &JobRecord, differs: bool) -> bool {
        if self.sent_own || latest.began >= self.opened_at || latest.snapshot.is_terminal() {
            return true;
        }
        if record.outcome == PollOutcome::NotPolled {
            return false;
        }
        let Some(sent) = self.sent else { return true };
        let is_own = |seen: Observed| {
            let own = self.observed(latest);
            seen.observer == own.observer && seen.sequence <= own.sequence
        };
        !differs || sent.observed.is_some_and(is_own)
    }

    /// What a token says of a status.
    fn observed(&self, latest: &LatestStatus) -> Observed {
        self.backend.engine.observed(latest)
    }

    /// That the watch is alive: an interruption that lasts is sent again.
    fn heartbeat_event(record: &JobRecord) -> Event {
        let observed = record.latest.as_ref().map(|latest| latest.time);
        match &record.outcome {
            PollOutcome::Interrupted(interruption) => {
                Event::Interruption { interruption: Arc::clone(interruption), observed }
            }
            _ => Event::Heartbeat { observed },
        }
    }
}
