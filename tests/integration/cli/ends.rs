//! How `watch` ends: --reconnect, --timeout with --exec, --until, Ctrl-C.

use super::*;

async fn running() -> Gateway {
    let watches = scripts(vec![vec![response("running", "a")], vec![response("running", "b")]]);
    Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await
}

/// With a PATH, which finds sh.
fn watch(gateway: &str, args: &[&str]) -> Command {
    let mut command = jobwatch(&[&["watch"], args].concat());
    command.env("JOBWATCH_SERVER", gateway).env("PATH", std::env::var_os("PATH").unwrap());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn interrupt(child: &tokio::process::Child) {
    let pid = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().await.unwrap().success());
}

/// A gateway whose connections can be cut, after which none is accepted.
async fn mortal(gateway: SocketAddr) -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, kill) = (listener.local_addr().unwrap(), Arc::new(Notify::new()));
    let killed = Arc::clone(&kill);
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(gateway).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = killed.notified() => {}
        }
    });
    (address, kill)
}

#[tokio::test]
async fn reconnect_counts_from_the_loss_and_ends_with_one_error_in_words() {
    let gateway = running().await;
    let (address, kill) = mortal(gateway.address).await;
    let args = ["immuta/x", "immuta/y", "-o", "table", "--reconnect", "1500ms"];
    let mut child = watch(&address.to_string(), &args).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert!(guard(lines.next_line()).await.unwrap().unwrap().contains("RUNNING"));
    }
    // Without any message for longer than --reconnect, as between two heartbeats.
    tokio::time::sleep(std::time::Duration::from_millis(1600)).await;
    kill.notify_one();
    let ran = Ran::of(&guard(child.wait_with_output()).await.unwrap());
    assert_eq!(ran.code, Some(3), "{}", ran.err);
    assert!(ran.err.starts_with("2 jobs: disconnected; trying again in "), "{}", ran.err);
    assert!(ran.err.matches("disconnected").count() > 1, "{}", ran.err);
    let error = format!(
        "error: lost the gateway at http://{address}: the connection was refused; not back within --reconnect 1.5s\n"
    );
    assert!(ran.err.ends_with(&error), "{}", ran.err);
    assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
}

#[tokio::test]
async fn lost_gateway_is_the_error_of_each_job_in_json() {
    let gateway = running().await;
    let (address, kill) = mortal(gateway.address).await;
    let mut child = watch(&address.to_string(), &["immuta/x", "immuta/y", "--json", "--reconnect", "0s"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        assert!(guard(lines.next_line()).await.unwrap().unwrap().contains("RUNNING"));
    }
    kill.notify_one();
    for job in ["x", "y"] {
        let line = guard(lines.next_line()).await.unwrap().unwrap();
        let error: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(error["job"]["jobId"], job);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("lost the gateway at http://{address}: ")), "{message}");
    }
    assert_eq!(Ran::of(&guard(child.wait_with_output()).await.unwrap()).code, Some(3));
}

#[tokio::test]
async fn timeout_ends_the_commands_with_all_their_processes() {
    let gateway = Gateway::start(vec![vec![response("done", "a")]]).await;
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let exec = format!("sleep 1000 & echo $! > {}; wait", pid.display());
    let address = gateway.address.to_string();
    let mut command = watch(&address, &["immuta/x", "-o", "name", "--timeout", "2s", "--exec", &exec]);
    let ran = Ran::of(&guard(command.output()).await.unwrap());
    assert_eq!(ran.code, Some(4), "{}", ran.err);
    assert_eq!(ran.err, "timeout: 1 command of --exec had not ended and was killed\n");
    let pid = std::fs::read_to_string(pid).unwrap();
    let is_dead = async {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            if stat.is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            } else {
                return;
            }
        }
    };
    guard(is_dead).await;
}

#[tokio::test]
async fn command_that_leaves_a_process_in_the_background_has_ended() {
    let gateway = Gateway::start(vec![vec![response("done", "a")]]).await;
    let exec = "sleep 1000 & echo $!";
    let address = gateway.address.to_string();
    let ran = Ran::of(&guard(watch(&address, &["immuta/x", "--exec", exec]).output()).await.unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    // It still runs, and is ended here.
    assert!(Command::new("kill").arg(ran.err.trim()).status().await.unwrap().success(), "{}", ran.err);
}

#[tokio::test]
async fn until_of_a_state_that_a_succeeded_job_has_passed_is_success() {
    let gateway = Gateway::start(vec![vec![response("done", "a")]]).await;
    let ran = gateway.run(&["watch", "immuta/x", "--until", "running"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.err);
}

#[tokio::test]
async fn interrupted_watch_prints_the_results_so_far() {
    let watches = scripts(vec![vec![response("done", "a")], vec![response("running", "b")]]);
    let gateway = Gateway::serve(Scripted { watches, stays_open: true, ..Scripted::default() }).await;
    let dir = tempfile::tempdir().unwrap();
    let mark = dir.path().join("mark");
    let exec = format!("touch {}; sleep 1000", mark.display());
    let args = ["immuta/x", "immuta/y", "-o", "json", "--exec", &exec];
    let child = watch(&gateway.address.to_string(), &args).spawn().unwrap();
    let started = async {
        while !mark.exists() {
            tokio::task::yield_now().await;
        }
    };
    guard(started).await;
    interrupt(&child).await;
    let ran = Ran::of(&guard(child.wait_with_output()).await.unwrap());
    assert_eq!(ran.code, Some(130), "{}", ran.err);
    let results: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(results.as_array().unwrap().len(), 2, "{}", ran.out);
    assert_eq!(results[0]["status"]["state"], "JOB_STATE_SUCCEEDED", "{}", ran.out);
}

#[tokio::test]
async fn poll_interval_of_zero_is_refused_with_the_option() {
    let ran = Ran::of(&jobwatch(&["watch", "immuta/x", "--poll-interval", "0s"]).output().await.unwrap());
    assert_eq!(ran.code, Some(2), "{}", ran.err);
    assert!(ran.err.contains("'--poll-interval <DURATION>': write a duration above zero"), "{}", ran.err);
}

#[tokio::test]
async fn server_without_grpc_suggests_the_gateways_port() {
    for response in ["", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 3];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request).await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, response.as_bytes()).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
            tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.unwrap();
        });
        let mut command = watch(&address.to_string(), &["immuta/x"]);
        let ran = Ran::of(&guard(command.output()).await.unwrap());
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        assert!(
            ran.err.contains("that of server.listen, such as 50051, not that of admin.listen"),
            "{}",
            ran.err
        );
    }
}
