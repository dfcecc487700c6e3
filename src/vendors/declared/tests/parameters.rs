//! Parameters that a backend leaves out, ways to sign in, and what callers read of an id.

use super::*;
use crate::vendors::{Scheme, VendorConfig};

const OPTIONAL: &str = small_definition!(
    r#"[params]
team = { type = "text", optional = true }
zone = { type = "text", default = "eu" }
[id]
pattern = "{job_id}"
[credentials.none]
[credentials.basic]
secret_as = "username"
[request]
path = "/jobs/{{ id.job_id }}"
query = { zone = "{{ params.zone }}", team = "{{ params.team }}", upper = "{{ params.team | upper }}" }
headers = { X-Team = "{{ params.team }}" }"#
);

#[test]
fn parameter_that_is_not_set_is_left_out_of_query_and_headers() {
    let request = |keys: &str| {
        let adapter = declared(OPTIONAL, "https://x.example", keys);
        let job = JobRef::new("x", "1");
        adapter.check(&job).unwrap();
        let request = adapter.request(&[job]);
        let header = request.headers().get("x-team").map(|value| value.to_str().unwrap().to_owned());
        (request.uri().path_and_query().unwrap().as_str().to_owned(), header)
    };
    assert_eq!(request(""), ("/jobs/1?zone=eu".to_owned(), None));
    let set = "/jobs/1?zone=eu&team=a%26b&upper=A%26B".to_owned();
    assert_eq!(request("params = { team = \"a&b\" }"), (set, Some("a&b".to_owned())));
    let only = OPTIONAL.replace("zone = \"{{ params.zone }}\", ", "").replace("zone = {", "# zone = {");
    let adapter = declared(&only, "https://x.example", "");
    assert_eq!(adapter.request(&[JobRef::new("x", "1")]).uri().path_and_query().unwrap().as_str(), "/jobs/1");
}

#[test]
fn header_of_every_request_is_left_out_without_its_parameter() {
    let exchange = "[credentials.exchange]\npath = \"/login\"\nform = { p = \"{{ password }}\" }\ntoken = \"body.t\"\n[request]";
    let text = OPTIONAL
        .replace("headers = { X-Team = \"{{ params.team }}\" }\n", "")
        .replace("[params]", "headers = { X-Api = \"2\", X-Team = \"{{ params.team }}\" }\n[params]")
        .replace("[request]", exchange)
        + "[[files]]\nname = \"log\"\npath = \"/log/{{ job.id }}\"\n";
    let sent = |keys: &str| {
        let keys = format!("credentials = {{ password = \"p\" }}\n{keys}");
        let adapter = declared(&text, "https://x.example", &keys);
        let secret = secrecy::SecretString::from("p");
        let requests = [
            adapter.request(&[JobRef::new("x", "1")]),
            adapter.token_exchange().unwrap().request(&secret).unwrap(),
            adapter.file_request("/log/1").unwrap(),
        ];
        requests.map(|request| {
            let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(header("x-api").as_deref(), Some("2"));
            header("x-team")
        })
    };
    assert_eq!(sent(""), [None, None, None]);
    assert_eq!(sent("params = { team = \"a\" }"), [(); 3].map(|()| Some("a".to_owned())));
}

#[test]
fn value_that_is_no_parameter_is_never_left_out() {
    let text =
        OPTIONAL.replace("team = \"{{ params.team }}\"", "team = \"{{ id.job_id | find('^[0-9]+$') }}\"");
    let adapter = declared(&text, "https://x.example", "");
    assert!(adapter.check(&JobRef::new("x", "1")).is_ok());
    let refused = adapter.check(&JobRef::new("x", "a")).unwrap_err();
    assert_eq!(refused.reason, "can't be put into the vendor's request");
}

#[test]
fn optional_parameter_where_it_can_not_be_left_out_is_reported() {
    for (from, to, problem) in [
        (
            "\"/jobs/{{ id.job_id }}\"",
            "\"/{{ params.team }}/{{ id.job_id }}\"",
            "params.team is optional, and a path or JSON can't leave it out; write default in place of optional",
        ),
        (
            "headers = {",
            "json = { team = \"{{ params.team }}\" }\nheaders = {",
            "params.team is optional, and a path or JSON can't leave it out",
        ),
        (
            "optional = true",
            "optional = true, default = \"a\"",
            "params.team.optional stands beside default, with which a backend may leave it out; keep one of them",
        ),
        ("optional = true", "optional = 1", "params.team.optional is neither true nor false"),
    ] {
        let invalid = Definition::parse(&OPTIONAL.replacen(from, to, 1)).unwrap_err();
        let found = format!("{} {}", invalid.problems[0].path, invalid.problems[0].text);
        assert!(found.starts_with(problem), "{found}");
    }
    let described = Definition::parse(OPTIONAL).unwrap().describe();
    assert!(described.contains("team = .., a text, which can be left out\n"), "{described}");
}

