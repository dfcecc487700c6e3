//! A gateway that is killed and started again at its address.

use jobwatch::{
    proto::v1::JobRef,
    simulators::{Plan, Simulator, Vendor},
};

use crate::{
    harness::*,
    program::{Program, command},
};

/// The built program in front of a simulated Immuta.
pub(crate) struct Restarted {
    pub(crate) simulator: Simulator,
    config: String,
    pub(crate) address: String,
    program: Program,
}

impl Restarted {
    pub(crate) async fn start() -> Self {
        let address = own_address().await.to_string();
        let simulator = simulator(Vendor::Immuta).await;
        let config = config_text(&format!("[server]\nlisten = \"{address}\""), [Backend::of(&simulator)]);
        let program = Program::run(command(&config), "info").await;
        Self { simulator, config, address, program }
    }

    /// Ends it without any notice to its clients.
    pub(crate) async fn kill(&mut self) {
        self.program.signal("KILL").await;
        self.program.exit_code().await;
    }

    /// Stops it as a rollout does: each watch ends with SHUTTING_DOWN.
    pub(crate) async fn stop(&mut self) {
        self.program.signal("TERM").await;
        assert_eq!(self.program.exit_code().await, Some(0));
    }

    pub(crate) async fn restart(&mut self) {
        self.program = Program::run(command(&self.config), "info").await;
    }

    /// Starts a job.
    pub(crate) fn job(&self, plan: Plan) -> JobRef {
        job_at(&self.simulator, &self.simulator.start_job(plan))
    }

    /// Returns once it has polled the vendor since its start: somebody waits for a job.
    pub(crate) async fn polled(&self, before: usize) {
        until(|| self.simulator.count("") > before).await;
    }
}
