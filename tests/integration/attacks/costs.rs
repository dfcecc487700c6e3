//! What connections, calls and frames cost, beside what they are counted with.

use jobwatch::config::CALL_BYTES;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::Instant,
};

use super::{
    files::Files,
    frames::{SETTINGS, connect_raw, open, raw},
    *,
};

const ROOM: &str = r#"
    [limits]
    connections = 4000
    connections_per_address = 4000
    connection_bytes = "1GiB"
    streams_per_connection = 20000
"#;

/// How many connections, and calls on each of them, are measured.
pub(super) fn numbers() -> (usize, usize) {
    if scale() == 1 { (400, 10) } else { (1000, 10) }
}

/// A gateway with room for many connections.
pub(super) struct Measured {
    pub(super) program: Program,
    pub(super) client: Client,
    files: Option<Files>,
    pub(super) simulator: Simulator,
}

impl Measured {
    pub(super) async fn start(files: Option<Files>) -> Self {
        let simulator = simulator(Vendor::Immuta).await;
        let server = files
            .as_ref()
            .map_or("[server]\nlisten = \"127.0.0.1:0\"\n".to_owned(), |files| files.section(""));
        let text = config_text(&format!("{server}{ROOM}"), [Backend::of(&simulator)]);
        let program = Program::run(program::command(&text), "info").await;
        let client = match &files {
            Some(files) => Client::new(Files::channel(program.address().parse().unwrap(), files.tls())),
            None => program.client(),
        };
        Self { program, client, files, simulator }
    }

    async fn connect(&self) -> Attacker {
        let address = self.program.address().parse().unwrap();
        let stream = connect_from(address, 2).await;
        match &self.files {
            Some(files) => Attacker::over(files.connect(stream).await, address, 1 << 20).await,
            None => Attacker::over(stream, address, 1 << 20).await,
        }
    }

    /// Resident memory once the allocator has returned what it has free. It does so only while
    /// the program works.
    pub(super) async fn memory(&self) -> f64 {
        let began = Instant::now();
        let mut least = u64::MAX;
        while began.elapsed() < Duration::from_secs(3) {
            for _ in 0..20 {
                get(&self.client, &job("no-such-backend", "1")).await.unwrap_err();
            }
            least = least.min(self.program.memory());
        }
        least as f64
    }
}

pub(super) fn row(what: &str, bytes: f64, counted: usize) {
    println!("| {what} | {:.1} KiB | {} KiB |", bytes / 1024.0, counted >> 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_and_calls_cost_at_most_what_they_are_counted_with() {
    for (scheme, files) in [("plaintext", None), ("TLS", Some(Files::new()))] {
        let measured = Measured::start(files).await;
        let started = measured.simulator.start_job(Plan::fixed("active"));
        let running = job_at(&measured.simulator, &started);
        let large =
            ended_job(&measured.simulator, &measured.client, &format!("[{:?}]", "x".repeat(60_000))).await;
        let (connections, calls) = numbers();
        let before = measured.memory().await;
        let mut open = Vec::new();
        for _ in 0..connections {
            let mut connection = measured.connect().await;
            connection.read("ListBackends", frame(&[])).await.unwrap();
            open.push(connection);
        }
        let fresh = (measured.memory().await - before) / connections as f64;
        // Each buffer of a connection has been full once.
        let message = frame(&batch_request(vec![job("no-such-backend", "1"); 1000]).encode_to_vec());
        for connection in &mut open {
            connection.read("BatchGetStatuses", message.clone()).await.unwrap();
            assert!(connection.read("GetJobStatus", cached(&large)).await.unwrap() > 60_000);
        }
        let idle = measured.memory().await;
        let used = (idle - before) / connections as f64;
        row(&format!("connection without a call so far, {scheme}"), fresh, IDLE_CONNECTION_BYTES);
        row(&format!("connection after large messages, {scheme}"), used, IDLE_CONNECTION_BYTES);

        let mut before = idle;
        let mut waiting = full(&running);
        waiting.wait = Some(proto_ms(3_600_000));
        let watch = frame(&watch_request(&running).encode_to_vec());
        let mut most = used;
        for (method, message) in [("WatchJob", watch), ("GetJobStatus", frame(&waiting.encode_to_vec()))] {
            let mut responses = Vec::new();
            for connection in &mut open {
                for _ in 0..calls {
                    responses.push(connection.call(method, message.clone()).await.unwrap());
                }
            }
            let now = measured.memory().await;
            let call = (now - before) / responses.len() as f64;
            row(&format!("open {method}, {scheme}"), call, CALL_BYTES);
            most = most.max(call * (IDLE_CONNECTION_BYTES / CALL_BYTES) as f64);
            before = now;
            drop(responses);
            if method == "WatchJob" {
                before = measured.memory().await;
            }
        }
        assert!(most <= IDLE_CONNECTION_BYTES as f64, "{scheme}: see the rows above");
    }
}

/// Sends as many changes of the window as are allowed at once. Returns the processor time of
/// each.
async fn change_windows(measured: &Measured, streams: u32) -> Duration {
    const CHANGES: u8 = 90;
    let mut stream = connect_raw(measured.program.address().parse().unwrap()).await;
    for n in 0..streams {
        stream.write_all(&open(2 * n + 1)).await.unwrap();
    }
    // Its acknowledgement says that the streams are open.
    stream.write_all(&raw(SETTINGS, 0, 0, &[])).await.unwrap();
    acknowledgements(&mut stream, 2).await;
    let before = measured.program.processor_time();
    let changes: Vec<u8> =
        (0..CHANGES).flat_map(|n| raw(SETTINGS, 0, 0, &[0, 4, 0, 0, 1 + n % 2, 0])).collect();
    stream.write_all(&changes).await.unwrap();
    acknowledgements(&mut stream, usize::from(CHANGES)).await;
    measured.program.processor_time().saturating_sub(before) / u32::from(CHANGES)
}

/// Reads frames until so many settings have been acknowledged.
async fn acknowledgements(stream: &mut TcpStream, number: usize) {
    let mut seen = 0;
    while seen < number {
        let mut head = [0; 9];
        guard(stream.read_exact(&mut head)).await.unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        guard(stream.read_exact(&mut payload)).await.unwrap();
        seen += usize::from(head[3] == SETTINGS && head[4] == 1);
    }
}

#[tokio::test]
async fn change_of_the_window_costs_little_with_the_default_number_of_streams() {
    let measured = Measured::start(None).await;
    for streams in [100, 500, 1000, 2000, 4000, 10_000] {
        let each = change_windows(&measured, streams).await;
        println!("| SETTINGS with {streams} streams | {:.0} µs | 10 a second |", each.as_secs_f64() * 1e6);
    }
}
