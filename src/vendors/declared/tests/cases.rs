//! Cases of refused ids and of tokens.

use super::*;

const DEFINITION: &str = small_definition!(
    r#"[id]
pattern = "{job_id}"
job_id = "integer"
[params]
tenant = { type = "text" }
[credentials.bearer]
[credentials.exchange]
fields = ["username"]
path = "/{{ params.tenant }}/login"
json = { name = "{{ username }}", password = "{{ password }}" }
token = "body.token"
expires_in = "body.seconds"
send_as = { header = "X-Session" }
refused = "body.error == 'wrong'"
refused_status = [422]
[credentials.oauth2]
token_url = "https://login.example/{{ params.tenant }}/token"
client_auth = "basic"
form = { scope = "all" }
[request]
path = "/jobs/{{ id.job_id }}""#
);

const UNTESTED: &str = "[untested]\ndone = \"x\"\nbroken = \"x\"\n\"faults[0]\" = \"x\"\n";
const REQUEST: &str = "params = { tenant = \"t\" }\n[[case]]\nids = [\"1\"]\nrequest = { target = \"/jobs/1\", url = \"https://vendor.example/jobs/1\" }\n";
const EXCHANGE: &str = "[[token]]\ncredentials = { username = \"ana\", password = \"SECRET\" }\n";
const OAUTH2: &str = "[[token]]\ncredentials = { client_id = \"id\", client_secret = \"SECRET\" }\n";

fn parse(text: &str) -> Result<Cases, String> {
    let definition = Arc::new(Definition::parse(DEFINITION).unwrap_or_else(|error| panic!("{error}")));
    Cases::parse(definition, &format!("{REQUEST}{text}\n{UNTESTED}")).map_err(|invalid| invalid.to_string())
}

/// The differences of the only case that fails.
fn differences(text: &str) -> Vec<String> {
    let mut failed = parse(text).unwrap_or_else(|problem| panic!("{problem}")).run().failed;
    assert!(failed.len() <= 1, "{failed:?}");
    failed.pop().map(|(_, _, differences)| differences).unwrap_or_default()
}

fn passes(text: &str) {
    let cases = parse(text).unwrap_or_else(|problem| panic!("{problem}"));
    let report = cases.run();
    assert!(report.is_good(), "{text}\n{report:#?}");
    assert_eq!(cases.count(), 2);
}

#[test]
fn refused_id_can_be_expected() {
    passes("[[case]]\nids = [\"x\", \"01\", \"\"]\nexpect = { invalid_id = \"must\" }");
    assert_eq!(
        differences("[[case]]\nids = [\"7\", \"x\"]\nexpect = { invalid_id = \"must be a UUID\" }"),
        [
            "the id \"7\" is accepted, expected invalid_id",
            "the id \"x\" is refused: it must be an integer without plus sign or leading zeros, such as \"12345\", expected \"must be a UUID\""
        ]
    );
    let problem = |text: &str| parse(text).unwrap_err();
    let beside = problem(
        "[[case]]\nids = [\"x\"]\nbody = \"{}\"\nexpect = { invalid_id = \"must\", state = \"FAILED\" }",
    );
    assert!(
        beside
            .contains("case[1].body stands beside expect.invalid_id: a refused id is never sent; remove it"),
        "{beside}"
    );
    assert!(beside.contains("case[1].expect.state is not a key here; write one of invalid_id"), "{beside}");
    // Without it, an id that is refused is a difference.
    let refused = differences("[[case]]\nids = [\"x\"]\nbody = \"{}\"\nexpect = { state = \"FAILED\" }");
    assert!(refused[0].starts_with("the id \"x\" is refused: it"), "{refused:?}");
}

#[test]
fn request_for_a_token_can_be_expected() {
    passes(&format!(
        "{EXCHANGE}request = {{ method = \"POST\", url = \"https://vendor.example/t/login\", body = '{{\"password\": \"SECRET\", \"name\": \"ana\"}}' }}"
    ));
    passes(&format!(
        "{OAUTH2}request = {{ url = \"https://login.example/t/token\", target = \"/t/token\", headers = {{ authorization = \"Basic {}\" }}, body = \"grant_type=client_credentials&scope=all\" }}",
        "aWQ6U0VDUkVU"
    ));
    assert_eq!(
        differences(&format!("{EXCHANGE}request = {{ method = \"GET\" }}")),
        ["request.method is \"POST\", expected \"GET\""]
    );
}

#[test]
fn answer_with_a_token_can_be_expected() {
    let exchange = |keys: &str| format!("{EXCHANGE}{keys}");
    passes(&exchange(
        "status = 201\nbody = '{\"token\": \"t-1\", \"seconds\": 60}'\nexpect = { token = \"t-1\", expires_in_s = 60, header = \"x-session: t-1\" }",
    ));
    passes(&exchange("status = 422\nbody = '{}'\nexpect = { fault = \"credentials\" }"));
    passes(&exchange("status = 401\nbody = '{}'\nexpect = { fault = \"credentials\" }"));
    passes(&exchange("body = '{\"error\": \"wrong\"}'\nexpect = { fault = \"credentials\" }"));
    passes(&exchange("body = '{\"error\": \"late\"}'\nexpect = { fault = \"malformed\" }"));
    passes(&exchange("status = 503\nexpect = { fault = \"unavailable\" }"));
    passes(&format!(
        "{OAUTH2}body = '{{\"access_token\": \"t-2\", \"token_type\": \"Bearer\", \"expires_in\": 3600}}'\nexpect = {{ token = \"t-2\", expires_in_s = 3600, header = \"authorization: Bearer t-2\" }}"
    ));
    assert_eq!(
        differences(&exchange(
            "body = '{\"token\": \"t-1\"}'\nexpect = { token = \"t-2\", expires_in_s = 60 }"
        )),
        ["token is \"t-1\", expected \"t-2\"", "expires_in_s is absent, expected 60"]
    );
    assert_eq!(
        differences(&exchange("status = 422\nexpect = { token = \"t-2\" }")),
        ["there is the fault \"credentials\": the vendor rejects the gateway's credentials"]
    );
}

#[test]
fn token_case_that_says_too_little_is_reported() {
    for (text, problem) in [
        (
            "[[token]]\nrequest = { method = \"POST\" }",
            "token[0].credentials is missing; write those of a backend with placeholders, such as { password = \"SECRET\" }",
        ),
        (EXCHANGE, "token[0] has neither expect nor request; write one of them"),
        (
            "[[token]]\ncredentials = { bearer = \"SECRET\" }\nrequest = { method = \"POST\" }",
            "token[0].credentials is for a way to sign in that has no request for a token; write the keys of oauth2 or exchange",
        ),
        (
            "[[token]]\ncredentials = { password = \"SECRET\" }\nrequest = { method = \"POST\" }",
            "token[0].credentials.username is missing; write { username = \"..\", password = { env = \"NAME\" } }",
        ),
        (
            "[[token]]\ncredentials = { username = \"a\", password = { env = \"NAME\" } }\nrequest = { method = \"POST\" }",
            "token[0].credentials.password is no text; write a placeholder, such as \"SECRET\"",
        ),
        (
            &format!("{EXCHANGE}expect = {{ message = \"x\" }}"),
            "token[0].expect has neither token nor fault; write one of them",
        ),
        (
            &format!("{EXCHANGE}expect = {{ tokn = \"x\" }}"),
            "token[0].expect.tokn is not a key here; did you mean token?",
        ),
    ] {
        let found = parse(text).map(|_| ()).unwrap_err();
        assert!(found.contains(problem), "{text}\n{found}");
    }
}
