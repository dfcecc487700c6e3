//! No secret appears in logs or errors, even if a vendor echoes it.

use base64::{Engine, prelude::BASE64_STANDARD};
use jobwatch::simulators::{Effect, Fault, Plan, Simulator, Vendor, credentials};
use tonic::Status;

use crate::{harness::*, program::Program};

/// Every part of an error that a caller sees.
fn visible(error: &Status) -> String {
    let details = String::from_utf8_lossy(error.details()).into_owned();
    format!("{error:?} {error} {:?} {details} {:?}", error.metadata(), decode_error(error))
}

fn basic(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("{user}:{password}"))
}

fn datasaur_basic() -> String {
    let (id, secret) = (credentials::DATASAUR_CLIENT_ID, credentials::DATASAUR_CLIENT_SECRET);
    format!("{{ client_id = {id:?}, client_secret = {secret:?}, client_auth = \"basic\" }}")
}

/// A secret in all its encodings.
fn spellings(secret: &str) -> Vec<String> {
    let in_form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    vec![secret.to_owned(), in_form.replace('+', "%20"), in_form]
}

/// Every kind of backend, each with the secrets that must not appear.
fn backends(simulator: &Simulator) -> Vec<(Backend, Vec<String>)> {
    use credentials::{
        CLARET_PASSWORD, DATASAUR_CLIENT_SECRET, IMMUTA_API_KEY, KINETICA_PASSWORD, KINETICA_USER,
    };
    let own = Backend::of(simulator);
    let token = simulator.issue_token();
    let bearer = (own.clone().named(&format!("{}-bearer", own.name())).bearer(&token), vec![token]);
    let mut backends = match simulator.vendor() {
        Vendor::Immuta => {
            let exchange = format!("{{ api_key = {IMMUTA_API_KEY:?}, exchange = true }}");
            let exchange = own.clone().named("immuta-exchange").credentials(exchange);
            vec![(exchange, spellings(IMMUTA_API_KEY)), (own, spellings(IMMUTA_API_KEY))]
        }
        Vendor::Kinetica => {
            let mut secrets = spellings(KINETICA_PASSWORD);
            secrets.push(basic(KINETICA_USER, KINETICA_PASSWORD));
            vec![(own, secrets)]
        }
        Vendor::Claret => vec![(own, spellings(CLARET_PASSWORD))],
        Vendor::Datasaur => {
            let secrets = spellings(DATASAUR_CLIENT_SECRET);
            let other = own.clone().named("datasaur-basic").credentials(datasaur_basic());
            vec![(other, secrets.clone()), (own, secrets)]
        }
    };
    backends.push(bearer);
    backends
}

/// Starts the program, makes every backend fail, and returns the log and the errors.
async fn visible_output(cases: &[(&Simulator, Backend, Vec<String>)], echo: bool) -> (String, String) {
    let mut program = Program::start(cases.iter().map(|(_, backend, _)| backend.clone()), "trace").await;
    let client = program.client();
    let mut seen = String::new();
    let mut effects = vec![
        Effect::status(401, "{}"),
        Effect::Html(500),
        Effect::Reset,
        Effect::Redirect("/login".to_owned()),
        Effect::status(200, "["),
    ];
    for (simulator, backend, secrets) in cases {
        if echo {
            effects = secrets.iter().map(|secret| Effect::Refuse(format!("not with {secret}, no"))).collect();
        }
        let missing = job(backend.name(), "404");
        seen.push_str(&visible(&get(&client, &missing).await.unwrap_err()));
        for effect in &effects {
            // First the job's own request fails, then the one for a token, too.
            for path in ["/jobs/statuses", "/get/job", "/imports/status", "/graphql", ""] {
                simulator.inject(Fault::new(effect.clone()).at(path));
                seen.push_str(&visible(&get(&client, &missing).await.unwrap_err()));
            }
            simulator.expire_tokens();
            seen.push_str(&visible(&get(&client, &missing).await.unwrap_err()));
            simulator.clear_faults();
        }
        simulator.reject_credentials(true);
        seen.push_str(&visible(&get(&client, &missing).await.unwrap_err()));
        simulator.reject_credentials(false);
    }
    for (simulator, backend, _) in cases {
        simulator.go_down().await;
        seen.push_str(&visible(&get(&client, &job(backend.name(), "404")).await.unwrap_err()));
    }
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(0));
    let log = program.log();
    assert!(log.contains("TRACE"), "the log is talkative");
    (log, seen)
}