/// How a backend with these credentials signs in.
fn sign_in(definition: &str, keys: &str) -> (Scheme, &'static str) {
    let definition = Arc::new(Definition::parse(definition).unwrap_or_else(|error| panic!("{error}")));
    let credentials: Table = toml::from_str(keys).unwrap();
    let chosen =
        backend::choose(&definition, Some(&credentials)).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut keys = Table::new();
    keys.insert("credentials".to_owned(), credentials.into());
    let config = backend::read(&definition, &chosen, &keys).unwrap_or_else(|problems| panic!("{problems:?}"));
    let sign_in = config.sign_in();
    (sign_in.scheme, sign_in.description)
}

#[test]
fn key_can_be_the_user_name_with_an_empty_password() {
    assert_eq!(sign_in(OPTIONAL, "api_key = \"k\""), (Scheme::BasicUsername, "API key as user name"));
    let named = OPTIONAL.replace("\"username\"", "\"username\"\nsecret = \"token\"");
    assert_eq!(sign_in(&named, "token = \"k\"").0, Scheme::BasicUsername);
    let other = OPTIONAL.replace("\"username\"", "\"password\"");
    let basic = Scheme::Basic { username: "ana".to_owned() };
    assert_eq!(sign_in(&other, "username = \"ana\"\npassword = \"k\""), (basic, "user name and password"));
    let invalid = Definition::parse(&OPTIONAL.replace("\"username\"", "\"user\"")).unwrap_err();
    assert_eq!(
        invalid.problems[0].to_string(),
        "14:13: credentials.basic.secret_as is \"user\"; write one of password, username"
    );
}

#[test]
fn way_to_sign_in_is_described_by_its_kind() {
    let with = |way: &str| OPTIONAL.replace("[credentials.basic]\nsecret_as = \"username\"", way);
    for (way, keys, description) in [
        ("[credentials.bearer]", "bearer = \"k\"", "bearer token"),
        ("[credentials.bearer]\nscheme = \"Token\"", "bearer = \"k\"", "access token"),
        ("[credentials.header]\nname = \"X-Key\"", "api_key = \"k\"", "API key"),
        ("[credentials.header]\nname = \"Authorization\"\nscheme = \"ApiKey\"", "api_key = \"k\"", "API key"),
        (
            "[credentials.header]\nname = \"Authorization\"\nscheme = \"Bearer\"",
            "api_key = \"k\"",
            "bearer token",
        ),
        ("[credentials.query]\nname = \"key\"", "api_key = \"k\"", "API key in the query"),
        (
            "[credentials.oauth2]\ntoken_path = \"/t\"",
            "client_id = \"a\"\nclient_secret = \"k\"",
            "client id and secret",
        ),
        (
            "[credentials.oauth2]\ntoken_path = \"/t\"\ngrant = \"refresh_token\"",
            "client_id = \"a\"\nrefresh_token = \"k\"",
            "refresh token",
        ),
        (
            "[credentials.exchange]\npath = \"/login\"\njson = { p = \"{{ password }}\" }\ntoken = \"body.t\"",
            "password = \"k\"",
            "secret, exchanged for a token",
        ),
    ] {
        assert_eq!(sign_in(&with(way), keys).1, description, "{way}");
    }
    assert_eq!(sign_in(shipped("elasticsearch-tasks"), "api_key = \"k\"").1, "API key");
}

#[test]
fn definition_that_does_not_say_whether_it_is_verified_is_described_so() {
    for (key, text) in [
        ("", "verified      unknown: the definition does not say\n"),
        ("verified = true", "verified      yes: written from the vendor's documentation\n"),
        ("verified = false", "verified      no: written from memory\n"),
    ] {
        let definition = OPTIONAL.replace("[params]", &format!("{key}\n[params]"));
        let described = Definition::parse(&definition).unwrap().describe();
        assert!(described.contains(text), "{described}");
    }
}

#[test]
fn refused_id_is_explained_in_words_and_by_example() {
    let reason = |name: &str, id: &str| {
        let params = if name == "shopify-bulk" { "" } else { "params = {}" };
        let adapter = declared(shipped(name), "https://x.example", params);
        adapter.check(&JobRef::new("x", id)).unwrap_err().reason
    };
    assert_eq!(
        reason("salesforce-bulk", "exports/7505e000002dXyZAAU"),
        "(kind) must be ingest or query, such as in \"ingest/7505e000002dXyZAAU\""
    );
    assert_eq!(
        reason("salesforce-bulk", "ingest/7505"),
        "(job_id) must be 18 of letters and digits, such as in \"ingest/7505e000002dXyZAAU\""
    );
    assert_eq!(
        reason("shopify-bulk", "7"),
        "must be \"gid://shopify/BulkOperation/\", then digits, such as \"gid://shopify/BulkOperation/720918\""
    );
    // A pattern that takes more than a sentence.
    assert!(reason("fivetran", "warm_pebble/today").starts_with("(since) must match the pattern [0-9]{4}-"));
}
