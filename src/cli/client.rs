//! Options that `get`, `watch` and `batch` share, and the connection to the gateway.

use std::{
    error::Error,
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use tonic::{
    Request, Status,
    codec::CompressionEncoding,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    exit::Failure,
    fault, json,
    render::{Paint, name},
};
use crate::{
    config,
    proto::v1::{
        JobRef, JobStatusResult, JobStatusView, job_status_result::Outcome,
        job_status_service_client::JobStatusServiceClient,
    },
};

/// A connected client.
pub(super) type Client = JobStatusServiceClient<InterceptedService<Channel, Authorization>>;

/// Sends the caller's token, if it has one.
#[derive(Clone, Debug)]
pub(super) struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

/// A batch of 1000 jobs may hold much more than gRPC's default of 4 MiB.
const MAX_MESSAGE: usize = 1 << 30;

/// Options of `get` and `batch`.
#[derive(Debug, Args)]
pub(super) struct Query {
    #[command(flatten)]
    pub(super) jobs: Jobs,

    #[command(flatten)]
    pub(super) freshness: Freshness,

    #[command(flatten)]
    connection: Connection,
}

/// How to reach the gateway.
#[derive(Debug, Default, Args)]
pub(super) struct Connection {
    /// The gateway's address. The default scheme is http://.
    #[arg(long, value_name = "URL", env = "JOBWATCH_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,

    /// PEM file of certificate authorities to trust instead of the system's, for https://.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// File that holds the caller's token and nothing else. Without it, the variable
    /// JOBWATCH_TOKEN may hold the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// PEM file of the caller's certificate chain, for https://.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// PEM file of that certificate's key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

/// Which jobs to show, and how.
#[derive(Debug, Args)]
pub(super) struct Jobs {
    /// Jobs. The backend's name ends at the first slash.
    #[arg(required = true, value_name = "BACKEND/JOB_ID", value_parser = parse_job)]
    selected: Vec<JobRef>,

    /// The job's tag. Only for a single Kinetica job.
    #[arg(long)]
    tag: Option<String>,

    /// How much of a status to show.
    #[arg(long, value_enum, default_value_t)]
    view: View,

    /// Print one proto-JSON object per line, errors included. The default without a
    /// terminal, except that errors then go to stderr.
    #[arg(long)]
    json: bool,
}

/// How much of a status is shown.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum View {
    /// No result.
    Basic,
    /// All except the vendor's payload.
    #[default]
    Standard,
    /// Everything.
    Full,
}

/// How fresh a status has to be, and how long to wait for it.
#[derive(Debug, Args)]
pub(super) struct Freshness {
    /// Wait until the jobs have ended, for at most this long: "30s", "5m".
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    wait: Option<Duration>,

    /// Accept a cached status up to this old.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    max_age: Option<Duration>,
}

impl Query {
    /// Connects to the gateway, and reports a failure in the output's format.
    pub(super) async fn client(&self) -> Result<Client, Failure> {
        self.jobs.client(&self.connection).await
    }
}

impl Connection {
    /// To a gateway at this address.
    #[cfg(feature = "demo")]
    pub(super) fn to(address: std::net::SocketAddr) -> Self {
        Self { server: address.to_string(), ..Self::default() }
    }

    /// Connects. The client reconnects by itself later.
    pub(super) async fn open(&self) -> Result<Client, Failure> {
        let authorization = self.authorization(self.endpoint()?.uri())?;
        let channel = self.channel().await?;
        Ok(JobStatusServiceClient::with_interceptor(channel, authorization)
            .max_decoding_message_size(MAX_MESSAGE)
            .accept_compressed(CompressionEncoding::Gzip))
    }

    /// Connects, for any service.
    pub(super) async fn channel(&self) -> Result<Channel, Failure> {
        let endpoint = self.endpoint()?;
        let channel = endpoint.connect().await.map_err(|error| {
            Failure::Connect(format!(
                "can't reach a gateway at {}: {}",
                url(&self.server),
                root_cause(&error)
            ))
        })?;
        Ok(channel)
    }

    /// The token, which is not sent over a network in plain text.
    fn authorization(&self, server: &http::Uri) -> Result<Authorization, Failure> {
        let (text, source) = match &self.token_file {
            Some(file) => (Some(read("--token-file", file)?), format!("--token-file {}", file.display())),
            None => {
                (std::env::var("JOBWATCH_TOKEN").ok().map(String::into_bytes), "JOBWATCH_TOKEN".to_owned())
            }
        };
        let Some(text) = text else { return Ok(Authorization(None)) };
        let token = str::from_utf8(&text).unwrap_or_default().trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Usage(format!("{source} does not hold a token; write the token alone")));
        }
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if server.scheme_str() != Some("https") && !is_local {
            let why = "the token would travel unencrypted; write an https:// URL for --server";
            return Err(Failure::Usage(format!("{source}: {why}")));
        }
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().expect("graphic ASCII fits a header");
        header.set_sensitive(true);
        Ok(Authorization(Some(header)))
    }

    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let url = url(&self.server);
        let usage = |why: &str| Failure::Usage(format!("--server {url} {why}"));
        let endpoint = Endpoint::from_shared(url.clone())
            .ok()
            .filter(|endpoint| {
                let uri = endpoint.uri();
                uri.host().is_some_and(|host| !host.is_empty())
                    && matches!(uri.scheme_str(), Some("http" | "https"))
            })
            .ok_or_else(|| usage("is not a URL; write one such as http://127.0.0.1:50051"))?
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("jobwatch/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| usage(&error.to_string()))?;
        if endpoint.uri().scheme_str() != Some("https") {
            return match (&self.ca, &self.cert) {
                (None, None) => Ok(endpoint),
                (Some(_), _) => Err(usage("is not encrypted, so --ca has no effect; write an https:// URL")),
                (_, Some(_)) => {
                    Err(usage("is not encrypted, so --cert has no effect; write an https:// URL"))
                }
            };
        }
        let tls = match &self.ca {
            None => ClientTlsConfig::new().with_native_roots(),
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("--ca", file)?)),
        };
        let tls = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                tls.identity(Identity::from_pem(read("--cert", cert)?, read("--key", key)?))
            }
            _ => tls,
        };
        endpoint.tls_config(tls).map_err(|error| Failure::Usage(format!("TLS: {}", root_cause(&error))))
    }
}

