//! Programs of any language that take `ADDRESS BACKEND/JOB_ID wait|watch|result`.

use std::{
    io::{self, Write},
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use jobwatch::{
    proto::v1::JobRef,
    simulators::{Outcome, Plan},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

use super::{restarted::Restarted, rust_example};

/// A C++ compiler takes a minute on a machine at rest.
const PATIENCE: Duration = Duration::from_mins(15);

pub(crate) async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    // A proxy of the machine must not be used for loopback.
    for name in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name);
    }
    timeout(PATIENCE, command.output()).await.expect("it ends in time").unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program prints that succeeds.
pub(crate) async fn run(command: Command) -> String {
    let output = output(command).await;
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out
}

/// How an example is run.
#[derive(Clone, Copy)]
pub(crate) enum Example<'a> {
    /// A program of any language.
    Program(&'a Path),
    /// `examples/client.rs`, within the test.
    Rust,
}

/// What an example printed, and the text of its error if it failed.
type Printed = Result<Vec<u8>, (Vec<u8>, String)>;

impl Example<'_> {
    async fn run(self, gateway: &Restarted, job: &str, command: &str) -> Printed {
        let arguments = [&*gateway.address, job, command];
        match self {
            Self::Program(program) => {
                let mut process = Command::new(program);
                process.args(arguments);
                let output = output(process).await;
                if output.status.success() {
                    return Ok(output.stdout);
                }
                assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
                Err((output.stdout, text(&output.stderr)))
            }
            Self::Rust => {
                let mut out = Vec::new();
                match rust_example::run(&arguments.map(str::to_owned), &mut out).await {
                    Ok(()) => Ok(out),
                    Err(error) => Err((out, error.to_string())),
                }
            }
        }
    }
}

/// Sends whole lines.
struct LineWriter {
    sender: mpsc::Sender<String>,
    line: Vec<u8>,
}

impl Write for LineWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.line.extend(data);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line = self.line.drain(..=end).collect::<Vec<_>>();
            self.sender.try_send(text(&line)).map_err(io::Error::other)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An example that runs while the gateway is killed.
enum Running {
    Program { child: Box<Child>, lines: Box<Lines<BufReader<ChildStdout>>> },
    Rust { task: JoinHandle<Result<(), String>>, lines: mpsc::Receiver<String> },
}

impl Running {
    fn start(example: Example<'_>, gateway: &Restarted, job: &JobRef, command: &str) -> Self {
        let arguments = [gateway.address.clone(), name(job), command.to_owned()];
        match example {
            Example::Program(program) => {
                let mut process = Command::new(program);
                process.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
                let mut child = process.spawn().unwrap();
                let lines = Box::new(BufReader::new(child.stdout.take().unwrap()).lines());
                Self::Program { child: Box::new(child), lines }
            }
            Example::Rust => {
                let (sender, lines) = mpsc::channel(100);
                let task = tokio::spawn(async move {
                    let run =
                        rust_example::run(&arguments, &mut LineWriter { sender, line: Vec::new() }).await;
                    run.map_err(|error| error.to_string())
                });
                Self::Rust { task, lines }
            }
        }
    }

    /// The next state that it prints, without its prefix; `None` after the last one.
    async fn state(&mut self) -> Option<String> {
        let next = async {
            match self {
                Self::Program { lines, .. } => lines.next_line().await.unwrap(),
                Self::Rust { lines, .. } => lines.recv().await,
            }
        };
        let line = timeout(PATIENCE, next).await.expect("it goes on")?;
        Some(line.trim_start_matches("JOB_STATE_").trim_end().to_owned())
    }

    /// Nothing follows, and it has succeeded.
    async fn ends(mut self) {
        assert_eq!(self.state().await, None);
        match self {
            Self::Program { mut child, .. } => assert!(child.wait().await.unwrap().success()),
            Self::Rust { task, .. } => task.await.unwrap().unwrap(),
        }
    }
}

fn name(job: &JobRef) -> String {
    format!("{}/{}", job.backend, job.job_id)
}

/// A watch goes on over four gateways, two of which are killed and one stopped: no status is missing, none comes twice or after a newer one,
/// and the terminal one comes last and once.
pub(crate) async fn watches_through_kills(example: Example<'_>) {
    let mut gateway = Restarted::start().await;
    let job = gateway.job(Plan::fixed("created"));
    let mut watch = Running::start(example, &gateway, &job, "watch");
    assert_eq!(watch.state().await.as_deref(), Some("PENDING"));
    gateway.kill().await;
    gateway.simulator.set_state(&job.job_id, "active");
    gateway.restart().await;
    assert_eq!(watch.state().await.as_deref(), Some("RUNNING"));
    // Nothing changes meanwhile.
    gateway.stop().await;
    let before = gateway.simulator.count("");
    gateway.restart().await;
    gateway.polled(before).await;
    gateway.kill().await;
    gateway.simulator.finish(&job.job_id);
    gateway.restart().await;
    assert_eq!(watch.state().await.as_deref(), Some("SUCCEEDED"));
    watch.ends().await;
}

/// A wait goes on over three gateways.
pub(crate) async fn waits_through_kills(example: Example<'_>) {
    let mut gateway = Restarted::start().await;
    let job = gateway.job(Plan::fixed("active"));
    let mut wait = Running::start(example, &gateway, &job, "wait");
    gateway.polled(0).await;
    for _ in 0..2 {
        gateway.kill().await;
        let before = gateway.simulator.count("");
        gateway.restart().await;
        gateway.polled(before).await;
    }
    gateway.simulator.finish(&job.job_id);
    assert_eq!(wait.state().await.as_deref(), Some("SUCCEEDED"));
    wait.ends().await;
}

/// A result that is not part of a status is downloaded.
pub(crate) async fn writes_large_result(example: Example<'_>) {
    const SIZE: usize = 2_000_000;
    let gateway = Restarted::start().await;
    for outcome in [Outcome::Text("24 tables".to_owned()), Outcome::Size(SIZE)] {
        let wanted = match &outcome {
            Outcome::Text(text) => text.clone(),
            _ => Outcome::text_of_size(SIZE),
        };
        let job = gateway.job(Plan::succeeds(outcome));
        let written = example.run(&gateway, &name(&job), "result").await.unwrap();
        assert!(written == wanted.as_bytes(), "{} bytes in place of {}", written.len(), wanted.len());
    }
}

/// A job that failed is no error of the program, and has the vendor's words; an error of the gateway
/// has its reason.
pub(crate) async fn shows_errors(example: Example<'_>) {
    let gateway = Restarted::start().await;
    let failed = gateway.job(Plan::fails("no such column"));
    for command in ["wait", "watch"] {
        let printed = example.run(&gateway, &name(&failed), command).await.unwrap();
        assert_eq!(text(&printed).trim_start_matches("JOB_STATE_"), "FAILED no such column\n");
        let (printed, error) = example.run(&gateway, "immuta/no-such-job", command).await.unwrap_err();
        assert_eq!(text(&printed), "", "{error}");
        assert!(error.contains("the vendor does not know this job"), "{error}");
        if let Example::Program(_) = example {
            assert!(error.contains("JOB_NOT_FOUND") && error.lines().count() == 1, "{error}");
        }
    }
}
