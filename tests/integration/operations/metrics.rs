//! `/metrics`: its format, its figures, and what the documents say of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use jobwatch::{
    proto::v1::ListBackendsRequest,
    simulators::{Effect, Fault, Plan, Vendor},
};

use super::{Admin, exposition, program_with};
use crate::harness::*;

async fn families(admin: &Admin) -> BTreeMap<String, exposition::Family> {
    let (code, text) = admin.get("/metrics").await;
    assert_eq!(code, 200, "{text}");
    exposition::read(&text)
}

/// Rows of the table in docs/metrics.md: name, type, labels.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(path).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> =
            line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
        let labels = cells[2].split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
        let before = rows.insert(cells[0].clone(), (cells[1].clone(), labels));
        assert!(before.is_none(), "{} stands twice", cells[0]);
    }
    rows
}

#[tokio::test]
async fn documented_metrics_are_those_that_exist() {
    let claret = simulator(Vendor::Claret).await;
    let (program, admin) = program_with("", [Backend::of(&claret).every(ms(10))]).await;
    let job = job_at(&claret, &claret.start_job(Plan::fixed("in_progress")));
    get(&program.client(), &job).await.unwrap();
    let mut watch = Watch::of(&program.client(), &job).await;
    watch.status().await;
    claret.inject(Fault::new(Effect::status(503, "")));
    watch.interruption().await;
    let mut found = families(&admin).await;

    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    fs::write(path("cert.pem"), key.cert.pem()).unwrap();
    fs::write(path("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let tls = format!(
        "[server.tls]\ncert = {:?}\nkey = {:?}\n[traces]\nendpoint = \"http://127.0.0.1:9\"\n",
        path("cert.pem"),
        path("key.pem")
    );
    let (_program, admin) = program_with(&tls, [Backend::of(&claret)]).await;
    let with_tls = families(&admin).await;
    let end = with_tls["jobwatch_certificate_expiry_timestamp_seconds"].sum(&[]);
    assert!(end > 1e9, "{end}");
    found.extend(
        with_tls.into_iter().filter(|(name, _)| name.contains("certificate") || name.contains("spans")),
    );

    let is_of_cluster = |name: &str| name.starts_with("jobwatch_cluster_");
    assert!(!found.keys().any(|name| is_of_cluster(name)), "only with [cluster]");
    // It works without NATS.
    let cluster = "[cluster]\nnats = [\"nats://127.0.0.1:9\"]\nname = \"test\"\nreplicas = 2\n";
    let (_program, admin) = program_with(cluster, [Backend::of(&claret)]).await;
    found.extend(families(&admin).await.into_iter().filter(|(name, _)| is_of_cluster(name)));

    let found: BTreeMap<_, _> =
        found.into_iter().map(|(name, family)| (name, (family.kind, family.labels))).collect();
    assert_eq!(found, documented());
}

/// Every file below `folder`.
fn files(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|end| end == "json" || end == "yml" || end == "yaml") {
            into.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The words of a text that begin like a metric.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let is_metric = |word: &&str| word.starts_with("jobwatch_") || word.starts_with("process_");
    words.filter(is_metric).collect()
}

#[test]
fn dashboards_alerts_and_expressions_use_documented_metrics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = vec![fs::read_to_string(root.join("docs/metrics.md")).unwrap()];
    files(&root.join("deploy"), &mut texts);
    let documented = documented();
    let known = |word: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
        let is_histogram = |name: &str| documented.get(name).is_some_and(|(kind, _)| kind == "histogram");
        documented.contains_key(word) || of_histogram.is_some_and(is_histogram)
    };
    for text in &texts {
        for word in metrics_in(text) {
            assert!(known(word) || word == "process_", "{word} is not documented");
        }
    }
    assert!(!known("jobwatch_rpcs_total_bucket") && known("jobwatch_poll_jobs_sum"));
}