fn read(option: &str, file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file)
        .map_err(|error| Failure::Usage(format!("{option} {} can't be read: {error}", file.display())))
}

impl Jobs {
    /// The jobs in the order given.
    pub(super) fn refs(&self) -> Result<Vec<JobRef>, Failure> {
        let mut jobs = self.selected.clone();
        match (&self.tag, &mut jobs[..]) {
            (None, _) => {}
            (Some(tag), [job]) => job.job_tag.clone_from(tag),
            (Some(_), _) => {
                return Err(Failure::Usage(
                    "--tag applies to a single job; name one job at a time".to_owned(),
                ));
            }
        }
        Ok(jobs)
    }

    /// The view to request.
    pub(super) fn view(&self) -> JobStatusView {
        match self.view {
            View::Basic => JobStatusView::Basic,
            View::Standard => JobStatusView::Standard,
            View::Full => JobStatusView::Full,
        }
    }

    /// Prints a blank line between the blocks of two jobs, if the output is text.
    pub(super) fn separate(&self, already_shown: usize) -> io::Result<()> {
        if already_shown > 0 && self.is_text() {
            writeln!(io::stdout())?;
        }
        Ok(())
    }

    /// Connects, and with `--json` reports a failure as JSON.
    pub(super) async fn client(&self, connection: &Connection) -> Result<Client, Failure> {
        match connection.open().await {
            Err(Failure::Connect(message)) if self.json => {
                self.report_failure(None, &Status::unavailable(message))?;
                Err(Failure::Reported)
            }
            opened => opened,
        }
    }

