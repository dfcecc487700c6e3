//! What clients write in different ways: methods, media types, names.

use super::*;

#[tokio::test]
async fn head_is_answered_like_get_without_a_body() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with("[log]\naccess = true", &simulator).await;
    let id = simulator.start_job(Plan::default()).id;
    let job = format!("/v1/backends/immuta/jobs/{id}");
    for client in [over_http1(), over_http2()] {
        for path in
            ["/openapi.json", &job, "/v1/backends/immuta/jobs/none", &format!("{job}?wait=1"), "/nothing"]
        {
            let get = guard(client.get(url(&program, path)).send()).await.unwrap();
            let head = guard(client.head(url(&program, path)).send()).await.unwrap();
            assert_eq!(head.status(), get.status(), "{path}");
            assert_eq!(head.headers()["content-type"], get.headers()["content-type"]);
            let body = guard(get.bytes()).await.unwrap();
            if head.status() == 200 {
                assert_eq!(head.headers()["content-length"], body.len().to_string().as_str());
            }
            assert!(guard(head.bytes()).await.unwrap().is_empty());
        }
    }
    let log = program.log();
    assert!(!log.contains("code=\"CANCELLED\""), "{log}");
}

#[tokio::test]
async fn head_of_events_begins_no_watch() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program_with("[log]\naccess = true", &simulator).await;
    let id = simulator.start_job(Plan::fixed("active")).id;
    for client in [over_http1(), over_http2()] {
        let head = async |path: &str| {
            let request = client.head(url(&program, &format!("/v1/backends/immuta/jobs/{path}")));
            let response = guard(request.send()).await.unwrap();
            (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap().to_owned())
        };
        assert_eq!(head(&format!("{id}/events")).await, (200, "text/event-stream".to_owned()));
        assert_eq!(head("none/events").await, (404, "application/json".to_owned()));
        assert_eq!(head(&format!("{id}/events?view=ALL")).await.0, 400);
    }
    let log = program.log();
    let mut watches = log.lines().filter(|line| line.contains("method=\"WatchJob\""));
    assert!(watches.all(|line| line.contains("INVALID_ARGUMENT")), "{log}");
}

#[tokio::test]
async fn options_of_a_path_are_its_methods() {
    let program = program(&simulator(Vendor::Immuta).await).await;
    let asked =
        |target: &str| format!("OPTIONS {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    for (target, methods) in [
        ("*", "GET, HEAD, POST, OPTIONS"),
        ("/v1/jobs:batchGet", "POST, OPTIONS"),
        ("/v1/backends/b/jobs/1/events", "GET, HEAD, OPTIONS"),
    ] {
        let response = raw(&program, asked(target).as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 204 No Content\r\n"), "{response}");
        assert!(response.contains(&format!("\r\nallow: {methods}\r\n")), "{response}");
    }
    let response = guard(over_http1().delete(url(&program, "/v1/backends/b/jobs/1")).send()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["allow"]),
        (405, &"GET, HEAD, OPTIONS".parse().unwrap())
    );
}

#[tokio::test]
async fn paths_and_queries_are_read_as_clients_write_them() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    for (id, path) in
        [("a/b", "a%2Fb"), ("a b", "a%20b"), ("..", "%2E%2E"), ("1.2.3", "1.2.3"), ("é", "%C3%A9")]
    {
        let id = simulator.start_job(Plan::default().id(id)).id;
        // As it is written, without what a URL library makes of it.
        let request = format!(
            "GET /v1/backends/immuta/jobs/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        );
        let response = raw(&program, request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains(&*id), "{response}");
    }
    let hint = "there is nothing at this path; a job is /v1/backends/BACKEND/jobs/JOB_ID, with %2F for each / within \
                its id, and no / at the end; ";
    for path in ["/v1/backends/immuta/jobs/1/", "//v1/backends/immuta/jobs/1", "/v1/backends/immuta/jobs/a/b"]
    {
        let (code, error) = get_json(&program, path).await;
        assert!(code == 404 && error["message"].as_str().unwrap().starts_with(hint), "{error}");
    }
    for (query, message) in [
        ("weit=1s", "weit is no parameter of this path; write one of view, max_age, wait, job_tag"),
        ("maxAge=1s&max_age=2s", "max_age is given twice; write it once"),
    ] {
        let (code, error) = get_json(&program, &format!("/v1/backends/immuta/jobs/1?{query}")).await;
        assert_eq!((code, &error["message"]), (400, &json!(message)));
    }
}

