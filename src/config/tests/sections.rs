//! The sections beside the backends.

use super::*;

#[test]
fn size_is_a_number_or_has_a_unit_in_file_and_environment() {
    for (written, bytes) in [("65536", 65536), ("\"64 KiB\"", 65536), ("\"8MB\"", 8_000_000)] {
        let text = format!("{IMMUTA}\npoll.max_response_bytes = {written}");
        assert_eq!(one(&text).poll.max_response_bytes, bytes);
    }
    let variables =
        [("JOBWATCH__LIMITS__STATUS_BYTES", "2 GiB"), ("JOBWATCH__LIMITS__RESPONSE_BYTES", "9000000")];
    let limits = Config::parse(IMMUTA, env(&variables)).unwrap().limits;
    assert_eq!((limits.status_bytes, limits.response_bytes), (2 << 30, 9_000_000));
}

#[test]
fn list_in_place_of_a_table_is_refused() {
    let list = "is not a table; write";
    for (text, path) in [
        ("[[server]]\nlisten = \"[::1]:1\"", "server"),
        ("server.tls = [\"a\", \"b\"]", "server.tls"),
        ("limits = []", "limits"),
        ("[[backends.other]]\nvendor = \"kinetica\"", "backends.other"),
        (
            "[backends.other]\nvendor = \"kinetica\"\nbase_url = \"http://db\"\npoll = [\"1s\"]",
            "backends.other.poll",
        ),
    ] {
        let text = format!("{text}\n{IMMUTA}");
        assert_eq!(problems(&text, &[]), [format!("{path} {list} [{path}]")], "{text}");
    }
}

#[test]
fn problems_in_one_section_are_all_reported() {
    let text = format!(
        "{IMMUTA}\ntenent = \"a\"\npoll.timeout = 1\npoll.max_batch = \"x\"\npoll.pace = 1\n\
         [limits]\nwatches = 0\nbatch_size = 0\n[server]\nlisten = 1\ncolour = 1"
    );
    let found = problems(&text, &[]);
    let mut keys: Vec<_> = found.iter().map(|problem| problem.split(' ').next().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "backends.immuta-prod.poll.max_batch",
            "backends.immuta-prod.poll.pace",
            "backends.immuta-prod.poll.timeout",
            "backends.immuta-prod.tenent",
            "limits.batch_size",
            "limits.watches",
            "server.colour",
            "server.listen",
        ],
        "{found:#?}"
    );
}

/// Puts one key into a good configuration.
#[test]
fn section_problem_names_key_and_remedy() {
    for (text, expected) in [
        (
            "server.listen = \"localhost:1\"",
            "server.listen is \"localhost:1\"; write an IP address and a port, such as \"127.0.0.1:50051\"",
        ),
        (
            "server.listen = 50051",
            "server.listen is 50051; write an IP address and a port, such as \"127.0.0.1:50051\"",
        ),
        ("server.lisen = \"\"", "server.lisen is not a key here; did you mean listen?"),
        (
            "server.colour = \"\"",
            "server.colour is not a key here; write one of listen, tls, allow_plaintext, default_deadline, collection_window, drain_delay, drain_timeout, max_connection_age, max_connection_age_grace, web",
        ),
        ("server = 1", "server is not a table; write [server]"),
        (
            "server.default_deadline = \"0s\"",
            "server.default_deadline is \"0s\"; write a duration from 1ms to 1h",
        ),
        (
            "server.tls = { cert = \"Cargo.toml\" }",
            "server.tls.key is missing; write the path of the PEM private key",
        ),
        (
            "limits.watches = \"many\"",
            "limits.watches is \"many\"; write a whole number from 1 to 1000000000",
        ),
        ("limits.batch_size = 1001", "limits.batch_size is 1001; write a whole number from 1 to 1000"),
        (
            "limits.watches_per_call = 0",
            "limits.watches_per_call is 0; write a whole number from 1 to 1000000000",
        ),
        ("allow_inline_secrets = 1", "allow_inline_secrets is neither true nor false; write one of them"),
        (
            "backends.immuta-prod.standby_urls = []",
            "backends.immuta-prod.standby_urls is only for Kinetica, not for Immuta; remove it",
        ),
        (
            "backends.immuta-prod.encoding = \"binary\"",
            "backends.immuta-prod.encoding is only for Kinetica, not for Immuta; remove it",
        ),
        (
            "backends.immuta-prod.poll.min_interval = \"soon\"",
            "backends.immuta-prod.poll.min_interval is \"soon\"; write a duration such as \"250ms\", \"1s\" or \"1m 30s\"",
        ),
        (
            "backends.immuta-prod.poll.min_interval = 1",
            "backends.immuta-prod.poll.min_interval is 1; write a duration such as \"250ms\", \"1s\" or \"1m 30s\"",
        ),
        (
            "backends.immuta-prod.poll.min_interval = \"0s\"",
            "backends.immuta-prod.poll.min_interval is \"0s\"; write a duration from 1ms to 24h",
        ),
        (
            "backends.immuta-prod.poll.max_interval = \"500ms\"",
            "backends.immuta-prod.poll.max_interval is \"500ms\"; write a duration from 1s to 24h",
        ),
        (
            "backends.immuta-prod.poll.connect_timeout = \"16s\"",
            "backends.immuta-prod.poll.connect_timeout is \"16s\"; write at most 15s, or raise backends.immuta-prod.poll.timeout",
        ),
        (
            "backends.immuta-prod.poll = { timeout = \"900ms\", connect_timeout = \"1s\" }",
            "backends.immuta-prod.poll.connect_timeout is \"1s\"; write at most 900ms, or raise backends.immuta-prod.poll.timeout",
        ),
        (
            "backends.immuta-prod.poll.timeout = \"0s\"",
            "backends.immuta-prod.poll.timeout is \"0s\"; write a duration from 1ms to 1h",
        ),
        (
            "backends.immuta-prod.poll.max_batch = 0",
            "backends.immuta-prod.poll.max_batch is 0; write a whole number from 1 to 1000",
        ),
        (
            "backends.immuta-prod.poll.requests_per_second = 0",
            "backends.immuta-prod.poll.requests_per_second is 0; write a whole number from 1 to 1000000",
        ),
        (
            "backends.immuta-prod.poll.max_concurrency = -1",
            "backends.immuta-prod.poll.max_concurrency is -1; write a whole number from 1 to 10000",
        ),
    ] {
        assert_section_problem(text, expected);
    }
}

