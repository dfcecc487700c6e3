//! Wall clocks that are wrong. Leases and sessions count on monotonic clocks alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jobwatch::simulators::Vendor;

use super::{
    SECOND,
    rig::{Gateways, LEASE},
    servers::Servers,
    workload::Workload,
};
use crate::harness::*;

/// The library that `make tools` installs.
fn library() -> PathBuf {
    if let Some(library) = std::env::var_os("JOBWATCH_FAKETIME") {
        return library.into();
    }
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/debian/usr/lib");
    let found = std::fs::read_dir(&folders).into_iter().flatten().find_map(|folder| {
        let path = folder.ok()?.path().join("faketime/libfaketimeMT.so.1");
        path.exists().then_some(path)
    });
    found.unwrap_or_else(|| panic!("libfaketime is missing in {}: run `make tools`", folders.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_whose_clocks_are_an_hour_wrong_share_the_work_and_survive_a_kill() {
    const RATE: usize = 18;
    let simulator = Arc::new(simulator(Vendor::Immuta).await);
    let backend = Backend::of(&simulator)
        .every(SECOND / 2)
        .poll("requests_per_second", &RATE.to_string())
        .poll("max_batch", "1");
    let mut gateways = Gateways::prepared(Servers::start(1, ""), backend, LEASE).await;
    let library = library().display().to_string();
    for (number, offset) in ["+1h", "-1h"].into_iter().enumerate() {
        let variables = [
            ("LD_PRELOAD", &*library),
            ("FAKETIME", offset),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
        ];
        gateways.environment[number] = variables.map(|(name, value)| (name, value.to_owned())).into();
    }
    let mut gateways = gateways.run().await;
    let hour = |number: usize| {
        let log = gateways.programs[number].log();
        let time: jiff::Timestamp = log.split(' ').next().unwrap().parse().unwrap();
        time.duration_since(jiff::Timestamp::now()).as_secs_f64() / 3600.0
    };
    assert!(hour(0) > 0.5 && hour(1) < -0.5 && hour(2).abs() < 0.5, "{} {} {}", hour(0), hour(1), hour(2));
    let mut workload = Workload::start(&simulator, (0..6).map(|number| format!("job-{number}")));
    workload.watch_anywhere(&gateways.clients()).await;
    for _ in 0..3 {
        let (owner, epoch) = gateways.together().await;
        workload.hear(|_| true).await;
        gateways.kill(owner).await;
        gateways.replace_ended(owner).await;
        gateways.agreed(|_, now| now > epoch).await;
    }
    gateways.together().await;
    workload.hear(|_| true).await;
    workload.finish_right().await;
    gateways.check_rate(RATE);
}

/// The wall clock is for people only.
#[test]
fn cluster_reads_the_wall_clock_only_for_what_it_shows() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cluster");
    let mut folders = vec![folder.clone()];
    let mut readers = Vec::new();
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            if ["SystemTime", "Timestamp::now", "Zoned::now"].iter().any(|clock| text.contains(clock)) {
                readers.push(path.strip_prefix(&folder).unwrap().display().to_string());
            }
        }
    }
    readers.sort();
    assert_eq!(readers, ["replica.rs", "status.rs"]);
}
