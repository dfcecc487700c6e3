use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::vendors::{Encoding, KINDS, KineticaConfig};

mod secrets;
mod sections;

const SECRETS: [(&str, &str); 4] = [
    ("IMMUTA_API_KEY", "immuta-hush"),
    ("KINETICA_PASSWORD", "kinetica-hush"),
    ("CLARET_PASSWORD", "claret-hush"),
    ("DATASAUR_CLIENT_SECRET", "datasaur-hush"),
];

fn env(more: &[(&str, &str)]) -> Vec<(String, String)> {
    SECRETS.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn problems(text: &str, more: &[(&str, &str)]) -> Vec<String> {
    match Config::parse(text, env(more)) {
        Ok(_) => Vec::new(),
        Err(invalid) => invalid.problems.iter().map(Problem::to_string).collect(),
    }
}

const IMMUTA: &str = r#"
    [backends.immuta-prod]
    vendor = "immuta"
    base_url = "https://immuta.example"
    credentials = { api_key = { env = "IMMUTA_API_KEY" } }
"#;

fn assert_section_problem(text: &str, expected: &str) {
    let text = match text.strip_prefix("backends.immuta-prod.") {
        Some(key) => format!("{IMMUTA}\n{key}"),
        None => format!("{text}\n{IMMUTA}"),
    };
    assert_eq!(problems(&text, &[]), [expected], "{text}");
}

fn one(backend: &str) -> Backend {
    Config::parse(backend, env(&[])).unwrap().backends.remove(0)
}

/// The backend's secret, which is sent in this way.
fn secret<'a>(backend: &'a Backend, scheme: &Scheme) -> &'a str {
    assert_eq!(backend.credentials.scheme(), Some(scheme));
    backend.credentials.secret().unwrap().expose_secret()
}

#[test]
fn example_configuration_is_accepted() {
    let config = Config::parse(include_str!("../../jobwatch.example.toml"), env(&[])).unwrap();
    let names: Vec<_> = config.backends.iter().map(|backend| &*backend.name).collect();
    assert_eq!(names, ["claret", "datasaur", "immuta-prod", "kinetica"]);
    assert!(config.warnings().is_empty());
}

#[test]
fn example_configuration_shows_the_defaults() {
    let example = include_str!("../../jobwatch.example.toml");
    let shown: String = example
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.split_once(" = ").is_some_and(|(key, _)| default_shown(key)) => rest,
            _ => line,
        })
        .fold(String::new(), |text, line| text + line + "\n");
    assert_ne!(shown, example);
    let (mut shown, mut unset) =
        (Config::parse(&shown, env(&[])).unwrap(), Config::parse(example, env(&[])).unwrap());
    for backend in shown.backends.iter_mut().chain(&mut unset.backends) {
        backend.own.clear();
    }
    assert_eq!(format!("{shown:?}"), format!("{unset:?}"));
}

fn default_shown(key: &str) -> bool {
    key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        && !matches!(key, "tls" | "allow_inline_secrets" | "listen" | "format" | "level" | "endpoint")
}

#[test]
fn unset_key_has_its_documented_default() {
    let config = Config::parse(IMMUTA, env(&[])).unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.server.default_deadline, Duration::from_mins(1));
    assert_eq!(config.server.collection_window, Duration::from_millis(5));
    let server = &config.server;
    let times = [server.drain_delay, server.drain_timeout, server.max_connection_age];
    assert_eq!(times.map(|time| time.as_secs()), [0, 20, 0]);
    assert_eq!(server.max_connection_age_grace, Duration::from_mins(1));
    assert_eq!(config.limits.watches, 2_000_000);
    let poll = &config.backends[0].poll;
    assert_eq!(poll.min_interval, Duration::from_secs(1));
    assert_eq!(poll.max_batch.get(), 200);
    assert_eq!(poll.max_response_bytes, 8 << 20);
    let limits = &config.limits;
    assert_eq!((limits.status_bytes, limits.response_bytes), (512 << 20, 256 << 20));
    assert_eq!((limits.inline_result_bytes, limits.message_bytes), (1 << 20, 4 << 20));
    assert_eq!(limits.jobs, 2_000_000);
}

