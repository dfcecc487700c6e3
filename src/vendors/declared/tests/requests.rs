//! What is sent, and how credentials are put into it.

use std::time::Duration;

use http::Method;
use secrecy::{ExposeSecret, SecretString};

use super::*;
use crate::vendors::{
    Expiry, SecretForm,
    conformance::{jobs, json},
};

fn credential(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap()
}

#[test]
fn path_goes_behind_the_base_urls_own_and_values_are_encoded() {
    let with_slashes = shipped("airflow").replace("dag_run_id = { regex = \"[^/]+\" }", "");
    let airflow = declared(&with_slashes, "https://af.example/base/", "");
    let job = JobRef::new("b", "my dag/run/2026+?#%ä");
    assert_eq!(airflow.check(&job), Ok(()));
    let request = airflow.request(&[job]);
    assert_eq!(
        request.uri(),
        "https://af.example/base/api/v2/dags/my%20dag/dagRuns/run%2F2026%2B%3F%23%25%C3%A4"
    );
    assert_eq!(request.method(), Method::GET);
}

#[test]
fn slash_in_an_id_that_the_api_has_no_answer_for_is_refused() {
    let airflow = declared(shipped("airflow"), "https://af.example", "");
    assert_eq!(airflow.check(&JobRef::new("b", "etl/manual: 1+2")), Ok(()));
    let invalid = airflow.check(&JobRef::new("b", "etl/a/b")).unwrap_err();
    assert!(
        invalid.reason.contains("(dag_run_id) must be characters other than /, such as in \""),
        "{invalid}"
    );
}

#[test]
fn location_in_an_id_leads_to_the_own_origin_alone() {
    let azure = declared(shipped("azure-arm"), "https://management.azure.com", "params = { tenant = \"t\" }");
    for id in [
        "https://evil.example/x",
        "//evil.example/x",
        "https://management.azure.com@evil.example/x",
        "http://management.azure.com/x",
        "/a/../b",
        "/a\\b",
        "ftp://management.azure.com/x",
    ] {
        let invalid = azure.check(&JobRef::new("b", id)).unwrap_err();
        assert!(invalid.reason.starts_with("must be a path, or a URL at base_url: it "), "{id}: {invalid}");
    }
    let job = JobRef::new("b", "https://management.azure.com/x?a=b");
    assert_eq!(azure.request(&[job]).uri(), "https://management.azure.com/x?a=b");
}

#[test]
fn credentials_stand_where_the_definition_says() {
    const WAYS: &str = r#"
        format = 1
        name = "w"
        version = "1.0.0"
        title = "W"
        docs = "d"
        [id]
        pattern = "{a}"
        [credentials.header]
        name = "X-Key"
        scheme = "Key"
        fields = ["user"]
        headers = { X-User = "{{ user }}" }
        [credentials.query]
        name = "api key"
        secret = "query_key"
        [request]
        path = "/j/{{ id.a }}"
        [status]
        word = "job.s"
        [states]
        SUCCEEDED = ["ok"]
        FAILED = ["bad"]
        [[faults]]
        status = 404
        is = "not_found"
    "#;
    let header = declared(WAYS, "https://v.example", "credentials = { api_key = \"s\", user = \"ana\" }");
    let mut request = header.request(&jobs(&["1"]));
    header.authorize(&mut request, credential("Key s3cret"));
    assert_eq!(
        (&request.headers()["x-key"], &request.headers()["x-user"]),
        (&credential("Key s3cret"), &credential("ana"))
    );
    assert!(!request.headers().contains_key("authorization"));

    let query = declared(WAYS, "https://v.example", "credentials = { query_key = \"s\" }");
    let mut request = query.request(&jobs(&["1"]));
    query.authorize(&mut request, credential("a&b=c d"));
    assert_eq!(request.uri(), "https://v.example/j/1?api%20key=a%26b%3Dc%20d");

    let shopify =
        declared(shipped("shopify-bulk"), "https://s.example", "credentials = { access_token = \"s\" }");
    let mut request = shopify.request(&jobs(&["gid://shopify/BulkOperation/1"]));
    shopify.authorize(&mut request, credential("t"));
    assert_eq!(request.headers()["x-shopify-access-token"], "t");
}

