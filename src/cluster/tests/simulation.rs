//! Replicas, watchers and callers under random faults. One seed is one run.
//!
//! Which replica has the lease is anybody's guess here, and replicas may disagree about it:
//! what callers are promised must not depend on it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{
    task::LocalSet,
    time::{Instant, timeout},
};

use super::{
    checks::{Answer, Poll, Shown, check_answers, check_watch},
    replicas::*,
};
use crate::{
    cluster::{
        lease::Ownership,
        mutants::{Mutant, with_mutant},
        seeds::{for_each, seeds},
    },
    engine::{
        Event, JobStatuses,
        tests::{
            rig::{fresh, job, pass},
            script::Script,
        },
    },
    job::{BackendFault, JobRef, JobState},
    transport::{Permit, PollResponse, Upstream},
};

/// How many seeds are run where nothing else is said.
const SEEDS: u64 = 300;

const JOBS: usize = 3;
const REPLICAS: u64 = 3;

/// How long a run goes on with faults, and then without.
const FAULTS: Duration = Duration::from_secs(90);
const CALM: Duration = Duration::from_mins(2);

/// The vendor, which numbers the versions of its jobs.
struct Vendor {
    script: Arc<Script>,
    versions: Mutex<BTreeMap<String, u64>>,
    polls: Mutex<Vec<Poll>>,
}

/// A replica's way to it.
struct Line {
    vendor: Arc<Vendor>,
    dice: Mutex<StdRng>,
}

impl Vendor {
    fn publish(&self, id: &str, is_last: bool) {
        let mut versions = self.versions.lock().unwrap();
        let version = versions.entry(id.into()).or_default();
        *version += 1;
        let state = if is_last { JobState::Succeeded } else { JobState::Running };
        self.script.set_word(id, state, &version.to_string());
    }
}

impl Upstream for Line {
    fn poll<'a>(
        &'a self,
        jobs: &'a [JobRef],
        permit: Permit,
    ) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(async move {
            let (before, after) = {
                let mut dice = self.dice.lock().unwrap();
                let most = if dice.random_bool(0.1) { 4000 } else { 60 };
                (dice.random_range(0..most), dice.random_range(0..most))
            };
            pass(Duration::from_millis(before)).await;
            let answer = self.vendor.script.poll(jobs, permit).await;
            let looked: Vec<(String, u64)> = {
                let versions = self.vendor.versions.lock().unwrap();
                jobs.iter().map(|job| (job.id.to_string(), versions[&*job.id])).collect()
            };
            pass(Duration::from_millis(after)).await;
            let ended = Instant::now();
            let polls = looked.into_iter().map(|(job, version)| Poll { job, version, ended });
            self.vendor.polls.lock().unwrap().extend(polls);
            answer
        })
    }
}

/// What callers saw in one run.
#[derive(Default)]
struct History {
    watches: Vec<Vec<Shown>>,
    answers: Vec<Answer>,
}

/// Runs one seed. Returns what is wrong with it.
fn run(seed: u64) -> Vec<String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, simulate(seed))
}

