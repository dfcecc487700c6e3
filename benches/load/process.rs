//! The processes of a run: each is pinned to its core, reports its address, is
//! measured through `/proc`, and ends with the value that stands for it.

use std::{ffi::OsStr, fs, net::SocketAddr, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Outcome,
    machine::{self, Cores},
};

/// Longest wait for a process to report its address.
const START: Duration = Duration::from_secs(20);

/// A process that serves until this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where a gateway's metrics are read.
    pub(crate) admin: Option<SocketAddr>,
    reader: JoinHandle<()>,
    /// A role ends when nobody holds this any more.
    _stdin: Option<ChildStdin>,
}

/// Starts `command` on `core`.
fn spawn(command: &mut Command, core: usize, cores: Cores) -> Outcome<Child> {
    // A child begins where the thread that starts it is.
    machine::pin(core)?;
    let child = command.kill_on_drop(true).spawn();
    machine::pin(cores.load)?;
    Ok(child?)
}

/// This program in another role.
fn role(name: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command)
}

impl Process {
    /// This program in a role that listens.
    pub(crate) async fn role(
        name: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
        core: usize,
        cores: Cores,
    ) -> Outcome<Self> {
        let mut child = spawn(&mut role(name, args)?, core, cores)?;
        let output = child.stdout.take().ok_or("no output")?;
        Self::listening(child, output).await
    }

    /// A gateway, which logs its address.
    pub(crate) async fn gateway(command: &mut Command, cores: Cores) -> Outcome<Self> {
        let mut child = spawn(command.stdin(Stdio::null()).stderr(Stdio::piped()), cores.server, cores)?;
        let output = child.stderr.take().ok_or("no output")?;
        Self::listening(child, output).await
    }

    async fn listening(mut child: Child, output: impl AsyncRead + Unpin + Send + 'static) -> Outcome<Self> {
        let mut lines = BufReader::new(output).lines();
        let (mut log, mut admin) = (Vec::new(), None);
        let address = async {
            while let Some(line) = lines.next_line().await? {
                if let Some((_, address)) = line.split_once("admin address is ") {
                    admin = address.split_whitespace().next().and_then(|address| address.parse().ok());
                }
                if let Some((_, rest)) = line.split_once("listening on ") {
                    return Ok(rest.split_whitespace().next().unwrap_or_default().parse()?);
                }
                log.push(line);
            }
            Outcome::Err(format!("a process ended before it listened: {}", log.join(" / ")).into())
        };
        let address = timeout(START, address).await.map_err(|_| "a process did not report its address")??;
        let reader = tokio::spawn(show_warnings(lines));
        let stdin = child.stdin.take();
        Ok(Self { child, address, admin, reader, _stdin: stdin })
    }

    fn pid(&self) -> Outcome<u32> {
        self.child.id().ok_or_else(|| "a process has ended".into())
    }

    /// CPU time that it has used so far, in the kernel and out of it.
    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu_of(&self.pid()?.to_string())
    }

    /// Memory that is resident now, in bytes.
    pub(crate) fn memory(&self) -> Outcome<u64> {
        Ok(1024 * kilobytes(&format!("/proc/{}/smaps_rollup", self.pid()?), "Rss:")?)
    }

    /// The most memory that was resident since [`forget_peak`](Self::forget_peak).
    pub(crate) fn peak_memory(&self) -> Outcome<u64> {
        Ok(1024 * kilobytes(&format!("/proc/{}/status", self.pid()?), "VmHWM:")?)
    }

    pub(crate) fn forget_peak(&self) -> Outcome {
        Ok(fs::write(format!("/proc/{}/clear_refs", self.pid()?), "5")?)
    }

    /// Has it do nothing until [`resume`](Self::resume).
    pub(crate) fn pause(&self) -> Outcome {
        Ok(machine::pause(self.pid()?)?)
    }

    pub(crate) fn resume(&self) -> Outcome {
        Ok(machine::resume(self.pid()?)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads a log to its end, so that nobody waits to write it.
async fn show_warnings(mut lines: Lines<BufReader<impl AsyncRead + Unpin>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        if [" WARN ", " ERROR "].iter().any(|level| line.contains(level)) {
            eprintln!("{line}");
        }
    }
}

/// This program in a role that runs commands, one per line.
#[derive(Debug)]
pub(crate) struct Worker {
    child: Child,
    stdin: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    pub(crate) fn start(name: &str, args: &[String], core: usize, cores: Cores) -> Outcome<Self> {
        let mut child = spawn(&mut role(name, args)?, core, cores)?;
        let stdin = child.stdin.take().ok_or("no input")?;
        let replies = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { child, stdin, replies })
    }

    /// Sends a command and waits for the reply.
    pub(crate) async fn command(&mut self, line: &str) -> Outcome<String> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await?;
        Ok(self.replies.next_line().await?.ok_or("a worker has ended")?)
    }

    pub(crate) fn cpu(&self) -> Outcome<Duration> {
        cpu_of(&self.child.id().ok_or("a worker has ended")?.to_string())
    }
}

/// CPU time that this process has used so far.
pub(crate) fn own_cpu() -> Outcome<Duration> {
    cpu_of("self")
}

/// Adds up a process's threads, to the nanosecond. None of those that run here ends
/// while it is measured.
fn cpu_of(pid: &str) -> Outcome<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanos += text.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn kilobytes(file: &str, key: &str) -> Outcome<u64> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
