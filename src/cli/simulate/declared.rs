//! The vendor of a definition, simulated from its cases.

use std::{
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    cli::{
        exit::{Exit, Failure},
        render::Paint,
        serve::signalled,
        vendor,
    },
    vendors::declared::{
        Definition, Shipped,
        simulation::{Lives, Simulation},
    },
};

/// Longest request in bytes.
const LONGEST: usize = 1 << 20;

/// How the jobs of a definition's vendor go.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// Of a definition: seconds before a job runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    queued_for: u32,

    /// Of a definition: seconds that a job runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 8)]
    running_for: u32,

    /// Of a definition: how every job ends, such as FAILED. Without it, jobs end in turn
    /// with each end that the cases have.
    #[arg(long, value_name = "STATE")]
    end: Option<String>,

    /// Of a definition: an id that is a job; can be repeated. Without it, every id is one.
    #[arg(long = "job", value_name = "ID")]
    jobs: Vec<String>,
}

impl Options {
    fn lives(&self) -> Lives {
        Lives {
            queued: Duration::from_secs(self.queued_for.into()),
            running: Duration::from_secs(self.running_for.into()),
            end: self.end.clone(),
            jobs: self.jobs.clone(),
        }
    }
}

/// What is simulated, and how a backend names it.
struct Subject {
    definition: Definition,
    cases: String,
    named: String,
}

impl Subject {
    fn find(name: &str) -> Result<Self, Failure> {
        let parsed = |text: &str| {
            Definition::parse(text)
                .map_err(|invalid| Failure::Usage(format!("{name} has problems:\n{invalid}")))
        };
        if let Some(shipped) = Shipped::find(name) {
            let definition = parsed(shipped.definition)?;
            return Ok(Self {
                definition,
                cases: shipped.cases.to_owned(),
                named: format!("vendor      = {name:?}"),
            });
        }
        if !Path::new(name).exists() {
            let text = format!(
                "{name} is neither a vendor nor a file; write immuta, kinetica, claret, datasaur, a name that \
                 jobwatch vendor list shows, or the path of a definition"
            );
            return Err(Failure::Usage(text));
        }
        let file = vendor::definition_file(Path::new(name));
        let definition = parsed(&vendor::read(&file)?)?;
        let cases = vendor::read(&file.with_file_name(vendor::CASES))?;
        let path: PathBuf = file.canonicalize().unwrap_or(file);
        let named = format!("vendor_file = {:?}", path.display().to_string());
        Ok(Self { definition, cases, named })
    }
}

struct Server {
    simulation: Mutex<Simulation>,
    start: Instant,
}

/// Serves the vendor of a definition until a signal comes.
pub(super) async fn run(name: &str, listen: SocketAddr, options: &Options) -> Result<Exit, Failure> {
    let subject = Subject::find(name)?;
    let refused =
        |error: io::Error| Failure::Usage(format!("--listen {listen} can't be listened on: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let url = format!("http://{}", listener.local_addr().map_err(refused)?);
    let (label, named) =
        (format!("{} ({})", subject.definition.title, subject.definition.label()), subject.named);
    let base_url = url.parse().map_err(|error| Failure::Usage(format!("--listen {listen}: {error}")))?;
    let simulation = Simulation::new(subject.definition, &subject.cases, &base_url, options.lives())
        .map_err(|problem| Failure::Usage(format!("{name} can't be simulated: {problem}")))?;
    let text = introduction(&simulation, &label, &named, &url, options, Paint::stdout());
    let mut out = io::stdout();
    write!(out, "{text}")?;
    out.flush()?;
    let server = Arc::new(Server { simulation: Mutex::new(simulation), start: Instant::now() });
    let router = Router::new().fallback(answer).with_state(server);
    tokio::select! {
        ended = axum::serve(listener, router) => ended?,
        () = signalled() => {}
    }
    Ok(Exit::Succeeded)
}

/// One request, and a line about it. Its query may hold credentials, so it is not shown.
async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, LONGEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let request = axum::http::Request::from_parts(parts, body);
    let simulated = {
        let mut simulation = server.simulation.lock().unwrap_or_else(PoisonError::into_inner);
        simulation.answer(&request, server.start.elapsed())
    };
    let (method, path, status) =
        (request.method(), request.uri().path(), simulated.response.status().as_u16());
    // Nobody may be reading.
    let _ = writeln!(io::stdout(), "{method} {path}  {status}  {}", simulated.note);
    simulated.response.map(Body::from)
}

fn introduction(
    simulation: &Simulation,
    label: &str,
    named: &str,
    url: &str,
    options: &Options,
    paint: Paint,
) -> String {
    let Options { queued_for, running_for, end, jobs } = options;
    let which = if jobs.is_empty() { "Every id".to_owned() } else { format!("Each of {}", jobs.join(", ")) };
    let end = match end {
        Some(end) => format!("ends as {end}"),
        None => "ends; the ends take turns".to_owned(),
    };
    let mut text = format!("{}\n\n{label}, from its cases. ", paint.bold(url));
    let _ = writeln!(
        text,
        "{which} is a job from its first request on:\nit waits {queued_for} s, runs {running_for} s and {end}. Its words are\n"
    );
    for (state, word) in simulation.words() {
        let _ = writeln!(text, "  {state:<10} {word}");
    }
    text += "\nConfiguration of a gateway for it:\n\n";
    for line in config(simulation, named, url).lines() {
        text = text + format!("  {line}").trim_end() + "\n";
    }
    if simulation.credentials().is_none() {
        text +=
            "\nIts tokens come from another origin, which is not simulated: any credentials are accepted.\n";
    }
    let _ = writeln!(
        text,
        "\nWith that gateway:\n\n  {}",
        paint.cyan(&format!("jobwatch watch simulated/{}", simulation.example_id()))
    );
    text + "\nCtrl-C ends it. Requests:\n\n"
}

fn config(simulation: &Simulation, named: &str, url: &str) -> String {
    let mut text =
        format!("allow_inline_secrets = true\n\n[backends.simulated]\n{named}\nbase_url    = {url:?}\n");
    if let Some(params) = simulation.params().get("params") {
        let _ = writeln!(text, "params      = {params}");
    }
    if let Some(credentials) = simulation.credentials() {
        let _ = writeln!(text, "credentials = {credentials}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, vendors::declared::SHIPPED};

    fn options() -> Options {
        Options { queued_for: 2, running_for: 8, end: None, jobs: Vec::new() }
    }

    #[test]
    fn introduction_has_a_configuration_that_can_be_used() {
        for shipped in SHIPPED {
            let subject = Subject::find(shipped.name).unwrap();
            let url = "http://127.0.0.1:8090";
            let lives = options().lives();
            let simulation =
                Simulation::new(subject.definition, &subject.cases, &url.parse().unwrap(), lives).unwrap();
            let text = introduction(&simulation, "x", &subject.named, url, &options(), Paint::NONE);
            assert_eq!(text.lines().next().unwrap(), url);
            let config = config(&simulation, &subject.named, url);
            Config::parse(&config, []).unwrap_or_else(|error| panic!("{error}\n{config}"));
        }
    }

    #[test]
    fn name_of_nothing_is_refused_with_what_can_be_named() {
        let Err(Failure::Usage(text)) = Subject::find("databrick") else { panic!() };
        assert!(text.starts_with("databrick is neither a vendor nor a file; write immuta,"), "{text}");
    }
}
