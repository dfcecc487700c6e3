//! Three gateways as programs that share one backend, and what is recorded of them.

use std::time::Duration;

use jobwatch::{
    cluster::{
        election::Election,
        lease::{Member, Ownership, Timing},
        nats::Nats,
    },
    config::Config,
};
use tokio::time::{sleep, timeout};

use super::{
    PATIENCE, SECOND,
    history::{SentAt, check_rate, most_in_a_second, sent_in},
    link::{Link, Passes},
    servers::Servers,
};
use crate::{
    harness::*,
    program::{Program, command},
};

pub(super) const GATEWAYS: usize = 3;

/// Of most tests.
pub(super) const LEASE: Duration = Duration::from_secs(4);

/// Each request is a line of the log.
const LOG: &str = "info,jobwatch::transport::rate_limiter=trace";

/// Fails the test instead of waiting forever, for what several programs have to do.
pub(super) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("no result in time")
}

/// Gateways that share one backend.
pub(super) struct Gateways {
    pub(super) servers: Servers,
    pub(super) programs: Vec<Program>,
    backend: Backend,
    lease: Duration,
    /// Where each gateway listens, each time that it starts.
    addresses: Vec<String>,
    /// To each server of NATS, for each gateway, and to the vendor. None without faults.
    links: Vec<(Vec<Link>, Link)>,
    /// More lines of `[cluster]`.
    pub(super) section: &'static str,
    /// Variables of the environment, for each gateway.
    pub(super) environment: [Vec<(&'static str, String)>; GATEWAYS],
    /// What ended gateways have sent.
    sent: Vec<SentAt>,
}

impl Gateways {
    pub(super) async fn start(servers: Servers, backend: Backend) -> Self {
        Self::start_with(servers, backend, LEASE).await
    }

    pub(super) async fn start_with(servers: Servers, backend: Backend, lease: Duration) -> Self {
        Self::prepared(servers, backend, lease).await.run().await
    }

    /// With links that can be cut. The vendor has this port.
    pub(super) async fn start_linked(servers: Servers, backend: Backend, vendor: u16) -> Self {
        let mut gateways = Self::prepared(servers, backend, LEASE).await;
        for _ in 0..GATEWAYS {
            let mut links = Vec::new();
            for port in gateways.servers.ports() {
                links.push(Link::to(port).await);
            }
            gateways.links.push((links, Link::to(vendor).await));
        }
        gateways.run().await
    }

    /// None runs yet.
    pub(super) async fn prepared(servers: Servers, backend: Backend, lease: Duration) -> Self {
        release_a_lease(&servers).await;
        let environment = [const { Vec::new() }; GATEWAYS];
        let (programs, links, sent) = (Vec::new(), Vec::new(), Vec::new());
        let mut addresses = Vec::new();
        for _ in 0..GATEWAYS {
            addresses.push(own_address().await.to_string());
        }
        Self { servers, programs, backend, lease, addresses, links, section: "", environment, sent }
    }

    pub(super) async fn run(mut self) -> Self {
        for number in 0..GATEWAYS {
            self.programs.push(self.program(number).await);
        }
        self.owner().await;
        self
    }

    async fn program(&self, number: usize) -> Program {
        let (mut urls, mut backend) = (self.servers.urls(), self.backend.clone());
        if let Some((links, vendor)) = self.links.get(number) {
            urls = links.iter().map(|link| format!("nats://127.0.0.1:{}", link.port())).collect();
            // The URL has to be the same for all: replicas with different ones do not share.
            backend = backend.key("proxy", &format!("\"http://127.0.0.1:{}\"", vendor.port()));
        }
        let sections = format!(
            "[server]\nlisten = \"{}\"\ndrain_timeout = \"60s\"\n[cluster]\nnats = {urls:?}\nname = \
             \"gateways\"\nreplicas = {GATEWAYS}\nmember = \"gateway-{number}\"\nlease = \"{}s\"\n{}\n\
             [limits]\ninline_result_bytes = \"16 MiB\"\nmessage_bytes = \"32 MiB\"\n",
            self.addresses[number],
            self.lease.as_secs(),
            self.section
        );
        let (file, mut command) = command(&config_text(&sections, [backend]));
        command.envs(self.environment[number].iter().cloned());
        Program::run((file, command), LOG).await
    }

    /// The number of the gateway that owns the backend, once there is one that all agree on.
    pub(super) async fn owner(&self) -> usize {
        self.agreed(|_, _| true).await.0
    }

    /// The number and the epoch of the owner.
    pub(super) async fn owner_and_epoch(&self) -> (usize, u64) {
        self.agreed(|_, _| true).await
    }

    /// The next owner that all agree on which satisfies this.
    pub(super) async fn agreed(&self, wanted: impl Fn(usize, u64) -> bool) -> (usize, u64) {
        let agree = async {
            loop {
                let known: Vec<_> = self
                    .programs
                    .iter()
                    .enumerate()
                    .filter_map(|(number, program)| last_owner(&program.log(), number))
                    .collect();
                if known.len() == GATEWAYS
                    && known.iter().all(|owner| *owner == known[0])
                    && wanted(known[0].0, known[0].1)
                {
                    return known[0];
                }
                sleep(SECOND / 20).await;
            }
        };
        timeout(PATIENCE, agree).await.unwrap_or_else(|_| panic!("no agreement: {}", self.logs()))
    }

    /// Waits until one owns the backend and all others follow it.
    pub(super) async fn together(&self) -> (usize, u64) {
        let is_settled = |owner: usize| {
            let role = |program: &Program| roles(&program.log()).pop().map(|(role, _)| role);
            let wanted = |number| if number == owner { "owner" } else { "follower" };
            let mut programs = self.programs.iter().enumerate();
            programs.all(|(number, program)| role(program).as_deref() == Some(wanted(number)))
        };
        self.agreed(|owner, _| is_settled(owner)).await
    }

    /// Waits until one gateway has this role, as its log says.
    pub(super) async fn has_role(&self, number: usize, wanted: &str) {
        let program = &self.programs[number];
        let role = |log: &str| roles(log).pop().filter(|(role, _)| role == wanted).map(drop);
        program.find(role).await;
    }

    /// Waits until another than `owner` owns the backend, by its own log.
    pub(super) async fn successor_of(&self, owner: usize) -> usize {
        let owns = |number: &usize| {
            last_owner(&self.programs[*number].log(), *number).is_some_and(|(now, _)| now == *number)
        };
        let successor = async {
            loop {
                if let Some(number) = (0..GATEWAYS).filter(|number| *number != owner).find(owns) {
                    return number;
                }
                sleep(SECOND / 20).await;
            }
        };
        timeout(PATIENCE, successor).await.unwrap_or_else(|_| panic!("no successor: {}", self.logs()))
    }

    /// The last lines of each log about the cluster.
    pub(super) fn logs(&self) -> String {
        let last = |program: &Program| {
            let log = program.log();
            let lines: Vec<_> = log.lines().filter(|line| line.contains("jobwatch::cluster")).collect();
            lines[lines.len().saturating_sub(12)..].join("\n")
        };
        self.programs.iter().map(last).collect::<Vec<_>>().join("\n--\n")
    }

    /// Kills one without a warning.
    pub(super) async fn kill(&mut self, number: usize) {
        self.programs[number].signal("KILL").await;
        self.programs[number].exit_code().await;
        self.remember(number);
    }

    /// Shuts one down.
    pub(super) async fn stop(&mut self, number: usize) {
        self.programs[number].signal("TERM").await;
        patiently(self.programs[number].exit_code()).await;
        self.remember(number);
    }

    fn remember(&mut self, number: usize) {
        self.sent.extend(sent_in(&self.programs[number].log()));
        let last = self.sent.iter().max().copied().unwrap_or_default();
        self.sent.retain(|at| *at + 30 * SECOND > last);
    }

    /// Starts another one in the place of one that ended.
    pub(super) async fn replace_ended(&mut self, number: usize) {
        self.programs[number] = self.program(number).await;
    }

    pub(super) fn clients(&self) -> Vec<Client> {
        self.programs.iter().map(Program::client).collect()
    }

    /// The server of NATS that a gateway is connected to.
    pub(super) fn server_of(&self, gateway: usize) -> usize {
        let log = self.programs[gateway].log();
        let (_, name) = log.rsplit_once("server=\"nats-").unwrap_or_else(|| panic!("{log}"));
        name.split('"').next().unwrap().parse().unwrap()
    }

    /// Sets what passes between a gateway and NATS.
    pub(super) fn link_to_nats(&self, gateway: usize, passes: Passes) {
        self.links[gateway].0.iter().for_each(|link| link.set(passes));
    }

    /// Sets what passes between a gateway and the vendor.
    pub(super) fn link_to_vendor(&self, gateway: usize, passes: Passes) {
        self.links[gateway].1.set(passes);
    }

    /// All requests that were sent by gateways that run, and lately by those that ended.
    pub(super) fn sent(&self) -> Vec<SentAt> {
        let running = self.programs.iter().flat_map(|program| sent_in(&program.log()));
        running.chain(self.sent.iter().copied()).collect()
    }

    /// Checks that all gateways together have not sent more requests in any second than the
    /// rate allows. Returns the most.
    pub(super) fn check_rate(&self, rate: usize) -> usize {
        let sent = self.sent();
        assert!(!sent.is_empty(), "the logs have no requests");
        assert_eq!(check_rate(&sent, rate), [""; 0]);
        most_in_a_second(&sent)
    }
}

/// Has a lease taken and released, so that gateways with a longer one needn't wait for a whole
/// one at their first start.
async fn release_a_lease(servers: &Servers) {
    let section = format!("[cluster]\nnats = {:?}\nname = \"gateways\"\nreplicas = 1\n", servers.urls());
    let dead = "[backends.immuta]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"\n";
    let cluster = Config::parse(&format!("{dead}{section}"), []).unwrap().cluster.unwrap();
    let (nats, _messages) = Nats::start(&cluster, 99);
    let me = Member { name: "first".into(), incarnation: 99 };
    let election = Election::start(nats, "immuta", me, Timing::of_lease(3 * SECOND), |_| None, |_| {});
    let is_owner = |ownership: &Ownership| matches!(ownership, Ownership::Owner { .. });
    patiently(election.ownership().wait_for(is_owner)).await.expect("it goes on");
    election.release(PATIENCE).await;
}

/// The number of the gateway that owns the backend and its epoch, as this log of gateway
/// `number` says.
pub(super) fn last_owner(log: &str, number: usize) -> Option<(usize, u64)> {
    let line = log.lines().rev().find(|line| line.contains("jobwatch::cluster::election"))?;
    let (_, epoch) = line.split_once("epoch=")?;
    let epoch = epoch.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    if line.contains("this replica owns") {
        return Some((number, epoch));
    }
    let (_, rest) = line.split_once("owner=\"gateway-")?;
    Some((rest.split('"').next()?.parse().ok()?, epoch))
}

/// The roles that a log names, one after the other, with the time of each.
pub(super) fn roles(log: &str) -> Vec<(String, String)> {
    let line = |line: &str| {
        let (_, rest) = line.split_once(" role=")?;
        line.contains("role changed").then_some(())?;
        Some((rest.split(' ').next()?.to_owned(), line.split(' ').next()?.to_owned()))
    };
    log.lines().filter_map(line).collect()
}
