//! What operators see of gateways that share a backend: metrics, the page, `/readyz` and
//! `jobwatch cluster status`.

use std::process::Stdio;

use jobwatch::{
    proto::v1::{ListBackendsRequest, ReplicaRole},
    simulators::Vendor,
};
use serde_json::Value;
use tokio::{process::Command, time::sleep};

use super::{SECOND, servers::Servers};
use crate::{
    harness::*,
    program::{Program, command, executable},
};

/// A gateway, and its admin address.
struct Operated {
    program: Program,
    admin: String,
}

impl Operated {
    async fn start(servers: &Servers, number: usize, backend: Backend) -> Self {
        let sections = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[cluster]\nnats = \
             {:?}\nname = \"operated\"\nreplicas = 2\nmember = \"gateway-{number}\"\nlease = \"4s\"\n",
            servers.urls()
        );
        let program = Program::run(command(&config_text(&sections, [backend])), "info").await;
        let admin = program.address_after("admin address is ").await;
        Self { program, admin: format!("http://{admin}") }
    }

    async fn get(&self, path: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let response = guard(client.get(format!("{}{path}", self.admin)).send()).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        guard(response.text()).await.unwrap()
    }

    /// The value of a series.
    async fn metric(&self, series: &str) -> f64 {
        let text = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    async fn has_role(&self, role: &str) -> bool {
        let series = format!("jobwatch_cluster_role{{backend=\"shared\",role=\"{role}\"}}");
        self.metric(&series).await > 0.5
    }

    async fn until_role(&self, role: &str) {
        while !self.has_role(role).await {
            sleep(SECOND / 10).await;
        }
    }

    /// The role that ListBackends has, and the owner; as callers see them.
    async fn listed(&self) -> (ReplicaRole, String) {
        let response = guard(self.program.client().list_backends(ListBackendsRequest {})).await.unwrap();
        let [backend] = &response.get_ref().backends[..] else { panic!("{response:?}") };
        (backend.replica_role(), backend.replica_owner.clone())
    }

    async fn readiness(&self) -> Value {
        serde_json::from_str(&self.get("/readyz").await).unwrap()
    }
}

/// What `jobwatch cluster status` printed, and its exit code.
struct Shown {
    code: i32,
    out: String,
    err: String,
}

