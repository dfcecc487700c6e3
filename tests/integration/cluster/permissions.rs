//! What a user at NATS must be allowed, as docs/cluster.md lists it, in deploy/ and at real servers.

use std::{fs, path::Path};

use jobwatch::{
    proto::v1::{ListBackendsRequest, ReplicaRole},
    simulators::{Outcome, Plan, Vendor},
};
use tokio::time::sleep;

use super::{
    SECOND,
    check::{MEMBER, check, started},
    servers::Servers,
};
use crate::{
    harness::*,
    program::{Program, command},
};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Subjects that a user may publish to and subscribe to.
#[derive(Clone, Debug, PartialEq)]
struct Permissions {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Permissions {
    /// Those of the table in docs/cluster.md, for a cluster of this name.
    fn documented(name: &str) -> Self {
        let document = read("docs/cluster.md");
        let row = |right: &str| {
            let row = document.lines().find_map(|line| line.strip_prefix(&*format!("| {right} | ")));
            let subjects = row.unwrap_or_else(|| panic!("no row {right}")).split('`').skip(1).step_by(2);
            subjects.map(|subject| subject.replace("<name>", name)).collect()
        };
        Self { publish: row("publish"), subscribe: row("subscribe") }
    }

    /// Those of the user in deploy/.
    fn deployed() -> Self {
        let configuration = read("deploy/kubernetes/cluster/nats.conf");
        let list = |right: &str| {
            let (_, rest) = configuration.split_once(&format!("{right}: [")).unwrap();
            let list = rest.split_once(']').unwrap().0;
            list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
        };
        Self { publish: list("publish"), subscribe: list("subscribe") }
    }

    fn users(&self) -> String {
        let Self { publish, subscribe } = self;
        format!(
            "authorization {{ users: [{{ user: gateway, password: hush, permissions: {{ publish: {publish:?}, \
             subscribe: {subscribe:?} }} }}] }}"
        )
    }
}

#[test]
fn deployed_permissions_are_the_documented_ones() {
    let documented = Permissions::documented("prod");
    assert_eq!((documented.publish.len(), documented.subscribe.len()), (5, 2), "{documented:?}");
    assert_eq!(Permissions::deployed(), documented);
}

/// The role of each gateway, and who owns the backend as it sees it.
async fn roles(gateways: &[Program]) -> Vec<(ReplicaRole, String)> {
    let mut roles = Vec::new();
    for gateway in gateways {
        let response = guard(gateway.client().list_backends(ListBackendsRequest {})).await.unwrap();
        let [backend] = &response.get_ref().backends[..] else { panic!("{response:?}") };
        roles.push((backend.replica_role(), backend.replica_owner.clone()));
    }
    roles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documented_permissions_are_enough_to_own_and_to_follow() {
    const JOBS: usize = 20;
    // The account of deploy/, on servers of this machine.
    let deployed = read("deploy/kubernetes/cluster/nats.conf");
    let (_, accounts) = deployed.split_once("\naccounts {").unwrap();
    let accounts = format!("accounts {{{}", accounts.replace("$JOBWATCH_NATS_PASSWORD", "\"hush\""));
    let servers = Servers::start(3, &accounts);
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).named("shared").every(SECOND).poll("max_batch", "20");
    let mut gateways = Vec::new();
    for number in 0..3 {
        let sections = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[cluster]\nnats = {:?}\nname = \"prod\"\nreplicas = 3\n\
             member = \"gateway-{number}\"\nlease = \"4s\"\ncredentials = {{ user = \"jobwatch\", password = \
             \"hush\" }}\n",
            servers.urls()
        );
        gateways.push(Program::run(command(&config_text(&sections, [backend.clone()])), "info").await);
    }
    let agreed = async {
        loop {
            let roles = roles(&gateways).await;
            let owners = roles.iter().filter(|(role, _)| *role == ReplicaRole::Owner).count();
            let followers = roles.iter().filter(|(role, _)| *role == ReplicaRole::Follower).count();
            if (owners, followers) == (1, 2) && roles.iter().all(|(_, owner)| *owner == roles[0].1) {
                return;
            }
            sleep(SECOND / 10).await;
        }
    };
    guard(agreed).await;

