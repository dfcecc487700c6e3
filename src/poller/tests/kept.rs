//! Jobs that nobody follows, and that somebody asked about with a `max_age`.

use super::*;

mod operations;

const MAX_AGE: Duration = Duration::from_secs(10);

impl Rig {
    fn ask(&self, id: &str) -> Follow {
        let interest =
            Interest { mailbox: Arc::new(Mailbox::default()), slot: 0, eager: true, interval: None };
        self.roster.join(&JobRef::new("vendor", id), interest)
    }

    /// What a client does that asks with a `max_age`. Returns what it was told.
    async fn ask_aged(&self, id: &str, max_age: Duration) -> Option<JobState> {
        if let Some(latest) = self.roster.recent(&JobRef::new("vendor", id), max_age) {
            return Some(latest.snapshot.state);
        }
        let mut follow = self.ask(id);
        follow.keep(max_age);
        let attempts = follow.news().attempts;
        while follow.news().attempts == attempts {
            pass(LATENCY).await;
        }
        self.roster.check();
        state(&follow)
    }

    fn known(&self, id: &str) -> Option<JobState> {
        Some(self.roster.known(&JobRef::new("vendor", id))?.snapshot.state)
    }

    fn followed(&self) -> usize {
        self.roster.check();
        self.roster.report(Instant::now()).followed
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_told_is_kept_for_twice_as_long_as_it_is_good_for_and_costs_nothing() {
    let rig = rig(200);
    rig.running(1);
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running));
    assert_eq!(rig.followed(), 0);
    rig.script.forget_calls();
    pass(MAX_AGE * 19 / 10).await;
    assert_eq!(rig.known("job-0000"), Some(JobState::Running));
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE / 10).await, Some(JobState::Running));
    assert_eq!(rig.script.calls().len(), 1, "too old for this one");
    pass(20 * MAX_AGE).await;
    assert_eq!(rig.known("job-0000"), None);
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_shortly_goes_though_other_things_are_kept_or_due_for_long() {
    let rig = rig(200);
    rig.running(3);
    rig.ask_aged("job-0000", 10 * MAX_AGE).await;
    rig.ask_aged("job-0001", MAX_AGE).await;
    pass(2 * MAX_AGE + SECOND).await;
    rig.roster.check();
    assert!(rig.known("job-0000").is_some());
    assert_eq!(rig.known("job-0001"), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_rides_along_with_what_is_sent_anyway() {
    let rig = rig(200);
    rig.running(3);
    let _follow = rig.follow("job-0002");
    rig.ask_aged("job-0000", MAX_AGE).await;
    rig.ask_aged("job-0001", MAX_AGE).await;
    rig.script.set("job-0001", JobState::Succeeded);
    pass(MAX_AGE).await;
    assert_eq!(rig.followed(), 1);
    rig.script.forget_calls();
    rig.script.set("job-0000", JobState::Retrying);
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running), "refreshed meanwhile");
    assert!(rig.script.calls().is_empty());
    assert_eq!(rig.known("job-0001"), None, "it has ended, which is remembered elsewhere");
}

