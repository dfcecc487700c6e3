//! Vendors that a definition describes, held to the same suite. Four definitions describe
//! built-in vendors: what they say of any response has to be what the adapter says, and their
//! requests have to be the adapter's, byte for byte.

use super::{declared::tests, *};

const CLARET_KEYS: &str =
    "params = { tenant = \"demo\" }\ncredentials = { email = \"me@example.com\", password = \"p\" }";

const KINETICA_KEYS: &str = "credentials = { username = \"admin\", password = \"p\" }";

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
        of(built_in("claret"), "claret by definition", tests::CLARET, CLARET_KEYS),
        of(built_in("kinetica"), "kinetica by definition", tests::KINETICA, KINETICA_KEYS),
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

/// A name, an adapter in code, and the definition that says the same.
type Pair = (&'static str, Box<dyn Adapter>, Box<dyn Adapter>);

/// By the ways to sign in.
fn pairs() -> Vec<Pair> {
    let many = NonZeroUsize::new(200).unwrap();
    let declared = |definition: &str, keys: &str| -> Box<dyn Adapter> {
        Box::new(tests::declared(definition, BASE, keys))
    };
    let datasaur = |client: Option<ClientAuth>| -> Box<dyn Adapter> {
        Box::new(Datasaur::new(base(), many, client.map(|auth| ("id +&".to_owned(), auth))))
    };
    let claret = |email: Option<&str>| -> Box<dyn Adapter> {
        Box::new(Claret::new(base(), "demo", email.map(str::to_owned)).unwrap())
    };
    let basic =
        tests::DATASAUR.replace("[credentials.oauth2]", "[credentials.oauth2]\nclient_auth = \"basic\"");
    let client = "credentials = { client_id = \"id +&\", client_secret = \"s\" }";
    vec![
        (
            "immuta",
            Box::new(Immuta::new(base(), many, false)),
            declared(tests::IMMUTA, "credentials = { api_key = \"k\" }"),
        ),
        (
            "immuta, exchanged",
            Box::new(Immuta::new(base(), many, true)),
            declared(tests::IMMUTA, "credentials = { exchange_key = \"k\" }"),
        ),
        ("datasaur", datasaur(None), declared(tests::DATASAUR, "credentials = { bearer = \"t\" }")),
        ("datasaur, form", datasaur(Some(ClientAuth::Form)), declared(tests::DATASAUR, client)),
        ("datasaur, basic", datasaur(Some(ClientAuth::Basic)), declared(&basic, client)),
        (
            "claret",
            claret(None),
            declared(tests::CLARET, "params = { tenant = \"demo\" }\ncredentials = { bearer = \"t\" }"),
        ),
        ("claret, password", claret(Some("me@example.com")), declared(tests::CLARET, CLARET_KEYS)),
        (
            "kinetica",
            Box::new(Kinetica::new(base(), Encoding::Json)),
            declared(tests::KINETICA, KINETICA_KEYS),
        ),
    ]
}

/// All that a vendor sees of a request.
fn sent(request: &Request<Bytes>) -> (String, String, Vec<(String, String)>, String) {
    let header = |(name, value): (&header::HeaderName, &HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let mut headers: Vec<_> = request.headers().iter().map(header).collect();
    headers.sort();
    let body = String::from_utf8_lossy(request.body()).into_owned();
    (request.method().to_string(), request.uri().to_string(), headers, body)
}

#[test]
fn definition_of_a_built_in_vendor_sends_the_same_requests() {
    let long = "9".repeat(513);
    let ids = [
        "1",
        "12345",
        "a",
        "AutoLabelQueue:b",
        "a\"b\\",
        "\u{e4}/?#%{{ x }}",
        "0",
        "-1",
        "01",
        "",
        "a\n",
        &long,
    ];
    for (name, by_hand, declared) in pairs() {
        assert_eq!(declared.capabilities().identifies_jobs, by_hand.capabilities().identifies_jobs, "{name}");
        assert_eq!(declared.capabilities().files, by_hand.capabilities().files, "{name}");
        let mut known = Vec::new();
        for job in jobs(&ids) {
            let field = |check: Result<(), InvalidJobRef>| check.map_err(|invalid| invalid.field);
            assert_eq!(field(declared.check(&job)), field(by_hand.check(&job)), "{name}: {}", job.id);
            if by_hand.check(&job).is_ok() {
                known.push(job);
            }
        }
        assert!(known.len() >= 2, "{name}");
        let batches = known.iter().map(std::slice::from_ref).chain([&known[..]]);
        for batch in batches.filter(|batch| batch.len() <= by_hand.capabilities().max_batch.get()) {
            assert_eq!(sent(&declared.request(batch)), sent(&by_hand.request(batch)), "{name}");
        }
        for secret in ["s", "p\u{e4} &=+%\"\\{{ x }}"] {
            let secret = SecretString::from(secret);
            let exchange = |adapter: &dyn Adapter| {
                adapter.token_exchange().map(|exchange| sent(&exchange.request(&secret).unwrap()))
            };
            assert_eq!(exchange(&*declared), exchange(&*by_hand), "{name}");
        }
        for location in
            ["/a/b.csv?x=1", "https://vendor.example/a", "//x/a", "https://elsewhere.example/a", "", "a"]
        {
            let request =
                |adapter: &dyn Adapter| adapter.file_request(location).map(|request| sent(&request));
            assert_eq!(request(&*declared), request(&*by_hand), "{name}: {location}");
        }
    }
}

#[test]
fn definition_of_a_built_in_vendor_reads_the_same_heads_of_files() {
    let page = "text/html; charset=UTF-8";
    let heads = [
        (200, "content-length", "9"),
        (200, "content-type", page),
        (302, "location", "https://vendor.example/demo/login"),
        (302, "location", "https://elsewhere.example/login"),
        (206, "content-range", "bytes 4-8/9"),
        (401, "content-type", page),
        (403, "content-type", page),
        (404, "content-type", page),
        (416, "content-range", "bytes */4"),
        (419, "content-type", page),
        (429, "retry-after", "7"),
        (503, "retry-after", "7"),
    ];
    for (name, by_hand, declared) in pairs().into_iter().filter(|(name, ..)| name.starts_with("claret")) {
        for (status, header, value) in heads {
            for (offset, head) in [0, 4].map(|offset| (offset, with(answer(status, "", ""), header, value))) {
                assert_eq!(
                    declared.file_part(offset, &head),
                    by_hand.file_part(offset, &head),
                    "{name}: {status} {header}"
                );
                let attached = with(head, "content-disposition", "attachment");
                assert_eq!(
                    declared.file_part(offset, &attached),
                    by_hand.file_part(offset, &attached),
                    "{name}"
                );
            }
        }
    }
}