#[test]
fn problems_in_several_sections_are_all_reported() {
    let text = "server.lisen = \"\"\n[backends.a]\nvendor = \"claret\"\n[backends.b]\nvendor = \"immuta\"\nbase_url = \"x\"";
    assert_eq!(problems(text, &[("JOBWATCH__LIMITS__WATCH", "1")]).len(), 7, "{:#?}", problems(text, &[]));
}

#[test]
fn section_of_the_example_about_callers_is_accepted() {
    let example = include_str!("../../../jobwatch.example.toml");
    let section = &example[example.find("#   [access]").unwrap()..example.find("[limits]").unwrap()];
    let section = section.replace("#   ", "");
    let (hash, backend) = ("0f".repeat(32), WITHOUT_CREDENTIALS);
    let section = section
        .replace("<64 hexadecimal digits>", &hash)
        .replace("certificates = true", "certificates = false");
    let config = Config::parse(&format!("{section}{backend}"), []).unwrap();
    assert_eq!(config.access.tokens["ci"].sha256[0].to_string(), hash);
    assert_eq!(config.access.policies.len(), 1);
    assert!(config.access.jwt.is_some());
}

#[test]
fn problem_with_callers_names_its_key_and_what_to_write() {
    for (text, problem) in [
        (
            "[access]\ncertificates = true\npolicies = [{ principals = [\"*\"] }]",
            "access.certificates needs server.tls.client_ca",
        ),
        ("[access.tokens.ci]\nsha256 = [\"x\"]", "access.tokens.ci.sha256"),
        ("[access.tokens.ci]", "access.tokens.ci.sha256 is missing; write the hash"),
        ("[access.tokens]\nci.sha256 = []", "access.policies is missing: nobody may do anything"),
        ("[access.jwt]\nissuer = \"i\"", "access.jwt.audience is missing"),
        ("[access.jwt]\nalgorithms = [\"HS256\"]", "access.jwt.algorithms"),
        ("[access.jwt]\nalgorithms = [\"none\"]", "access.jwt.algorithms"),
        ("[access.jwt]\njwks_url = \"http://login.example\"", "access.jwt.jwks_url is not encrypted"),
        (
            "[access.jwt]\njwks_file = \"/missing\"",
            "access.jwt.jwks_file is the file /missing, which can't be read",
        ),
        (
            "[access]\npolicies = [{ principals = [\"ci\"] }]",
            "access.policies[0].principals holds \"ci\"; write token:NAME",
        ),
        ("[access]\npolicies = [{ principals = [\"*\"], rights = [\"write\"] }]", "access.policies"),
        ("[access]\npolicies = [{ principals = [\"*\"], calls_per_second = 0 }]", "access.policies"),
        ("[access]\npolicy = []", "access.policy is not a key here; did you mean policies?"),
    ] {
        let backend = WITHOUT_CREDENTIALS;
        let problems = Config::parse(&format!("{text}\n{backend}"), []).unwrap_err().to_string();
        assert!(problems.contains(problem), "{text}: {problems}");
    }
}
