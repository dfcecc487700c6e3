//! Clusters that stand in for another, and whether one is healthy.

use super::*;

fn standby(encoding: Encoding) -> Kinetica {
    Kinetica::standby(base_url(), encoding)
}

/// The job's own cluster may have said the same without a tag, and an element whose bytes
/// are known is not read again.
#[test]
fn standby_record_without_the_tag_is_no_element() {
    let response = answer(200, "application/json", wrapped(r#"{"job_status":"DONE","info":{}}"#));
    let tagged = [job().with_tag("t1")];
    let primary = adapter().split(&tagged, &response).unwrap();
    let [Ok(element)] = primary.as_slice() else { panic!("{primary:?}") };
    assert_eq!(adapter().observe(&tagged[0], element).unwrap().state, JobState::Succeeded);
    let standby = standby(Encoding::Json);
    let on_standby = standby.split(&tagged, &response).unwrap();
    assert!(matches!(on_standby.as_slice(), [Err(JobFault::Malformed { .. })]), "{on_standby:?}");
    assert!(matches!(standby.observe(&tagged[0], element), Err(JobFault::Malformed { .. })));
}

#[test]
fn record_of_another_tag_is_never_the_jobs() {
    let other = wrapped(r#"{"job_status":"DONE","info":{"job_tag":"t2"}}"#);
    let tagged = [job().with_tag("t1")];
    let ask = |adapter: &Kinetica, jobs: &[JobRef], body: &str| {
        observations(adapter, jobs, &answer(200, "application/json", body.to_owned())).unwrap().remove(0)
    };
    let on_standby = |jobs: &[JobRef], body: &str| ask(&standby(Encoding::Json), jobs, body);
    let unattributable = |why| Err(JobFault::Malformed { why });
    assert_eq!(ask(&adapter(), &tagged, &other), unattributable("it names another job_tag"));
    assert_eq!(on_standby(&tagged, &other), Err(StandbyFault::DoesNotKnowJob.into()));
    // The job's own cluster finds it by its id, a standby only by its tag.
    let unnamed = wrapped(r#"{"job_status":"DONE","info":{}}"#);
    assert_eq!(ask(&adapter(), &tagged, &unnamed).unwrap().state, JobState::Succeeded);
    assert_eq!(ask(&adapter(), &[job()], &other).unwrap().state, JobState::Succeeded);
    let why = "a standby's record does not name the job_tag";
    for (jobs, body) in [(&tagged, &unnamed), (&[job()], &unnamed), (&[job()], &other)] {
        assert_eq!(on_standby(jobs, body), unattributable(why));
    }
    let own = wrapped(r#"{"job_status":"DONE","info":{"job_tag":"t1"}}"#);
    assert_eq!(on_standby(&tagged, &own).unwrap().state, JobState::Succeeded);
}

#[test]
fn standby_that_does_not_know_a_job_says_nothing_about_it() {
    let body =
        json!({"status":"ERROR","message":"Job id 7 not found","data_type":"none","data":"","data_str":""});
    let response = answer(400, "application/json", body.to_string());
    let unknown: JobFault = StandbyFault::DoesNotKnowJob.into();
    assert_eq!(
        observations(&standby(Encoding::Json), &[job().with_tag("t")], &response),
        Ok(vec![Err(unknown)])
    );
}

#[test]
fn job_without_a_tag_is_unpollable_at_a_standby() {
    assert_eq!(standby(Encoding::Json).unpollable(&job()), Some(StandbyFault::NeedsJobTag.into()));
    assert_eq!(standby(Encoding::Json).unpollable(&job().with_tag("t")), None);
    assert_eq!(adapter().unpollable(&job()), None);
}

#[test]
fn cluster_is_healthy_while_it_runs_and_drains_nothing() {
    let unavailable = |why: &str| Err(FaultKind::Unavailable { why: why.into() }.into());
    let no_status = || Err(malformed("it holds no system status"));
    let system = |system: &str| json!({"status_map": {"system": system}, "info": {}}).to_string();
    for (record, wanted) in [
        (system(r#"{"status":"running"}"#), Ok(())),
        (system(r#"{"status":"running","ha_status":{"drained":"drained"}}"#), Ok(())),
        (system(r#"{"status":"offline"}"#), unavailable("it is not running")),
        (system("{}"), unavailable("it is not running")),
        (
            system(r#"{"status":"running","ha_status":{"drained":"draining"}}"#),
            unavailable("it is draining its queue"),
        ),
        (
            json!({"status_map": {"system": r#"{"status":"running"}"#, "ha_status": r#"{"drained":"draining"}"#}})
                .to_string(),
            unavailable("it is draining its queue"),
        ),
        (system("running"), no_status()),
        (json!({"status_map": {}}).to_string(), no_status()),
        ("{}".to_owned(), no_status()),
        (String::new(), no_status()),
    ] {
        let response = answer(200, "application/json", wrapped(&record));
        assert_eq!(adapter().read_health(&response), wanted, "{record}");
    }
    for (status, message) in [(400, "System shutting down"), (200, "Kinetica is offline")] {
        let body = json!({"status":"ERROR","message":message}).to_string();
        let fault = adapter().read_health(&answer(status, "application/json", body)).unwrap_err();
        assert!(matches!(fault.kind, FaultKind::Unavailable { .. }));
    }
}

#[test]
fn health_request_has_either_encoding() {
    let request = adapter().health_request();
    assert_eq!(request.uri(), "https://host:8082/gpudb-0/show/system/status");
    assert_eq!(request.body(), r#"{"options":{}}"#);
    assert_eq!(binary().health_request().body(), b"\x00".as_slice());
    let record = b"\x02\x0csystem\x28{\"status\":\"running\"}\x00\x00";
    let mut body = b"\x04OK\x00\x00".to_vec();
    body.push(u8::try_from(record.len() * 2).unwrap());
    body.extend_from_slice(record);
    body.push(0);
    assert_eq!(binary().read_health(&answer(200, "application/octet-stream", body)), Ok(()));
}
