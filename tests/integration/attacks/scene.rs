//! A gateway under attack, its honest caller, and the figures of both.

use std::{future::Future, sync::LazyLock, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Runtime,
    task::JoinHandle,
    time::Instant,
};

use super::*;

/// Attackers have a thread of their own, so that their work does not delay the honest caller
/// by more than it takes from the processor.
static ATTACKERS: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
});

/// How much more memory than before there may be after an attack: what the allocator keeps of
/// each thread's arena, and tables of the program that have grown and don't shrink.
const MEMORY_MARGIN: u64 = 16 * MIB;

/// How many more tasks and descriptors than before there may be after an attack: connections
/// to the vendor that are kept, and the request for the figures itself.
const KEPT: usize = 8;

/// Honest calls of which one side of a comparison consists.
const QUIET: usize = 200;

/// Starts an attack on the attackers' thread.
pub(super) fn spawn<T: Send + 'static>(attack: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    ATTACKERS.spawn(attack)
}

/// The median and the 99th percentile in milliseconds.
pub(super) fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let quantile = |of: usize| times[(times.len() - 1) * of / 100].as_secs_f64() * 1000.0;
    format!("{:.1} / {:.1}", quantile(50), quantile(99))
}

/// What an attack must leave as it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures {
    pub(super) memory: u64,
    pub(super) descriptors: usize,
    pub(super) tasks: usize,
}

impl Figures {
    /// Whether all is as it was `before`, within the stated margins.
    fn is_back(&self, before: &Self) -> bool {
        self.memory <= before.memory + MEMORY_MARGIN
            && self.descriptors <= before.descriptors + KEPT
            && self.tasks <= before.tasks + KEPT
    }
}

/// A gateway in a process of its own, and an honest caller of it.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) simulator: Simulator,
    pub(super) program: Program,
    pub(super) honest: Client,
    /// A job that has ended.
    job: JobRef,
    admin: SocketAddr,
    before: Option<Figures>,
    quiet: Vec<Duration>,
    attacked: Vec<Duration>,
}

impl Scene {
    pub(super) async fn start(name: &'static str) -> Self {
        Self::start_with(name, LIMITS, |backend| backend).await
    }

    pub(super) async fn start_with(
        name: &'static str,
        sections: &str,
        configure: impl FnOnce(Backend) -> Backend,
    ) -> Self {
        let simulator = simulator(Vendor::Immuta).await;
        let backend = configure(Backend::of(&simulator));
        let sections =
            format!("[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{sections}");
        let program = Program::run(program::command(&config_text(&sections, [backend])), "info").await;
        let admin = program.address_after("admin address is ").await;
        let honest = program.client().max_decoding_message_size(64 << 20);
        let job = ended_job(&simulator, &honest, "[]").await;
        Self {
            name,
            simulator,
            program,
            honest,
            job,
            admin,
            before: None,
            quiet: Vec::new(),
            attacked: Vec::new(),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.program.address().parse().unwrap()
    }

    /// How long so many honest calls take.
    pub(super) async fn calls(&self, number: usize) -> Vec<Duration> {
        let mut times = Vec::new();
        for _ in 0..number {
            times.push(self.call().await);
        }
        times
    }

    pub(super) async fn call(&self) -> Duration {
        let mut request = get_request(&self.job);
        request.max_age = Some(proto_ms(3_600_000));
        let began = Instant::now();
        get_status(&self.honest, request).await.expect("an honest call succeeds");
        began.elapsed()
    }

    /// Makes some honest calls in quiet, and takes the figures, before the first attack.
    pub(super) async fn be_ready(&mut self) {
        if self.before.is_none() {
            self.quiet = self.calls(QUIET).await;
            self.before = Some(self.figures().await);
        }
    }

    /// Makes honest calls until the attack is over, and a few more.
    pub(super) async fn under<T: Send + 'static>(
        &mut self,
        attack: impl Future<Output = T> + Send + 'static,
    ) -> T {
        self.be_ready().await;
        let mut attack = spawn(attack);
        let mut times = Vec::new();
        let done = loop {
            tokio::select! {
                biased;
                done = &mut attack => break done,
                time = self.call() => times.push(time),
            }
        };
        times.extend(self.calls(20).await);
        self.attacked.append(&mut times);
        done.unwrap_or_else(|failed| std::panic::resume_unwind(failed.into_panic()))
    }

    /// Makes honest calls while the attacker does nothing more.
    pub(super) async fn go_on(&mut self) {
        let mut times = self.calls(300).await;
        self.attacked.append(&mut times);
    }

    /// What the program holds now.
    pub(super) async fn figures(&self) -> Figures {
        Figures {
            memory: self.program.memory(),
            descriptors: self.program.descriptors(),
            tasks: self.metric("jobwatch_runtime_alive_tasks").await,
        }
    }

    /// A value of the admin address.
    async fn metric(&self, name: &str) -> usize {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut response = String::new();
        guard(stream.read_to_string(&mut response)).await.unwrap();
        let value = response.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {response}")).trim().parse().unwrap()
    }

    /// Makes honest calls until memory, descriptors and tasks are back.
    pub(super) async fn settle(&self, before: &Figures) -> Figures {
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            let now = self.figures().await;
            if now.is_back(before) {
                return now;
            }
            assert!(
                Instant::now() < until,
                "{}: {before:?} before, and {now:?} two minutes later",
                self.name
            );
            self.calls(10).await;
        }
    }

    /// Checks memory, descriptors and tasks, and prints a row of the table.
    pub(super) async fn finish(self) {
        let peak = self.program.peak_memory();
        let before = self.before.expect("there was an attack");
        let after = self.settle(&before).await;
        // On a shared machine both halves say how far the times can be trusted.
        let quiet_after = self.calls(QUIET).await;
        let mib = |bytes: u64| bytes as f64 / 1e6;
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {} | {} | {} | {} | {} | {} | {} |",
            self.name,
            mib(before.memory),
            mib(peak),
            mib(after.memory),
            before.descriptors,
            after.descriptors,
            before.tasks,
            after.tasks,
            quantiles(self.quiet),
            quantiles(self.attacked),
            quantiles(quiet_after),
        );
        assert!(peak < BUDGET + 64 * MIB, "{}: a peak of {} MiB", self.name, peak / MIB);
    }
}