#[tokio::test(start_paused = true)]
async fn jobs_that_ride_along_are_not_followed_and_do_not_hold_a_request() {
    let rig = rig(200);
    rig.running(3);
    for id in ["job-0000", "job-0001"] {
        rig.ask_aged(id, MAX_AGE).await;
    }
    pass(MAX_AGE / 2 + SECOND).await;
    rig.script.forget_calls();
    let follow = rig.follow("job-0002");
    pass(LATENCY / 2).await;
    assert_eq!(rig.script.calls()[0].ids.len(), 3);
    assert_eq!(rig.followed(), 1, "the others ride along");
    drop(follow);
    pass(LATENCY / 10).await;
    assert_eq!((rig.script.under_way(), rig.followed()), (0, 0));
    // What was known of those that rode along still is.
    assert_eq!(rig.known("job-0000"), Some(JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_about_a_job_that_rides_along_is_told_what_the_vendor_says_now() {
    for leave in [false, true] {
        for eager in [false, true] {
            let rig = rig(200);
            rig.running(2);
            rig.ask_aged("job-0000", MAX_AGE).await;
            pass(MAX_AGE).await;
            let follow = rig.follow("job-0001");
            pass(LATENCY / 2).await;
            rig.script.set("job-0000", JobState::Retrying);
            // The request's last follower leaves just before.
            let follow = (!leave).then_some(follow);
            let other = if eager { rig.ask("job-0000") } else { rig.follow("job-0000") };
            rig.roster.check();
            pass(4 * LATENCY).await;
            assert_eq!(state(&other), Some(JobState::Retrying), "left {leave}, eager {eager}");
            assert_eq!(rig.followed(), 1 + usize::from(follow.is_some()));
            drop(other);
            assert_eq!(rig.followed(), usize::from(follow.is_some()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_joins_a_job_that_rides_along_holds_the_request() {
    let rig = rig(200);
    rig.running(2);
    rig.ask_aged("job-0000", MAX_AGE).await;
    pass(MAX_AGE).await;
    rig.script.forget_calls();
    let first = rig.follow("job-0001");
    pass(LATENCY / 2).await;
    let second = rig.ask("job-0000");
    drop(first);
    pass(LATENCY).await;
    assert_eq!(second.news().answers, 2);
    assert_eq!(rig.script.calls().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_because_of_a_job_that_rides_along_harms_nobody() {
    for (poison, large) in [(true, false), (false, true)] {
        let rig = rig(200);
        rig.running(5);
        for id in ["job-0000", "job-0001"] {
            rig.ask_aged(id, MAX_AGE).await;
        }
        pass(MAX_AGE).await;
        if poison {
            rig.script.poison("job-0001");
        }
        if large {
            rig.script.fail(FaultKind::TooLarge);
        }
        rig.script.forget_calls();
        let follows: Vec<Follow> = ["job-0002", "job-0003"].iter().map(|id| rig.follow(id)).collect();
        pass(LATENCY * 3 / 2).await;
        rig.script.come_back();
        pass(LATENCY * 4).await;
        assert!(follows.iter().all(|follow| state(follow) == Some(JobState::Running)));
        assert_eq!(rig.followed(), 2);
        assert_eq!(rig.known("job-0001"), None, "it is not taken along again");
        rig.script.forget_calls();
        pass(SECOND).await;
        assert!(rig.script.calls().iter().all(|call| call.ids.len() == 2), "{:?}", rig.script.calls());
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_neither_interrupts_what_is_kept_nor_loses_it() {
    let rig = rig(200);
    rig.running(2);
    rig.ask_aged("job-0000", MAX_AGE).await;
    pass(MAX_AGE * 3 / 4).await;
    rig.script.go_down();
    let _follow = rig.follow("job-0001");
    pass(LATENCY * 2).await;
    assert_eq!(rig.script.calls().last().unwrap().ids.len(), 2, "it rode along");
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running), "it is still good");
    let get = rig.ask("job-0000");
    pass(LATENCY * 2).await;
    drop(get);
    rig.roster.check();
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running), "for them it is");
    pass(3 * MAX_AGE).await;
    assert_eq!(rig.known("job-0000"), None);
    rig.roster.check();
}

#[tokio::test(start_paused = true)]
async fn a_panic_loses_what_rode_along_and_interrupts_it_for_nobody() {
    let rig = rig(200);
    rig.running(2);
    rig.ask_aged("job-0000", MAX_AGE).await;
    pass(MAX_AGE).await;
    rig.script.panics(true);
    let _follow = rig.follow("job-0001");
    pass(LATENCY * 2).await;
    rig.script.panics(false);
    assert_eq!((rig.followed(), rig.known("job-0000")), (1, None));
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_does_not_hide_that_a_backend_refuses_everything() {
    let rig = rig(1);
    let ids = rig.running(60);
    rig.ask_aged(&ids[59], 30 * MAX_AGE).await;
    rig.script.fail(FaultKind::Rejected { message: "wrong endpoint".into() });
    rig.script.forget_calls();
    let _follows: Vec<Follow> = ids[..50].iter().map(|id| rig.follow(id)).collect();
    pass(60 * SECOND).await;
    rig.script.forget_calls();
    pass(60 * SECOND).await;
    // One request a back-off, not one for each job.
    assert!(rig.script.calls().len() < 60, "{}", rig.script.calls().len());
}

#[tokio::test(start_paused = true)]
async fn refused_jobs_of_one_caller_do_not_delay_one_that_is_kept() {
    let rig = rig(1);
    let ids = rig.running(60);
    rig.ask_aged(&ids[59], 30 * MAX_AGE).await;
    for id in &ids[..50] {
        rig.script.poison(id);
    }
    let _bad: Vec<Follow> = ids[..50].iter().map(|id| rig.follow(id)).collect();
    for _ in 0..20 {
        pass(20 * SECOND).await;
        if rig.roster.held(Instant::now()).is_some() {
            break;
        }
    }
    assert!(rig.roster.held(Instant::now()).is_some(), "the backend is held for what it refused");
    let good = rig.ask(&ids[59]);
    assert!(good.held().is_none());
    let answers = good.news().answers;
    pass(5 * SECOND).await;
    assert!(good.news().answers > answers, "{:?}", good.news());
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_last_takes_nothing_from_those_who_asked_with_a_max_age() {
    let rig = rig(200);
    rig.running(1);
    let watch = rig.follow("job-0000");
    pass(SECOND / 2).await;
    rig.ask_aged("job-0000", MAX_AGE).await;
    drop(watch);
    rig.script.forget_calls();
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running));
    drop(rig.ask("job-0000"));
    assert_eq!(rig.ask_aged("job-0000", MAX_AGE).await, Some(JobState::Running));
    assert!(rig.script.calls().is_empty());
    pass(20 * MAX_AGE).await;
    assert_eq!((rig.followed(), rig.known("job-0000")), (0, None));
    drop(rig.follow("job-0000"));
    assert_eq!(rig.known("job-0000"), None, "what was asked for long ago keeps nothing");
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_takes_so_many_bytes_and_no_more() {
    let rig = rig(200);
    let payload = "x".repeat(4 << 20);
    let ids: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for id in &ids {
        rig.script.set_word(id, JobState::Running, &payload);
        rig.ask_aged(id, MAX_AGE).await;
        pass(SECOND / 100).await;
    }
    rig.roster.check();
    let kept: Vec<bool> = ids.iter().map(|id| rig.known(id).is_some()).collect();
    assert_eq!(kept.iter().filter(|kept| **kept).count(), 15, "of 4 MiB and a little more, in 64 MiB");
    assert!(kept.is_sorted(), "what was asked for longest ago goes first");
}
