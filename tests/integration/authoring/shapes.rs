//! Answers of the shapes that vendors' documentation has.

/// An answer that somebody pastes, and what they know of the vendor beside it.
pub(super) struct Pasted {
    pub(super) name: &'static str,
    pub(super) request: &'static str,
    pub(super) id: Option<&'static str>,
    pub(super) answer: &'static str,
    /// What is filled in: lines of the definition, each with its replacement.
    pub(super) filled: &'static [(&'static str, &'static str)],
    /// Lines of the definition that were guessed.
    pub(super) guessed: &'static [&'static str],
    pub(super) state: &'static str,
}

/// The shapes of the vendors' documentation that the shipped cases have.
pub(super) const PASTED: [Pasted; 7] = [
    Pasted {
        name: "like-databricks",
        request: "GET https://my.cloud.example/api/2.2/jobs/runs/get?run_id=455644833",
        id: None,
        answer: r#"{"job_id": 11223344, "run_id": 455644833, "run_name": "nightly", "run_type": "JOB_RUN",
  "creator_user_name": "ana@corp.example", "run_page_url": "https://my.cloud.example/#job/11223344/run/455644833",
  "start_time": 1767323045000, "end_time": 1767323105000, "run_duration": 60000,
  "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": ""}}"#,
        filled: &[
            ("RUNNING   = []", "RUNNING = [\"RUNNING/*\"]"),
            ("FAILED    = []", "FAILED = [\"TERMINATED/FAILED\"]"),
        ],
        guessed: &[
            "word        = [\"job.state.life_cycle_state\", \"job.state.result_state\"]",
            "start_time  = { at = \"job.start_time\", unit = \"ms\" }",
            "SUCCEEDED = [\"TERMINATED/SUCCESS\"]",
            "query = { run_id = \"{{ id.run_id }}\" }",
        ],
        state: "SUCCEEDED",
    },
    Pasted {
        name: "like-airflow",
        request: "GET https://air.example/api/v2/dags/my%20etl/dagRuns/r-1",
        id: Some("r-1"),
        answer: r#"HTTP/1.1 200 OK
Content-Type: application/json

{"dag_run_id": "r-1", "dag_id": "my etl", "queued_at": "2026-01-02T03:04:00Z", "start_date": "2026-01-02T03:04:05Z",
 "end_date": "2026-01-02T03:05:05Z", "duration": 60.0, "run_type": "manual", "state": "success", "note": null}"#,
        filled: &[("FAILED    = []", "FAILED = [\"failed\"]")],
        guessed: &[
            "pattern = \"{dag_id}/{dag_run_id}\"",
            "path = \"/api/v2/dags/{{ id.dag_id }}/dagRuns/{{ id.dag_run_id }}\"",
            "id          = { dag_id = \"job.dag_id\", dag_run_id = \"job.dag_run_id\" }",
        ],
        state: "SUCCEEDED",
    },
    Pasted {
        name: "like-dbt",
        request: "GET https://dbt.example/api/v2/accounts/12345/runs/77/",
        id: None,
        answer: r#"{"status": {"code": 200, "is_success": true}, "data": {"id": 77, "account_id": 12345, "status": 20,
  "status_humanized": "Error", "status_message": "bad model", "created_at": "2026-01-02 03:04:05.123456+00:00", "finished_at": null}}"#,
        filled: &[("SUCCEEDED = []", "SUCCEEDED = [10]")],
        guessed: &[
            "account_id = { type = \"integer\" }",
            "job     = \"body.data\"",
            "FAILED    = [\"20\"]",
            "error       = { message = \"job.status_message\"",
        ],
        state: "FAILED",
    },
    Pasted {
        name: "like-github",
        request: "GET https://git.example/repos/quarry/dust/actions/runs/71",
        id: None,
        answer: r#"{"id": 71, "name": "build", "status": "in_progress", "conclusion": null, "html_url": "https://git.example/r/71",
  "created_at": "2026-01-02T03:04:00Z", "run_started_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:05:05Z",
  "actor": {"login": "ana"}}"#,
        filled: &[
            ("SUCCEEDED = []", "SUCCEEDED = [\"completed/success\"]"),
            ("FAILED    = []", "FAILED = [\"completed/failure\"]"),
        ],
        guessed: &[
            "word        = [\"job.status\", \"job.conclusion\"]",
            "RUNNING   = [\"in_progress/*\"]",
            "volatile    = [\"job.updated_at\"]",
        ],
        state: "RUNNING",
    },
    Pasted {
        name: "like-openai",
        request: "https://ai.example/v1/batches/batch_77",
        id: None,
        answer: r#"{"id": "batch_77", "object": "batch", "endpoint": "/v1/chat", "errors": {"data": []}, "status": "expired",
  "created_at": 1767323045, "in_progress_at": 1767323046, "expires_at": 1767409445, "completed_at": null, "failed_at": null,
  "expired_at": 1767323105, "request_counts": {"total": 100, "completed": 95, "failed": 5}}"#,
        filled: &[("SUCCEEDED = []", "SUCCEEDED = [\"completed\"]")],
        guessed: &[
            "pattern = \"{batch_id}\"",
            "end_time    = { at = \"job.completed_at or job.expired_at or job.failed_at\", unit = \"s\" }",
            "progress    = { completed_steps = \"job.request_counts.completed\", total_steps = \"job.request_counts.total\" }",
            "EXPIRED   = [\"expired\"]",
        ],
        state: "EXPIRED",
    },
    Pasted {
        name: "like-dagster",
        request: "POST https://dag.example/graphql",
        id: Some("r-1"),
        answer: r#"{"data": {"runsOrError": {"results": [
  {"runId": "r-3", "status": "STARTED", "creationTime": 1767323045.5, "endTime": null},
  {"runId": "r-1", "status": "SUCCESS", "creationTime": 1767323045.0, "endTime": 1767323105.0}]}}}"#,
        filled: &[("FAILED    = []", "FAILED = [\"FAILURE\"]")],
        guessed: &[
            "jobs              = \"body.data.runsOrError.results\"",
            "graphql.variables = { ids = \"{{ ids | map(attribute='run_id') | list }}\" }",
        ],
        state: "SUCCEEDED",
    },
    Pasted {
        name: "like-google",
        request: "GET https://ops.example/v1/operations/op-17",
        id: Some("op-17"),
        answer: r#"{"name": "op-17", "done": true, "metadata": {"createTime": "2026-01-02T03:04:00Z", "verb": "create"},
  "error": {"code": 3, "message": "no quota"}}"#,
        filled: &[],
        guessed: &[
            "word        = [\"job.done\", \"'error' if job.error else none\"]",
            "FAILED    = [\"true/error\"]",
            "error       = { message = \"job.error.message\", details = \"job.error\"",
        ],
        state: "FAILED",
    },
];
