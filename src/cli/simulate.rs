//! `jobwatch simulate`: one simulated vendor, for people who write clients.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr},
};

use super::{
    exit::{Exit, Failure},
    render::Paint,
    serve::signalled,
};
use crate::simulators::{Simulator, Vendor, credentials};

/// Runs one simulated vendor.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose API: immuta, kinetica, claret or datasaur.
    vendor: Vendor,

    /// Where it listens; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value_t = (Ipv4Addr::LOCALHOST, 0).into())]
    listen: SocketAddr,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { vendor, listen } = self;
        let simulator = Simulator::start_at(vendor, listen)
            .await
            .map_err(|error| Failure::Usage(format!("--listen {listen} can't be listened on: {error}")))?;
        let mut out = io::stdout();
        write!(out, "{}", introduction(&simulator, Paint::stdout()))?;
        out.flush()?;
        signalled().await;
        Ok(Exit::Succeeded)
    }
}

/// Its URL, alone in the first line for scripts; then all that a client needs.
fn introduction(simulator: &Simulator, paint: Paint) -> String {
    let url = simulator.base_url();
    let known = match simulator.vendor() {
        Vendor::Immuta => format!("API key {}", credentials::IMMUTA_API_KEY),
        Vendor::Kinetica => {
            format!("user {}, password {}", credentials::KINETICA_USER, credentials::KINETICA_PASSWORD)
        }
        Vendor::Claret => format!(
            "tenant {}, email {}, password {}",
            credentials::CLARET_TENANT,
            credentials::CLARET_EMAIL,
            credentials::CLARET_PASSWORD
        ),
        Vendor::Datasaur => format!(
            "client id {}, client secret {}",
            credentials::DATASAUR_CLIENT_ID,
            credentials::DATASAUR_CLIENT_SECRET
        ),
    };
    let mut text = format!(
        "{}\n\nIt knows: {known}\n\nStart a job, let the vendor fail three times, get a bearer token:\n\n",
        paint.bold(&url)
    );
    for (route, body) in [
        ("jobs", r#"{"running_for_ms":10000,"end":{"success":{"json":[1,2]}}}"#),
        ("faults", r#"{"effect":{"status":{"code":503}},"times":3}"#),
        ("tokens", ""),
    ] {
        let body = match body {
            "" => String::new(),
            body => format!(" -H 'content-type: application/json' -d '{body}'"),
        };
        text = text + "  " + &paint.cyan(&format!("curl -X POST{body} {url}/_simulator/{route}")) + "\n";
    }
    text += "\nA gateway before it needs this configuration:\n\n  allow_inline_secrets = true\n";
    for line in simulator.config().lines() {
        let line = format!("  {line}");
        text = text + line.trim_end() + "\n";
    }
    text + "\njobwatch simulate --help shows what else it can do. Ctrl-C ends it.\n"
}

/// What a simulator does beside its vendor's API; each with an example of the
/// body, if it takes one.
const ROUTES: &[(&str, &str, &str)] = &[
    ("POST jobs", r#"{"running_for_ms": 5000}"#, "start a job; answers its id, and its tag"),
    ("PUT jobs/ID/state", r#"{"state": "active"}"#, "hold it in this state, in the vendor's word"),
    ("PUT jobs/ID/progress", r#"{"percent": 40}"#, "of a job that is held"),
    ("POST jobs/ID/finish", r#"{"failure": {"message": "no"}}"#, "end it now; without a body, as planned"),
    ("DELETE jobs/ID", "", "make it unknown"),
    ("POST faults", r#"{"effect": "reset", "times": 2}"#, "let something go wrong"),
    ("POST poison/ID", "", "refuse every request about this job"),
    ("DELETE faults", "", "heal all faults and poison"),
    ("POST tokens", "", "a bearer token that is good now"),
    ("PUT credentials", r#"{"secret": "new"}"#, "take another secret; tokens stay good"),
    ("PUT credentials", r#"{"expire_tokens": true}"#, "make every token invalid"),
    ("PUT credentials", r#"{"token_lifetime_ms": 2000}"#, "of tokens from now on"),
    ("PUT credentials", r#"{"reject": true}"#, "refuse all credentials"),
    ("GET calls", "", "what it was asked; DELETE calls forgets"),
];

/// Keys of a job's plan.
const PLAN: &[(&str, &str)] = &[
    (r#""id": "17""#, "instead of a new one"),
    (r#""tag": "nightly""#, "at Kinetica"),
    (r#""queued_for_ms": 2000"#, "waits before it runs"),
    (r#""running_for_ms": 5000"#, ""),
    (r#""appears_after_ms": 3000"#, "is unknown until then"),
    (r#""vanishes_after_ms": 9000"#, "is unknown from then on"),
    (r#""retried_after": "time-out""#, "the error of a first attempt"),
    (r#""held": "active""#, "stays in this state"),
    (r#""steps": ["upload", "match"]"#, "at Claret"),
    (r#""files": [{"category": "output", "name": "a"}]"#, "at Claret; or input, staging, errors"),
    (r#""end": {"success": {"json": [1]}}"#, r#"or {"text": ..}, {"binary": [0, 255]}, "nothing""#),
    (r#""end": {"failure": {"message": "no"}}"#, ""),
    (r#""end": {"cancelled": {}}"#, r#"with "still_running_for_ms" at Kinetica"#),
    (r#""end": "expired""#, "at Immuta"),
];

/// What can go wrong.
const EFFECTS: &[(&str, &str)] = &[
    (r#"{"status": {"code": 429, "headers": {"retry-after": "5"}}}"#, "this answer; \"body\", too"),
    (r#"{"delay": 2000}"#, "the answer comes so many ms later"),
    (r#""hang""#, "no answer ever comes"),
    (r#""reset""#, "the connection is reset"),
    (r#"{"truncate": 10}"#, "the body ends after so many bytes"),
    (r#""empty204""#, "204"),
    (r#"{"html": 502}"#, "a page"),
    (r#"{"redirect": "/login"}"#, "302"),
    (r#"{"wrong_content_type": "text/plain"}"#, ""),
    (r#"{"huge_body": 100000000}"#, "null for one that never ends"),
    (r#"{"refuse": "not today"}"#, "in the vendor's form"),
    (r#"{"graphql_error": {"message": "no"}}"#, "at Datasaur"),
    (r#""ignore_range""#, "of a download"),
];

/// What `--help` says of all that.
pub(super) fn means() -> String {
    let mut text = "A simulator starts jobs and faults on request, below /_simulator of its URL, without\n\
                    credentials and with JSON bodies (content-type: application/json):\n\n"
        .to_owned();
    // Writing to a String can't fail.
    for (route, body, what) in ROUTES {
        let _ = writeln!(text, "  {route:21} {body:31} {what}");
    }
    text += "\nA job's plan may have these keys:\n\n";
    for (key, what) in PLAN {
        text = text + format!("  {key:46} {what}").trim_end() + "\n";
    }
    text += "\nA fault's \"effect\" is one of these; \"path\" (a part of it), \"job_id\" and \"times\" say when:\n\n";
    for (effect, what) in EFFECTS {
        text = text + format!("  {effect:60} {what}").trim_end() + "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulators::{End, Fault, Plan};

    #[test]
    fn every_example_of_the_help_is_understood() {
        for (effect, _) in EFFECTS {
            let fault =
                format!("{{\"effect\": {effect}, \"path\": \"/a\", \"job_id\": \"1\", \"times\": 1}}");
            serde_json::from_str::<Fault>(&fault).unwrap_or_else(|error| panic!("{effect}: {error}"));
        }
        for (key, _) in PLAN {
            let plan = format!("{{{key}}}");
            serde_json::from_str::<Plan>(&plan).unwrap_or_else(|error| panic!("{key}: {error}"));
        }
        for (route, body, _) in ROUTES {
            match *route {
                "POST jobs" => drop(serde_json::from_str::<Plan>(body).unwrap()),
                "POST faults" => drop(serde_json::from_str::<Fault>(body).unwrap()),
                "POST jobs/ID/finish" => drop(serde_json::from_str::<End>(body).unwrap()),
                _ if body.is_empty() => {}
                _ => drop(serde_json::from_str::<serde_json::Value>(body).unwrap()),
            }
        }
    }

    #[test]
    fn the_help_fits_a_terminal() {
        for line in means().lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }

    #[tokio::test]
    async fn the_introduction_begins_with_the_url_alone() {
        for vendor in Vendor::ALL {
            let simulator = Simulator::start(vendor).await.unwrap();
            let text = introduction(&simulator, Paint::NONE);
            assert_eq!(text.lines().next().unwrap(), simulator.base_url());
            let config: String =
                text.lines().skip_while(|line| !line.contains("allow_inline")).collect::<Vec<_>>()[..]
                    .split_last()
                    .map(|(_, lines)| lines.join("\n"))
                    .unwrap();
            crate::config::Config::parse(&config, []).unwrap_or_else(|error| panic!("{error}\n{config}"));
        }
    }
}