async fn check(echo: bool) {
    let mut simulators = Vec::new();
    for vendor in Vendor::ALL {
        simulators.push(simulator(vendor).await);
    }
    let mut cases = Vec::new();
    for simulator in &simulators {
        let backends = backends(simulator).into_iter();
        cases.extend(backends.map(|(backend, secrets)| (simulator, backend, secrets)));
    }
    let (log, seen) = visible_output(&cases, echo).await;
    let pair = basic(credentials::DATASAUR_CLIENT_ID, credentials::DATASAUR_CLIENT_SECRET);
    assert!(!log.contains(&pair) && !seen.contains(&pair));
    for (_, backend, secrets) in cases {
        for secret in secrets {
            for (what, text) in [("the log", &log), ("an error", &seen)] {
                let found = text.find(&secret).map(|at| {
                    let (from, to) = (at.saturating_sub(200), (at + 100).min(text.len()));
                    String::from_utf8_lossy(&text.as_bytes()[from..to]).into_owned()
                });
                assert_eq!(found, None, "{what} has {secret} of {}", backend.name());
            }
        }
    }
}

#[tokio::test]
async fn secrets_do_not_appear_in_logs_or_errors() {
    check(false).await;
}

#[tokio::test]
async fn secret_echoed_by_a_vendor_does_not_appear() {
    check(true).await;
}

#[tokio::test]
async fn exchanged_token_echoed_by_a_vendor_does_not_appear() {
    // The token is known: this vendor stands in for the simulator.
    let token = "issued-0123456789abcdef";
    for (vendor, path, response) in [
        (Vendor::Immuta, "/bim/apikey/authenticate", format!(r#"{{"token":"{token}"}}"#)),
        (Vendor::Claret, "/tokens/create", format!(r#"{{"token":"{token}"}}"#)),
        (Vendor::Datasaur, "/oauth/token", format!(r#"{{"access_token":"{token}","expires_in":3600}}"#)),
    ] {
        let simulator = simulator(vendor).await;
        simulator.inject(Fault::new(Effect::status(200, response)).at(path));
        simulator.inject(Fault::new(Effect::Refuse(format!("Bearer {token} may not"))));
        let mut backend = Backend::of(&simulator);
        if vendor == Vendor::Immuta {
            backend = backend
                .credentials(format!("{{ api_key = {:?}, exchange = true }}", credentials::IMMUTA_API_KEY));
        }
        let mut program = Program::start([backend], "trace").await;
        let job = job_at(&simulator, &simulator.start_job(Plan::default()));
        let error = get(&program.client(), &job).await.unwrap_err();
        assert!(decode_error(&error).message.contains("may not"), "{error:?}");
        assert!(!visible(&error).contains(token), "{error:?}");
        program.signal("TERM").await;
        program.exit_code().await;
        let log = program.log();
        assert!(!log.contains(token), "{}", &log[log.find(token).unwrap_or(0).saturating_sub(300)..]);
    }
}

#[tokio::test]
async fn client_credentials_echoed_by_the_token_endpoint_do_not_appear() {
    let pair = basic(credentials::DATASAUR_CLIENT_ID, credentials::DATASAUR_CLIENT_SECRET);
    let words = format!("{pair} or {} may not", credentials::DATASAUR_CLIENT_SECRET);
    let body = format!(r#"{{"error":"invalid_request","error_description":"{words}"}}"#);
    let simulator = simulator(Vendor::Datasaur).await;
    simulator.inject(Fault::new(Effect::status(400, body)).at("/oauth/token"));
    let gateway = Gateway::start([Backend::of(&simulator).credentials(datasaur_basic())]).await;
    let error = get(&gateway.client(), &job("datasaur", "1")).await.unwrap_err();
    assert!(decode_error(&error).metadata["vendor_message"].contains("may not"), "{error:?}");
    let shown = visible(&error);
    assert!(!shown.contains(&pair) && !shown.contains(credentials::DATASAUR_CLIENT_SECRET), "{shown}");
}
