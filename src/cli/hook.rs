//! The command of `watch --exec`, which runs when a job has ended.
//!
//! What the gateway says of the job reaches it in environment variables only, so that no
//! shell interprets it.

use std::{process::Stdio, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::Semaphore,
    task::JoinSet,
};

use super::{
    fault,
    render::{self, word},
    row::Row,
};

/// Most commands that run at once.
const AT_ONCE: usize = 8;
/// How much of a command's output is shown.
const MAX_OUTPUT: u64 = 64 << 10;

/// How a command ended.
#[derive(Debug)]
pub(super) struct HookEnd {
    /// What it wrote, and its failure if it failed.
    pub(super) text: String,
    /// Whether it exited with 0.
    pub(super) is_success: bool,
}

/// The commands that run for jobs that have ended.
#[derive(Debug)]
pub(super) struct Hooks {
    command: String,
    permits: Arc<Semaphore>,
    running: JoinSet<HookEnd>,
}

impl Hooks {
    /// Runs `command` with the shell.
    pub(super) fn new(command: String) -> Self {
        Self { command, permits: Arc::new(Semaphore::new(AT_ONCE)), running: JoinSet::new() }
    }

    /// Starts the command for a job.
    pub(super) fn start(&mut self, row: &Row) {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).envs(variables(row));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let (name, permits) = (row.name.clone(), Arc::clone(&self.permits));
        self.running.spawn(async move {
            let _permit = permits.acquire_owned().await;
            run(&name, command).await
        });
    }

    /// The end of one of the commands; pending while none runs.
    pub(super) async fn ended(&mut self) -> HookEnd {
        match self.running.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(error)) => HookEnd { text: format!("--exec: {error}\n"), is_success: false },
            None => std::future::pending().await,
        }
    }

    /// Whether no command runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }
}

/// The variables that describe the job.
fn variables(row: &Row) -> Vec<(&'static str, String)> {
    let status = row.status.as_ref();
    let error = match (&row.failed, status.and_then(|status| status.error.as_ref())) {
        (Some(failed), _) => format!("{}: {}", fault::code(failed.code()), failed.message()),
        (None, error) => error.map(|error| error.message.clone()).unwrap_or_default(),
    };
    let state = status.filter(|_| row.failed.is_none()).map_or("NO_STATUS", |status| word(status.state()));
    let vendor_state = status.map(|status| status.vendor_state.clone()).unwrap_or_default();
    let variables = [
        ("JOBWATCH_JOB", render::name(&row.job)),
        ("JOBWATCH_BACKEND", row.job.backend.clone()),
        ("JOBWATCH_JOB_ID", row.job.job_id.clone()),
        ("JOBWATCH_STATE", state.to_owned()),
        ("JOBWATCH_VENDOR_STATE", vendor_state),
        ("JOBWATCH_ERROR", error),
    ];
    // A variable can't hold NUL.
    variables.into_iter().map(|(name, value)| (name, value.replace('\0', ""))).collect()
}

async fn run(name: &str, mut command: Command) -> HookEnd {
    let failed = |why: String| HookEnd { text: format!("--exec for {name}: {why}\n"), is_success: false };
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return failed(format!("sh can't be started: {error}")),
    };
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (out, err, status) = tokio::join!(start_of(out), start_of(err), child.wait());
    let text = out + &err;
    match status {
        Ok(status) if status.success() => HookEnd { text, is_success: true },
        Ok(status) => HookEnd { text: text + &failed(status.to_string()).text, is_success: false },
        Err(error) => failed(error.to_string()),
    }
}

/// The beginning of what a command writes. The rest is read and dropped, so that the
/// command does not block.
async fn start_of(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut bytes = Vec::new();
    let read = (&mut pipe).take(MAX_OUTPUT).read_to_end(&mut bytes).await;
    if read.is_ok() {
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}
