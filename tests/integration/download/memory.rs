//! Memory use of a large download.

use super::*;

/// A gateway in a separate process.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    async fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobwatch.toml");
        fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_jobwatch"));
        command.args(["serve", "--config"]).arg(&path).env_clear().kill_on_drop(true);
        command.env("JOBWATCH__SERVER__LISTEN", "127.0.0.1:0").stderr(Stdio::piped());
        // One caller may have a quarter of them.
        command.env("JOBWATCH__BACKENDS__CLARET__POLL__MAX_CONCURRENCY", "20");
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("it listens");
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split_whitespace().next().unwrap().parse().unwrap();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, address }
    }

    /// Peak resident memory in bytes.
    fn peak(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        1024 * peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn download_of_a_gibibyte_uses_constant_memory() {
    const GIBI: u64 = 1 << 30;
    let claret = Simulator::start(Vendor::Claret).await.unwrap();
    let gateway = Process::start(&format!("allow_inline_secrets = true\n{}", claret.config())).await;
    let start =
        |size| claret.start_job(Plan { files: vec![file(Content::Pattern(size))], ..Plan::default() }).id;
    let (small, large) = (start(MEBI), start(GIBI));
    let download = async |job: &str| {
        let stream = connect(gateway.address).await.download_artifact(request(job, FILE, 0)).await;
        let mut stream = stream.unwrap().into_inner();
        let info = info(&mut stream).await.unwrap();
        (info.size_bytes, read(&mut stream, 0, u64::MAX).await.unwrap())
    };
    assert_eq!(download(&small).await, (Some(1 << 20), MEBI));
    let before = gateway.peak();

    // Stalled readers beside one that reads.
    let mut stalled = Vec::new();
    for _ in 0..4 {
        let stream = connect(gateway.address).await.download_artifact(request(&large, FILE, 0)).await;
        let mut stream = stream.unwrap().into_inner();
        info(&mut stream).await.unwrap();
        stalled.push(stream);
    }
    let begun = Instant::now();
    assert_eq!(download(&large).await, (Some(1 << 30), GIBI));
    let (after, took) = (gateway.peak(), begun.elapsed());
    println!(
        "peak of the gateway's memory: {} KiB before, {} KiB after 1 GiB in {:.1} s beside 4 stalled readers",
        before / 1024,
        after / 1024,
        took.as_secs_f64()
    );
    assert!(after - before < 32 * MEBI, "{before} grew to {after}");
}
