//! Follows one job for one caller, from its current status to its end.
//!
//! [`State`] decides what to say next, as a function of the newest news and the
//! time. [`Watch`] adds the clock and the mailbox: it looks only when the reader
//! asks for the next update, so a slow reader gets the newest state and nothing
//! is queued for it.

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

use super::{Caller, Failure, Hub, quota::Permit};
use crate::{
    job::{JobRef, ResumeToken, View},
    poller::{Follow, Interest, Interruption, Latest, Mailbox, News, Standing},
};

/// How a caller wants to follow a job.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// What the caller is shown: nothing else counts as a change.
    pub view: View,
    /// From an earlier watch; empty for none.
    pub resume_token: String,
    /// Longest time between two observations that the caller is content with.
    pub interval: Option<Duration>,
    /// Longest silence.
    pub heartbeat: Duration,
    /// When the watch ends in any case.
    pub deadline: Option<Instant>,
}

/// What a watch says, and how to go on after it.
#[derive(Clone, Debug)]
pub struct Update {
    /// What it says.
    pub event: Event,
    /// What the caller wants to be shown of it.
    pub view: View,
    /// Resumes after this update; empty where no status was sent yet.
    pub resume_token: String,
}

/// What a watch says.
#[derive(Clone, Debug)]
pub enum Event {
    /// The job as first seen, or after a change.
    Status(Latest),
    /// Nothing changed.
    Heartbeat {
        /// When the job was last observed.
        observed: Option<Timestamp>,
    },
    /// The vendor can't be asked.
    Interruption {
        /// Why, and when it is asked next.
        interruption: Arc<Interruption>,
        /// When the job was last observed.
        observed: Option<Timestamp>,
    },
}

/// Follows one job until it ends.
#[derive(Debug)]
pub struct Watch {
    pub(super) open: Open,
    mailbox: Arc<Mailbox>,
    deadline: Option<Instant>,
    spoke: Instant,
    over: bool,
    /// The server stops, and the newest state was told.
    last_words: bool,
    shutdown: CancellationToken,
    // Both are kept from one update to the next: setting them up takes about as long
    // as everything else that an update does here.
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Ends when the watch may have been silent for too long, or before.
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug)]
pub(super) enum Source {
    /// The job had ended before the watch began.
    Ended(Box<(JobRef, Latest)>),
    Following(Follow),
}

/// What a watch has said and seen.
#[derive(Debug)]
pub(super) struct State {
    view: View,
    sent: Option<ResumeToken>,
    /// Interrupted in this way, and the caller knows.
    told: Option<Interrupted>,
    grace_ends: Instant,
    /// Attempts and observations there were when the watch began.
    attempts: u64,
    answers: u64,
    /// Whether the caller has been told of the job's end.
    ended: bool,
}

/// Interruptions of one kind are told once.
type Interrupted = (mem::Discriminant<crate::adapters::FaultKind>, Option<u16>);

/// What to do next.
#[derive(Debug)]
pub(super) enum Step {
    Say {
        event: Event,
        /// There may be more to say at once.
        more: bool,
    },
    End(Option<Failure>),
    Wait,
}

/// One watch, apart from when it speaks.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) source: Source,
    pub(super) state: State,
    pub(super) heartbeat: Duration,
    _permit: Permit,
}

impl Hub {
    /// Follows a job.
    ///
    /// # Errors
    /// Where it can't be followed at all.
    pub fn watch(&self, job: &JobRef, caller: Caller, options: &WatchOptions) -> Result<Watch, Failure> {
        let mailbox = Arc::new(Mailbox::default());
        let open = self.open(job, caller, options, &mailbox, 0)?;
        let spoke = Instant::now();
        let heartbeat = spoke + open.heartbeat;
        let wake = options.deadline.map_or(heartbeat, |deadline| deadline.min(heartbeat));
        Ok(Watch {
            open,
            mailbox,
            deadline: options.deadline,
            spoke,
            over: false,
            last_words: false,
            shutdown: self.shutdown.clone(),
            stopped: Box::pin(self.shutdown.clone().cancelled_owned()),
            timer: Box::pin(sleep_until(wake)),
        })
    }

    pub(super) fn open(
        &self,
        job: &JobRef,
        caller: Caller,
        options: &WatchOptions,
        mailbox: &Arc<Mailbox>,
        slot: u32,
    ) -> Result<Open, Failure> {
        let backend = self.backend_of(job)?;
        let sent = match options.resume_token.as_str() {
            "" => None,
            text => Some(ResumeToken::decode(text, job)?),
        };
        let permit = self.quotas.permit(caller)?;
        let interest =
            Interest { mailbox: Arc::clone(mailbox), slot, eager: false, interval: options.interval };
        let source = match self.ended.get(job) {
            Some(last) => Source::Ended(Box::new((job.clone(), last))),
            None => Source::Following(backend.roster.join(job, interest)),
        };
        let news = source.news(News::clone);
        let state = State {
            view: options.view,
            sent,
            told: None,
            grace_ends: Instant::now() + backend.grace,
            attempts: news.attempts,
            answers: news.answers,
            ended: false,
        };
        if let Source::Following(follow) = &source
            && news.latest.as_ref().is_some_and(|latest| !state.accepts(latest, &news))
        {
            // What is known here is older than what the caller has seen elsewhere.
            follow.ask_anew();
        }
        Ok(Open { source, state, heartbeat: options.heartbeat, _permit: permit })
    }
}

impl Open {
    /// The job.
    pub(super) fn job(&self) -> &JobRef {
        match &self.source {
            Source::Following(follow) => follow.job(),
            Source::Ended(ended) => &ended.0,
        }
    }

