//! What is not well behind the server, said with HTTP 200.

use std::time::Duration;

use super::*;

#[test]
fn outage_behind_the_server_is_an_error_with_http_200() {
    let unavailable = |fault: &BackendFault| matches!(fault.kind, FaultKind::Unavailable { .. });
    for jobs in [&["a"][..], &["a", "b", "c"]] {
        for code in
            ["INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "timeout", "GatewayTimeout", "BAD_GATEWAY"]
        {
            for path in [json!(null), json!(["result"])] {
                let error = error("x", &path, &json!({"code":code}));
                for data in [json!(null), json!({"result":null})] {
                    let fault = read(jobs, &json!({"errors":[error],"data":data})).unwrap_err();
                    assert!(unavailable(&fault) && fault.http_status.is_none(), "{code}: {fault:?}");
                    assert_eq!(fault.retry_after, None);
                }
            }
        }
        for code in ["RATE_LIMITED", "throttled", "TOO_MANY_REQUESTS"] {
            let error = error("x", &json!(["result"]), &json!({"code":code,"retryAfter":7}));
            let fault = read(jobs, &json!({"errors":[error],"data":null})).unwrap_err();
            assert_eq!(fault.kind, FaultKind::Throttled, "{code}");
            assert_eq!(fault.retry_after, Some(Duration::from_secs(7)));
        }
        let limited = error("x", &json!(null), &json!({"code":"RATE_LIMITED"}));
        let mut response = answer(200, json!({"errors":[limited],"data":null}).to_string());
        for (name, value) in [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "7")] {
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        let fault = observations(&adapter(), &self::jobs(jobs), &response).unwrap_err();
        assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, Some(Duration::from_secs(7))));
        let busy = error("x", &json!(null), &json!({"code":"SLOW_DOWN","retryAfterMs":7000}));
        let fault = read(jobs, &json!({"errors":[busy],"data":null})).unwrap_err();
        assert_eq!((fault.kind, fault.retry_after), (FaultKind::Throttled, Some(Duration::from_secs(7))));
        let denied = error("x", &json!(["result"]), &json!({"http":{"status":403}}));
        let fault = read(jobs, &json!({"errors":[denied],"data":null})).unwrap_err();
        assert_eq!(fault, FaultKind::Forbidden.into());
        let refused = error("x", &json!(null), &json!({"exception":{"status":503}}));
        let fault = read_at(400, jobs, &json!({"errors":[refused],"data":null}).to_string()).unwrap_err();
        assert!(unavailable(&fault) && fault.http_status == Some(400), "{fault:?}");
    }
}

#[test]
fn outage_of_every_element_is_the_backends() {
    for jobs in [&["a"][..], &["a", "b"]] {
        for (code, is_throttle) in
            [("SERVICE_UNAVAILABLE", false), ("INTERNAL_SERVER_ERROR", false), ("RATE_LIMITED", true)]
        {
            let errors: Vec<_> =
                (0..jobs.len()).map(|at| error("x", &json!(["result", at]), &json!({"code":code}))).collect();
            let nulls = vec![json!(null); jobs.len()];
            let fault = read(jobs, &json!({"errors":errors,"data":{"result":nulls}})).unwrap_err();
            assert_eq!(fault.kind == FaultKind::Throttled, is_throttle, "{code}");
            assert!(fault.kind.is_temporary(), "{code}");
        }
    }
}

#[test]
fn outage_of_one_element_stays_its_own() {
    let one = error("x", &json!(["result", 1]), &json!({"code":"SERVICE_UNAVAILABLE"}));
    let data = json!({"result":[{"id":"a","status":"NONE"}, null]});
    let said = read(&["a", "b"], &json!({"errors":[one],"data":data})).unwrap();
    assert_eq!(said[0].as_ref().unwrap().state, JobState::Pending);
    assert!(matches!(said[1], Err(JobFault::Malformed { .. })), "{said:?}");
}

#[test]
fn missing_job_that_a_resolver_throws_is_missing() {
    let thrown = error("Job not found", &json!(["result"]), &json!({"code":"INTERNAL_SERVER_ERROR"}));
    let said = read(&["a"], &json!({"errors":[thrown],"data":null}));
    assert_eq!(said, Ok(vec![Err(JobFault::NotFound)]));
}
