//! What operators see: the admin address and the log.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{problems::Problems, web::check_hosts};
use crate::{
    telemetry::{self, Format},
    vendors,
};

/// The HTTP server for operators. It asks nobody for credentials.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// The address to listen on; port 0 takes a free one. Without it there is no such server.
    #[serde(deserialize_with = "address")]
    pub listen: Option<SocketAddr>,
    /// Whether `listen` may be another address than loopback.
    #[serde(deserialize_with = "vendors::flag")]
    pub allow_remote: bool,
    /// Names under which a browser may open the page, beside IP addresses and localhost.
    pub hosts: Vec<String>,
}

/// The log, on stderr.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Format of lines; `--log-format` comes first.
    #[serde(deserialize_with = "format")]
    pub format: Option<Format>,
    /// The filter, such as "info" or "jobwatch=debug"; `JOBWATCH_LOG` and `RUST_LOG` come
    /// first.
    pub level: Option<String>,
    /// Whether each call has a line.
    #[serde(deserialize_with = "vendors::flag")]
    pub access: bool,
}

impl Log {
    /// Reports what can't be used.
    pub(super) fn check(&self, problems: &mut Problems) {
        if let Some(Err(invalid)) = self.level.as_deref().map(telemetry::check_filter) {
            problems.add("log.level", format!("can't be used: {invalid}"));
        }
    }
}

fn format<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Format>, D::Error> {
    Format::deserialize(deserializer).map(Some)
}

fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    SocketAddr::deserialize(deserializer).map(Some)
}

impl Admin {
    /// Reports what can't be used.
    pub(super) fn check(&self, server: SocketAddr, problems: &mut Problems) {
        check_hosts("admin.hosts", &self.hosts, problems);
        let Some(listen) = self.listen else { return };
        if !listen.ip().is_loopback() && !self.allow_remote {
            let text = format!(
                "is {listen}: anyone who reaches it sees the backends and their jobs; write a loopback address \
                 such as 127.0.0.1:9090, or admin.allow_remote = true"
            );
            problems.add("admin.listen", text);
        }
        if listen == server && listen.port() != 0 {
            problems.add("admin.listen", format!("is {listen}, as server.listen is; write another port"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const BACKEND: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n";

    fn problems(admin: &str) -> String {
        Config::parse(&format!("[admin]\n{admin}\n{BACKEND}"), []).unwrap_err().to_string()
    }

    #[test]
    fn admin_address_is_off_by_default_and_read_where_it_is_loopback() {
        assert_eq!(Config::parse(BACKEND, []).unwrap().admin.listen, None);
        for address in ["127.0.0.1:9090", "[::1]:0"] {
            let text = format!("[admin]\nlisten = {address:?}\n{BACKEND}");
            assert_eq!(Config::parse(&text, []).unwrap().admin.listen, address.parse().ok());
        }
    }

    #[test]
    fn admin_address_that_others_reach_needs_allow_remote() {
        let text = "admin.listen is 0.0.0.0:9090: anyone who reaches it sees the backends and their jobs; \
                    write a loopback address such as 127.0.0.1:9090, or admin.allow_remote = true";
        assert_eq!(problems("listen = \"0.0.0.0:9090\""), text);
        let allowed = format!("[admin]\nlisten = \"0.0.0.0:9090\"\nallow_remote = true\n{BACKEND}");
        assert!(Config::parse(&allowed, []).unwrap().admin.allow_remote);
    }

    #[test]
    fn admin_address_of_the_grpc_server_or_without_a_port_is_refused() {
        let text = problems("listen = \"127.0.0.1:50051\"");
        assert_eq!(text, "admin.listen is 127.0.0.1:50051, as server.listen is; write another port");
        let error = Config::parse(&format!("[log]\nlevel = \"jobwatch=loud\"\n{BACKEND}"), []).unwrap_err();
        assert!(error.to_string().starts_with("log.level can't be used: "), "{error}");
        let text = problems("listen = \"localhost\"\nlisten_on = 1");
        let text_of_hosts = problems("hosts = [\"https://jobwatch.internal\", \"ok.internal\"]");
        let wanted = "admin.hosts has \"https://jobwatch.internal\"; write the name without scheme and port, such as \
                      \"jobwatch.internal\"";
        assert_eq!(text_of_hosts, wanted);
        assert!(
            text.contains("admin.listen is \"localhost\"; write ") && text.contains("admin.listen_on"),
            "{text}"
        );
    }
}
