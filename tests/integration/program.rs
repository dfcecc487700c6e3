//! The built program, as an operator starts it.

use std::{
    io::Write,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::NamedTempFile;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tonic::transport::{Channel, Endpoint};

use crate::harness::*;

/// The program of this build, or the one that `make attack` attacks.
pub(crate) fn executable() -> String {
    std::env::var("JOBWATCH_ATTACK_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_jobwatch").to_owned())
}

/// `jobwatch serve` with this configuration, which exists as long as the file.
pub(crate) fn command(config: &str) -> (NamedTempFile, Command) {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(config.as_bytes()).unwrap();
    let mut command = Command::new(executable());
    command.arg("serve").arg("--config").arg(file.path());
    command.env_clear().stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    (file, command)
}

/// A running `jobwatch serve`; killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Program {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
    logged: Arc<Notify>,
    reader: JoinHandle<()>,
    _config: NamedTempFile,
}

impl Program {
    /// Starts it on a free port, and reads the port from its log.
    pub(crate) async fn start(backends: impl IntoIterator<Item = Backend>, log: &str) -> Self {
        let config = config_text("[server]\nlisten = \"127.0.0.1:0\"", backends);
        Self::run(command(&config), log).await
    }

    /// Starts a [`command`].
    pub(crate) async fn run((file, mut command): (NamedTempFile, Command), log: &str) -> Self {
        let mut child = command.env("JOBWATCH_LOG", log).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, address) = oneshot::channel();
        let logged = Arc::new(Notify::new());
        let reader = {
            let (log, logged) = (Arc::clone(&log), Arc::clone(&logged));
            tokio::spawn(async move {
                let mut found = Some(found);
                while let Ok(Some(line)) = lines.next_line().await {
                    if let Some((_, rest)) = line.split_once("listening on ")
                        && let Some(found) = found.take()
                    {
                        let end = rest.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(rest.len());
                        let _ = found.send(rest[..end].to_owned());
                    }
                    log.lock().unwrap().extend([&*line, "\n"]);
                    logged.notify_one();
                }
            })
        };
        let address = guard(address).await.expect("the log has the address");
        Self { child, address, log, logged, reader, _config: file }
    }

    /// An address in its log.
    pub(crate) async fn address_after(&self, words: &str) -> SocketAddr {
        let address = self.find(|log| {
            let (_, rest) = log.split_once(words)?;
            let end = rest.find(|c: char| c.is_whitespace() || c == '"')?;
            rest[..end].parse().ok()
        });
        address.await
    }

    pub(crate) fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.channel())
    }

    /// The address it listens on.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Resident memory in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory(&self) -> u64 {
        1024 * self.proc_status("VmRSS:").trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// Number of its open file descriptors.
    #[cfg(target_os = "linux")]
    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id().unwrap())).unwrap().count()
    }

    /// Processor time that its threads have used.
    #[cfg(target_os = "linux")]
    pub(crate) fn processor_time(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id().unwrap())).unwrap();
        let nanos =
            tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
        nanos.map(|text| Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())).sum()
    }

    /// Processor time that its first thread has used.
    #[cfg(target_os = "linux")]
    pub(crate) fn processor_time_of_first_thread(&self) -> Duration {
        let pid = self.child.id().unwrap();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    }

    pub(crate) async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(pid).status().await.unwrap();
        assert!(sent.success());
    }

    /// Waits for its exit, and reads the rest of its log.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        let status = guard(self.child.wait()).await.unwrap();
        guard(&mut self.reader).await.unwrap();
        status.code()
    }

    /// Peak resident memory in bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        1024 * self.proc_status("VmHWM:").trim_end_matches(" kB").parse::<u64>().unwrap()
    }

    /// A value of its `/proc/PID/status`.
    #[cfg(target_os = "linux")]
    fn proc_status(&self, what: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        status.lines().find_map(|line| line.strip_prefix(what)).unwrap().trim().to_owned()
    }

    /// Closes the read end of its stderr.
    pub(crate) async fn lose_log(&mut self) {
        let reader = std::mem::replace(&mut self.reader, tokio::spawn(async {}));
        reader.abort();
        let _ = reader.await;
    }

    /// Waits until `find` finds something in its stderr. Of several waits at once, only one
    /// notices a line.
    pub(crate) async fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> T {
        let found = async {
            loop {
                if let Some(found) = find(&self.log.lock().unwrap()) {
                    return found;
                }
                self.logged.notified().await;
            }
        };
        guard(found).await
    }

    /// Waits until its stderr contains this.
    pub(crate) async fn logged(&self, text: &str) {
        self.find(|log| log.contains(text).then_some(())).await;
    }

    /// Its stderr so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }
}
