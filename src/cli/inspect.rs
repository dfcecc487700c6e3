//! `jobwatch backends` and `jobwatch jobs`: what a gateway polls, for operators.

use jiff::{SignedDuration, Timestamp};
use tonic::Status;

use super::{
    client::{connect, report_failure},
    connection::Connection,
    exit::{Exit, Failure},
    json,
    output::{Output, Printer, Style},
    render::{self, Paint, word},
    table::table,
    text::one_line,
};
use crate::proto::v1::{
    Backend, BackendHealth, InspectedJob, ListBackendsRequest, ListJobsRequest, ReplicaRole,
};

/// Shows the backends of a gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Backends {
    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

/// Shows the jobs that a gateway polls or retains. Needs the right "admin".
#[derive(Debug, clap::Args)]
pub(super) struct Jobs {
    /// Only jobs of this backend.
    #[arg(value_name = "BACKEND", default_value = "", hide_default_value = true)]
    backend: String,

    #[command(flatten)]
    output: Output,

    #[command(flatten)]
    connection: Connection,
}

impl Backends {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut client = connect(&self.connection, self.output).await?;
        let backends = match client.list_backends(ListBackendsRequest {}).await {
            Ok(response) => response.into_inner().backends,
            Err(status) => return report(self.output, self.output.printer(), "backends", &status),
        };
        if self.output.style() == Style::Text {
            return write(&backends_table(&backends, Timestamp::now(), Paint::stdout().columns()));
        }
        let mut printer = self.output.printer();
        for backend in &backends {
            printer.print(("Backend", backend), Some(&backend.name), String::new)?;
        }
        printer.finish()?;
        Ok(Exit::Succeeded)
    }
}

impl Jobs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut client = connect(&self.connection, self.output).await?;
        let mut page_token = String::new();
        let mut rows = Vec::new();
        let is_text = self.output.style() == Style::Text;
        let mut printer = self.output.printer();
        loop {
            let request = ListJobsRequest { backend: self.backend.clone(), page_size: 1000, page_token };
            let page = match client.list_jobs(request).await {
                Ok(response) => response.into_inner(),
                Err(status) => return report(self.output, printer, "jobs", &status),
            };
            let now = Timestamp::now();
            for job in &page.jobs {
                if is_text {
                    rows.push(job_row(job, now));
                } else {
                    let name = job.job.as_ref().map(render::name).unwrap_or_default();
                    printer.print(("InspectedJob", job), Some(&name), String::new)?;
                }
            }
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        if is_text {
            if rows.is_empty() {
                let of =
                    if self.backend.is_empty() { String::new() } else { format!(" of {}", self.backend) };
                eprintln!("The gateway polls or retains no jobs{of}.");
                return Ok(Exit::Succeeded);
            }
            return write(&table(&JOBS_HEAD, &rows, Paint::stdout().columns()));
        }
        printer.finish()?;
        Ok(Exit::Succeeded)
    }
}

fn report(output: Output, mut printer: Printer, subject: &str, status: &Status) -> Result<Exit, Failure> {
    report_failure(output, &mut printer, (subject, None), status)?;
    printer.finish()?;
    Ok(Exit::Failed)
}

fn write(text: &str) -> Result<Exit, Failure> {
    json::write(text)?;
    Ok(Exit::Succeeded)
}

const BACKENDS_HEAD: [&str; 9] =
    ["BACKEND", "VENDOR", "HEALTH", "JOBS", "QUEUED", "QUARANTINED", "LAG", "RATE", "LAST ERROR"];

/// Shown where the gateway is one of several replicas, before the last error.
const REPLICA: &str = "REPLICA";

const JOBS_HEAD: [&str; 8] =
    ["JOB", "STATE", "SUBSCRIBERS", "LAST POLL", "LAST CHANGE", "NEXT POLL", "QUARANTINED", "LAST ERROR"];

fn backends_table(backends: &[Backend], now: Timestamp, room: Option<usize>) -> String {
    let is_replica = backends.iter().any(|backend| backend.replica_role() != ReplicaRole::Unspecified);
    let row = |backend: &Backend| {
        let health = match backend.health() {
            BackendHealth::Unspecified => "UNKNOWN",
            health => health.as_str_name().trim_start_matches("BACKEND_HEALTH_"),
        };
        let lag =
            backend.poll_lag.map_or(SignedDuration::ZERO, |lag| SignedDuration::new(lag.seconds, lag.nanos));
        let error = backend.last_error.as_ref().map(|error| one_line(&error.message));
        let since = backend.last_success_time.as_ref().map(|time| age(Some(time), now));
        let error = match (error, since) {
            (Some(error), Some(since)) => format!("{error} (last answer {since} ago)"),
            (error, _) => error.unwrap_or_default(),
        };
        let mut row = vec![
            backend.name.clone(),
            match &*backend.vendor_version {
                "" => backend.vendor.clone(),
                version => format!("{} {}", backend.vendor, one_line(version)),
            },
            health.to_owned(),
            backend.watched_jobs.to_string(),
            backend.queued_calls.to_string(),
            backend.quarantined_jobs.to_string(),
            short(lag),
            format!("{:.0} %", backend.rate_in_use * 100.0),
        ];
        row.extend(is_replica.then(|| replica(backend)));
        row.push(error);
        row
    };
    let rows: Vec<_> = backends.iter().map(row).collect();
    let mut head = BACKENDS_HEAD.to_vec();
    if is_replica {
        head.insert(head.len() - 1, REPLICA);
    }
    table(&head, &rows, room)
}