#[test]
fn faulty_required_key_is_not_reported_as_missing_too() {
    let text = "[backends.x]\nvendor = \"claret\"\nbase_url = 1\ntenant = 2\ncredentials = { email = 3, password = 4 }";
    let found = problems(text, &[]);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(!found.iter().any(|problem| problem.contains("is missing")), "{found:#?}");
}

#[test]
fn number_of_reported_problems_is_bounded() {
    let lines: Vec<String> = (0..1000).map(|n| format!("key{n} = 1")).collect();
    let text = lines.join("\n");
    assert_eq!(problems(&text, &[]).len(), 100);
}

#[test]
fn vendor_without_batch_call_has_max_batch_1() {
    let backend = one("[backends.k]\nvendor = \"kinetica\"\nbase_url = \"http://db:9191\"");
    assert_eq!(backend.poll.max_batch.get(), 1);
    assert!(backend.credentials.secret().is_none());
}

#[test]
fn kinetica_backend_reads_encoding_and_standby_urls() {
    let kinetica = "[backends.k]\nvendor = \"kinetica\"\nbase_url = \"http://db:9191/gpudb-0\"\n";
    let vendor = |keys: &str| format!("{:?}", one(&format!("{kinetica}{keys}")).vendor);
    let unset = format!("{:?}", KineticaConfig::default());
    assert_eq!(vendor(""), unset);
    assert_eq!(vendor("encoding = \"json\"\nstandby_urls = []"), unset);
    let standby_urls = ["http://b:9191", "https://c/gpudb-0"].map(|url| url.parse().unwrap()).into();
    let set = KineticaConfig { encoding: Encoding::Binary, standby_urls, ..KineticaConfig::default() };
    let set = format!("{set:?}");
    assert_eq!(
        vendor("encoding = \"binary\"\nstandby_urls = [\"http://b:9191\", \"https://c/gpudb-0\"]"),
        set
    );
    let set_by_the_environment = Config::parse(
        kinetica,
        env(&[
            ("JOBWATCH__BACKENDS__K__ENCODING", "binary"),
            ("JOBWATCH__BACKENDS__K__STANDBY_URLS", r#"["http://b:9191", "https://c/gpudb-0"]"#),
        ]),
    );
    assert_eq!(format!("{:?}", set_by_the_environment.unwrap().backends[0].vendor), set);

    let list = "can't be used; write a list of at most 8 URLs, such as [\"http://standby.example:9191\"]";
    for (keys, expected) in [
        ("encoding = \"snappy\"", "encoding is \"snappy\"; write \"json\" or \"binary\"".to_owned()),
        ("encoding = 1", "encoding is 1; write \"json\" or \"binary\"".to_owned()),
        ("standby_urls = \"http://b\"", format!("standby_urls {list}")),
        (
            "standby_urls = [1]",
            "standby_urls[0] can't be used; write a URL such as \"https://vendor.example\"".to_owned(),
        ),
        ("standby_urls = {}", format!("standby_urls {list}")),
        (
            "standby_urls = [\"http://b\", \"b:9191\"]",
            "standby_urls[1] must begin with http:// or https://".to_owned(),
        ),
        (
            "standby_urls = [\"http://DB:9191/gpudb-0/\"]",
            "standby_urls[0] is a cluster that the backend has already; remove it".to_owned(),
        ),
        (
            "standby_urls = [\"http://b\", \"http://b:80/\"]",
            "standby_urls[1] is a cluster that the backend has already; remove it".to_owned(),
        ),
    ] {
        assert_eq!(problems(&format!("{kinetica}{keys}"), &[]), [format!("backends.k.{expected}")]);
    }
}

#[test]
fn backend_problem_names_key_and_remedy() {
    let inline = "allow_inline_secrets = true\n";
    for (text, expected) in [
        ("", "backends is missing; write at least one backend, such as [backends.immuta-prod]"),
        ("nonsense", "the file (line 1, column 9) is not TOML: key with no value, expected `=`"),
        (
            "[backends.claret]\nvendor = \"claret\"\nbase_url = \"https://plan.claret.app\"\ncredentials.bearer.env = \"CLARET_PASSWORD\"",
            "backends.claret.tenant is missing; write the tenant's name, the first path segment, such as \"demo\"",
        ),
        (
            "[backends.claret]\nvendor = \"claret\"\nbase_url = \"https://plan.claret.app\"\ntenant = \"a/b\"\ncredentials.bearer.env = \"CLARET_PASSWORD\"",
            "backends.claret.tenant is \"a/b\"; write the tenant's name, the first path segment, such as \"demo\", of letters, digits, '-' and '_'",
        ),
        (
            "[backends.x]\nvendor = \"kinetika\"\nbase_url = \"http://db\"",
            "backends.x.vendor is \"kinetika\"; did you mean kinetica?",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"db:9191\"",
            "backends.x.base_url must begin with http:// or https://",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\ntenant = \"a\"",
            "backends.x.tenant is only for Claret, not for Kinetica; remove it",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\npoll.max_batch = 2",
            "backends.x.poll.max_batch is 2, but Kinetica has no batch call; remove it",
        ),
        (
            "[backends.\"A b\"]\nvendor = \"kinetica\"\nbase_url = \"http://db\"",
            "backends.\"A b\" is not a name for a backend; write 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"",
            "backends.x.credentials is missing; write { api_key = { env = \"IMMUTA_API_KEY\" } } or { bearer = { env = \"NAME\" } }",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\ncredentials = \"hush\"",
            "backends.x.credentials is not a table of credentials; write { username = \"..\", password = { env = \"KINETICA_PASSWORD\" } }, { bearer = { env = \"NAME\" } } or \"none\"",
        ),
        (
            "[backends.x]\nvendor = \"claret\"\nbase_url = \"http://db\"\ntenant = \"a\"\ncredentials = \"none\"",
            "backends.x.credentials is \"none\", which Claret doesn't accept; write { email = \"..\", password = { env = \"CLARET_PASSWORD\" } } or { bearer = { env = \"NAME\" } }",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = 1",
            "backends.x.credentials can't be used; write a table such as { bearer = { env = \"NAME\" } }",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = {}",
            "backends.x.credentials is empty; write { api_key = { env = \"IMMUTA_API_KEY\" } } or { bearer = { env = \"NAME\" } }",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = { api_key.env = \"IMMUTA_API_KEY\", bearer.env = \"IMMUTA_API_KEY\" }",
            "backends.x.credentials holds both api_key and bearer; keep one way to sign in",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = { api_key.env = \"NOT_THERE\" }",
            "backends.x.credentials.api_key is the variable NOT_THERE, which is not set; set it",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = { api_key.file = \"/no/such/file\" }",
            "backends.x.credentials.api_key is the file /no/such/file, which can't be read: No such file or directory (os error 2)",
        ),
        (
            "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://db\"\ncredentials = { api_key = \"literal\" }",
            "backends.x.credentials.api_key is a secret in the file; write { env = \"NAME\" } or { file = \"/path\" }, or allow_inline_secrets = true at the top",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\ncredentials = { username = \"a:b\", password.env = \"KINETICA_PASSWORD\" }",
            "backends.x.credentials.username holds a colon, which HTTP Basic can't carry; write a user name without one",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\ncredentials = { username = \"admin\" }",
            "backends.x.credentials.password is missing; write { env = \"NAME\" } or { file = \"/path\" }",
        ),
        (
            "[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\ncredentials = { api_key.env = \"IMMUTA_API_KEY\" }",
            "backends.x.credentials.api_key is not how Kinetica signs in; write { username = \"..\", password = { env = \"KINETICA_PASSWORD\" } }, { bearer = { env = \"NAME\" } } or \"none\"",
        ),
        (
            "[backends.x]\nvendor = \"datasaur\"\nbase_url = \"http://db\"\ncredentials = { client_id = \"a\", client_secret.env = \"IMMUTA_API_KEY\", client_auth = \"post\" }",
            "backends.x.credentials.client_auth is \"post\"; write \"form\" or \"basic\"",
        ),
    ] {
        assert_eq!(problems(text, &[]), [expected], "of {text}");
    }
    let immuta = "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://127.0.0.1\"\n";
    for (secret, expected) in [
        ("", "is empty; write the secret, or where it is"),
        (
            "a\\nb",
            "holds U+000A (line feed) at position 2, which a header can't carry; write the secret alone",
        ),
        ("a b", "holds U+0020 (space) at position 2, which a header can't carry; write the secret alone"),
        ("Bearer a", "begins with \"Bearer \"; write the token alone"),
    ] {
        let text = format!("{inline}{immuta}credentials = {{ bearer = \"{secret}\" }}");
        assert_eq!(problems(&text, &[]), [format!("backends.x.credentials.bearer {expected}")]);
    }
}

#[test]
fn problems_of_a_vendors_own_keys_are_all_reported() {
    let text = "[backends.k]\nvendor = \"kinetica\"\nbase_url = \"http://a\"\nencoding = \"snappy\"\n\
                standby_urls = [\"http://a\"]\ncolour = 1\ncredentials = { username = \"\", password = 1, colour = 1 }";
    let found = problems(text, &[]);
    let mut keys: Vec<_> = found.iter().map(|problem| problem.split(' ').next().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "backends.k.colour",
            "backends.k.credentials.colour",
            "backends.k.credentials.password",
            "backends.k.credentials.username",
            "backends.k.encoding",
            "backends.k.standby_urls[0]",
        ],
        "{found:#?}"
    );
    let known = "write one of vendor, base_url, credentials, poll, proxy, proxy_password, ca, headers, encoding, standby_urls";
    assert_eq!(found[0], format!("backends.k.colour is not a key here; {known}"));
}

#[test]
fn bound_outside_its_range_is_refused() {
    for (text, expected) in [
        (
            "limits.status_bytes = \"much\"",
            "limits.status_bytes is \"much\"; write a size from 1 KiB to 1 TiB, such as 65536, \"64 KiB\" or \"8 MB\"",
        ),
        (
            "limits.response_bytes = 0",
            "limits.response_bytes is 0; write a size from 1 KiB to 1 TiB, such as 65536, \"64 KiB\" or \"8 MB\"",
        ),
        (
            "limits.inline_result_bytes = \"4 MiB\"",
            "limits.message_bytes is 4 MiB; write at least 4160 KiB, which is limits.inline_result_bytes and 64 KiB for the rest of a message",
        ),
        (
            "limits.connections = 20000",
            "limits.connections is 20000, which take 1040000 KiB without a call; write at most 5041, or raise limits.connection_bytes to 2080000 KiB",
        ),
        (
            "server.listen = \"192.0.2.1:1\"",
            "server.listen is 192.0.2.1:1 without server.tls: tokens and jobs would travel unencrypted; write [server.tls], or server.allow_plaintext = true where the network is trusted",
        ),
        ("limits.jobs = 0", "limits.jobs is 0; write a whole number from 1 to 1000000000"),
        (
            "backends.immuta-prod.poll.max_response_bytes = \"257 MiB\"",
            "backends.immuta-prod.poll.max_response_bytes is 257 MiB; write at most 256 MiB, or raise limits.response_bytes",
        ),
    ] {
        assert_section_problem(text, expected);
    }
}

#[test]
fn removed_key_is_refused_with_its_replacement() {
    for (text, expected) in [
        (
            "server.batch_deadline = \"30s\"",
            "server.batch_deadline was removed; write default_deadline, which holds for every call without a deadline",
        ),
        (
            "backends.immuta-prod.poll.long_poll = \"off\"",
            "backends.immuta-prod.poll.long_poll was removed; delete it",
        ),
    ] {
        assert_section_problem(text, expected);
    }
}

#[test]
fn variable_replaces_any_key() {
    let config = Config::parse(
        IMMUTA,
        env(&[
            ("JOBWATCH__SERVER__LISTEN", "[::1]:0"),
            ("JOBWATCH__LIMITS__WATCHES", "12"),
            ("JOBWATCH__BACKENDS__IMMUTA_PROD__BASE_URL", "https://other.example"),
            ("JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY", "direct"),
            ("JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__EXCHANGE", "true"),
            ("JOBWATCH__BACKENDS__IMMUTA_PROD__POLL__MIN_INTERVAL", "250ms"),
            ("JOBWATCH_SERVER", "not ours"),
        ]),
    )
    .unwrap();
    assert_eq!(config.server.listen.to_string(), "[::1]:0");
    assert_eq!(config.limits.watches, 12);
    let backend = &config.backends[0];
    assert_eq!(backend.base_url.as_str(), "https://other.example/");
    assert_eq!(backend.poll.min_interval, Duration::from_millis(250));
    assert_eq!(secret(backend, &Scheme::Exchange), "direct");
}

#[test]
fn variable_that_names_no_key_is_refused() {
    for (variable, value, expected) in [
        (
            "JOBWATCH__SEVER__LISTEN",
            "x",
            "JOBWATCH__SEVER__LISTEN sets nothing; did you mean JOBWATCH__SERVER__LISTEN?",
        ),
        (
            "JOBWATCH__SERVER__PORT",
            "x",
            "JOBWATCH__SERVER__PORT sets nothing; the keys of server are allow_plaintext, collection_window, default_deadline, drain_delay, drain_timeout, listen, max_connection_age, max_connection_age_grace, tls, web",
        ),
        (
            "JOBWATCH__BACKENDS__OTHER__BASE_URL",
            "x",
            "JOBWATCH__BACKENDS__OTHER__BASE_URL names the backend other, which is not defined; write one of immuta-prod, or define it with JOBWATCH__BACKENDS__OTHER__VENDOR",
        ),
        (
            "JOBWATCH__BACKENDS__IMMUTA_PROD",
            "x",
            "backends.immuta-prod (set by JOBWATCH__BACKENDS__IMMUTA_PROD) is not a table; write [backends.immuta-prod]",
        ),
        (
            "JOBWATCH__SERVER__LISTEN__PORT",
            "x",
            "JOBWATCH__SERVER__LISTEN__PORT sets nothing: server.listen has no keys; write JOBWATCH__SERVER__LISTEN",
        ),
        (
            "JOBWATCH__LISTEN",
            "x",
            "JOBWATCH__LISTEN sets nothing; did you mean JOBWATCH__ADMIN__LISTEN or JOBWATCH__SERVER__LISTEN?",
        ),
        (
            "JOBWATCH__BACKENDS__IMMUTA_PROD__TIMEOUT",
            "1s",
            "JOBWATCH__BACKENDS__IMMUTA_PROD__TIMEOUT sets nothing; did you mean JOBWATCH__BACKENDS__IMMUTA_PROD__POLL__TIMEOUT?",
        ),
        (
            "JOBWATCH__BACKENDS__IMMUTA_PROD__TENANT",
            "x",
            "backends.immuta-prod.tenant (set by JOBWATCH__BACKENDS__IMMUTA_PROD__TENANT) is only for Claret, not for Immuta; remove it",
        ),
        (
            "JOBWATCH__SERVER__BATCH_DEADLINE",
            "1s",
            "JOBWATCH__SERVER__BATCH_DEADLINE was removed; write default_deadline, which holds for every call without a deadline",
        ),
        (
            "JOBWATCH__LIMITS__WATCHES",
            "many",
            "limits.watches (set by JOBWATCH__LIMITS__WATCHES) is \"many\"; write a whole number from 1 to 1000000000",
        ),
    ] {
        assert_eq!(problems(IMMUTA, &[(variable, value)]), [expected]);
    }
}

#[test]
fn unset_longest_wait_is_at_least_min_interval() {
    let backend = one(&format!("{IMMUTA}\npoll.min_interval = \"1m\""));
    assert_eq!(backend.poll.max_interval, Duration::from_mins(1));
    assert_eq!(backend.poll.max_backoff, Duration::from_mins(1));
}

#[test]
fn unset_connect_timeout_is_at_most_timeout() {
    let poll = one(&format!("{IMMUTA}\npoll.timeout = \"2s\"")).poll;
    assert_eq!((poll.timeout, poll.connect_timeout), (Duration::from_secs(2), Duration::from_secs(2)));
    let equal = one(&format!("{IMMUTA}\npoll = {{ timeout = \"2s\", connect_timeout = \"2s\" }}"));
    assert_eq!(equal.poll.connect_timeout, Duration::from_secs(2));
}

proptest! {
    #[test]
    fn any_text_and_any_variable_give_a_configuration_or_problems(
        text in ".{0,200}",
        segments in proptest::collection::vec("[A-Z_]{0,12}|SERVER|BACKENDS|IMMUTA_PROD|CREDENTIALS|API_KEY|POLL", 0..6),
        value in ".{0,20}",
    ) {
        let variable = format!("JOBWATCH__{}", segments.join("__"));
        let _ = Config::parse(&text, env(&[(&variable, &value)]));
        let result = Config::parse(IMMUTA, env(&[(&variable, &value)]));
        if let Err(invalid) = result {
            prop_assert!(!invalid.problems.is_empty());
        }
    }
}

const WITHOUT_CREDENTIALS: &str =
    "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"";