#[tokio::test]
async fn calls_polls_and_their_subscribers_are_counted() {
    let simulator = simulator(Vendor::Immuta).await;
    let (program, admin) = program_with("", [Backend::of(&simulator).every(ms(20))]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    let client = program.client();
    let mut watches = Vec::new();
    for _ in 0..5 {
        let mut watch = Watch::of(&client, &job).await;
        watch.status().await;
        watches.push(watch);
    }
    for _ in 0..3 {
        get(&client, &job).await.unwrap();
    }
    get(&client, &self::job("immuta", "none such")).await.unwrap_err();
    guard(client.clone().list_backends(ListBackendsRequest {})).await.unwrap();
    let families_now = families(&admin).await;
    let sum = |name: &str, parts: &[&str]| families_now[name].sum(parts);
    let calls = |method: &str, code: &str| {
        sum("jobwatch_rpcs_total", &[&format!("method=\"{method}\""), &format!("code=\"{code}\"")])
    };
    let same = |a: f64, b: f64| (a - b).abs() < 0.5;
    assert!(same(calls("GetJobStatus", "OK"), 3.0) && same(calls("GetJobStatus", "NOT_FOUND"), 1.0));
    assert!(same(calls("ListBackends", "OK"), 1.0) && same(calls("WatchJob", "OK"), 0.0));
    assert!(same(sum("jobwatch_rpcs_in_flight", &["WatchJob\""]), 5.0));
    assert!(same(sum("jobwatch_rpc_duration_seconds", &["_count", "GetJobStatus"]), 4.0));
    assert!(same(sum("jobwatch_watches_open", &[]), 5.0));
    assert!(same(sum("jobwatch_connections_open", &[]), 1.0));
    assert!(same(sum("jobwatch_subscriptions_total", &["immuta"]), 9.0));
    assert!(same(sum("jobwatch_status_age_seconds", &["_count"]), 3.0));
    assert!(sum("jobwatch_polls_total", &["outcome=\"ok\""]) >= 4.0);
    // Each poll after the first serves five watches.
    assert!(sum("jobwatch_poll_subscribers_total", &["immuta"]) >= 9.0);
    drop(watches);
    let ended = async {
        while families(&admin).await["jobwatch_rpcs_in_flight"].sum(&["WatchJob\""]) > 0.5 {}
        families(&admin).await["jobwatch_rpcs_total"].sum(&["WatchJob\"", "CANCELLED"])
    };
    assert!(same(guard(ended).await, 5.0));
}

#[tokio::test]
async fn open_circuit_breaker_is_seen_in_metrics() {
    let dead = Backend::dead(Vendor::Immuta).await.every(ms(10));
    let (program, admin) = program_with("", [dead]).await;
    let before = families(&admin).await;
    assert!(before["jobwatch_backend_up"].sum(&[]) > 0.5 && before["jobwatch_circuit_state"].sum(&[]) < 0.5);
    let mut watch = Watch::of(&program.client(), &job("immuta", "1")).await;
    watch.interruption().await;
    let opens = async {
        loop {
            let now = families(&admin).await;
            if now["jobwatch_backend_up"].sum(&[]) < 0.5 && now["jobwatch_circuit_state"].sum(&[]) > 0.5 {
                return now;
            }
        }
    };
    let now = guard(opens).await;
    assert!(now["jobwatch_polls_total"].sum(&["outcome=\"unreachable\""]) >= 5.0);
    assert!((now["jobwatch_backend_outages_total"].sum(&[]) - 1.0).abs() < 0.5);
}

#[tokio::test]
async fn calls_of_identified_callers_are_counted_by_their_names() {
    let simulator = simulator(Vendor::Immuta).await;
    let access = "[access]\npolicies = [{ principals = [\"anonymous\"] }]\n";
    let (program, admin) = program_with(access, [Backend::of(&simulator)]).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    get(&program.client(), &job).await.unwrap();
    let families = families(&admin).await;
    assert!((families["jobwatch_rpcs_total"].sum(&["principal=\"anonymous\""]) - 1.0).abs() < 0.5);
}