/// What this replica does for a backend.
fn replica(backend: &Backend) -> String {
    let role = match backend.replica_role() {
        ReplicaRole::Unspecified => return "-".to_owned(),
        role => role.as_str_name().trim_start_matches("REPLICA_ROLE_"),
    };
    let owner = one_line(&backend.replica_owner);
    match backend.replica_role() {
        ReplicaRole::Owner => role.to_owned(),
        _ if owner.is_empty() => role.to_owned(),
        ReplicaRole::Isolated => format!("{role} from {owner}"),
        _ => format!("{role} of {owner}"),
    }
}

fn job_row(job: &InspectedJob, now: Timestamp) -> Vec<String> {
    let next = render::time(job.next_poll_time.as_ref()).map(|next| short(next.duration_since(now)));
    vec![
        job.job.as_ref().map(|job| one_line(&render::name(job))).unwrap_or_default(),
        job.state.map_or("-", |_| word(job.state())).to_owned(),
        job.subscribers.to_string(),
        age(job.last_poll_time.as_ref(), now),
        age(job.last_change_time.as_ref(), now),
        next.unwrap_or_else(|| "-".to_owned()),
        if job.quarantined { "yes" } else { "no" }.to_owned(),
        job.last_error.as_ref().map(|error| one_line(&error.message)).unwrap_or_default(),
    ]
}

/// How long ago, or a hyphen.
fn age(time: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    render::time(time).map_or_else(|| "-".to_owned(), |time| short(now.duration_since(time)))
}

/// In the largest unit that leaves more than nothing.
pub(super) fn short(duration: SignedDuration) -> String {
    let millis = duration.as_millis().max(0);
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..120_000 => format!("{} s", millis / 1000),
        120_000..7_200_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::JobRef;

    fn time(seconds: i64) -> prost_types::Timestamp {
        prost_types::Timestamp { seconds, nanos: 0 }
    }

    #[test]
    fn backends_are_a_table() {
        let last_error = Some(crate::proto::v1::CallError {
            code: 14,
            message: "no\nanswer".into(),
            ..Default::default()
        });
        let down = Backend {
            name: "db".into(),
            vendor: "kinetica".into(),
            health: BackendHealth::Unavailable.into(),
            last_error,
            last_success_time: Some(time(940)),
            watched_jobs: 3,
            poll_lag: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
            rate_in_use: 0.25,
            ..Default::default()
        };
        let table = backends_table(&[down], Timestamp::from_second(1000).unwrap(), None);
        assert_eq!(
            table,
            "BACKEND  VENDOR    HEALTH       JOBS  QUEUED  QUARANTINED  LAG  RATE  LAST ERROR\n\
             db       kinetica  UNAVAILABLE  3     0       0            1 s  25 %  no answer (last answer 60 s ago)\n"
        );
    }

    #[test]
    fn version_of_a_definition_stands_beside_its_vendor() {
        let of = |vendor: &str, version: &str| Backend {
            name: "x".into(),
            vendor: vendor.into(),
            vendor_version: version.into(),
            health: BackendHealth::Healthy.into(),
            ..Default::default()
        };
        let backends = [of("claret", ""), of("dbt-cloud", "1.0.0")];
        let table = backends_table(&backends, Timestamp::UNIX_EPOCH, None);
        let vendors: Vec<&str> = table.lines().map(|line| line[9..25].trim_end()).collect();
        assert_eq!(vendors, ["VENDOR", "claret", "dbt-cloud 1.0.0"], "{table}");
    }

    #[test]
    fn role_has_a_column_where_there_are_replicas() {
        let of = |name: &str, role: ReplicaRole, owner: &str| Backend {
            name: name.into(),
            vendor: "claret".into(),
            health: BackendHealth::Healthy.into(),
            replica_role: role.into(),
            replica_owner: owner.into(),
            ..Default::default()
        };
        let backends = [
            of("a", ReplicaRole::Owner, "gateway-0"),
            of("b", ReplicaRole::Follower, "gateway-1"),
            of("c", ReplicaRole::Isolated, "gateway-1"),
            of("d", ReplicaRole::Isolated, ""),
            of("e", ReplicaRole::Unspecified, ""),
        ];
        assert_eq!(
            backends_table(&backends, Timestamp::UNIX_EPOCH, None),
            "BACKEND  VENDOR  HEALTH   JOBS  QUEUED  QUARANTINED  LAG   RATE  REPLICA                  LAST ERROR\n\
             a        claret  HEALTHY  0     0       0            0 ms  0 %   OWNER\n\
             b        claret  HEALTHY  0     0       0            0 ms  0 %   FOLLOWER of gateway-1\n\
             c        claret  HEALTHY  0     0       0            0 ms  0 %   ISOLATED from gateway-1\n\
             d        claret  HEALTHY  0     0       0            0 ms  0 %   ISOLATED\n\
             e        claret  HEALTHY  0     0       0            0 ms  0 %   -\n"
        );
    }

    #[test]
    fn job_that_was_never_polled_has_hyphens() {
        let job = JobRef { backend: "db".into(), job_id: "7".into(), ..Default::default() };
        let job = InspectedJob {
            job: Some(job),
            subscribers: 2,
            next_poll_time: Some(time(1003)),
            ..Default::default()
        };
        let row = job_row(&job, Timestamp::from_second(1000).unwrap());
        assert_eq!(row, ["db/7", "-", "2", "-", "-", "3 s", "no", ""]);
    }
}
