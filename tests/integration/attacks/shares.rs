//! Shares of what there is only so much of.

use jobwatch::proto::v1::DownloadArtifactRequest;

use super::*;

#[tokio::test]
async fn batch_that_waits_counts_as_watches() {
    let sections = format!("{LIMITS}\nwatches_per_caller = 10\n");
    let mut scene = Scene::start_with("waiting batches", &sections, |backend| backend).await;
    let address = scene.address();
    let jobs: Vec<_> = (0..1000)
        .map(|_| job_at(&scene.simulator, &scene.simulator.start_job(Plan::fixed("active"))))
        .collect();
    let mut request = within(Duration::from_secs(5), batch_request(jobs));
    request.get_mut().wait = Some(proto_ms(1_000_000_000));
    let attack = async move { batch(&client_from(address, 2), request).await.unwrap() };
    let results = scene.under(attack).await;
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    let refused = refused.filter(|error| code_and_reason(error).1 == "TOO_MANY_WATCHES").count();
    assert!(refused >= 990, "{refused} of 1000");
    scene.finish().await;
}

#[tokio::test]
async fn gets_of_one_caller_leave_another_its_turn() {
    let slow = |backend: Backend| backend.poll("requests_per_second", "20").poll("max_batch", "1");
    let mut scene = Scene::start_with("500 Gets at 20 requests a second", LIMITS, slow).await;
    scene.be_ready().await;
    let greedy = client_from(scene.address(), 2);
    let calls: Vec<_> = (0..500)
        .map(|_| {
            let job = job_at(&scene.simulator, &scene.simulator.start_job(Plan::fixed("active")));
            let client = greedy.clone();
            tokio::spawn(async move { client.clone().get_job_status(get_request(&job)).await.is_ok() })
        })
        .collect();
    let fresh = job_at(&scene.simulator, &scene.simulator.start_job(Plan::fixed("active")));
    let honest = scene.honest.clone();
    let answered = async move {
        let request = within(Duration::from_secs(12), get_request(&fresh));
        guard(honest.clone().get_job_status(request)).await
    };
    scene.under(answered).await.expect("it is answered before its deadline");
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    drop(greedy);
    scene.finish().await;
}

#[tokio::test]
async fn stalled_downloads_of_one_caller_leave_slots_for_others() {
    let mut scene = Scene::start("stalled downloads").await;
    let large = ended_job(&scene.simulator, &scene.honest, &format!("[{:?}]", "x".repeat(2 << 20))).await;
    let request = DownloadArtifactRequest {
        job: Some(large),
        artifact_id: "jobwatch:result".to_owned(),
        ..Default::default()
    };
    let address = scene.address();
    let message = frame(&request.encode_to_vec());
    let attack = async move {
        let mut attacker = Attacker::connect(address, 2, 1).await;
        let mut calls = Vec::new();
        for _ in 0..20 * scale() {
            calls.push(attacker.call("DownloadArtifact", message.clone()).await.unwrap());
        }
        (attacker, calls)
    };
    let stalled = scene.under(attack).await;
    let mut honest = scene.honest.clone();
    let download = async move {
        let mut pieces = honest.download_artifact(request).await.unwrap().into_inner();
        let mut bytes = 0;
        while let Some(piece) = guard(pieces.message()).await.unwrap() {
            bytes += piece.data.len();
        }
        bytes
    };
    assert_eq!(scene.under(download).await, (2 << 20) + 4);
    drop(stalled);
    scene.finish().await;
}

/// Ten addresses take what they can of the room of all, and read nothing.
#[tokio::test]
async fn unread_responses_of_many_addresses_leave_another_its_answers() {
    let mut scene = Scene::start("ten addresses that read nothing").await;
    let job = bytes_held::large_job(&scene, 256 << 10).await;
    let address = scene.address();
    let attack = async move {
        let mut attackers = Vec::new();
        for last in 2..12 {
            for method in ["GetJobStatus", "WatchJob"] {
                let message = match method {
                    "GetJobStatus" => cached(&job),
                    _ => frame(&full_watch(&job).encode_to_vec()),
                };
                attackers.push(bytes_held::unread(address, last, method, message).await);
            }
        }
        attackers
    };
    let attackers = scene.under(attack).await;
    // Every one of these has its response, and a second call beside it is accepted, too.
    scene.go_on().await;
    let _times = tokio::join!(scene.call(), scene.call());
    // Their own calls wait for room, so those that take nothing are closed.
    scene.program.logged("connection closed: it does not take its bytes while others wait").await;
    scene.go_on().await;
    drop(attackers);
    scene.finish().await;
}

#[tokio::test]
async fn connections_leave_descriptors_for_vendors() {
    let simulator = simulator(Vendor::Immuta).await;
    let text = config_text("[server]\nlisten = \"127.0.0.1:0\"", [Backend::of(&simulator)]);
    let (file, _) = program::command(&text);
    let mut command = tokio::process::Command::new("sh");
    command.arg("-c").arg(format!(
        "ulimit -Sn 128; ulimit -Hn 256; exec {} serve --config {}",
        program::executable(),
        file.path().display()
    ));
    command.env_clear().stdin(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    command.kill_on_drop(true);
    let program = Program::run((file, command), "info").await;
    let log = program.log();
    assert!(log.contains("limits.connections reduced to what the file descriptor limit allows"), "{log}");
    let client = program.client();
    let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
    get(&client, &job).await.unwrap();
    let mut idle = Vec::new();
    for n in 0..300_u32 {
        let stream = connect_from(program.address().parse().unwrap(), 2 + u8::try_from(n % 5).unwrap()).await;
        idle.push(stream);
    }
    for _ in 0..20 {
        let job = job_at(&simulator, &simulator.start_job(Plan::fixed("active")));
        get(&client, &job).await.unwrap();
    }
    assert!(!program.log().contains("Too many open files"), "{}", program.log());
}
