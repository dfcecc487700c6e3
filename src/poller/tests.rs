//! The poller and its roster, on a paused clock with a scripted vendor.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Ended, Follow, Interest, Limits, Mailbox, Plan, Roster, Standing,
    script::{Script, response},
};
use crate::{
    job::{BackendFault, FaultKind, JobRef, JobState, Observation},
    pacing::{Backoff, Cadence, Gate},
    transport::{Permit, PollResponse, RateLimiter, Upstream},
};

const SECOND: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(50);

struct Rig {
    script: Arc<Script>,
    roster: Arc<Roster>,
    _task: JoinHandle<()>,
}

fn rig(max_batch: usize) -> Rig {
    rig_with(
        max_batch,
        Limits { concurrency: nonzero(8), throttle: RateLimiter::new(NonZeroU32::new(1000).unwrap()) },
    )
}

fn nonzero(number: usize) -> NonZeroUsize {
    NonZeroUsize::new(number).unwrap()
}

fn rig_with(max_batch: usize, limits: Limits) -> Rig {
    rig_of(max_batch, limits, false)
}

fn rig_of(max_batch: usize, limits: Limits, long_poll: bool) -> Rig {
    let script = Script::new(LATENCY);
    Rig { script: Arc::clone(&script), ..rig_for(script, max_batch, limits, long_poll) }
}

fn roster(max_batch: usize, long_poll: bool) -> Arc<Roster> {
    let plan = Plan {
        cadence: Cadence { min: SECOND, max: 10 * SECOND },
        window: Duration::from_millis(5),
        max_batch,
        long_poll,
    };
    let gate = Gate::new(Backoff { min: SECOND, max: 30 * SECOND });
    Arc::new(Roster::new(plan, gate, Ended::new(1 << 20, 60 * SECOND)))
}

fn rig_for(upstream: Arc<dyn Upstream>, max_batch: usize, limits: Limits, long_poll: bool) -> Rig {
    let roster = roster(max_batch, long_poll);
    let task = tokio::spawn(super::run(
        "vendor".into(),
        Arc::clone(&roster),
        upstream,
        limits,
        CancellationToken::new(),
    ));
    Rig { script: Script::new(LATENCY), roster, _task: task }
}

impl Rig {
    fn follow(&self, id: &str) -> Follow {
        self.follow_with(id, None)
    }

    fn follow_with(&self, id: &str, interval: Option<Duration>) -> Follow {
        let interest = Interest { mailbox: Arc::new(Mailbox::default()), slot: 0, eager: false, interval };
        self.roster.join(&JobRef::new("vendor", id), interest)
    }

    fn running(&self, count: usize) -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|index| format!("job-{index:04}")).collect();
        for id in &ids {
            self.script.set(id, JobState::Running);
        }
        ids
    }
}

async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
}

