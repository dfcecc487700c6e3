//! The machine: which core is whose, and what it is called in the report.

use std::{fs, process::Command, time::SystemTime};

use serde::Serialize;

/// The two cores that a run uses. What is measured has one for itself; the load and
/// the vendor share the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) load: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    pub(crate) fn find() -> Result<Self, String> {
        let cores = system::allowed().map_err(|error| format!("the allowed cores can't be read: {error}"))?;
        match cores[..] {
            [server, load, ..] => Ok(Self { server, load }),
            _ => Err("at least two cores are needed: one for what is measured, one for the load".to_owned()),
        }
    }
}

pub(crate) use system::{pause, pin, resume};

#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use rustix::{
        process::{Pid, Signal, kill_process},
        thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    };

    pub(super) fn allowed() -> io::Result<Vec<usize>> {
        let allowed = sched_getaffinity(None)?;
        Ok((0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).collect())
    }

    /// Moves this thread, and what it starts from now on, to one core.
    pub(crate) fn pin(core: usize) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        Ok(sched_setaffinity(None, &set)?)
    }

    /// Has a process do nothing until [`resume`].
    pub(crate) fn pause(pid: u32) -> io::Result<()> {
        signal(pid, Signal::STOP)
    }

    pub(crate) fn resume(pid: u32) -> io::Result<()> {
        signal(pid, Signal::CONT)
    }

    fn signal(pid: u32, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    pub(super) fn allowed() -> io::Result<Vec<usize>> {
        Err(io::Error::other("the benchmark needs Linux: it pins processes to cores and reads /proc"))
    }

    pub(crate) fn pin(_core: usize) -> io::Result<()> {
        allowed().map(drop)
    }

    pub(crate) fn pause(_pid: u32) -> io::Result<()> {
        allowed().map(drop)
    }

    pub(crate) fn resume(_pid: u32) -> io::Result<()> {
        allowed().map(drop)
    }
}

/// What a figure depends on beside the code.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    cores: usize,
    kernel: String,
    commit: Option<String>,
    date: String,
}

impl Machine {
    pub(crate) fn describe() -> Self {
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
        Self {
            cpu: cpu.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: kernel.trim().to_owned(),
            commit: commit(),
            date: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let commit = self.commit.as_deref().unwrap_or("unknown");
        write!(f, "{}, {} cores, Linux {}, commit {commit}, {}", self.cpu, self.cores, self.kernel, self.date)
    }
}

fn commit() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}
