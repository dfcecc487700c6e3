//! What a follower's jobs take at the owner.

use std::{process::Command, sync::Arc};

use prost::Message;
use tokio::time::Instant;

use super::replicas::three;
use crate::{
    cluster::{in_flight::Charge, owner::Owner},
    engine::{
        CallerKey, ForReplica, Interest, NotificationQueue, Purpose,
        tests::{rig::job, script::Script},
    },
    job::Parts,
    proto::cluster::v1::{Add, Change, Frame, Interest as InterestMessage, Wanted, change::What},
};

/// How many jobs the process is to register, if it is the one that measures.
const JOBS: &str = "JOBWATCH_REGISTERED_JOBS";

/// Of one message.
const CHANGES: u32 = 4096;

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// Registers jobs that have a subscriber already, as a follower does. Returns bytes for each.
#[expect(clippy::cast_precision_loss, reason = "some megabytes")]
async fn registered(jobs: u32) -> f64 {
    let (_net, [replica, ..]) = three(&Script::new(std::time::Duration::ZERO), 1000).await;
    let backend = replica.engine().shared_backend("vendor").unwrap();
    // So that nothing else happens meanwhile.
    backend.begin_following();
    let queue = Arc::new(NotificationQueue::new(CallerKey::of_replica(1)));
    let subscribed: Vec<_> = (0..jobs)
        .map(|slot| {
            let purpose = Purpose::Watch { interval: None };
            let interest = Interest { queue: Arc::clone(&queue), slot, parts: Parts::NONE, purpose };
            match backend.follow(&job(&format!("job-{slot:08}")), interest) {
                Ok(ForReplica::Open(subscription, _)) => subscription,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    let now = Instant::now();
    let mut owner = Owner::new(Arc::clone(&backend), 2, Charge::new(&Arc::default()), now);
    let before = resident();
    for (number, first) in (1..).zip((0..jobs).step_by(CHANGES as usize)) {
        let changes = (first..jobs.min(first + CHANGES)).map(|slot| {
            let wanted = Some(Wanted::default());
            let add = Add { job_id: format!("job-{slot:08}"), wanted, ..Add::default() };
            Change { slot, what: Some(What::Add(add)) }
        });
        let data = InterestMessage { changes: changes.collect() }.encode_to_vec().into();
        owner.receive(now, Frame { number, data, ..Frame::default() }).unwrap();
        while owner.next_frame(now).unwrap().is_some() {}
    }
    let after = resident();
    drop((owner, subscribed));
    after.saturating_sub(before) as f64 / f64::from(jobs)
}

/// In a process of its own, whose memory nothing else uses: `JOBWATCH_REGISTERED_JOBS`, or some.
#[tokio::test(start_paused = true)]
async fn job_that_a_follower_registers_takes_at_most_128_bytes_at_the_owner() {
    const NAME: &str =
        "cluster::tests::memory::job_that_a_follower_registers_takes_at_most_128_bytes_at_the_owner";
    const MEASURES: &str = "JOBWATCH_MEASURES_MEMORY";
    let jobs = std::env::var(JOBS).map_or(100_000, |jobs| jobs.parse().expect("a number of jobs"));
    if std::env::var_os(MEASURES).is_some() {
        println!("bytes: {}", registered(jobs).await);
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args(["--exact", NAME, "--nocapture"]).env(MEASURES, "1").output().unwrap();
    let text = String::from_utf8(child.stdout).unwrap();
    let (_, bytes) = text.split_once("bytes: ").unwrap_or_else(|| panic!("{text}"));
    let bytes: f64 = bytes.lines().next().unwrap().parse().unwrap();
    println!("{jobs} jobs: {bytes:.0} bytes each");
    assert!((64.0..=128.0).contains(&bytes), "{bytes} bytes");
}