#[tokio::test]
async fn names_of_views_are_the_same_in_query_and_body() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let id = simulator.start_job(Plan::succeeds(Outcome::Text("text".to_owned()))).id;
    for view in ["BASIC", "basic", "JOB_STATUS_VIEW_BASIC", "job_status_view_basic"] {
        let (code, status) = get_json(&program, &format!("/v1/backends/immuta/jobs/{id}?view={view}")).await;
        assert_eq!((code, status["status"].get("result")), (200, None), "{view}");
        let body = json!({ "jobs": [{ "backend": "immuta", "jobId": id }], "view": view });
        let (code, response) = sent(batch_of(&program, &body)).await;
        assert_eq!((code, response["results"][0]["status"].get("result")), (200, None), "{view}");
    }
    let (code, error) = sent(batch_of(&program, &json!({ "jobs": [], "view": "ALL" }))).await;
    let message = error["message"].as_str().unwrap();
    assert!(code == 400 && message.contains("'ALL'") && message.contains("line 1 column"), "{message}");
}

#[tokio::test]
async fn content_types_have_parameters_and_any_case_and_no_encoding() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let batch = |name: &'static str, value: &'static str| {
        let request = over_http1().post(url(&program, "/v1/jobs:batchGet")).body(r#"{"jobs": []}"#);
        let request =
            if name == "content-type" { request } else { request.header("content-type", "application/json") };
        sent(request.header(name, value))
    };
    for content_type in ["application/json;charset=utf-8", "Application/JSON ; x=\"y\""] {
        assert_eq!(batch("content-type", content_type).await.0, 400, "{content_type}");
    }
    assert_eq!(batch("content-type", "text/plain").await.0, 415);
    assert_eq!(batch("content-encoding", "identity").await.0, 400, "the body is read");
    let (code, error) = batch("transfer-encoding", "gzip, chunked").await;
    assert!(
        code == 415
            && error["message"].as_str().unwrap().starts_with("the header Transfer-Encoding is \"gzip\"")
    );
    let (code, error) = batch("content-encoding", "gzip").await;
    let message = "the header Content-Encoding is \"gzip\", which is not served; send the body as it is, without this header";
    assert_eq!((code, &error["message"]), (415, &json!(message)));
}

#[tokio::test]
async fn resumed_stream_begins_before_its_first_event() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    for client in [over_http1(), over_http2()] {
        let id = simulator.start_job(Plan::fixed("active")).id;
        let path = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events?heartbeat_interval=600s"));
        let first = Events::open(&client, &path, None).await.status().await;
        let mut again = Events::open(&client, &path, Some(&first.id)).await;
        let comment = guard(again.response.chunk()).await.unwrap().unwrap();
        assert_eq!(&*comment, b":\n\n");
        simulator.finish(&id);
        let last = again.status().await;
        assert_eq!(last.data["status"]["terminal"], true);
        let token = guard(client.get(format!("{path}&resume_token={}", last.id)).send()).await.unwrap();
        assert_eq!(token.status(), 204, "the id of the last event is a token in the query, too");
        let bad = guard(client.get(format!("{path}&resume_token=x")).send()).await.unwrap();
        assert_eq!(bad.status(), 400, "what is known at once is no stream");
    }
}

