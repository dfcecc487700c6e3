//! The vendor of a definition, simulated from its cases.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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

use super::{free_address, write_to};
use crate::{
    cli::{
        exit::{Exit, Failure},
        render::Paint,
        serve::signalled,
        vendor::source::{CASES, find, read_cases},
    },
    vendors::declared::{
        Definition, Shipped,
        simulation::{ChangedLine, Lives, Simulation, relocated},
    },
};

/// Longest request in bytes.
const LONGEST: usize = 1 << 20;

/// Says in a written configuration why it can't be used later.
const COPY: &str = "# vendor_file is a copy of the definition that goes when the simulator ends.\n";

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
    /// A definition of its own, where tokens or files come from other origins.
    changed: Option<Changed>,
}

/// A changed definition, in a file that goes with this value.
struct Changed {
    folder: PathBuf,
    file: PathBuf,
    lines: Vec<ChangedLine>,
}

impl Changed {
    fn write(name: &str, text: &str, lines: Vec<ChangedLine>) -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("jobwatch-simulate-{}-{count}", std::process::id()));
        // Nobody else's folder is written to.
        fs::create_dir(&folder)?;
        let file = folder.join(format!("{name}.toml"));
        let changed = Self { folder, file, lines };
        fs::write(&changed.file, text)?;
        Ok(changed)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        // What is left is in the system's folder for temporary files.
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Subject {
    fn find(name: &str) -> Result<Self, Failure> {
        let parsed = |text: &str| {
            Definition::parse(text)
                .map_err(|invalid| Failure::Usage(format!("{name} has problems:\n{invalid}")))
        };
        let shipped = Shipped::find(name);
        let (file, text) = find(name, "")?;
        let definition = parsed(&text)?;
        let cases = match shipped {
            Some(shipped) => shipped.cases.to_owned(),
            None => read_cases(&file.with_file_name(CASES))?,
        };
        if let Some((changed, lines)) = relocated(&text) {
            let definition = parsed(&changed)?;
            let changed = Changed::write(&definition.name, &changed, lines).map_err(|error| {
                let folder = std::env::temp_dir();
                Failure::Usage(format!("{} can't be written to: {error}; set TMPDIR", folder.display()))
            })?;
            let named = format!("vendor_file = {:?}", changed.file.display().to_string());
            return Ok(Self { definition, cases, named, changed: Some(changed) });
        }
        let named = if shipped.is_some() {
            format!("vendor      = {name:?}")
        } else {
            let path: PathBuf = file.canonicalize().unwrap_or(file);
            format!("vendor_file = {:?}", path.display().to_string())
        };
        Ok(Self { definition, cases, named, changed: None })
    }
}

struct Server {
    simulation: Mutex<Simulation>,
    start: Instant,
}

/// Serves the vendor of a definition until a signal comes.
pub(super) async fn run(
    name: &str,
    listen: SocketAddr,
    write_config: Option<&Path>,
    options: &Options,
) -> Result<Exit, Failure> {
    let subject = Subject::find(name)?;
    let refused =
        |error: io::Error| Failure::Usage(format!("--listen {listen} can't be listened on: {error}"));
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let url = format!("http://{}", listener.local_addr().map_err(refused)?);
    let Subject { definition, cases, named, changed } = subject;
    let label = format!("{} ({})", definition.title, definition.label());
    let base_url = url.parse().map_err(|error| Failure::Usage(format!("--listen {listen}: {error}")))?;
    let simulation = Simulation::new(definition, &cases, &base_url, options.lives())
        .map_err(|problem| Failure::Usage(format!("{name} can't be simulated: {problem}")))?;
    let at = Places { url: &url, gateway: free_address() };
    if let Some(file) = write_config {
        let note = if changed.is_some() { COPY } else { "" };
        write_to(file, &(note.to_owned() + &config(&simulation, &named, at)))?;
    }
    let text = introduction(&simulation, &label, &named, changed.as_ref(), at, options, Paint::stdout());
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

/// The address of the simulated vendor, and that of a gateway in front of it.
#[derive(Clone, Copy)]
struct Places<'a> {
    url: &'a str,
    gateway: SocketAddr,
}

