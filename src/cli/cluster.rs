//! `jobwatch cluster status`: what replicas do among each other, read from their admin addresses.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use bytes::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use futures_util::future::join_all;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use tokio::time::timeout;

use super::{
    client::duration,
    exit::{Exit, Failure},
    first_bytes::root_cause,
    json,
    render::Paint,
    text::one_line,
};
use crate::cluster::ReplicaStatus;

mod agreement;
mod table;

/// Largest response.
const MAX_BYTES: usize = 16 << 20;

/// Shows how replicas share the work.
#[derive(Debug, Args)]
pub(super) struct Cluster {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which replica owns each backend, and what the replicas do.
    ///
    /// Give the admin address of each replica: what they disagree about is shown below the table.
    #[command(after_help = super::exit_codes::CLUSTER_STATUS)]
    Status(Status),
}

#[derive(Debug, Args)]
struct Status {
    /// The admin address of a replica; repeat it for others. The default scheme is http://.
    #[arg(
        long,
        value_name = "URL",
        env = "JOBWATCH_ADMIN",
        value_delimiter = ',',
        value_parser = address,
        default_value = "http://127.0.0.1:9090"
    )]
    admin: Vec<Address>,

    /// Format of the output. Without it: table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,

    /// Longest wait for each replica.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A row for each backend and replica.
    Table,
    /// One JSON object: what each replica says, and the problems.
    Json,
}

/// An admin address.
#[derive(Clone, Debug)]
struct Address {
    /// `http://HOST:PORT`
    text: String,
    uri: Uri,
}

/// What came from one address.
#[derive(Debug)]
struct Answer {
    admin: String,
    status: Result<ReplicaStatus, String>,
}

impl Cluster {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let Command::Status(status) = self.command;
        status.run().await
    }
}

impl Status {
    async fn run(self) -> Result<Exit, Failure> {
        let answers = join_all(self.admin.into_iter().map(|address| ask(address, self.timeout))).await;
        let replicas: Vec<_> = answers.iter().filter_map(|answer| answer.status.as_ref().ok()).collect();
        let now = Timestamp::now();
        let problems = agreement::problems(&replicas, now);
        let is_table = match self.output {
            Some(format) => format == Format::Table,
            None => io::stdout().is_terminal(),
        };
        if is_table {
            json::write(&table::render(&replicas, now, Paint::stdout().columns()))?;
            for problem in &problems {
                eprintln!("problem: {}", one_line(problem));
            }
        } else {
            json::write(&format!("{}\n", document(&answers, &problems)))?;
        }
        let mut exit = if problems.is_empty() { Exit::Succeeded } else { Exit::Unsuccessful };
        for Answer { admin, status } in &answers {
            if let Err(why) = status {
                eprintln!("error: {admin}: {}", one_line(why));
                exit = Exit::Failed;
            }
        }
        Ok(exit)
    }
}

fn document(answers: &[Answer], problems: &[String]) -> serde_json::Value {
    let replica = |Answer { admin, status }: &Answer| match status {
        Ok(status) => serde_json::json!({ "admin": admin, "status": status }),
        Err(error) => serde_json::json!({ "admin": admin, "error": error }),
    };
    let replicas: Vec<_> = answers.iter().map(replica).collect();
    serde_json::json!({ "replicas": replicas, "problems": problems })
}

fn address(text: &str) -> Result<Address, String> {
    let wrong = "write the admin address as http://HOST:PORT, such as http://127.0.0.1:9090";
    if text.starts_with("https://") {
        return Err(format!("the admin address does not speak TLS; {wrong}"));
    }
    let authority = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '@', '?', '#']) {
        return Err(wrong.to_owned());
    }
    let text = format!("http://{authority}");
    match format!("{text}/cluster").parse::<Uri>() {
        Ok(uri) => Ok(Address { text, uri }),
        Err(error) => Err(format!("{error}; {wrong}")),
    }
}

async fn ask(Address { text, uri }: Address, within: Duration) -> Answer {
    let status = match timeout(within, fetch(uri)).await {
        Ok(status) => status,
        Err(_) => Err(format!("no answer within {within:?}")),
    };
    Answer { admin: text, status }
}

async fn fetch(uri: Uri) -> Result<ReplicaStatus, String> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::get(uri).body(Empty::new()).map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| root_cause(&error))?;
    let code = response.status();
    let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    let body = body.map_err(|error| root_cause(&*error))?.to_bytes();
    match code {
        StatusCode::OK => serde_json::from_slice(&body)
            .map_err(|error| format!("the answer is not that of an admin address of this version: {error}")),
        StatusCode::NOT_FOUND if body.starts_with(b"the configuration has no section [cluster]") => {
            Err("its configuration has no section [cluster]".to_owned())
        }
        StatusCode::NOT_FOUND => Err("there is no /cluster at this address; give admin.listen of a \
                                      gateway of this version"
            .to_owned()),
        code => Err(format!("it answers {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_address_is_a_host_and_a_port() {
        for text in ["10.0.0.1:9090", "http://10.0.0.1:9090", "http://10.0.0.1:9090/"] {
            let address = address(text).unwrap();
            assert_eq!(address.text, "http://10.0.0.1:9090");
            assert_eq!(address.uri, "http://10.0.0.1:9090/cluster");
        }
        assert_eq!(address("[::1]:9090").unwrap().text, "http://[::1]:9090");
        for text in ["", "http://", "http://a/b", "http://user:secret@a:1", "grpc://a"] {
            let error = address(text).unwrap_err();
            assert!(
                error.ends_with("write the admin address as http://HOST:PORT, such as http://127.0.0.1:9090")
            );
            assert!(!error.contains("secret"));
        }
        assert!(address("https://a:9090").unwrap_err().starts_with("the admin address does not speak TLS; "));
    }

    #[test]
    fn document_has_statuses_errors_and_problems() {
        let answers = [
            Answer { admin: "http://a".into(), status: Ok(agreement::tests::owner()) },
            Answer { admin: "http://b".into(), status: Err("connection refused".into()) },
        ];
        let document = document(&answers, &["db: no".to_owned()]);
        assert_eq!(document["replicas"][0]["admin"], "http://a");
        assert_eq!(document["replicas"][0]["status"]["backends"][0]["role"], "owner");
        assert_eq!(document["replicas"][1]["error"], "connection refused");
        assert_eq!(document["problems"][0], "db: no");
    }
}
