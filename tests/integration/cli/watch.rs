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
    assert_eq!(events.len(), 3, "{}", ran.out);
    assert_eq!(events[0]["status"]["state"], "JOB_STATE_RUNNING");
    assert_eq!(events[0]["resumeToken"], "a");
    assert!(events[1]["interruption"].is_object());
    assert_eq!(events[2]["status"]["error"]["message"], "no such column");
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
    assert!(ran.err.starts_with("immuta/x: connection lost; trying again in "), "{}", ran.err);
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
    let watches = Mutex::new(vec![vec![response("running", "a")]].into());
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
        watches: Mutex::new(vec![vec![response("running", "a")], vec![response("done", "b")]].into()),
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
    assert!(ran.err.contains("connection lost"), "{}", ran.err);
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