#[test]
fn oauth2_asks_for_a_token_at_its_own_path_or_elsewhere() {
    let keys = "credentials = { client_id = \"i\", client_secret = \"s\" }";
    let databricks = declared(shipped("databricks"), "https://d.example", keys);
    let exchange = databricks.token_exchange().unwrap();
    let request = exchange.request(&SecretString::from("hush")).unwrap();
    assert_eq!(request.uri(), "https://d.example/oidc/v1/token");
    assert!(request.headers()["authorization"].is_sensitive());
    assert_eq!(request.body(), "grant_type=client_credentials&scope=all-apis");
    assert!(exchange.elsewhere().is_none());

    let keys = format!(
        "{keys}\nparams = {{ tenant = \"a/b\" }}\nallow_origins = [\"https://login.microsoftonline.com\"]"
    );
    let azure = declared(shipped("azure-arm"), "https://management.azure.com", &keys);
    let exchange = azure.token_exchange().unwrap();
    let request = exchange.request(&SecretString::from("hush")).unwrap();
    assert_eq!(request.uri(), "https://login.microsoftonline.com/a%2Fb/oauth2/v2.0/token");
    assert_eq!(
        exchange.elsewhere().unwrap().as_str(),
        "https://login.microsoftonline.com/a%2Fb/oauth2/v2.0/token"
    );
    let body = "client_id=i&client_secret=hush&grant_type=client_credentials&scope=https%3A%2F%2Fmanagement.azure.com%2F.default";
    assert_eq!(request.body(), body);
}