#[tokio::test]
async fn resumed_stream_that_fails_for_good_tells_a_browser_to_stop() {
    let simulator = simulator(Vendor::Immuta).await;
    let program = program(&simulator).await;
    let client = over_http1();
    let id = simulator.start_job(Plan::fixed("active")).id;
    let path = url(&program, &format!("/v1/backends/immuta/jobs/{id}/events"));
    let first = Events::open(&client, &path, None).await.status().await;
    simulator.forget(&id);
    let mut again = Events::open(&client, &path, Some(&first.id)).await;
    let end = loop {
        let event = again.next().await.unwrap();
        if event.name == "failure" {
            break event;
        }
    };
    assert_eq!((&end.data["code"], &*end.id, end.retry), (&json!(5), ".end", None));
    assert_eq!(again.next().await, None);
    let last = guard(client.get(&path).header("last-event-id", &end.id).send()).await.unwrap();
    assert_eq!(last.status(), 204);
}

#[tokio::test]
async fn request_that_is_refused_counts_as_the_call_that_it_would_be() {
    let simulator = simulator(Vendor::Immuta).await;
    let token = generate_token();
    let sections = format!(
        "[server.web]\norigins = [\"https://app.example\"]\n[log]\naccess = true\n[access.tokens]\nci.sha256 = [\"{}\"]\n\
         [[access.policies]]\nprincipals = [\"token:ci\"]\nbackends = [\"immuta\"]\n[admin]\nlisten = \"127.0.0.1:0\"",
        hash_token(&token)
    );
    let program = program_with(&sections, &simulator).await;
    let admin = program.address_after("admin address is ").await;
    let batch = || over_http1().post(url(&program, "/v1/jobs:batchGet")).body("{}");
    let json = "application/json";
    let with_token = || batch().bearer_auth(&token);
    let web = || {
        let call = url(&program, "/jobwatch.v1.JobStatusService/BatchGetStatuses");
        over_http1().post(call).header("content-type", "application/grpc-web+proto").body("")
    };
    let job = |query: &str| over_http1().get(url(&program, &format!("/v1/backends/immuta/jobs/1{query}")));
    for (id, request, code) in [
        ("no-credentials", batch().header("content-type", json), 401),
        ("no-credentials-web", web(), 200),
        ("foreign-site", with_token().header("origin", "https://evil.example"), 403),
        ("content-type", with_token(), 415),
        ("content-type-first", batch().header("content-type", "text/plain"), 401),
        ("encoding", with_token().header("content-type", json).header("content-encoding", "br"), 415),
        ("encoding-web", web().bearer_auth(&token).header("content-encoding", "br"), 200),
        ("length", with_token().header("content-type", json).body(" ".repeat(3 << 20)), 413),
        ("length-web", web().bearer_auth(&token).body(vec![0; 3 << 20]), 200),
        ("no-json", with_token().header("content-type", json).body("x"), 400),
        ("query", job("?weit=1s").bearer_auth(&token), 400),
    ] {
        let response = guard(request.header("x-request-id", id).send()).await.unwrap();
        assert_eq!(response.status(), code, "{id}");
        assert_eq!(response.headers()["x-request-id"], id);
        let line = program
            .find(|log| log.lines().find(|line| line.contains(&format!("=\"{id}\""))).map(str::to_owned));
        let line = line.await;
        let method = if id == "query" { "GetJobStatus" } else { "BatchGetStatuses" };
        assert!(line.contains(&format!("method=\"{method}\"")) && !line.contains("CANCELLED"), "{line}");
        let is_known =
            !["no-credentials", "no-credentials-web", "foreign-site", "content-type-first"].contains(&id);
        assert_eq!(line.contains("principal=\"token:ci\""), is_known, "{line}");
    }
    let metrics = guard(over_http1().get(format!("http://{admin}/metrics")).send()).await.unwrap();
    let metrics = guard(metrics.text()).await.unwrap();
    let counted = metrics
        .lines()
        .filter(|line| line.contains("jobwatch_rpcs_total{") && line.contains("\"BatchGetStatuses\""));
    let counted: f64 = counted.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum();
    assert!((counted - 10.0).abs() < 0.5, "{metrics}");
    assert!(simulator.calls().is_empty());
}
