//! Streams of sites in browsers that a reload takes from `server.web.origins`.

use super::*;

fn sections(origins: &[&str]) -> String {
    format!("[log]\naccess = true\n[server.web]\norigins = {origins:?}\n")
}

/// A stream of events, or a request that waits, as a site opens it.
async fn open(gateway: &Reloading, id: &str, rest: &str, origin: Option<&str>) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/v1/backends/immuta/jobs/{id}{rest}", gateway.program.address());
    let request = client.get(url);
    let request = match origin {
        Some(origin) => request.header("origin", origin),
        None => request,
    };
    guard(request.send()).await.unwrap()
}

async fn rest(mut response: reqwest::Response) -> String {
    let mut text = Vec::new();
    while let Some(bytes) = guard(response.chunk()).await.unwrap() {
        text.extend_from_slice(&bytes);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn stream_of_a_site_ends_when_it_is_taken_from_the_list() {
    let simulator = simulator(Vendor::Immuta).await;
    let (kept, dropped) = ("https://kept.example", "https://dropped.example");
    let gateway = Reloading::start(&sections(&[kept, dropped]), [Backend::of(&simulator)]).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    let of_dropped = open(&gateway, &id, "/events", Some(dropped)).await;
    let of_kept = open(&gateway, &id, "/events", Some(kept)).await;
    let of_program = open(&gateway, &id, "/events", None).await;
    let waiting = {
        let before = simulator.calls().len();
        let waiting = open(&gateway, &id, "?wait=600s", Some(dropped));
        let change = async {
            until(|| simulator.calls().len() > before + 1).await;
            gateway.reload(&sections(&[kept]), [Backend::of(&simulator)]).await;
        };
        tokio::join!(waiting, change).0
    };
    assert_eq!(waiting.status(), 503);
    let error = rest(waiting).await;
    assert!(error.contains("\"reason\":\"ACCESS_CHANGED\""), "{error}");
    let ended = rest(of_dropped).await;
    let (_, failure) = ended.split_once("event: failure\nretry: ").unwrap_or_else(|| panic!("{ended}"));
    assert!(failure.contains("ACCESS_CHANGED") && failure.ends_with("\n\n"), "{failure}");
    assert_eq!(open(&gateway, &id, "/events", Some(dropped)).await.status(), 403);
    simulator.finish(&id);
    for going_on in [of_kept, of_program] {
        let text = rest(going_on).await;
        assert!(text.contains("JOB_STATE_SUCCEEDED") && !text.contains("failure"), "{text}");
    }
    gateway.program.logged("method=\"WatchJob\" code=\"UNAVAILABLE\"").await;
}
