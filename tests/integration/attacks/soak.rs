//! All attacks beside an honest load, for as long as `JOBWATCH_SOAK_SECONDS` says.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::time::Instant;
use tonic::codec::CompressionEncoding;

use super::{bytes_held, errors, frames, *};

/// How many rows a long run prints.
const ROWS: u64 = 20;

/// Attacks by bytes, one after the other.
async fn bytes(address: SocketAddr, large: JobRef, stop: Arc<AtomicBool>) -> usize {
    let bombs = [
        ("gzip", errors::bomb(CompressionEncoding::Gzip).await),
        ("zstd", errors::bomb(CompressionEncoding::Zstd).await),
    ];
    let watch = frame(&full_watch(&large).encode_to_vec());
    let mut rounds = 0;
    loop {
        bytes_held::duplicates(address, large.clone()).await;
        let held = bytes_held::unread(address, 2, "GetJobStatus", cached(&large)).await;
        for bomb in bombs.clone() {
            errors::send_bombs(address, bomb, 20).await;
        }
        drop(held);
        let held = bytes_held::unread(address, 2, "WatchJob", watch.clone()).await;
        bytes_held::adds(address, 10_000).await;
        drop(held);
        let held = (bytes_held::unfinished(address).await, bytes_held::long_names(address, 500).await);
        bytes_held::duplicates(address, large.clone()).await;
        drop(held);
        rounds += 1;
        if stop.load(Relaxed) {
            return rounds;
        }
    }
}

/// Attacks by frames and connections, one after the other.
async fn floods(address: SocketAddr, stop: Arc<AtomicBool>) -> usize {
    let mut rounds = 0;
    loop {
        for code in [
            frames::settings_flood(address).await,
            frames::rapid_reset(address).await,
            frames::provoked_resets(address).await,
        ] {
            assert!(frames::is_calmed(code), "{code:?}");
        }
        let mut idle = Vec::new();
        for _ in 0..140 {
            idle.push(frames::connect_raw(address).await);
        }
        drop(idle);
        rounds += 1;
        if stop.load(Relaxed) {
            return rounds;
        }
    }
}

#[tokio::test]
async fn mixed_attacks_for_a_while_leave_everything_as_it_was() {
    let seconds = std::env::var("JOBWATCH_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(0));
    let scene = Scene::start("soak").await;
    let large = bytes_held::large_job(&scene, 1 << 20).await;
    let quiet = scene.calls(200).await;
    let before = scene.figures().await;
    println!(
        "| minutes | memory | descriptors | tasks | honest calls | p50 / p99 ms | watches to their end |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    print_row(0.0, &before, quiet, 0);
    let stop = Arc::new(AtomicBool::new(seconds.is_none()));
    let attacks = scene::spawn({
        let (address, stop) = (scene.address(), Arc::clone(&stop));
        async move { tokio::join!(bytes(address, large, Arc::clone(&stop)), floods(address, stop)) }
    });
    let began = Instant::now();
    let mut next_watch = began;
    let mut next = length / u32::try_from(ROWS).unwrap();
    while !attacks.is_finished() {
        let mut times = Vec::new();
        let mut watches = 0;
        while !attacks.is_finished() && began.elapsed() < next {
            times.extend(scene.calls(50).await);
            // The statuses of ended jobs are kept, and are not to be mistaken for a leak.
            if Instant::now() < next_watch {
                continue;
            }
            next_watch = Instant::now() + Duration::from_secs(1);
            let started = scene.simulator.start_job(Plan::fixed("active"));
            let mut watch = Watch::of(&scene.honest, &job_at(&scene.simulator, &started)).await;
            watch.status().await;
            scene.simulator.finish(&started.id);
            watch.terminal_status().await;
            watches += 1;
        }
        if !times.is_empty() {
            print_row(began.elapsed().as_secs_f64() / 60.0, &scene.figures().await, times, watches);
        }
        next += (length / u32::try_from(ROWS).unwrap()).max(Duration::from_secs(1));
        if began.elapsed() >= length {
            stop.store(true, Relaxed);
        }
    }
    let (bytes, floods) = attacks.await.unwrap();
    println!("{bytes} rounds of attacks by bytes, {floods} of attacks by frames");
    let after = scene.settle(&before).await;
    print_row(began.elapsed().as_secs_f64() / 60.0, &after, scene.calls(200).await, 0);
    let peak = scene.program.peak_memory();
    println!("peak {} MB", peak / 1_000_000);
    assert!(peak < BUDGET + 64 * MIB, "a peak of {} MiB", peak / MIB);
}

fn print_row(minutes: f64, figures: &scene::Figures, times: Vec<Duration>, watches: usize) {
    let calls = times.len();
    println!(
        "| {minutes:.1} | {:.0} | {} | {} | {calls} | {} | {watches} |",
        figures.memory as f64 / 1e6,
        figures.descriptors,
        figures.tasks,
        scene::quantiles(times),
    );
}
