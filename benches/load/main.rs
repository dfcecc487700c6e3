//! Measures the gateway beside a floor: `make bench`, or
//! `cargo bench --bench load -- [--short] [--only ROW] [--json FILE]`.
//!
//! One program in several roles. It starts itself as the *floor* (a bare tonic server
//! with the same messages, a bare HTTP client, or both together) and as the *vendor*, and
//! the gateway as it was built. Whatever is measured has one core for itself; load and vendor
//! share the other. Where a row has a floor, both are measured in short slices, one
//! after the other, so that whatever else the machine does hits both.
//!
//! It fails only if a response is wrong or missing. A goal that is missed is a
//! result.

use std::{error::Error, path::PathBuf, process::ExitCode};

use clap::Parser;
use tokio::runtime::Runtime;

mod caller;
mod floor;
mod gateway;
mod http2;
mod load;
mod machine;
mod message;
mod options;
mod process;
mod report;
mod rows;
mod vendor;
mod watching;

use machine::{Cores, Machine};
use options::Options;
use report::Row;
use rows::Bench;

/// The floor and the caller have the gateway's allocator.
#[cfg(all(feature = "jemalloc", not(target_env = "msvc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What anything here comes to.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first().map(|(role, args)| (role.as_str(), args)) {
        Some(("floor", args)) => runtime().and_then(|on| on.block_on(ends_with_input(floor::serve(args)))),
        Some(("upstream", args)) => {
            runtime().and_then(|on| on.block_on(ends_with_input(floor::serve_calling(args))))
        }
        Some(("caller", args)) => runtime().and_then(|on| caller::work(&on, args)),
        Some(("vendor", _)) => one_thread(ends_with_input(vendor::serve())),
        _ => run(Options::parse()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn one_thread(role: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(role)
}

/// As the gateway has it on one core.
fn runtime() -> Outcome<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// A role runs until its parent process ends.
async fn ends_with_input(role: impl Future<Output = Outcome>) -> Outcome {
    // A thread of its own waits for the end of the input, and is not waited for.
    let (ended, input) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    tokio::select! {
        done = role => done,
        _ = input => Ok(()),
    }
}

fn run(options: Options) -> Outcome {
    let Options { short, only, json, gateway, baseline, turns, bench: _ } = options;
    let cores = Cores::find()?;
    machine::pin(cores.load)?;
    let bench = Bench { cores, gateway: gateway.unwrap_or_else(gateway::built), short };
    let baseline = baseline.map(|gateway| Bench { gateway, ..bench.clone() });
    let run = Run { bench, baseline, turns: turns.max(1) };
    one_thread(async {
        tokio::select! {
            done = run.measure(only, json.unwrap_or_else(default_json)) => done,
            () = interrupted() => Err("interrupted".into()),
        }
    })
}

/// A signal that ends this process also ends its child processes.
async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = term.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

fn default_json() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target")), PathBuf::from);
    target.join("bench/load.json")
}

/// What is measured, and how often.
struct Run {
    bench: Bench,
    baseline: Option<Bench>,
    turns: usize,
}

impl Run {
    async fn measure(&self, only: Vec<String>, json: PathBuf) -> Outcome {
        let names = if only.is_empty() { self.bench.names().map(str::to_owned).collect() } else { only };
        let machine = Machine::describe();
        println!("{machine}\n");
        print!("{}", if self.baseline.is_some() { report::HEAD_WITH_BASELINE } else { report::HEAD });
        let (mut measured, mut baselines) = (Vec::new(), Vec::new());
        for name in names {
            let (row, baseline) = self.row(&name).await.map_err(|error| format!("{name}: {error}"))?;
            print!("{}", row.lines(baseline.as_ref()));
            measured.push(row);
            baselines.extend(baseline);
            report::write(&json, &machine, self.bench.short, &measured, &baselines)?;
        }
        println!("\nFigures for programs: {}", json.display());
        Ok(())
    }

    /// Measures one row with the baseline and with the gateway, in turns.
    async fn row(&self, name: &str) -> Outcome<(Row, Option<Row>)> {
        let (mut row, mut baseline) = (None, None);
        for _ in 0..self.turns {
            if let Some(bench) = &self.baseline {
                let again = bench.row(name).await.map_err(|error| format!("the baseline: {error}"))?;
                merge(&mut baseline, again);
            }
            merge(&mut row, self.bench.row(name).await?);
        }
        Ok((row.ok_or("nothing was measured")?, baseline))
    }
}

fn merge(row: &mut Option<Row>, again: Row) {
    match row {
        Some(row) => row.merge(again),
        None => *row = Some(again),
    }
}