    /// Reports a failed call for one job or all: as text on stderr, or with `--json` on
    /// stdout in the form of a batch's element.
    pub(super) fn report_failure(&self, job: Option<&JobRef>, status: &Status) -> io::Result<()> {
        if self.json {
            let outcome = Some(Outcome::Error(status.into()));
            return json::print("JobStatusResult", &JobStatusResult { job: job.cloned(), outcome });
        }
        let subject = job.map_or_else(|| "batch".to_owned(), name);
        eprint!("{}", fault::render(&subject, status, Paint::stderr()));
        Ok(())
    }

    /// Whether the output is text on a terminal.
    pub(super) fn is_text(&self) -> bool {
        !self.json && io::stdout().is_terminal()
    }
}

impl Freshness {
    pub(super) fn wait(&self) -> Option<prost_types::Duration> {
        self.wait.map(proto_duration)
    }

    pub(super) fn max_age(&self) -> Option<prost_types::Duration> {
        self.max_age.map(proto_duration)
    }
}

/// Parses a duration of the command line.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text).ok_or_else(|| "write a duration such as 500ms, 30s or 5m".to_owned())
}

/// A duration in the contract's type.
pub(super) fn proto_duration(duration: Duration) -> prost_types::Duration {
    // A duration that overflows is longer than any real wait.
    duration.try_into().unwrap_or(prost_types::Duration { seconds: i64::from(i32::MAX), nanos: 0 })
}

pub(super) fn parse_job(text: &str) -> Result<JobRef, String> {
    match text.split_once('/') {
        None => Err("write BACKEND/JOB_ID, such as immuta-prod/42".to_owned()),
        Some(("", _)) => Err("the backend before the slash is missing".to_owned()),
        Some((_, "")) => Err("the job id after the slash is missing".to_owned()),
        Some((backend, id)) => {
            Ok(JobRef { backend: backend.to_owned(), job_id: id.to_owned(), ..Default::default() })
        }
    }
}

fn url(server: &str) -> String {
    if server.contains("://") { server.to_owned() } else { format!("http://{server}") }
}

/// The innermost error, which names the actual failure.
fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server: &str) -> Connection {
        Connection { server: server.to_owned(), ..Connection::default() }
    }

    #[test]
    fn job_argument_is_split_at_the_first_slash() {
        let job = parse_job("immuta-prod/a/b?c").unwrap();
        assert_eq!((&*job.backend, &*job.job_id), ("immuta-prod", "a/b?c"));
        assert_eq!(name(&job), "immuta-prod/a/b?c");
    }

    #[test]
    fn job_argument_without_backend_or_id_is_refused() {
        for text in ["immuta", "/42", "immuta/", ""] {
            assert!(parse_job(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tag_with_several_jobs_is_refused() {
        let jobs = |count| Jobs {
            selected: vec![parse_job("kinetica/1").unwrap(); count],
            tag: Some("t".to_owned()),
            view: View::Basic,
            json: true,
        };
        assert_eq!(jobs(1).refs().unwrap()[0].job_tag, "t");
        assert!(matches!(jobs(2).refs(), Err(Failure::Usage(_))));
    }

    #[test]
    fn address_without_scheme_uses_http() {
        assert_eq!(connection("gateway:50051").endpoint().unwrap().uri(), "http://gateway:50051/");
        assert_eq!(connection("[::1]:50051").endpoint().unwrap().uri(), "http://[::1]:50051/");
    }

    #[test]
    fn invalid_address_is_refused() {
        for server in ["", "ftp://gateway", "http://", "two words"] {
            assert!(matches!(connection(server).endpoint(), Err(Failure::Usage(_))), "{server}");
        }
    }

    #[test]
    fn ca_without_tls_is_refused() {
        let connection = Connection { ca: Some("ca.pem".into()), ..connection("gateway:1") };
        assert!(matches!(connection.endpoint(), Err(Failure::Usage(_))));
    }

    #[tokio::test]
    async fn refused_connection_is_reported_in_one_line() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let Err(Failure::Connect(message)) = connection(&address.to_string()).open().await else { panic!() };
        assert!(
            message.starts_with(&format!("can't reach a gateway at http://{address}: Connection refused"))
        );
    }
}
