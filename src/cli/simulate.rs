//! `jobwatch simulate`: one simulated vendor, for people who write clients.

use std::{
    fs::File,
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{
    exit::{Exit, Failure},
    render::Paint,
    serve::signalled,
    text::{columns, padded, wrapped},
};
use crate::simulators::{Simulator, Vendor, credentials};

mod declared;

/// Runs one simulated vendor.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The vendor to simulate: immuta, kinetica, claret, datasaur, the name of a shipped
    /// definition, or the path of one, with its cases.toml beside it.
    #[arg(value_name = "VENDOR|FILE")]
    vendor: String,

    /// Address to listen on; port 0 takes a free port.
    #[arg(long, value_name = "ADDR", default_value_t = (Ipv4Addr::LOCALHOST, 0).into())]
    listen: SocketAddr,

    /// Also write the configuration that is printed to this file, which must not exist yet.
    #[arg(long, value_name = "FILE")]
    write_config: Option<PathBuf>,

    #[command(flatten)]
    options: declared::Options,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Self { vendor, listen, write_config, options } = self;
        let Ok(vendor) = vendor.parse::<Vendor>() else {
            return declared::run(&vendor, listen, write_config.as_deref(), &options).await;
        };
        let simulator = Simulator::start_at(vendor, listen)
            .await
            .map_err(|error| Failure::Usage(format!("--listen {listen} can't be listened on: {error}")))?;
        let gateway = free_address();
        let config = configuration(&simulator, gateway);
        if let Some(file) = &write_config {
            write_to(file, &config)?;
        }
        let mut out = io::stdout();
        write!(out, "{}", introduction(&simulator, &config, gateway, Paint::stdout()))?;
        out.flush()?;
        signalled().await;
        Ok(Exit::Succeeded)
    }
}

/// An address on loopback that nothing listens on, so that two gateways don't collide.
fn free_address() -> SocketAddr {
    let free =
        std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    free.unwrap_or_else(|_| (Ipv4Addr::LOCALHOST, 50052).into())
}

/// Writes a configuration to a new file.
fn write_to(file: &Path, config: &str) -> Result<(), Failure> {
    let written = File::create_new(file).and_then(|mut file| file.write_all(config.as_bytes()));
    written.map_err(|error| {
        let file = file.display();
        Failure::Usage(match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("--write-config {file} exists already; name another file, or remove it")
            }
            _ => format!("--write-config {file} can't be written: {error}"),
        })
    })
}

/// The configuration of a gateway for a simulated vendor.
fn configuration(simulator: &Simulator, gateway: SocketAddr) -> String {
    format!("allow_inline_secrets = true\n\n[server]\nlisten = \"{gateway}\"\n{}", simulator.config())
}