    let plan = |number: usize| {
        Plan::succeeds(Outcome::default())
            .id(format!("job-{number}"))
            .running_for(std::time::Duration::from_hours(1))
    };
    let started: Vec<_> = (0..JOBS).map(|number| simulator.start_job(plan(number))).collect();
    let mut watches = Vec::new();
    for gateway in &gateways {
        for started in &started {
            let mut watch = Watch::of(&gateway.client(), &job("shared", &started.id)).await;
            watch.status().await;
            watches.push(watch);
        }
    }
    for job in &started {
        simulator.finish(&job.id);
    }
    for mut watch in watches {
        assert!(watch.terminal_status().await.terminal);
    }
    for gateway in &gateways {
        let log = gateway.log();
        assert!(!log.contains("error of the NATS server"), "{log}");
    }
}

#[tokio::test]
async fn each_missing_permission_is_named_with_its_subject() {
    let documented = Permissions::documented("test");
    let credentials =
        format!("{MEMBER}credentials = {{ user = \"gateway\", password = {{ env = \"PASSWORD\" }} }}");
    let servers = Servers::start(1, &documented.users());
    started(&servers).await;
    let line = check(&servers, &credentials).await;
    assert!(line.starts_with("OK gateway-0 of 3 replicas of test over "), "{line}");

    let rights = |permissions: &Permissions| {
        let of = |right, subjects: &[String]| {
            subjects.iter().map(|subject| (right, subject.clone())).collect::<Vec<_>>()
        };
        [of("Publish", &permissions.publish), of("Subscription", &permissions.subscribe)].concat()
    };
    for (right, missing) in rights(&documented) {
        let mut allowed = documented.clone();
        let subjects = if right == "Publish" { &mut allowed.publish } else { &mut allowed.subscribe };
        subjects.retain(|subject| *subject != missing);
        let servers = Servers::start(1, &allowed.users());
        started(&servers).await;
        let line = check(&servers, &credentials).await;
        let violation = format!("Permissions Violation for {right} to \"{}", missing.trim_end_matches('>'));
        assert!(line.starts_with("FAILED") && line.contains(&violation), "{right} {missing}: {line}");
        let (_, advice) = line.split_once("; allow the account ").unwrap_or_else(|| panic!("{line}"));
        assert!(advice.contains(&missing), "{right} {missing}: {line}");
        let verb = if right == "Publish" { "publish" } else { "subscribe" };
        assert!(advice.contains(verb), "{right} {missing}: {line}");
    }
}

/// A narrower subject than the documented one leaves out something that is needed.
#[tokio::test]
async fn permission_for_messages_but_not_for_changes_of_leases_is_named() {
    let documented = Permissions::documented("test");
    let credentials =
        format!("{MEMBER}credentials = {{ user = \"gateway\", password = {{ env = \"PASSWORD\" }} }}");
    let narrow = |subjects: &[String]| {
        let narrowed =
            subjects.iter().map(|subject| subject.replace("jobwatch.test.v1.>", "jobwatch.test.v1.to.>"));
        narrowed.collect::<Vec<_>>()
    };
    for (allowed, right) in [
        (Permissions { publish: narrow(&documented.publish), ..documented.clone() }, "Publish"),
        (Permissions { subscribe: narrow(&documented.subscribe), ..documented.clone() }, "Subscription"),
    ] {
        let servers = Servers::start(1, &allowed.users());
        started(&servers).await;
        let line = check(&servers, &credentials).await;
        let violation = format!("Permissions Violation for {right} to \"jobwatch.test.v1.lease\"");
        assert!(line.starts_with("FAILED") && line.contains(&violation), "{right}: {line}");
    }
}