#[test]
fn headers_of_every_request_are_sent_for_a_token_at_the_vendor_alone() {
    let keys = "credentials = { client_id = \"i\", client_secret = \"s\" }";
    let headers = "headers = { X-Api = \"2\", Accept = \"application/vnd.x+json\" }\n";
    let sent = |name: &str, keys: &str| {
        let adapter = declared(&(headers.to_owned() + shipped(name)), "https://d.example", keys);
        let request = adapter.token_exchange().unwrap().request(&SecretString::from("hush")).unwrap();
        ["x-api", "accept", "content-type"].map(|name| {
            request.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        })
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(sent("databricks", keys), ["2", "application/vnd.x+json", form]);
    let keys = format!(
        "{keys}\nparams = {{ tenant = \"t\" }}\nallow_origins = [\"https://login.microsoftonline.com\"]"
    );
    assert_eq!(sent("azure-arm", &keys), ["", "application/json", form]);
}

#[test]
fn header_at_the_top_is_replaced_by_that_of_a_request_or_a_way() {
    let top = "headers = { Accept = \"text/top\", X-Api = \"top\" }\n";
    let of_poll = "[request]\nheaders = { accept = \"text/poll\" }\n";
    let of_exchange = "[credentials.exchange]\nheaders = { accept = \"text/exchange\" }\n";
    let text = top.to_owned()
        + &shipped("airflow").replacen("[request]\n", of_poll, 1).replacen(
            "[credentials.exchange]\n",
            of_exchange,
            1,
        )
        + "[[files]]\nname = \"x\"\npath = \"/x\"\n";
    let accepted = |request: &Request<Bytes>| {
        let all = |name: &str| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-api"), ["top"]);
        assert_eq!(all("accept").len(), 1);
        all("accept")[0].to_str().unwrap().to_owned()
    };
    let keys = "credentials = { username = \"u\", password = \"x\" }";
    let airflow = declared(&text, "https://af.example", keys);
    assert_eq!(accepted(&airflow.request(&[JobRef::new("b", "dag/run")])), "text/poll");
    let exchange = airflow.token_exchange().unwrap();
    assert_eq!(accepted(&exchange.request(&SecretString::from("hush")).unwrap()), "text/exchange");
    assert_eq!(accepted(&airflow.file_request("/x").unwrap()), "text/top");

    let of_way = "[credentials.bearer]\nheaders = { accept = \"text/way\" }";
    let text = top.to_owned() + &shipped("databricks").replacen("[credentials.bearer]", of_way, 1);
    let adapter = declared(&text, "https://d.example", "credentials = { bearer = \"hush\" }");
    assert_eq!(accepted(&adapter.request(&[JobRef::new("b", "1")])), "text/way");
}

#[test]
fn refresh_token_is_exchanged_for_an_access_token() {
    let text = shipped("databricks").replace("client_auth = \"basic\"", "grant = \"refresh_token\"");
    let keys = "credentials = { client_id = \"i\", refresh_token = \"r\" }";
    let adapter = declared(&text, "https://d.example", keys);
    let request = adapter.token_exchange().unwrap().request(&SecretString::from("hush")).unwrap();
    assert_eq!(request.body(), "client_id=i&grant_type=refresh_token&refresh_token=hush&scope=all-apis");
}

#[test]
fn refresh_token_is_sent_with_the_secret_of_its_client() {
    let keys = "credentials = { client_id = \"i\", refresh_token = \"r\", client_secret = \"s\" }";
    let secrets = SecretString::from("hush\ns&x");
    let request = |client_auth: &str| {
        let grant = format!("client_auth = \"{client_auth}\"\ngrant = \"refresh_token\"");
        let text = shipped("databricks").replace("client_auth = \"basic\"", &grant);
        let adapter = declared(&text, "https://d.example", keys);
        adapter.token_exchange().unwrap().request(&secrets).unwrap()
    };
    assert_eq!(
        request("form").body(),
        "client_id=i&client_secret=s%26x&grant_type=refresh_token&refresh_token=hush&scope=all-apis"
    );
    let basic = request("basic");
    assert_eq!(basic.body(), "grant_type=refresh_token&refresh_token=hush&scope=all-apis");
    assert_eq!(basic.headers()["authorization"], "Basic aTpzJng=");
}

#[test]
fn exchange_sends_the_vendors_own_request_and_reads_its_token() {
    let keys = "credentials = { username = \"a\\\"b\", password = \"x\" }";
    let airflow = declared(shipped("airflow"), "https://af.example", keys);
    let exchange = airflow.token_exchange().unwrap();
    let request = exchange.request(&SecretString::from("p\"w{{ x }}")).unwrap();
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/auth/token"));
    let body: serde_json::Value = serde_json::from_slice(request.body()).unwrap();
    assert_eq!(body, serde_json::json!({"username": "a\"b", "password": "p\"w{{ x }}"}));
    let token = exchange.interpret(&json(201, r#"{"access_token": "tok"}"#)).unwrap();
    assert_eq!(token.value.expose_secret(), "tok");
    assert_eq!(token.expiry, Some(Expiry::After(Duration::from_hours(1))));
    assert_eq!(exchange.interpret(&json(400, "{}")).unwrap_err().kind, FaultKind::CredentialsRejected);
    assert!(matches!(exchange.interpret(&json(200, "{}")).unwrap_err().kind, FaultKind::Malformed { .. }));
}

#[test]
fn token_may_be_sent_in_another_header_and_word() {
    let text = shipped("airflow")
        .replace("lifetime_s     = 3600", "expires_in = \"body.ttl\"\nsend_as = { header = \"X-Session\" }");
    let adapter =
        declared(&text, "https://af.example", "credentials = { username = \"u\", password = \"x\" }");
    let exchange = adapter.token_exchange().unwrap();
    assert_eq!(exchange.scheme(), "");
    let token = exchange.interpret(&json(200, r#"{"access_token": "tok", "ttl": "90"}"#)).unwrap();
    assert_eq!(token.expiry, Some(Expiry::After(Duration::from_secs(90))));
    let mut request = adapter.request(&jobs(&["d/r"]));
    adapter.authorize(&mut request, credential("tok"));
    assert_eq!(request.headers()["x-session"], "tok");
}

#[test]
fn file_is_requested_at_the_own_origin_alone() {
    let openai = declared(shipped("openai-batch"), "https://api.openai.com", "");
    let request = openai.file_request("/v1/files/f-1/content").unwrap();
    assert_eq!(request.uri(), "https://api.openai.com/v1/files/f-1/content");
    assert_eq!(openai.file_request("https://evil.example/x").unwrap_err(), RefusedLocation::OtherOrigin);
    let airflow = declared(shipped("airflow"), "https://af.example", "");
    assert_eq!(airflow.file_request("/x").unwrap_err(), RefusedLocation::NoFiles);
}

#[test]
fn flag_that_an_expression_gives_is_a_word_as_json_writes_it() {
    let word = "word         = \"job.status\"";
    assert!(shipped("dbt-cloud").contains(word));
    let definition = shipped("dbt-cloud").replace(word, "word = \"job.is_success or job.is_error\"");
    let definition = definition.replace("SUCCEEDED = [10]", "SUCCEEDED = [true]");
    let adapter = declared(&definition, "https://x.example", "params = { account_id = 1 }");
    let observed =
        adapter.observe(&JobRef::new("x", "7"), &r#"{"id": 7, "is_success": true}"#.into()).unwrap();
    assert_eq!(observed.state, crate::job::JobState::Succeeded);
}

#[test]
fn volatile_members_do_not_change_a_status() {
    use crate::job::{PartHashes, View};
    let databricks = declared(shipped("databricks"), "https://d.example", "");
    let job = JobRef::new("b", "7");
    let seen = |duration: u32, name: &str| {
        let body = format!(
            "{{\"run_id\": 7, \"run_duration\": {duration}, \"run_name\": {name:?}, \"state\": {{\"life_cycle_state\": \"RUNNING\"}}}}"
        );
        let observation = databricks.observe(&job, &Bytes::from(body)).unwrap();
        (PartHashes::of(&observation).fingerprint(View::FULL), observation.vendor_payload)
    };
    assert_eq!(seen(1, "a").0, seen(200, "a").0);
    assert_ne!(seen(1, "a").1, seen(200, "a").1);
    assert_ne!(seen(1, "a").0, seen(1, "b").0);
}

#[test]
fn empty_text_is_sent_as_a_value_without_characters() {
    let keys =
        "[request]\nmethod = \"POST\"\nquery = { a = \"\", b = \"1\" }\nform = { client_secret = \"\" }\n";
    let text = shipped("airflow").replacen("[request]\n", keys, 1);
    let airflow = declared(&text, "https://af.example", "");
    let request = airflow.request(&[JobRef::new("b", "dag/run")]);
    assert_eq!((request.uri().query(), &request.body()[..]), (Some("a=&b=1"), &b"client_secret="[..]));
}

#[test]
fn secret_in_a_query_may_have_characters_that_no_header_has() {
    let chosen = |way: &str| {
        let text = shipped("databricks").replacen("[credentials.bearer]", way, 1);
        let definition = Arc::new(Definition::parse(&text).unwrap_or_else(|error| panic!("{error}")));
        let keys: Table = toml::from_str("key = \"a b\"").unwrap();
        backend::choose(&definition, Some(&keys)).unwrap().secret.unwrap().1
    };
    let way = |name: &str| format!("[credentials.{name}]\nname = \"x-key\"\nsecret = \"key\"");
    assert_eq!(chosen(&way("query")), SecretForm::Text);
    assert_eq!(chosen(&way("header")), SecretForm::Header);
    let text = shipped("databricks").replacen("[credentials.bearer]", &way("query"), 1);
    let adapter = declared(&text, "https://d.example", "credentials = { key = \"x\" }");
    let mut request = adapter.request(&[JobRef::new("b", "1")]);
    adapter.authorize(&mut request, HeaderValue::from_bytes("\u{e4} b".as_bytes()).unwrap());
    assert!(request.uri().to_string().ends_with("&x-key=%C3%A4%20b"), "{request:?}");
}
