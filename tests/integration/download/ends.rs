//! Downloads that end early, and stalled downloads.

use super::*;

#[tokio::test]
async fn truncated_download_fails_and_resumes_from_there() {
    let (gateway, mut tap) = tapped().await;
    let job = gateway.job([file(Content::Pattern(LARGE))]);
    let mut stream = gateway.open(&job, FILE, 0).await.unwrap();
    info(&mut stream).await.unwrap();
    let at = read(&mut stream, 0, MEBI).await.unwrap();
    tap.is_open(1).await;
    tap.reset();
    let status = read(&mut stream, at, u64::MAX).await.unwrap_err();
    assert_eq!(Failure::of(&status), Failure::unavailable());
    let (info, rest) = gateway.download(&job, FILE, i64::try_from(at).unwrap()).await.unwrap();
    assert_eq!((info.size_bytes, rest), (Some(1 << 26), LARGE - at));

    gateway.claret.inject(Fault::new(Effect::Truncate(1000)).at("/download/").times(1));
    let small = gateway.job([file(Content::Pattern(9999))]);
    assert_eq!(gateway.fails(&small, FILE, 0).await, Failure::unavailable());
    tap.is_open(0).await;
}

#[tokio::test]
async fn download_past_its_deadline_or_cancelled_ends_at_the_vendor() {
    let (gateway, mut tap) = tapped().await;
    let job = gateway.job([file(Content::Pattern(LARGE))]);
    let mut stream = gateway.open(&job, FILE, 0).await.unwrap();
    read(&mut stream, 0, 0).await.unwrap();
    tap.is_open(1).await;
    drop(stream);
    timeout(GUARD, tap.is_open(0)).await.expect("it is cancelled at the vendor");

    // Before the response begins.
    gateway.claret.inject(Fault::new(Effect::Hang).at("/download/").times(1));
    let call = gateway.open(&job, FILE, 0);
    assert!(timeout(SECOND / 2, call).await.is_err());
    timeout(GUARD, tap.is_open(0)).await.expect("it is cancelled at the vendor");

    // A stalled reader does not keep the vendor's connection open past its deadline.
    let mut request = Request::new(request(&job, FILE, 0));
    request.set_timeout(SECOND / 2);
    let begun = Instant::now();
    let mut stream = connect(gateway.address).await.download_artifact(request).await.unwrap().into_inner();
    tap.is_open(1).await;
    timeout(GUARD, tap.is_open(0)).await.expect("it ends at the vendor");
    // The server ends the call slightly before the deadline.
    assert!(begun.elapsed() + SECOND / 50 >= SECOND / 2);
    info(&mut stream).await.unwrap();
    let status = read(&mut stream, 0, u64::MAX).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn stalled_downloads_delay_no_poll() {
    let claret = Simulator::start(Vendor::Claret).await.unwrap();
    let url = claret.base_url();
    let gateway = Gateway::of(claret, &url, "max_concurrency = 2\ntimeout = \"300ms\"").await;
    let large = gateway.job([file(Content::Pattern(LARGE))]);
    let first = gateway.open(&large, FILE, 0).await.unwrap();
    // One caller may have one of two.
    let too_many = Failure::new(Code::ResourceExhausted, "TOO_MANY_DOWNLOADS");
    assert_eq!(gateway.fails(&large, FILE, 0).await, too_many);
    // The first status of a job comes from a poll.
    let small = gateway.job([file(Content::Pattern(9))]);
    assert_eq!(gateway.fails(&small, FILE, 0).await, too_many);
    assert_eq!(gateway.claret.count("/imports/status/"), 2);
    drop(first);
    assert_eq!(gateway.download(&small, FILE, 0).await.unwrap().1, 9);
}

#[tokio::test]
async fn shutdown_during_a_download_ends_it_after_the_drain() {
    let gateway = Gateway::start().await;
    let job = gateway.job([file(Content::Pattern(64 * LARGE))]);
    let mut stream = gateway.open(&job, FILE, 0).await.unwrap();
    info(&mut stream).await.unwrap();
    gateway.shutdown.cancel();
    let begun = Instant::now();
    let mut at = 0;
    let status = loop {
        match read(&mut stream, at, at + MEBI).await {
            Ok(read) => at = read,
            Err(status) => break status,
        }
        // A slow reader, so that the file outlasts the drain.
        sleep(Duration::from_millis(50)).await;
    };
    assert!(begun.elapsed() >= 3 * SECOND && at > MEBI);
    assert_eq!(Failure::of(&status), Failure::new(Code::Unavailable, "SHUTTING_DOWN"));
}
