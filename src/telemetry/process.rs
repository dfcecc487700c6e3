//! Figures of this process, from `/proc` on Linux. Elsewhere there are none.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

/// When the first of these figures was read, which the server does at its start.
static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

/// What the operating system knows of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Resident memory in bytes.
    pub resident_bytes: Option<f64>,
    /// Processor time, user and system, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Open file descriptors.
    pub open_fds: Option<f64>,
    /// The soft limit of file descriptors.
    pub max_fds: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: f64,
}

/// Clock ticks in a second: `USER_HZ`, which is 100 on every Linux that Rust runs on.
const TICKS: f64 = 100.0;

impl Process {
    /// Reads the figures now.
    pub fn read() -> Self {
        let start_seconds = STARTED.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let text = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
        let (status, stat, limits) = (text("status"), text("stat"), text("limits"));
        Self {
            resident_bytes: field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0),
            cpu_seconds: cpu_seconds(&stat),
            open_fds: open_fds(),
            max_fds: field(&limits, "Max open files"),
            threads: field(&status, "Threads:"),
            start_seconds,
        }
    }
}

/// The number after `name`, at the beginning of a line.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// User and system time of `/proc/self/stat`, whose second field may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / TICKS)
}

fn open_fds() -> Option<f64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    // The folder itself is open while it is read.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 5 6 7 8 150 50 0 0 20 0 3 0 1 2 3";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!((cpu_seconds(""), cpu_seconds("42 (x) S 1")), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn figures_of_this_process_are_plausible() {
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 1e6 && process.open_fds.unwrap() >= 3.0);
        assert!(process.max_fds.unwrap() >= process.open_fds.unwrap() && process.threads.unwrap() >= 1.0);
        assert!(process.cpu_seconds.unwrap() >= 0.0 && process.start_seconds > 1.7e9);
    }
}