    /// What to do next.
    pub(super) fn step(&mut self, now: Instant) -> Step {
        let state = &mut self.state;
        self.source.news(|news| state.step(news, now))
    }

    /// That the watch is alive.
    pub(super) fn alive(&self) -> Event {
        self.source.news(State::alive)
    }

    /// The event, with what resumes after it.
    pub(super) fn update(&self, event: Event) -> Update {
        let resume_token = self.state.sent.map_or_else(String::new, |sent| sent.encode(self.job()));
        Update { event, view: self.state.view, resume_token }
    }
}

impl Watch {
    /// The next update; `None` after the terminal status or a failure.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Update, Failure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same as [`next`](Self::next), polled.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Update, Failure>>> {
        while !self.over {
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline <= now) {
                self.over = true;
                return Poll::Ready(Some(Err(Failure::Deadline)));
            }
            let stopping = self.shutdown.is_cancelled();
            match self.open.step(now) {
                Step::Say { event, .. } if !self.last_words => {
                    self.last_words = stopping;
                    return Poll::Ready(Some(Ok(self.say(event, now))));
                }
                Step::End(failure) => {
                    self.over = true;
                    return Poll::Ready(failure.map(Err));
                }
                Step::Say { .. } | Step::Wait if stopping => {
                    self.over = true;
                    return Poll::Ready(Some(Err(Failure::ShuttingDown)));
                }
                Step::Say { .. } | Step::Wait => {}
            }
            if self.mailbox.poll_next(cx).is_ready() || self.stopped.as_mut().poll(cx).is_ready() {
                continue;
            }
            ready!(self.timer.as_mut().poll(cx));
            let heartbeat = self.spoke + self.open.heartbeat;
            let now = Instant::now();
            let (due, spoke) = if heartbeat <= now { (true, now) } else { (false, self.spoke) };
            let heartbeat = spoke + self.open.heartbeat;
            let wake = self.deadline.map_or(heartbeat, |deadline| deadline.min(heartbeat));
            self.timer.as_mut().reset(wake);
            if due {
                let event = self.open.alive();
                return Poll::Ready(Some(Ok(self.say(event, now))));
            }
        }
        Poll::Ready(None)
    }

    fn say(&mut self, event: Event, now: Instant) -> Update {
        self.spoke = now;
        self.open.update(event)
    }
}

impl Source {
    /// Looks at what is known now.
    fn news<T>(&self, look: impl FnOnce(&News) -> T) -> T {
        match self {
            Self::Following(follow) => follow.look(look),
            Self::Ended(ended) => {
                let standing = Standing::Observed;
                look(&News { latest: Some(ended.1.clone()), standing, attempts: 0, answers: 0 })
            }
        }
    }
}

impl State {
    fn step(&mut self, news: &News, now: Instant) -> Step {
        if self.ended {
            return Step::End(None);
        }
        if let Some(latest) = news.latest.as_ref().filter(|latest| self.accepts(latest, news)) {
            let fingerprint = latest.snapshot.fingerprint(self.view);
            let differs = self.sent.is_none_or(|sent| sent.fingerprint != fingerprint);
            self.sent = Some(ResumeToken { fingerprint, observed: None });
            self.ended = latest.snapshot.is_terminal();
            if differs {
                self.told = None;
                let more = self.ended || news.standing != Standing::Observed;
                return Step::Say { event: Event::Status(latest.clone()), more };
            }
            if self.ended {
                return Step::End(None);
            }
        }
        let attempted = news.attempts > self.attempts;
        match &news.standing {
            Standing::Missing { times } if news.latest.is_some() || self.sent.is_some() => {
                // One answer without the job may be a slip of the vendor's.
                if attempted && *times >= 2 {
                    Step::End(Some(Failure::Gone { last: news.latest.clone().map(Box::new) }))
                } else {
                    Step::Wait
                }
            }
            Standing::Missing { .. } if attempted && now >= self.grace_ends => {
                Step::End(Some(Failure::NotFound))
            }
            Standing::Invalid(message) => Step::End(Some(Failure::refused_id(message))),
            Standing::Interrupted(interruption) => {
                let kind = (mem::discriminant(&interruption.fault.kind), interruption.fault.http_status);
                let event = Self::alive(news);
                if self.told.replace(kind) == Some(kind) {
                    Step::Wait
                } else {
                    Step::Say { event, more: false }
                }
            }
            Standing::Observed if self.told.take().is_some() => {
                Step::Say { event: Self::alive(news), more: false }
            }
            Standing::Unasked | Standing::Observed | Standing::Missing { .. } => Step::Wait,
        }
    }

    /// Whether an observation may follow what the caller has seen. One that was
    /// made after the watch began always may, and so may a terminal one: there is
    /// none after it. What was known before may only if the caller has seen nothing
    /// yet, or the same: it may be older than what another replica has told, and the
    /// clocks of replicas differ. What was kept for others may not: it is older than
    /// what a watch is told.
    fn accepts(&self, latest: &Latest, news: &News) -> bool {
        let seen = |sent: ResumeToken| sent.fingerprint == latest.snapshot.fingerprint(self.view);
        news.answers > self.answers
            || latest.snapshot.is_terminal()
            || news.standing != Standing::Unasked && self.sent.is_none_or(seen)
    }

    /// That the watch is alive: an interruption that lasts is told again.
    fn alive(news: &News) -> Event {
        let observed = news.latest.as_ref().map(|latest| latest.time);
        match &news.standing {
            Standing::Interrupted(interruption) => {
                Event::Interruption { interruption: Arc::clone(interruption), observed }
            }
            _ => Event::Heartbeat { observed },
        }
    }
}
