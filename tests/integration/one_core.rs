//! The program on one core runs on one thread, beside those that write the log and read files.

use jobwatch::{
    proto::v1::JobState as S,
    simulators::{Outcome, Plan, Vendor},
};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    harness::*,
    program::{Program, command},
};

#[tokio::test]
async fn program_on_one_core_runs_on_one_thread_and_serves_and_stops() {
    let simulator = simulator(Vendor::Immuta).await;
    let job = job_at(&simulator, &simulator.start_job(Plan::succeeds(Outcome::Nothing).running_for(ms(300))));
    let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", [Backend::of(&simulator)]);

    // A child process inherits this thread's CPU affinity.
    let all = sched_getaffinity(None).unwrap();
    let core = (0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).unwrap();
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).unwrap();
    let mut program = Program::run(command(&config), "info").await;
    sched_setaffinity(None, &all).unwrap();

    // Other threads write the log and read files. Calls are served by the first one, which with a
    // pool of threads would only wait.
    let client = program.client();
    let (of_first, of_all) = (program.processor_time_of_first_thread(), program.processor_time());
    for _ in 0..100 {
        get(&client, &job).await.unwrap();
    }
    let of_first = program.processor_time_of_first_thread().saturating_sub(of_first);
    let of_all = program.processor_time().saturating_sub(of_all);
    assert!(!of_first.is_zero() && of_first * 2 > of_all, "{of_first:?} of {of_all:?}");
    let mut watch = Watch::of(&client, &job).await;
    while watch.next_status().await.state() != S::Succeeded {}
    assert!(watch.end().await.is_ok());
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(0));
}