async fn simulate(seed: u64) -> Vec<String> {
    let mut dice = StdRng::seed_from_u64(seed);
    let vendor = Arc::new(Vendor {
        script: Script::new(Duration::ZERO),
        versions: Mutex::default(),
        polls: Mutex::default(),
    });
    let ids: Vec<String> = (0..JOBS).map(|number| format!("job {number}")).collect();
    for id in &ids {
        vendor.publish(id, false);
    }
    let net = Arc::new(Net::with_dice(StdRng::seed_from_u64(seed ^ 1)));
    let start = |number: u64, dice: &mut StdRng| {
        let line =
            Line { vendor: Arc::clone(&vendor), dice: Mutex::new(StdRng::seed_from_u64(dice.random())) };
        Replica::start(&net, number, Arc::new(line), 10)
    };
    let replicas: Vec<Replica> = (1..=REPLICAS).map(|number| start(number, &mut dice)).collect();
    let replicas = Rc::new(RefCell::new(replicas));
    let history = Rc::new(RefCell::new(History::default()));
    let ends_at = Instant::now() + FAULTS + CALM;
    let mut callers = Vec::new();
    for number in 0..6 {
        let shared = (Rc::clone(&replicas), Rc::clone(&history));
        let (dice, id) = (StdRng::seed_from_u64(dice.random()), ids[number % JOBS].clone());
        history.borrow_mut().watches.push(Vec::new());
        callers.push(tokio::task::spawn_local(async move {
            hop(number, &id, dice, &shared.0, &shared.1, ends_at).await;
        }));
        let (replicas, history) = (Rc::clone(&replicas), Rc::clone(&history));
        let (dice, id) =
            (StdRng::seed_from_u64(u64::try_from(number).unwrap() ^ seed), ids[number % JOBS].clone());
        callers.push(tokio::task::spawn_local(async move {
            ask(&id, dice, &replicas, &history, ends_at - CALM / 2).await;
        }));
    }
    let faults_end = ends_at - CALM;
    let mut last_number = REPLICAS;
    while Instant::now() < faults_end {
        pass(Duration::from_millis(dice.random_range(20..1500))).await;
        match dice.random_range(0..12) {
            0..=4 => vendor.publish(&ids[dice.random_range(0..JOBS)], false),
            5 | 6 => {
                let replicas = replicas.borrow();
                let owner = replicas[dice.random_range(0..replicas.len())].number;
                give_lease(&replicas, owner);
            }
            7 => {
                // One of them believes something else.
                let replicas = replicas.borrow();
                let replica = &replicas[dice.random_range(0..replicas.len())];
                let other = replicas[dice.random_range(0..replicas.len())].number;
                replica.lease.send_replace(belief(replica.number, other));
            }
            8 => {
                let place = dice.random_range(0..3);
                replicas.borrow()[place].lease.send_replace(Ownership::Unknown);
            }
            9 => {
                let numbers: Vec<u64> = replicas.borrow().iter().map(|replica| replica.number).collect();
                net.cut(numbers[dice.random_range(0..3)], numbers[dice.random_range(0..3)]);
            }
            10 => net.heal(),
            _ => {
                // A replica is killed, and another one started in its place.
                last_number += 1;
                let started = start(last_number, &mut dice);
                let place = dice.random_range(0..3);
                let killed = std::mem::replace(&mut replicas.borrow_mut()[place], started);
                net.forget(killed.number);
                drop(killed);
                let replicas = replicas.borrow();
                let owner = replicas[dice.random_range(0..3)].number;
                give_lease(&replicas, owner);
            }
        }
    }
    net.calm();
    give_lease(&replicas.borrow(), replicas.borrow()[0].number);
    for id in &ids {
        vendor.publish(id, true);
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let history = history.borrow();
    let last: BTreeMap<String, u64> = vendor.versions.lock().unwrap().clone();
    let mut wrong = Vec::new();
    for (number, shown) in history.watches.iter().enumerate() {
        wrong.extend(check_watch(&format!("watch {number}"), shown, last[&ids[number % JOBS]]));
    }
    wrong.extend(check_answers(&history.answers, &vendor.polls.lock().unwrap()));
    wrong
}

/// Watches one job to its end, at one replica after the other.
async fn hop(
    number: usize,
    id: &str,
    mut dice: StdRng,
    replicas: &RefCell<Vec<Replica>>,
    history: &RefCell<History>,
    ends_at: Instant,
) {
    let mut token = String::new();
    while Instant::now() < ends_at {
        let place = dice.random_range(0..3);
        let mut watch = {
            let replicas = replicas.borrow();
            replicas[place].resume(id, &token)
        };
        let leaves_at = Instant::now() + Duration::from_millis(dice.random_range(100..20_000));
        while let Ok(Some(Ok(update))) = timeout(leaves_at - Instant::now(), watch.next()).await {
            token = update.resume_token;
            if let Event::Status(latest) = update.event {
                let status = latest.snapshot.core_status();
                let version = status.vendor_state.parse().unwrap();
                let shown = Shown { version, is_terminal: latest.snapshot.is_terminal(), at: Instant::now() };
                history.borrow_mut().watches[number].push(shown);
                if shown.is_terminal {
                    return;
                }
            }
            if Instant::now() >= leaves_at {
                break;
            }
        }
    }
}

/// Asks for one job now and then.
async fn ask(
    id: &str,
    mut dice: StdRng,
    replicas: &RefCell<Vec<Replica>>,
    history: &RefCell<History>,
    ends_at: Instant,
) {
    while Instant::now() < ends_at {
        pass(Duration::from_millis(dice.random_range(1..4000))).await;
        let engine = {
            let replicas = replicas.borrow();
            Arc::clone(replicas[dice.random_range(0..3)].engine())
        };
        let began = Instant::now();
        if let Ok(latest) = engine.get(&job(id), fresh()).await {
            let version = latest.snapshot.core_status().vendor_state.parse().unwrap();
            let is_terminal = latest.snapshot.is_terminal();
            history.borrow_mut().answers.push(Answer { job: id.into(), version, began, is_terminal });
        }
    }
}

#[test]
fn promises_hold_whatever_is_lost_and_whichever_replica_owns() {
    for_each(seeds(SEEDS), |seed| {
        let wrong = run(seed);
        assert!(wrong.is_empty(), "JOBWATCH_SEEDS={seed}..{}: {wrong:#?}", seed + 1);
    });
}

/// Each rule of the sessions is needed: without it the checks find something.
#[test]
fn checks_notice_each_rule_that_is_left_out() {
    for mutant in Mutant::ALL {
        let found = (0..3000).find(|seed| with_mutant(mutant, || !run(*seed).is_empty()));
        assert!(found.is_some(), "{mutant:?} was not noticed");
    }
}
