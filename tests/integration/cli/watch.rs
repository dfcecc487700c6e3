//! `jobwatch watch`.

use super::*;

#[tokio::test]
async fn watch_prints_each_event_and_exits_by_terminal_status() {
    let heartbeat = WatchJobResponse {
        event: Some(Event::Heartbeat(Heartbeat::default())),
        resume_token: "a".to_owned(),
    };
    let interruption = WatchJobResponse {
        event: Some(Event::Interruption(Interruption::default())),
        resume_token: "a".to_owned(),
    };
    let script = vec![response("running", "a"), Ok(heartbeat), Ok(interruption), response("failed", "b")];
    let gateway = Gateway::start(vec![script]).await;
    let ran = gateway.run(&["watch", "immuta/x"]).await;
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    let events = ran.json();
    assert_eq!(events.len(), 4, "{}", ran.out);
    assert_eq!(events[0]["status"]["state"], "JOB_STATE_RUNNING");
    assert_eq!(events[0]["resumeToken"], "a");
    assert_eq!(events[1]["job"], serde_json::json!({ "backend": "immuta", "jobId": "x" }));
    assert!(events[1]["heartbeat"].is_object());
    assert!(events[2]["interruption"].is_object());
    assert_eq!(events[3]["status"]["error"]["message"], "no such column");
}