/// The URL alone on the first line, for scripts; then credentials and examples.
fn introduction(simulator: &Simulator, config: &str, gateway: SocketAddr, paint: Paint) -> String {
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
        "{}\n\nCredentials: {known}\n\nStart a job, make the vendor fail three times, get a bearer token:\n\n",
        paint.bold(&url)
    );
    for (route, body) in [
        ("jobs", r#"{"running_for_ms":10000,"end":{"success":{"json":[1,2]}}}"#),
        ("faults", r#"{"effect":{"status":{"code":503}},"times":3}"#),
        ("tokens", ""),
    ] {
        text = text + "  " + &paint.cyan(&curl(&url, route, body)) + "\n";
    }
    text += "\nConfiguration of a gateway for it:\n\n";
    for line in config.lines() {
        let line = format!("  {line}");
        text = text + line.trim_end() + "\n";
    }
    text = format!("{text}\nIts callers write --server http://{gateway}, or set JOBWATCH_SERVER to that.\n");
    text + "\njobwatch simulate --help lists all faults and routes. Ctrl-C ends it.\n"
}

/// Routes of the admin API, each with an example of the body, if it takes one.
const ROUTES: &[(&str, &str, &str)] = &[
    ("POST jobs", r#"{"running_for_ms": 5000}"#, "start a job; returns its id and tag"),
    ("PUT jobs/ID/state", r#"{"state": "active"}"#, "hold it in this state of the vendor"),
    ("PUT jobs/ID/progress", r#"{"percent": 40}"#, "set the progress of a held job"),
    ("POST jobs/ID/finish", r#"{"failure": {"message": "no"}}"#, "end it now; without a body: as planned"),
    ("DELETE jobs/ID", "", "delete the job: it is unknown from now on"),
    ("POST faults", r#"{"effect": "reset", "times": 2}"#, "add a fault"),
    ("POST poison/ID", r#"{"html": 502}"#, "apply this effect to requests with the job"),
    ("POST poison/ID", "", "refuse every request with the job"),
    ("DELETE poison/ID", "", "remove the faults of the job"),
    ("DELETE faults", "", "remove all faults, poison too"),
    ("POST tokens", "", "get a valid bearer token"),
    ("PUT credentials", r#"{"secret": "new"}"#, "accept another secret; tokens stay valid"),
    ("PUT credentials", r#"{"expire_tokens": true}"#, "make every token invalid"),
    ("PUT credentials", r#"{"token_lifetime_ms": 2000}"#, "lifetime of new tokens"),
    ("PUT credentials", r#"{"reject": true}"#, "refuse all credentials"),
    ("GET calls", "", "the request log; DELETE empties it"),
];

/// Keys of a job's plan.
const PLAN: &[(&str, &str)] = &[
    (r#""id": "17""#, "the id, instead of a new one"),
    (r#""tag": "nightly""#, "the job tag, at Kinetica"),
    (r#""queued_for_ms": 2000"#, "time before it runs"),
    (r#""running_for_ms": 5000"#, "time that it runs"),
    (r#""appears_after_ms": 3000"#, "time until the vendor knows the job"),
    (r#""vanishes_after_ms": 9000"#, "time until the vendor has forgotten it"),
    (r#""retried_after": "time-out""#, "error of a first attempt, which is retried"),
    (r#""held": "active""#, "stays in this state of the vendor"),
    (r#""steps": ["upload", "match"]"#, "names of its steps, at Claret"),
    (r#""files": [{"category": "output", "name": "a"}]"#, "at Claret; also input, staging, errors"),
    (r#""end": {"success": {"json": [1]}}"#, r#"or {"text": ..}, {"binary": [0, 255]}, "nothing""#),
    (r#""end": {"success": {"size": 1000000}}"#, "a text of this many bytes"),
    (r#""end": {"failure": {"message": "no"}}"#, "fails with this message"),
    (r#""end": {"cancelled": {}}"#, r#"with "still_running_for_ms" at Kinetica"#),
    (r#""end": "expired""#, "expires, at Immuta"),
];

/// Effects of faults.
const EFFECTS: &[(&str, &str)] = &[
    (r#"{"delay": 2000}"#, "latency: the response is this many ms late"),
    (r#"{"jitter": 2000}"#, "latency: a random time of at most this many ms"),
    (r#"{"throttle": {"bytes": 64, "pause_ms": 50}}"#, "this many bytes, then a pause, again and again"),
    (r#"{"slow_head": 100}"#, "slowloris: this many ms per byte of the head"),
    (r#""hang""#, "no response ever comes"),
    (r#"{"stall_at": 20}"#, "half-open: after 20 bytes nothing more comes"),
    (r#""reset""#, "the connection is reset without a response"),
    (r#"{"reset_at": 20}"#, "the same after 20 bytes, head included"),
    (r#"{"close_at": -1}"#, "closed after this many bytes; -1: all but one"),
    (r#"{"truncate": 10}"#, "the body ends after this many bytes"),
    (r#""close_after_answer""#, "closed after the response, unannounced"),
    (r#""close_under_request""#, "a reused one is closed when a request arrives"),
    (r#""twice""#, "the response comes twice"),
    (r#"{"extra": "more"}"#, "additional bytes after the response"),
    (r#"{"wrong_length": 3}"#, "Content-Length is this much too large"),
    (r#"{"content_length": "1e9"}"#, "Content-Length has this value"),
    (r#""endless_body""#, "a body without a length and without an end"),
    (r#""endless_chunks""#, "chunks without an end"),
    (r#"{"huge_body": 100000000}"#, "JSON that breaks off after this many bytes"),
    (r#"{"gzip_bomb": 1000000000}"#, "a body of this many bytes after decompression"),
    (r#"{"many_headers": 100000}"#, "this many additional headers"),
    (r#"{"huge_header": 1000000}"#, "an additional header of this many bytes"),
    (r#""endless_head""#, "headers without an end"),
    (r#""http_1_0""#, "HTTP/1.0, no length: the body ends on close"),
    (r#"{"raw": "HTTP/1.1 2000 OK\r\n\r\n"}"#, "these bytes, then the connection is closed"),
    (
        r#"{"status": {"code": 429, "headers": {"retry-after": "5"}}}"#,
        "this response in place of the vendor's",
    ),
    (r#"{"status": {"code": 200, "body": "[NaN]"}}"#, "the same; \"content_type\" is optional"),
    (r#"{"status": {"code": 200, "body_base64": "/w=="}}"#, "the same with a body that is not text"),
    (r#""empty204""#, "a 204 response without a body"),
    (r#"{"html": 502}"#, "an HTML page with this status"),
    (r#"{"redirect": "/login"}"#, "a 302 response with this location"),
    (r#"{"wrong_content_type": "text/plain"}"#, "the response with this content type"),
    (r#"{"refuse": "not today"}"#, "an error in the vendor's form"),
    (r#"{"graphql_error": {"message": "no"}}"#, "at Datasaur; optional: \"with_data\": true"),
    (r#""ignore_range""#, "a download ignores the offset"),
    (r#"{"answer_for": ["17", "18"]}"#, "the response is about these jobs; [] is none"),
    (r#"{"elements": {"omit": ["17"], "add": ["18"]}}"#, "elements omitted from the response, or added"),
    (r#""hold_response""#, "made now, sent when the fault is removed"),
    (r#"{"json": {"put": "deep"}}"#, "an additional member, 100,000 arrays deep"),
    (r#"{"json": {"put": "nan", "at": "/content/progress"}}"#, "NaN in place of that value"),
    (r#"{"json": {"put": "duplicate_key", "at": "/content"}}"#, "that key a second time, with null"),
    (r#"{"json": {"put": "invalid_utf8"}}"#, "not UTF-8; Kinetica: \"at\": \"/data_str/endpoint\""),
    (r#"{"json": {"put": "lone_surrogate"}}"#, "half of a surrogate pair"),
    (r#"{"json": {"put": "big_number"}}"#, "an integer beyond 64 bits"),
    (r#"{"json": {"put": "huge_number"}}"#, "a number beyond a double"),
    (r#"{"json": {"put": "long_text"}}"#, "a text of 100 MB"),
];

/// For two terminals.
const EXAMPLE: [&str; 2] = [
    "jobwatch simulate immuta --listen 127.0.0.1:8090",
    r#"curl -X POST -H 'content-type: application/json' \
    -d '{"effect":{"reset_at":20},"times":3}' \
    http://127.0.0.1:8090/_simulator/faults"#,
];

/// A command that calls the admin API.
pub(super) fn curl(url: &str, route: &str, body: &str) -> String {
    let body = match body {
        "" => String::new(),
        body => format!(" -H 'content-type: application/json' -d '{body}'"),
    };
    format!("curl -X POST{body} {url}/_simulator/{route}")
}

/// Where descriptions begin in the help, and its width.
const COLUMN: usize = 38;
const WIDTH: usize = 80;

/// An example, and what it does beside it or below it.
fn entry(example: &str, what: &str) -> String {
    let mut lines = wrapped(what, WIDTH - COLUMN).into_iter();
    let mut text = format!("  {example}");
    if columns(&text) + 2 <= COLUMN {
        text = padded(&text, COLUMN) + &lines.next().unwrap_or_default();
    }
    for line in lines {
        text = text + "\n" + &padded("", COLUMN) + &line;
    }
    text + "\n"
}

/// The long help: admin API, plans and effects.
pub(super) fn long_help() -> String {
    let mut text = "The admin API is below /_simulator of its URL. It needs no credentials and takes\n\
                    JSON bodies (content-type: application/json):\n\n"
        .to_owned();
    for (route, body, what) in ROUTES {
        text += &entry(format!("{route}  {body}").trim_end(), what);
    }
    text += "\nA job's plan may have these keys:\n\n";
    for (key, what) in PLAN {
        text += &entry(key, what);
    }
    text += "\nA fault has an \"effect\". Optional: \"path\" (a part of the request's path),\n\
             \"job_id\", \"times\":\n\n";
    for (effect, what) in EFFECTS {
        text += &entry(effect, what);
    }
    text += "\nIf several faults match a request, every delay applies, and only the first other\n\
             fault. Example:\n\n";
    for line in EXAMPLE {
        text = text + "  " + line + "\n";
    }
    text + "\nA simulator has no TLS. To test a failed handshake, use https:// with the\n\
            simulator's port as base_url. To test a failed DNS look-up, use a host name\n\
            below .invalid.\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulators::{Effect, End, Fault, Plan};

    #[test]
    fn help_examples_deserialize() {
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
                "POST poison/ID" if !body.is_empty() => drop(serde_json::from_str::<Effect>(body).unwrap()),
                _ if body.is_empty() => {}
                _ => drop(serde_json::from_str::<serde_json::Value>(body).unwrap()),
            }
        }
    }

    /// The valid values, taken from the error about an invalid one.
    fn known(wrong: &str) -> Vec<String> {
        let refused = serde_json::from_str::<Fault>(wrong).unwrap_err().to_string();
        let known = refused.split_once("expected one of").expect(&refused).1;
        known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn help_lists_every_effect() {
        let effects = known(r#"{"effect": "nonsense"}"#);
        assert!(effects.len() > 30, "{effects:?}");
        let oddities = known(r#"{"effect": {"json": {"put": "nonsense"}}}"#);
        let help = long_help();
        for name in effects.iter().chain(&oddities) {
            assert!(help.contains(&format!("\"{name}\"")), "{name}");
        }
    }

    #[test]
    fn help_example_can_be_pasted() {
        let body = EXAMPLE[1].split('\'').nth(3).unwrap();
        let fault: Fault = serde_json::from_str(body).unwrap();
        assert_eq!(fault.times, Some(3));
        let address = EXAMPLE[0].rsplit(' ').next().unwrap();
        assert!(EXAMPLE[1].ends_with(&format!(" http://{address}/_simulator/faults")));
    }

    #[test]
    fn help_fits_a_terminal() {
        for line in long_help().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[tokio::test]
    async fn introduction_starts_with_the_url_alone() {
        for vendor in Vendor::ALL {
            let simulator = Simulator::start(vendor).await.unwrap();
            let gateway = free_address();
            let written = configuration(&simulator, gateway);
            let text = introduction(&simulator, &written, gateway, Paint::NONE);
            assert_eq!(text.lines().next().unwrap(), simulator.base_url());
            let lines = text.lines().skip_while(|line| !line.contains("allow_inline"));
            let lines = lines.take_while(|line| line.is_empty() || line.starts_with("  "));
            let config = lines.collect::<Vec<_>>().join("\n");
            assert!(config.contains("[server]\n  listen = \"127.0.0.1:"), "{config}");
            crate::config::Config::parse(&config, []).unwrap_or_else(|error| panic!("{error}\n{config}"));
        }
    }
}
