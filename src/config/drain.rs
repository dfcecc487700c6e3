//! How long the server may take to stop, and how old connections may become.

use std::time::Duration;

use super::{
    Server,
    problems::Problems,
    values::{HOUR, show_duration},
};

/// Longest shutdown.
const LONGEST: Duration = Duration::from_millis(HOUR);

/// Shortest limit on the age of connections: below it clients do little but connect.
const YOUNGEST: Duration = Duration::from_secs(1);

impl Server {
    /// Checks what depends on several keys.
    pub(super) fn check_drain(&self, problems: &mut Problems) {
        let Self { drain_delay, drain_timeout, max_connection_age: age, .. } = self;
        let whole = drain_delay.saturating_add(*drain_timeout);
        if whole > LONGEST {
            let [timeout, delay, whole, most] =
                [*drain_timeout, *drain_delay, whole, LONGEST.saturating_sub(*drain_delay)]
                    .map(show_duration);
            let text = format!(
                "is {timeout}, which with server.drain_delay = {delay} makes {whole}; write at most {most}, \
                 so that a shutdown takes at most {}",
                show_duration(LONGEST)
            );
            problems.add("server.drain_timeout", text);
        }
        if !age.is_zero() && *age < YOUNGEST {
            let text = format!(
                "is {}; write at least {}, or \"0s\" for no limit",
                show_duration(*age),
                show_duration(YOUNGEST)
            );
            problems.add("server.max_connection_age", text);
        }
    }

    /// A setting without an effect.
    pub(super) fn drain_warning(&self) -> Option<String> {
        let is_set = self.max_connection_age_grace != Self::default().max_connection_age_grace;
        (is_set && self.max_connection_age.is_zero()).then(|| {
            "server.max_connection_age_grace has no effect without server.max_connection_age; write both, or \
             remove it"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    const BACKEND: &str =
        "[backends.k]\nvendor = \"kinetica\"\nbase_url = \"https://k.example\"\ncredentials = \"none\"\n";

    fn problems(server: &str) -> Vec<String> {
        match Config::parse(&format!("[server]\n{server}\n{BACKEND}"), []) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn unusable_duration_of_drain_or_connections_is_refused_with_its_remedy() {
        for (keys, expected) in [
            (
                "drain_delay = 5",
                "server.drain_delay is 5; write a duration such as \"250ms\", \"1s\" or \"1m 30s\"",
            ),
            ("drain_delay = \"2h\"", "server.drain_delay is \"2h\"; write a duration from 0s to 1h"),
            ("drain_timeout = \"61m\"", "server.drain_timeout is \"61m\"; write a duration from 0s to 1h"),
            (
                "drain_delay = \"10m\"\ndrain_timeout = \"55m\"",
                "server.drain_timeout is 55m, which with server.drain_delay = 10m makes 1h 5m; write at most \
                 50m, so that a shutdown takes at most 1h",
            ),
            (
                "max_connection_age = \"999ms\"",
                "server.max_connection_age is 999ms; write at least 1s, or \"0s\" for no limit",
            ),
            (
                "max_connection_age = \"721h\"",
                "server.max_connection_age is \"721h\"; write a duration from 0s to 720h",
            ),
            (
                "max_connection_age = \"30m\"\nmax_connection_age_grace = \"25h\"",
                "server.max_connection_age_grace is \"25h\"; write a duration from 0s to 24h",
            ),
        ] {
            assert_eq!(problems(keys), [expected], "{keys}");
        }
    }

    #[test]
    fn grace_without_an_age_gives_a_warning() {
        let warnings =
            |server: &str| Config::parse(&format!("[server]\n{server}\n{BACKEND}"), []).unwrap().warnings();
        let warning = "server.max_connection_age_grace has no effect without server.max_connection_age; \
                       write both, or remove it";
        assert_eq!(warnings("max_connection_age_grace = \"10s\""), [warning]);
        assert_eq!(warnings("max_connection_age = \"1h\"\nmax_connection_age_grace = \"10s\""), [""; 0]);
    }

    #[test]
    fn longest_shutdown_and_oldest_connections_are_accepted() {
        for keys in [
            "drain_delay = \"1h\"\ndrain_timeout = \"0s\"",
            "max_connection_age = \"1s\"",
            "max_connection_age = \"720h\"\nmax_connection_age_grace = \"0s\"",
        ] {
            assert_eq!(problems(keys), [""; 0], "{keys}");
        }
    }
}