#[tokio::test]
async fn interrupted_watch_resumes_from_last_token() {
    let disconnect = Err(Status::unavailable("shutting down"));
    let gateway = Gateway::start(vec![
        vec![response("running", "first"), disconnect],
        Vec::new(),
        vec![response("done", "last")],
    ])
    .await;
    let ran = gateway.run(&["watch", "immuta/x"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(ran.json().len(), 2);
    let requests = gateway.script.watch_requests.lock().unwrap();
    let tokens: Vec<_> = requests.iter().map(|request| &*request.resume_token).collect();
    assert_eq!(tokens, ["", "first", "first"]);
    assert!(ran.err.starts_with("immuta/x: disconnected; trying again in "), "{}", ran.err);
    assert!(ran.err.contains("(UNAVAILABLE: shutting down)"), "{}", ran.err);
}

#[tokio::test]
async fn watch_without_reconnect_fails_on_lost_connection() {
    let gateway = Gateway::start(vec![vec![Err(Status::unavailable("shutting down"))]]).await;
    let ran = gateway.run(&["watch", "immuta/x", "--reconnect", "0s"]).await;
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert_eq!(gateway.script.watch_requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn watch_with_permanent_error_is_not_retried() {
    let gateway = Gateway::start(vec![vec![Err(Status::not_found("no such job"))]]).await;
    let ran = gateway.run(&["watch", "immuta/x"]).await;
    assert_eq!(ran.code, Some(3));
    assert!(ran.err.starts_with("error: immuta/x: NOT_FOUND: no such job\n"), "{}", ran.err);
    assert_eq!(gateway.script.watch_requests.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn several_jobs_are_watched_concurrently() {
    let gateway = Gateway::start(vec![
        vec![response("running", "a"), response("done", "b")],
        vec![response("done", "c")],
    ])
    .await;
    let ran = gateway.run(&["watch", "immuta/x", "immuta/y"]).await;
    assert_eq!((ran.code, ran.json().len()), (Some(0), 3), "{}", ran.err);
}

#[tokio::test]
async fn watch_flushes_each_line_and_exits_130_on_ctrl_c() {
    let watches = scripts(vec![vec![response("running", "a")]]);
    let gateway = Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await;
    let mut child = jobwatch(&["watch", "immuta/x", "--server", &gateway.address.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("JOB_STATE_RUNNING"));
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}

/// A proxy before a gateway that closes its connections when `disconnect` is notified.
async fn wire_to(gateway: SocketAddr, disconnect: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let disconnect = disconnect.clone();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(gateway).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    () = disconnect.notified() => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn watch_reconnects_after_a_lost_connection() {
    let script = Scripted {
        watches: scripts(vec![vec![response("running", "a")], vec![response("done", "b")]]),
        stays_open: true,
        ..Scripted::default()
    };
    let gateway = Gateway::serve(script).await;
    let disconnect = Arc::new(Notify::new());
    let address = wire_to(gateway.address, disconnect.clone()).await;
    let mut child = jobwatch(&["watch", "immuta/x", "--server", &address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next_line().await.unwrap().unwrap().contains("JOB_STATE_RUNNING"));
    disconnect.notify_waiters();
    let next = lines.next_line().await.unwrap();
    let ran = Ran::of(&child.wait_with_output().await.unwrap());
    assert!(next.is_some_and(|line| line.contains("JOB_STATE_SUCCEEDED")), "{}", ran.err);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert!(ran.err.contains("disconnected"), "{}", ran.err);
}

#[tokio::test]
async fn closed_stdout_ends_the_program_without_error_output() {
    let many = (0..2000).map(|n| response("running", &n.to_string())).collect();
    let gateway = Gateway::start(vec![many]).await;
    let mut child = jobwatch(&["watch", "immuta/x", "--server", &gateway.address.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(&child.wait_with_output().await.unwrap());
    assert_eq!((ran.code, &*ran.err), (Some(141), ""));
}

#[tokio::test]
async fn lost_connection_of_several_jobs_is_one_reconnect_and_one_line() {
    let lost = || Err(Status::unavailable("shutting down"));
    let gateway = Gateway::serve(Scripted {
        watches: scripts(vec![
            vec![response("running", "x1")],
            vec![response("running", "y1"), lost()],
            vec![response("done", "x2")],
            vec![response("done", "y2")],
        ]),
        stays_open: true,
        ..Scripted::default()
    })
    .await;
    let ran = gateway.run(&["watch", "immuta/x", "immuta/y", "-o", "table"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    assert_eq!(gateway.script.calls.load(Ordering::Relaxed), 2);
    assert_eq!(ran.err.matches("disconnected").count(), 1, "{}", ran.err);
    assert!(ran.err.starts_with("2 jobs: disconnected; trying again in "), "{}", ran.err);
    assert!(ran.err.ends_with("2 jobs: connected again\n"), "{}", ran.err);
}

#[tokio::test]
async fn error_of_one_job_is_printed_while_the_other_is_watched() {
    let gone = Err(Status::not_found("no such job"));
    let watches = scripts(vec![vec![gone], vec![response("running", "a")]]);
    let gateway = Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await;
    let mut child = jobwatch(&["watch", "immuta/x", "immuta/y", "--server", &gateway.address.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = guard(lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line, "error: immuta/x: NOT_FOUND: no such job");
    assert_eq!(child.try_wait().unwrap(), None);
}

#[tokio::test]
async fn heartbeat_after_an_interruption_is_logged_as_recovery() {
    let event = |event| Ok(WatchJobResponse { event: Some(event), resume_token: "a".to_owned() });
    let cause = Some((&tonic::Status::unavailable("no answer")).into());
    let interruption = Interruption { cause, ..Default::default() };
    let gateway = Gateway::start(vec![vec![
        response("running", "a"),
        event(Event::Interruption(interruption)),
        event(Event::Heartbeat(Heartbeat::default())),
        response("done", "b"),
    ]])
    .await;
    let ran = gateway.run(&["watch", "immuta/x", "-o", "table"]).await;
    let lines: Vec<_> = ran.out.lines().take(4).collect();
    assert!(lines[0].starts_with("▶ immuta/x  RUNNING"), "{}", ran.out);
    assert!(lines[1].starts_with("! immuta/x  RUNNING") && lines[1].ends_with("UNAVAILABLE: no answer"));
    assert!(lines[2].starts_with("▶ immuta/x  RUNNING") && !lines[2].contains("UNAVAILABLE"));
    assert!(lines[3].starts_with("✔ immuta/x  SUCCEEDED"), "{}", ran.out);
}