fn state(follow: &Follow) -> Option<JobState> {
    follow.news().latest.map(|latest| latest.snapshot.state)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_followers_cost_one_request_an_interval() {
    let rig = rig(1);
    rig.script.set("a", JobState::Running);
    let follows: Vec<Follow> = (0..100).map(|_| rig.follow("a")).collect();
    pass(9 * SECOND + SECOND / 2).await;
    assert_eq!(rig.script.calls().len(), 10, "one at once, then one a second");
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
}

#[tokio::test(start_paused = true)]
async fn the_cadence_slows_down_and_a_change_speeds_it_up() {
    let rig = rig(1);
    rig.script.set("a", JobState::Pending);
    let follow = rig.follow("a");
    pass(300 * SECOND).await;
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    assert!((9..=10).contains(&rig.script.calls().len()));
    rig.script.set("a", JobState::Running);
    pass(11 * SECOND).await;
    assert_eq!(state(&follow), Some(JobState::Running));
    rig.script.forget_calls();
    pass(5 * SECOND).await;
    assert!((4..=6).contains(&rig.script.calls().len()));
}

#[tokio::test(start_paused = true)]
async fn a_follower_may_ask_for_a_faster_cadence_and_takes_it_away_again() {
    let rig = rig(1);
    rig.script.set("a", JobState::Running);
    let _slow = rig.follow("a");
    pass(1000 * SECOND).await;
    let fast = rig.follow_with("a", Some(2 * SECOND));
    rig.script.forget_calls();
    pass(20 * SECOND).await;
    assert!((9..=11).contains(&rig.script.calls().len()), "{}", rig.script.calls().len());
    drop(fast);
    pass(10 * SECOND).await;
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    assert!((9..=11).contains(&rig.script.calls().len()), "{}", rig.script.calls().len());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_jobs_cost_as_many_requests_as_they_fill_batches() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(1000).iter().map(|id| rig.follow(id)).collect();
    pass(SECOND / 2).await;
    assert_eq!(rig.script.calls().len(), 5);
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
    pass(5 * SECOND).await;
    assert_eq!(rig.script.calls().len(), 5 * 6);
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_joined_one_by_one_come_to_share_their_requests() {
    let rig = rig(200);
    let mut follows = Vec::new();
    for id in rig.running(90) {
        follows.push(rig.follow(&id));
        pass(Duration::from_millis(111)).await;
    }
    pass(300 * SECOND).await;
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    let calls = rig.script.calls();
    assert!((10..=11).contains(&calls.len()), "{}", calls.len());
    assert!(calls.iter().all(|call| call.ids.len() == 90));
}

#[tokio::test(start_paused = true)]
async fn a_job_that_nobody_follows_is_not_asked_about() {
    let rig = rig(1);
    rig.script.set("a", JobState::Running);
    let follow = rig.follow("a");
    pass(SECOND / 2).await;
    drop(follow);
    rig.script.forget_calls();
    pass(100 * SECOND).await;
    assert!(rig.script.calls().is_empty());
    assert_eq!(rig.roster.report(Instant::now()).followed, 0);
    rig.roster.check();
}

#[tokio::test(start_paused = true)]
async fn a_request_is_given_up_when_the_last_follower_leaves() {
    let rig = rig(200);
    rig.running(2);
    let (first, second) = (rig.follow("job-0000"), rig.follow("job-0001"));
    pass(LATENCY / 2).await;
    assert_eq!(rig.script.under_way(), 1);
    drop(first);
    pass(LATENCY / 10).await;
    assert_eq!(rig.script.under_way(), 1, "somebody still follows the other");
    drop(second);
    pass(LATENCY / 10).await;
    assert_eq!(rig.script.under_way(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_joined_again_while_its_request_is_given_up_is_asked_about() {
    let rig = rig(1);
    rig.script.set("a", JobState::Running);
    let first = rig.follow("a");
    pass(LATENCY / 2).await;
    drop(first);
    let second = rig.follow("a");
    pass(2 * LATENCY).await;
    assert_eq!(state(&second), Some(JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_terminal_job_is_not_asked_about_again_and_its_status_is_kept() {
    let rig = rig(1);
    rig.script.set("a", JobState::Succeeded);
    let follow = rig.follow("a");
    pass(SECOND / 2).await;
    assert_eq!(state(&follow), Some(JobState::Succeeded));
    pass(100 * SECOND).await;
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_batch_is_split_until_the_culprit_stands_alone() {
    let rig = rig(200);
    let ids = rig.running(100);
    rig.script.poison("job-0042");
    let follows: Vec<Follow> = ids.iter().map(|id| rig.follow(id)).collect();
    pass(2 * SECOND).await;
    for (id, follow) in ids.iter().zip(&follows) {
        if id == "job-0042" {
            assert!(matches!(follow.news().standing, Standing::Interrupted(_)));
        } else {
            assert_eq!(state(follow), Some(JobState::Running), "{id}");
        }
    }
    assert!(rig.script.calls().len() <= 2 * 7 + 3, "{}", rig.script.calls().len());
    rig.script.forget_calls();
    pass(60 * SECOND).await;
    for call in rig.script.calls() {
        let culprit = call.ids.iter().any(|id| id == "job-0042");
        assert_eq!(call.ids.len(), if culprit { 1 } else { 99 });
    }
}

#[tokio::test(start_paused = true)]
async fn several_culprits_come_to_stand_alone() {
    let rig = rig(200);
    let ids = rig.running(50);
    let culprits = ["job-0010", "job-0011", "job-0012", "job-0013", "job-0049"];
    for id in culprits {
        rig.script.poison(id);
    }
    let follows: Vec<Follow> = ids.iter().map(|id| rig.follow(id)).collect();
    pass(120 * SECOND).await;
    for (id, follow) in ids.iter().zip(&follows) {
        let expected = (!culprits.contains(&id.as_str())).then_some(JobState::Running);
        assert_eq!(state(follow), expected, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_everything_is_not_asked_about_each_job() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(200).iter().map(|id| rig.follow(id)).collect();
    rig.script.fail(FaultKind::Rejected { message: "wrong endpoint".into() });
    pass(10 * SECOND).await;
    assert!(follows.iter().all(|follow| matches!(follow.news().standing, Standing::Interrupted(_))));
    assert!(rig.script.calls().len() < 60, "{}", rig.script.calls().len());
    rig.script.come_back();
    pass(120 * SECOND).await;
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
}

#[tokio::test(start_paused = true)]
async fn one_job_that_is_always_refused_does_not_close_the_backend_to_others() {
    let rig = rig(1);
    rig.script.poison("bad");
    let _bad = rig.follow("bad");
    pass(300 * SECOND).await;
    rig.script.set("good", JobState::Running);
    let good = rig.follow("good");
    assert!(good.held().is_none());
    pass(2 * LATENCY).await;
    assert_eq!(state(&good), Some(JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_a_state_of_the_jobs_and_ends_with_their_newest_status() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(500).iter().map(|id| rig.follow(id)).collect();
    pass(SECOND / 2).await;
    rig.script.go_down();
    pass(60 * SECOND).await;
    for follow in &follows {
        assert!(matches!(follow.news().standing, Standing::Interrupted(_)));
        assert_eq!(state(follow), Some(JobState::Running), "a failed poll is not a failed job");
    }
    assert!(rig.script.calls().len() < 40, "the circuit is open: {}", rig.script.calls().len());
    assert!(rig.follow("new").held().is_some());
    for index in 0..500 {
        rig.script.set(&format!("job-{index:04}"), JobState::Succeeded);
    }
    rig.script.come_back();
    pass(31 * SECOND).await;
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Succeeded)));
}

#[tokio::test(start_paused = true)]
async fn while_the_circuit_is_open_one_probe_is_sent_at_a_time() {
    let rig = rig(1);
    let _follows: Vec<Follow> = rig.running(20).iter().map(|id| rig.follow(id)).collect();
    rig.script.go_down();
    pass(10 * SECOND).await;
    rig.script.forget_calls();
    pass(300 * SECOND).await;
    let calls = rig.script.calls();
    assert!(calls.len() >= 300 / 31);
    for pair in calls.windows(2) {
        assert!(pair[1].at - pair[0].at >= SECOND, "one probe, then a back-off");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_that_were_not_asked_about_say_nothing_of_the_backend() {
    let rig = rig(1);
    let tagged: Vec<Follow> = rig.running(5).iter().map(|id| rig.follow(id)).collect();
    let names: Vec<String> = (0..20).map(|n| format!("untagged-{n}")).collect();
    for id in &names {
        rig.script.needs_tag(id);
    }
    let untagged: Vec<Follow> = names.iter().map(|id| rig.follow(id)).collect();
    pass(60 * SECOND).await;
    assert!(tagged.iter().all(|follow| follow.news().standing == Standing::Observed), "no circuit opens");
    let detail = |follow: &Follow| match follow.news().standing {
        Standing::Interrupted(interruption) => interruption.fault.detail,
        other => panic!("{other:?}"),
    };
    assert!(untagged.iter().all(|follow| detail(follow) == Some("standby_needs_job_tag")));

    rig.script.go_down();
    pass(60 * SECOND).await;
    rig.script.forget_calls();
    pass(300 * SECOND).await;
    assert_eq!(rig.roster.report(Instant::now()).health, super::Health::Unavailable, "no circuit closes");
    let mut calls = rig.script.calls();
    calls.retain(|call| !call.ids[0].starts_with("untagged"));
    assert!(calls.len() >= 5);
    assert!(calls.windows(2).all(|pair| pair[1].at - pair[0].at >= SECOND), "{calls:?}");
    rig.script.come_back();
    pass(60 * SECOND).await;
    assert!(tagged.iter().all(|follow| follow.news().standing == Standing::Observed));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_a_retry_after_runs() {
    let rig = rig(1);
    let follows: Vec<Follow> = rig.running(3).iter().map(|id| rig.follow(id)).collect();
    pass(SECOND / 2).await;
    rig.script.fail(FaultKind::Throttled { retry_after: Some(40 * SECOND) });
    pass(SECOND).await;
    rig.script.come_back();
    rig.script.forget_calls();
    pass(39 * SECOND).await;
    assert!(rig.script.calls().is_empty(), "{:?}", rig.script.calls());
    assert!(follows.iter().all(|follow| matches!(follow.news().standing, Standing::Interrupted(_))));
    pass(2 * SECOND).await;
    assert!(follows.iter().all(|follow| follow.news().standing == Standing::Observed));
}

#[tokio::test(start_paused = true)]
async fn concurrency_and_rate_stay_within_their_limits() {
    let rig = rig_with(
        1,
        Limits { concurrency: nonzero(2), throttle: RateLimiter::new(NonZeroU32::new(5).unwrap()) },
    );
    let _follows: Vec<Follow> = rig.running(100).iter().map(|id| rig.follow(id)).collect();
    pass(60 * SECOND).await;
    assert!(rig.script.most_under_way() <= 2);
    let calls = rig.script.calls();
    for (index, call) in calls.iter().enumerate() {
        let within = calls[index..].iter().filter(|other| other.at < call.at + SECOND).count();
        assert!(within <= 5, "{within}");
    }
    assert!(calls.len() >= 290, "the rate is used: {}", calls.len());
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_an_answer_is_read_loses_no_job() {
    let rig = rig(200);
    let follows: Vec<Follow> = rig.running(10).iter().map(|id| rig.follow(id)).collect();
    rig.script.panics(true);
    pass(SECOND / 2).await;
    assert!(follows.iter().all(|follow| matches!(follow.news().standing, Standing::Interrupted(_))));
    rig.script.panics(false);
    pass(11 * SECOND).await;
    assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
}

mod kept;
mod refusals;
mod siege;

#[tokio::test(start_paused = true)]
async fn a_missing_job_is_asked_about_at_the_shortest_cadence() {
    let rig = rig(1);
    let follow = rig.follow("late");
    pass(SECOND / 2).await;
    assert_eq!(follow.news().standing, Standing::Missing { times: 1 });
    pass(2 * SECOND).await;
    rig.script.set("late", JobState::Pending);
    pass(SECOND).await;
    assert_eq!(state(&follow), Some(JobState::Pending));
}

/// On threads of their own and the real clock: joining while leaving while a
/// poll ends must neither lose a row nor keep one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_joins_while_the_last_follower_leaves_is_still_answered() {
    let rig = Arc::new(rig_with(
        4,
        Limits { concurrency: nonzero(64), throttle: RateLimiter::new(NonZeroU32::new(u32::MAX).unwrap()) },
    ));
    rig.running(8);
    let workers: Vec<JoinHandle<()>> = (0..8_usize)
        .map(|worker| {
            let rig = Arc::clone(&rig);
            tokio::spawn(async move {
                for round in 0..90_usize {
                    let mailbox = Arc::new(Mailbox::default());
                    let interest =
                        Interest { mailbox: Arc::clone(&mailbox), slot: 0, eager: true, interval: None };
                    let id = format!("job-{:04}", (worker * 31 + round) % 8);
                    let mut follow = rig.roster.join(&JobRef::new("vendor", id), interest);
                    if round % 4 < 2 {
                        follow.keep(SECOND / 10);
                    }
                    if round % 3 == 0 {
                        follow.hurry();
                        let started = Instant::now();
                        tokio::time::timeout(10 * SECOND, mailbox.next()).await.expect("an answer");
                        assert!(state(&follow).is_some() && started.elapsed() < 5 * SECOND);
                    } else if round % 3 == 1 {
                        tokio::task::yield_now().await;
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(rig.roster.report(Instant::now()).followed, 0);
    rig.roster.check();
}