async fn status(arguments: &[&str]) -> Shown {
    let mut command = Command::new(executable());
    command.args(["cluster", "status"]).args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = guard(command.output()).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Shown { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// The cells of the row of one replica.
fn row<'a>(table: &'a str, replica: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.split_whitespace().nth(1) == Some(replica));
    line.unwrap_or_else(|| panic!("no {replica} in {table}"))
        .split("  ")
        .map(str::trim)
        .filter(|cell| !cell.is_empty())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_owner_follower_and_isolation() {
    let mut servers = Servers::start(1, "");
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).named("shared").poll("requests_per_second", "20");
    let owner = Operated::start(&servers, 0, backend.clone()).await;
    guard(owner.until_role("owner")).await;
    let follower = Operated::start(&servers, 1, backend).await;
    guard(follower.until_role("follower")).await;
    let arguments = ["-o", "table", "--admin", &owner.admin, "--admin", &follower.admin];

    for gateway in [&owner, &follower] {
        assert!(gateway.metric("jobwatch_cluster_connected").await > 0.5);
        assert!(gateway.metric("jobwatch_cluster_lease_epoch{backend=\"shared\"}").await > 0.5);
        assert!(gateway.metric("jobwatch_cluster_owner_changes_total{backend=\"shared\"}").await < 0.5);
        assert!(!gateway.has_role("isolated").await && !gateway.has_role("starting").await);
        let readiness = gateway.readiness().await;
        assert_eq!(readiness["cluster"]["status"], "sharing", "{readiness}");
    }
    assert!(owner.metric("jobwatch_cluster_sessions").await > 0.5, "the follower's");
    assert!(follower.metric("jobwatch_cluster_sessions").await < 0.5);
    let (at_owner, at_follower) = (owner.get("/").await, follower.get("/").await);
    assert!(at_owner.contains("<h2 id=\"replicas-title\">Replicas</h2>"), "{at_owner}");
    assert!(at_owner.contains("<span class=\"badge good\">owner</span>"), "{at_owner}");
    assert!(at_follower.contains("<span class=\"badge good\">follower</span>"), "{at_follower}");
    assert!(at_follower.contains("<bdi>gateway-0</bdi>"), "{at_follower}");

    assert_eq!(owner.listed().await, (ReplicaRole::Owner, "gateway-0".to_owned()));
    assert_eq!(follower.listed().await, (ReplicaRole::Follower, "gateway-0".to_owned()));

    let shown = status(&arguments).await;
    assert_eq!((shown.code, &*shown.err), (0, ""), "{}", shown.out);
    let (first, second) = (row(&shown.out, "gateway-0"), row(&shown.out, "gateway-1"));
    assert_eq!(
        (first[2], first[4], first[6], first[7]),
        ("OWNER", "gateway-0", "1", "2/18"),
        "{}",
        shown.out
    );
    assert_eq!((second[2], second[4], second[6]), ("FOLLOWER", "gateway-0", "0"), "{}", shown.out);
    assert_eq!((first[5], first[8]), (second[5], "nats-0"), "{}", shown.out);

    servers.kill_one(0);
    for gateway in [&owner, &follower] {
        guard(gateway.until_role("isolated")).await;
        assert!(gateway.metric("jobwatch_cluster_connected").await < 0.5);
        assert_eq!(gateway.listed().await.0, ReplicaRole::Isolated);
        let readiness = gateway.readiness().await;
        assert_eq!(readiness["status"], "ready");
        assert_eq!(readiness["cluster"]["isolated_backends"][0], "shared", "{readiness}");
        assert!(readiness["cluster"]["not_connected"].is_string(), "{readiness}");
        let page = gateway.get("/").await;
        assert!(page.contains("<span class=\"badge bad\">isolated</span>"), "{page}");
        assert!(page.contains("<span class=\"badge bad\">not connected</span>"), "{page}");
    }
    let shown = status(&arguments).await;
    assert_eq!(shown.code, 1, "{} {}", shown.out, shown.err);
    assert_eq!(row(&shown.out, "gateway-1")[2], "ISOLATED", "{}", shown.out);
    assert!(shown.out.contains("not connected for "), "{}", shown.out);
    for problem in
        ["problem: gateway-0 is not connected to NATS: ", "problem: shared: gateway-1 has been isolated for "]
    {
        assert!(shown.err.contains(problem), "{}", shown.err);
    }
    let shown = status(&["-o", "json", "--admin", &follower.admin, "--admin", "127.0.0.1:1"]).await;
    assert_eq!(shown.code, 3, "{} {}", shown.out, shown.err);
    assert!(shown.err.starts_with("error: http://127.0.0.1:1: "), "{}", shown.err);
    let document: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(document["replicas"][0]["status"]["backends"][0]["role"], "isolated", "{document}");
    assert!(document["replicas"][1]["error"].is_string(), "{document}");

    servers.start_one(0);
    let one_owns = async {
        loop {
            let shown = status(&arguments).await;
            if shown.code == 0 {
                return shown;
            }
        }
    };
    let shown = guard(one_owns).await;
    let mut roles = [row(&shown.out, "gateway-0")[2], row(&shown.out, "gateway-1")[2]];
    roles.sort_unstable();
    assert_eq!(roles, ["FOLLOWER", "OWNER"], "{}", shown.out);

    for (gateway, roles) in [(&owner, ["owner", "isolated"]), (&follower, ["follower", "isolated"])] {
        let log = gateway.program.log();
        for role in roles {
            assert!(log.contains(&format!("backend=\"shared\" role={role} owner=")), "{role}: {log}");
        }
        assert!(!log.contains(" async_nats"), "{log}");
        let connections = log.lines().filter(|line| line.contains("connected to NATS"));
        // A server that is not there yet is none that was lost.
        let connections = connections.map(|line| !line.contains("not connected to NATS"));
        let connections: Vec<_> = connections.skip_while(|is_connected| !is_connected).collect();
        assert!(connections.starts_with(&[true, false]) && connections.ends_with(&[true]), "{log}");
        assert!(connections.windows(2).all(|pair| pair != [true, true]), "said twice: {log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_replicas_than_there_may_be_are_known_to_the_owner_and_said_once() {
    let servers = Servers::start(1, "");
    let simulator = simulator(Vendor::Immuta).await;
    let backend = Backend::of(&simulator).named("shared").poll("requests_per_second", "20");
    let owner = Operated::start(&servers, 0, backend.clone()).await;
    guard(owner.until_role("owner")).await;
    let follower = Operated::start(&servers, 1, backend.clone()).await;
    guard(follower.until_role("follower")).await;
    assert!((owner.metric("jobwatch_cluster_replicas").await - 2.0).abs() < 0.5);
    assert!((owner.metric("jobwatch_cluster_replicas_limit").await - 2.0).abs() < 0.5);
    let third = Operated::start(&servers, 2, backend).await;
    guard(third.until_role("follower")).await;
    let said = |text: &'static str| {
        let owner = &owner;
        async move {
            while !owner.program.log().contains(text) {
                sleep(SECOND / 10).await;
            }
        }
    };
    guard(said("known=3 replicas=2")).await;
    guard(said("set cluster.replicas to 3 at all of them, or run fewer")).await;
    assert!((owner.metric("jobwatch_cluster_replicas").await - 3.0).abs() < 0.5);
    assert!(owner.get("/").await.contains("<span class=\"badge bad\">too many replicas</span>"));
    let document: Value = serde_json::from_str(&owner.get("/cluster").await).unwrap();
    assert_eq!(document["replicas_known"], 3, "{document}");
    // The two others were not asked.
    let shown = status(&["-o", "table", "--admin", &owner.admin]).await;
    assert_eq!(shown.code, 1, "{} {}", shown.out, shown.err);
    let problem = "problem: 3 replicas run, and cluster.replicas is 2: together they may exceed";
    assert!(shown.err.contains(problem), "{}", shown.err);
    drop(third);
    guard(said("no more replicas run than cluster.replicas says")).await;
    let log = owner.program.log();
    assert_eq!(log.matches("set cluster.replicas to").count(), 1, "{log}");
    let document: Value = serde_json::from_str(&follower.get("/cluster").await).unwrap();
    assert_eq!(document["replicas_known"], 1, "a follower sees nobody: {document}");
}

#[tokio::test]
async fn gateway_without_a_cluster_shows_nothing_of_one() {
    let sections = "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n";
    let backend = Backend::dead(Vendor::Immuta).await;
    let program = Program::run(command(&config_text(sections, [backend])), "info").await;
    let admin = format!("http://{}", program.address_after("admin address is ").await);
    let gateway = Operated { program, admin };
    assert!(!gateway.get("/metrics").await.contains("jobwatch_cluster"));
    assert!(!gateway.get("/").await.contains("Replicas"));
    assert_eq!(gateway.readiness().await.get("cluster"), None);
    let shown = status(&["--admin", &gateway.admin]).await;
    assert_eq!(shown.code, 3);
    assert_eq!(shown.err, format!("error: {}: its configuration has no section [cluster]\n", gateway.admin));
}

#[tokio::test]
async fn admin_address_that_is_none_is_refused_with_the_form_to_write() {
    for (address, why) in [
        ("https://gateway:9090", "the admin address does not speak TLS; "),
        ("http://gateway:9090/metrics", ""),
    ] {
        let shown = status(&["--admin", address]).await;
        assert_eq!(shown.code, 2, "{}", shown.err);
        let wanted =
            format!("{why}write the admin address as http://HOST:PORT, such as http://127.0.0.1:9090");
        assert!(shown.err.contains(&wanted), "{}", shown.err);
    }
}
