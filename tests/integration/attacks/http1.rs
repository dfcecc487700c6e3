//! Attacks over HTTP/1.1, which have to open a connection for each call.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    bytes_held::large_job,
    costs::{Measured, numbers, row},
    *,
};

/// Connections from another address that each send these bytes, and read nothing.
async fn send_on_each(address: SocketAddr, number: usize, bytes: Vec<u8>) -> Vec<TcpStream> {
    let mut connections = Vec::new();
    for _ in 0..number {
        let mut stream = connect_with_small_buffer(address, 2).await;
        // The server may have refused the connection.
        if stream.write_all(&bytes).await.is_ok() {
            connections.push(stream);
        }
    }
    connections
}

async fn connect_with_small_buffer(address: SocketAddr, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // The kernel would hold responses otherwise, and not the program.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind((IpAddr::from([127, 0, 0, last]), 0).into()).unwrap();
    socket.connect(address).await.unwrap()
}

fn get_head(job: &JobRef, rest: &str) -> Vec<u8> {
    let path = format!("/v1/backends/{}/jobs/{}{rest}", job.backend, job.job_id);
    format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes()
}

#[tokio::test]
async fn unread_responses_over_http1_are_bounded() {
    for (name, rest) in
        [("unread JSON over HTTP/1.1", "?view=FULL&max_age=3600s"), ("unread events", "/events?view=FULL")]
    {
        let mut scene = Scene::start(name).await;
        let job = large_job(&scene, 1 << 20).await;
        // As many as an address may have.
        let attack = send_on_each(scene.address(), 150, get_head(&job, rest));
        let connections = scene.under(attack).await;
        assert_eq!(connections.len(), 150);
        scene.go_on().await;
        drop(connections);
        scene.finish().await;
    }
}

#[tokio::test]
async fn unfinished_requests_over_http1_are_bounded() {
    let mut scene = Scene::start("unfinished requests over HTTP/1.1").await;
    let head = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}", "x".repeat(19 << 10)).into_bytes();
    let most = 2 << 20;
    let mut body = format!(
        "POST /v1/jobs:batchGet HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {most}\r\n\r\n"
    )
    .into_bytes();
    body.resize(body.len() + most - 1, b' ');
    for bytes in [head, body] {
        let address = scene.address();
        let attack = async move {
            let mut attackers = tokio::task::JoinSet::new();
            for _ in 0..150 {
                let bytes = bytes.clone();
                attackers.spawn(async move {
                    let mut stream = connect_with_small_buffer(address, 2).await;
                    // A request for which there is no room is refused before it has ended.
                    let sent = stream.write_all(&bytes);
                    let _ = tokio::time::timeout(Duration::from_secs(5), sent).await;
                    stream
                });
            }
            attackers.join_all().await
        };
        let connections = scene.under(attack).await;
        scene.go_on().await;
        drop(connections);
    }
    scene.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn connections_over_http1_cost_at_most_what_they_are_counted_with() {
    let measured = Measured::start(None).await;
    let large = format!("[{:?}]", "x".repeat(60_000));
    let large = ended_job(&measured.simulator, &measured.client, &large).await;
    let address = measured.program.address().parse().unwrap();
    let (connections, _) = numbers();
    let before = measured.memory().await;
    let request = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: {}", "x".repeat(19 << 10)).into_bytes();
    let unfinished = send_on_each(address, connections, request).await;
    let held = (measured.memory().await - before) / connections as f64;
    row("connection over HTTP/1.1 with a head that does not end", held, IDLE_CONNECTION_BYTES);
    drop(unfinished);
    let before = measured.memory().await;
    let mut used = send_on_each(address, connections, get_head(&large, "?max_age=3600s")).await;
    for stream in &mut used {
        let mut read = vec![0; 200_000];
        let mut length = 0;
        while !read[..length].ends_with(b"\r\n0\r\n\r\n") {
            let more = guard(stream.read(&mut read[length..])).await.unwrap();
            assert!(more > 0);
            length += more;
        }
    }
    let idle = (measured.memory().await - before) / connections as f64;
    row("connection over HTTP/1.1 after a large response", idle, IDLE_CONNECTION_BYTES);
    assert!(held.max(idle) <= IDLE_CONNECTION_BYTES as f64, "see the rows above");
}
