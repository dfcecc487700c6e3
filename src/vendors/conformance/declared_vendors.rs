//! Vendors that a definition describes, held to the same suite. Two definitions describe
//! built-in vendors: what they say of any response has to be what the adapter says.

use super::{declared::tests, *};

pub(super) fn rows() -> Vec<Row> {
    let of = |row: Row, vendor: &'static str, definition: &str, keys: &str| Row {
        vendor,
        adapter: Box::new(tests::declared(definition, BASE, keys)),
        same_as: Some(row.adapter),
        ..row
    };
    let built_in = |name: &str| super::built_in().into_iter().find(|row| row.vendor == name).unwrap();
    let shipped = |name: &str, keys: &str| Box::new(tests::declared(tests::shipped(name), BASE, keys));
    let row = |vendor: &'static str, adapter: Box<declared::Declared>| Row {
        vendor,
        adapter,
        polled: &["7"],
        strangers: &["8"],
        answer: "",
        wire: Clone::clone,
        media_type: "application/json",
        has_a_login_page: false,
        bare_404_is_missing: true,
        same_as: None,
    };
    vec![
        of(
            built_in("immuta"),
            "immuta by definition",
            tests::IMMUTA,
            "credentials = { exchange_key = \"k\" }",
        ),
        of(
            built_in("datasaur"),
            "datasaur by definition",
            tests::DATASAUR,
            "credentials = { client_id = \"id\", client_secret = \"s\" }",
        ),
        Row {
            answer: r#"{"run_id": 7, "run_name": "n", "start_time": 1767323045000, "end_time": 0, "run_duration": 5,
                "state": {"life_cycle_state": "TERMINATED", "result_state": "FAILED", "state_message": "boom"},
                "tasks": [{"run_id": 9, "task_key": "a"}, {"run_id": 10, "task_key": "a"}]}"#,
            bare_404_is_missing: false,
            ..row(
                "databricks",
                shipped("databricks", "credentials = { client_id = \"i\", client_secret = \"s\" }"),
            )
        },
        Row {
            answer: r#"{"status": {"code": 200}, "data": {"id": 7, "status": 20, "status_message": "boom",
                "created_at": "2026-01-02 03:04:05+00:00", "artifacts_saved": true}}"#,
            ..row("dbt-cloud", shipped("dbt-cloud", "params = { account_id = 1 }"))
        },
        Row {
            polled: &["etl/a"],
            strangers: &["etl/c", "x/a"],
            bare_404_is_missing: false,
            answer: r#"{"dag_id": "etl", "dag_run_id": "a", "state": "failed", "note": "x", "end_date": null}"#,
            ..row("airflow", shipped("airflow", "credentials = { username = \"u\", password = \"p\" }"))
        },
        Row {
            polled: &["batch_1"],
            strangers: &["batch_2"],
            answer: r#"{"id": "batch_1", "status": "failed", "created_at": 1711471533, "output_file_id": "f-1",
                "errors": {"data": [{"message": "a"}]}, "request_counts": {"total": 2, "completed": 1, "failed": 1}}"#,
            ..row("openai-batch", shipped("openai-batch", ""))
        },
        Row {
            polled: &["gid://shopify/BulkOperation/1", "gid://shopify/BulkOperation/2"],
            strangers: &["gid://shopify/BulkOperation/3"],
            answer: r#"{"data": {"nodes": [
                {"id": "gid://shopify/BulkOperation/1", "status": "COMPLETED", "objectCount": "12", "url": "https://x.example/u"},
                {"id": "gid://shopify/BulkOperation/2", "status": "FAILED", "errorCode": "TIMEOUT"}]}}"#,
            bare_404_is_missing: false,
            ..row("shopify-bulk", shipped("shopify-bulk", ""))
        },
    ]
}

/// What a response says, without the words for what can't be understood. An empty word is one
/// that nobody knows, or malformed: the built-in vendors differ, and it ends no job.
pub(super) fn comparable(observations: Observations) -> Observations {
    let job = |fault| match fault {
        JobFault::Malformed { .. } => JobFault::Malformed { why: "" },
        fault => fault,
    };
    let known = |seen: Observation| match seen.vendor_state.as_str() {
        "" => Err(JobFault::Malformed { why: "" }),
        _ => Ok(seen),
    };
    match observations {
        Ok(answers) => Ok(answers.into_iter().map(|answer| answer.map_err(job).and_then(known)).collect()),
        Err(mut fault) => {
            if let FaultKind::Malformed { why } = &mut fault.kind {
                *why = "";
            }
            Err(fault)
        }
    }
}