fn introduction(
    simulation: &Simulation,
    label: &str,
    named: &str,
    changed: Option<&Changed>,
    at: Places<'_>,
    options: &Options,
    paint: Paint,
) -> String {
    let Options { end, jobs, .. } = options;
    let which = if jobs.is_empty() { "Every id".to_owned() } else { format!("Each of {}", jobs.join(", ")) };
    let end = match end {
        Some(end) => format!("ends as {end}"),
        None => "ends; the ends take turns".to_owned(),
    };
    let times = simulation.times();
    let mut course: Vec<String> =
        times.iter().map(|(what, time)| format!("{what} {} s", time.as_secs())).collect();
    if times.is_empty() {
        course.push("has ended at once, since no word of the cases is PENDING or RUNNING".to_owned());
    }
    let mut text = format!("{}\n\n{label}, from its cases. ", paint.bold(at.url));
    let _ = writeln!(
        text,
        "{which} is a job from its first request on:\nit {} and {end}. Its words are\n",
        course.join(", ")
    );
    for (state, word) in simulation.words() {
        let _ = writeln!(text, "  {state:<10} {word}");
    }
    text += "\nConfiguration of a gateway for it:\n\n";
    for line in config(simulation, named, at).lines() {
        text = text + format!("  {line}").trim_end() + "\n";
    }
    if let Some(Changed { file, lines, .. }) = changed {
        let _ = writeln!(
            text,
            "\nThe definition names other origins, so {} is a copy of it with these\nlines, until this ends:\n",
            file.display()
        );
        for (number, line) in lines {
            let _ = writeln!(text, "  {number:>4}: {line}");
        }
    }
    let server = format!("http://{}", at.gateway);
    let _ = writeln!(
        text,
        "\nWith that gateway:\n\n  {}",
        paint.cyan(&format!("jobwatch watch --server {server} simulated/{}", simulation.example_id()))
    );
    text + "\nFiles have placeholders for their content. Ctrl-C ends it. Requests:\n\n"
}

fn config(simulation: &Simulation, named: &str, Places { url, gateway }: Places<'_>) -> String {
    let mut text = format!(
        "allow_inline_secrets = true\n\n[server]\nlisten = \"{gateway}\"\n\n[backends.simulated]\n{named}\n\
         base_url    = {url:?}\n"
    );
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
            let Subject { definition, cases, named, changed } = Subject::find(shipped.name).unwrap();
            let url = "http://127.0.0.1:8090";
            let at = Places { url, gateway: "127.0.0.1:8091".parse().unwrap() };
            let lives = options().lives();
            let simulation = Simulation::new(definition, &cases, &url.parse().unwrap(), lives).unwrap();
            let text = introduction(&simulation, "x", &named, changed.as_ref(), at, &options(), Paint::NONE);
            assert_eq!(text.lines().next().unwrap(), url);
            let config = config(&simulation, &named, at);
            let parsed = Config::parse(&config, []).unwrap_or_else(|error| panic!("{error}\n{config}"));
            assert_eq!(parsed.server.listen, at.gateway);
            let watch = format!(
                "jobwatch watch --server http://127.0.0.1:8091 simulated/{}",
                simulation.example_id()
            );
            assert!(text.contains(&watch), "{text}");
        }
    }

    #[test]
    fn definition_with_other_origins_is_a_changed_copy_that_goes_with_the_simulation() {
        let subject = Subject::find("bigquery").unwrap();
        let changed = subject.changed.as_ref().unwrap();
        assert_eq!(changed.lines.len(), 1, "{:?}", changed.lines);
        assert_eq!(changed.lines[0].1, "token_path = \"/token\"");
        assert!(subject.named.contains(&changed.file.display().to_string()));
        let folder = changed.folder.clone();
        assert!(folder.join("bigquery.toml").is_file());
        drop(subject);
        assert!(!folder.exists());
    }

    #[test]
    fn name_of_nothing_is_refused_with_what_can_be_named() {
        let Err(Failure::Usage(text)) = Subject::find("databrick") else { panic!() };
        assert_eq!(text, "databrick is neither a vendor nor a file; did you mean databricks?");
    }
}
