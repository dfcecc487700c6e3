//! The command of `watch --exec`, which runs when a job has ended.
//!
//! What the gateway says of the job reaches it in environment variables only, so that no
//! shell interprets it.

use std::{process::Stdio, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::{
    fault,
    render::{self, word},
    row::Row,
};

/// Most commands that run at once.
const AT_ONCE: usize = 8;
/// How much of a command's output is shown.
const MAX_OUTPUT: usize = 64 << 10;
/// How long to read on after a command has ended: a process that it left running may hold the pipe.
const LINGER: Duration = Duration::from_millis(200);

/// How a command ended.
#[derive(Debug)]
pub(super) struct HookEnd {
    /// The place of the job's row; none if it is unknown.
    pub(super) at: Option<usize>,
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

    /// Starts the command for the job of a row.
    pub(super) fn start(&mut self, at: usize, row: &mut Row) {
        row.has_command = true;
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).envs(variables(row));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        let (name, permits) = (row.name.clone(), Arc::clone(&self.permits));
        self.running.spawn(async move {
            let _permit = permits.acquire_owned().await;
            let (text, is_success) = run(&name, command).await;
            HookEnd { at: Some(at), text, is_success }
        });
    }

    /// The end of one of the commands; pending while none runs.
    pub(super) async fn ended(&mut self) -> HookEnd {
        match self.running.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(error)) => HookEnd { at: None, text: format!("--exec: {error}\n"), is_success: false },
            None => std::future::pending().await,
        }
    }

    /// Whether no command runs.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends all commands and what they have started, and returns how many there were.
    pub(super) async fn end(&mut self) -> usize {
        let count = self.running.len();
        self.running.shutdown().await;
        count
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

/// Runs a command to its end. Returns what it wrote, with its failure, and whether it succeeded.
async fn run(name: &str, mut command: Command) -> (String, bool) {
    let failed = |why: String| format!("--exec for {name}: {why}\n");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return (failed(format!("sh can't be started: {error}")), false),
    };
    // Declared after the child, so that it is dropped while the child has its id.
    let mut group = Group::of(&child);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let reading = async { tokio::join!(start_of(stdout, &mut out), start_of(stderr, &mut err)) };
        tokio::pin!(reading);
        let mut is_open = true;
        let status = loop {
            tokio::select! {
                _ = &mut reading, if is_open => is_open = false,
                status = child.wait() => break status,
            }
        };
        group.leave();
        if is_open {
            let _ = timeout(LINGER, reading).await;
        }
        status
    };
    let text = lines(&out) + &lines(&err);
    match status {
        Ok(status) if status.success() => (text, true),
        Ok(status) => (text + &failed(status.to_string()), false),
        Err(error) => (failed(error.to_string()), false),
    }
}

/// Reads the beginning of what a command writes. The rest is read and dropped, so that the command
/// does not block.
async fn start_of(pipe: Option<impl AsyncRead + Unpin>, start: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut part = vec![0; 8 << 10];
    while let Ok(count @ 1..) = pipe.read(&mut part).await {
        let room = MAX_OUTPUT - start.len();
        start.extend_from_slice(&part[..count.min(room)]);
    }
}

fn lines(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The processes of a command that runs. Dropping it ends them all.
struct Group(#[cfg(unix)] Option<rustix::process::Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        #[cfg(unix)]
        return Self(
            child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw),
        );
        #[cfg(not(unix))]
        return Self();
    }

    /// Leaves what the command has started.
    fn leave(&mut self) {
        #[cfg(unix)]
        let _ = self.0.take();
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}
