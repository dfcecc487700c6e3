//! Owners that are killed at random moments, in several clusters side by side.
//!
//! `make cluster-kills` kills a thousand of them.

use std::{sync::Arc, time::Duration};

use jobwatch::simulators::{Simulator, Vendor};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

use super::{
    SECOND,
    history::{self, Wrong, check_rate, most_in_a_second},
    rig::{Gateways, LEASE},
    servers::Servers,
    workload::Workload,
};
use crate::harness::*;

/// Less than the jobs need, so that each gateway sends what it may: 3 requests a second, the
/// owner 12.
const RATE: usize = 18;
const SHARES: &str = "isolated_share = 0.5";
const JOBS: usize = 10;

/// Most requests that a killed gateway may not have logged yet, and that were on the way before.
const IN_FLIGHT: usize = 8;

/// A number in a variable of the environment.
pub(super) fn variable(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What the kills of one cluster, or of all, came to.
#[derive(Debug, Default)]
struct Figures {
    kills: usize,
    statuses: usize,
    wrong: Wrong,
    /// Until each watch elsewhere showed something newer.
    waits: Vec<Duration>,
    /// Until all gateways agreed on the next owner.
    owners: Vec<Duration>,
    most_in_a_second: usize,
    /// What else was wrong.
    problems: Vec<String>,
}

impl Figures {
    fn add(&mut self, other: Self) {
        let Self { kills, statuses, wrong, waits, owners, most_in_a_second, problems } = other;
        self.kills += kills;
        self.statuses += statuses;
        self.wrong.add(wrong);
        self.waits.extend(waits);
        self.owners.extend(owners);
        self.most_in_a_second = self.most_in_a_second.max(most_in_a_second);
        self.problems.extend(problems);
    }

    fn print(&mut self) {
        self.waits.sort_unstable();
        self.owners.sort_unstable();
        let Self { kills, statuses, wrong: Wrong { lost, twice, older }, waits, owners, .. } = self;
        let seconds = |times: &[Duration]| {
            let (middle, last) = (times.get(times.len() / 2), times.last());
            let text = |time: Option<&Duration>| {
                time.map_or("-".into(), |time| format!("{:.2}", time.as_secs_f64()))
            };
            format!("{} s p50, {} s at most", text(middle), text(last))
        };
        println!("| kills | {kills} |");
        println!("| statuses | {statuses} |");
        println!("| terminal statuses lost, statuses twice, statuses older | {lost}, {twice}, {older} |");
        println!("| news on other gateways after | {} |", seconds(waits));
        let lease = LEASE.as_secs();
        println!(
            "| next owner after, with a lease of {lease} s; full rate a second later | {} |",
            seconds(owners)
        );
        println!("| most requests in any second, of {RATE} | {} |", self.most_in_a_second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_terminal_status_is_lost_when_owners_are_killed_and_the_rate_holds() {
    let (kills, clusters) = (variable("JOBWATCH_KILLS", 20), variable("JOBWATCH_CLUSTERS", 4));
    let mut running = JoinSet::new();
    for cluster in 0..clusters {
        let kills = kills / clusters + usize::from(cluster < kills % clusters);
        running.spawn(kill_owners(kills));
    }
    let mut figures = Figures::default();
    while let Some(of_one) = running.join_next().await {
        figures.add(of_one.unwrap());
    }
    figures.print();
    assert_eq!(figures.kills, kills);
    assert_eq!(figures.wrong, Wrong::default());
    assert_eq!(figures.problems, [""; 0]);
}

/// Kills so many owners of one cluster, one after the other.
async fn kill_owners(kills: usize) -> Figures {
    let simulator = Arc::new(simulator(Vendor::Immuta).await);
    let backend = Backend::of(&simulator)
        .every(SECOND / 2)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "1");
    let mut gateways = Gateways::prepared(Servers::start(3, ""), backend, LEASE).await;
    gateways.section = SHARES;
    let mut gateways = gateways.run().await;
    let mut figures = Figures::default();
    for round in 0..kills {
        let of_one = kill_one(round, &simulator, &mut gateways).await;
        figures.add(of_one);
        if (round + 1) % 10 == 0 {
            println!("{} kills, {:?}", round + 1, figures.wrong);
        }
    }
    figures
}

async fn kill_one(round: usize, simulator: &Arc<Simulator>, gateways: &mut Gateways) -> Figures {
    let (_, epoch) = gateways.owner_and_epoch().await;
    let (began, began_at) = (history::now(), Instant::now());
    let mut workload = Workload::start(simulator, (0..JOBS).map(|number| format!("job-{round}-{number}")));
    workload.watch_anywhere(&gateways.clients()).await;
    sleep(Duration::from_millis(rand::random_range(0..1500))).await;
    let owner = gateways.owner().await;
    let (killed_at, version) = (Instant::now(), workload.version());
    gateways.kill(owner).await;
    workload.end(JOBS / 2);
    gateways.replace_ended(owner).await;
    gateways.agreed(|_, now| now > epoch).await;
    let next_owner = killed_at.elapsed();
    workload.hear(|_| true).await;
    let waits = workload.waits(owner, killed_at, version);
    let (statuses, wrong) = workload.finish().await;
    let sent = gateways.sent();
    let mut problems = check_rate(&sent, RATE);
    let requests = simulator.calls().iter().filter(|call| call.at >= began_at).count();
    let permits = sent.iter().filter(|at| **at >= began).count();
    if requests > permits + 2 * IN_FLIGHT {
        problems.push(format!("{requests} requests with {permits} permits"));
    }
    for problem in &mut problems {
        problem.insert_str(0, &format!("kill {round}: "));
    }
    Figures {
        kills: 1,
        statuses,
        wrong,
        waits,
        owners: vec![next_owner],
        most_in_a_second: most_in_a_second(&sent),
        problems,
    }
}
