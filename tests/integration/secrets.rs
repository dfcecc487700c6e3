//! No secret leaves the gateway, however talkative its log and its vendors are.

use base64::{Engine, prelude::BASE64_STANDARD};
use jobwatch::simulators::{Effect, Fault, Plan, Vendor, credentials};
use tonic::Status;

use crate::{harness::*, program::Program};

/// Everything that a caller gets to see of an error.
fn visible(error: &Status) -> String {
    let details = String::from_utf8_lossy(error.details()).into_owned();
    format!("{error:?} {error} {:?} {details} {:?}", error.metadata(), told(error))
}

fn basic(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("{user}:{password}"))
}

/// All ways in which the configured secrets are written anywhere.
fn secrets() -> Vec<String> {
    use credentials::{
        CLARET_PASSWORD, DATASAUR_CLIENT_ID, DATASAUR_CLIENT_SECRET, IMMUTA_API_KEY, KINETICA_PASSWORD,
        KINETICA_USER,
    };
    let mut secrets =
        vec![basic(KINETICA_USER, KINETICA_PASSWORD), basic(DATASAUR_CLIENT_ID, DATASAUR_CLIENT_SECRET)];
    for secret in [IMMUTA_API_KEY, KINETICA_PASSWORD, CLARET_PASSWORD, DATASAUR_CLIENT_SECRET] {
        secrets.push(secret.to_owned());
        secrets.push(BASE64_STANDARD.encode(secret));
        // In a query, with either way to write a space.
        let in_form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        secrets.push(in_form.replace('+', "%20"));
        secrets.push(in_form);
    }
    secrets
}

#[tokio::test]
async fn no_secret_and_no_token_is_in_a_log_line_or_an_error() {
    let mut simulators = Vec::new();
    let mut backends = Vec::new();
    let mut given = secrets();
    for vendor in Vendor::ALL {
        let simulator = simulator(vendor).await;
        let own = Backend::of(&simulator);
        let token = simulator.issue_token();
        backends.push(own.clone().named(&format!("{vendor}-bearer")).bearer(&token));
        given.push(token);
        match vendor {
            Vendor::Immuta => {
                backends.push(own.clone().named("immuta-exchange").credentials(format!(
                    "{{ api_key = {:?}, exchange = true }}",
                    credentials::IMMUTA_API_KEY
                )))
            }
            Vendor::Datasaur => backends.push(own.clone().named("datasaur-basic").credentials(format!(
                "{{ client_id = {:?}, client_secret = {:?}, client_auth = \"basic\" }}",
                credentials::DATASAUR_CLIENT_ID,
                credentials::DATASAUR_CLIENT_SECRET
            ))),
            _ => {}
        }
        backends.push(own);
        simulators.push(simulator);
    }
    let names: Vec<_> = backends.iter().map(|backend| backend.name().to_owned()).collect();
    let mut program = Program::start(backends, "trace").await;
    let client = program.client();
    let mut seen = String::new();
    let mut all = async |what: &str| {
        for name in &names {
            if let Err(error) = get(&client, &job(name, "404")).await {
                seen.push_str(&visible(&error));
            } else {
                panic!("{name}: {what}");
            }
        }
    };
    all("nobody knows the job").await;
    for secret in given.clone() {
        for simulator in &simulators {
            simulator.clear_faults();
            simulator.inject(Fault::new(Effect::Refuse(format!("not with {secret}, no"))));
        }
        all("a vendor repeats what it was sent").await;
    }
    for effect in [Effect::status(401, "{}"), Effect::Html(500), Effect::Reset, Effect::Redirect("/a".into())]
    {
        for simulator in &simulators {
            simulator.clear_faults();
            simulator.inject(Fault::new(effect.clone()));
        }
        all("a vendor fails").await;
    }
    for simulator in &simulators {
        simulator.clear_faults();
        simulator.reject_credentials(true);
    }
    all("a vendor rejects everybody").await;
    for simulator in &simulators {
        simulator.go_down().await;
    }
    all("a vendor is down").await;
    program.signal("TERM").await;
    assert_eq!(program.exit_code().await, Some(0));
    let log = program.log();
    assert!(log.contains("TRACE"), "the log is talkative");
    for secret in &given {
        let quoted = |text: &str| text.find(&**secret).map(|at| text[at.saturating_sub(300)..].to_owned());
        assert_eq!(quoted(&log), None, "the log has {secret}");
        assert_eq!(quoted(&seen), None, "an error has {secret}");
    }
}

#[tokio::test]
async fn a_token_that_was_traded_for_is_no_more_told_than_a_secret() {
    // What this vendor hands out is known: it answers for the simulator.
    let token = "issued-0123456789abcdef";
    for (vendor, path, answer) in [
        (Vendor::Immuta, "/bim/apikey/authenticate", format!(r#"{{"token":"{token}"}}"#)),
        (Vendor::Claret, "/tokens/create", format!(r#"{{"token":"{token}"}}"#)),
        (Vendor::Datasaur, "/oauth/token", format!(r#"{{"access_token":"{token}","expires_in":3600}}"#)),
    ] {
        let simulator = simulator(vendor).await;
        simulator.inject(Fault::new(Effect::status(200, answer)).at(path));
        simulator.inject(Fault::new(Effect::Refuse(format!("Bearer {token} may not"))));
        let mut backend = Backend::of(&simulator);
        if vendor == Vendor::Immuta {
            backend = backend
                .credentials(format!("{{ api_key = {:?}, exchange = true }}", credentials::IMMUTA_API_KEY));
        }
        let mut program = Program::start([backend], "trace").await;
        let job = job_at(&simulator, &simulator.start_job(Plan::default()));
        let error = get(&program.client(), &job).await.unwrap_err();
        assert!(told(&error).message.contains("may not"), "{error:?}");
        assert!(!visible(&error).contains(token), "{error:?}");
        program.signal("TERM").await;
        program.exit_code().await;
        let log = program.log();
        assert!(!log.contains(token), "{}", &log[log.find(token).unwrap_or(0).saturating_sub(300)..]);
    }
}
