use secrecy::ExposeSecret;

use crate::config::{Config, Right};

fn variables(set: &[(&str, &str)]) -> Vec<(String, String)> {
    set.iter().map(|(name, value)| (format!("JOBWATCH__{name}"), (*value).to_owned())).collect()
}

fn load(set: &[(&str, &str)]) -> Config {
    Config::of_environment(variables(set)).unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The problems of a configuration without a file.
fn problems(set: &[(&str, &str)]) -> Vec<String> {
    let invalid = Config::of_environment(variables(set)).expect_err("it has a problem");
    invalid.problems.iter().map(ToString::to_string).collect()
}

const KINETICA: [(&str, &str); 2] =
    [("BACKENDS__DB__VENDOR", "kinetica"), ("BACKENDS__DB__BASE_URL", "http://127.0.0.1:9191")];

fn with(more: &[(&str, &str)]) -> Vec<String> {
    problems(&[&KINETICA, more].concat())
}

#[test]
fn backend_of_each_vendor_is_defined_by_variables_alone() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "immuta-hush\n").unwrap();
    let key = key.to_str().unwrap();
    let config = load(&[
        ("BACKENDS__IMMUTA_PROD__VENDOR", "immuta"),
        ("BACKENDS__IMMUTA_PROD__BASE_URL", "https://immuta.example"),
        ("BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY_FILE", key),
        ("BACKENDS__IMMUTA_PROD__CREDENTIALS__EXCHANGE", "true"),
        ("BACKENDS__IMMUTA_PROD__POLL__MIN_INTERVAL", "250ms"),
        ("BACKENDS__IMMUTA_PROD__HEADERS__X_TENANT", "a"),
        ("BACKENDS__IMMUTA_PROD__HEADERS__X_KEY__FILE", key),
        ("BACKENDS__KINETICA__VENDOR", "kinetica"),
        ("BACKENDS__KINETICA__BASE_URL", "https://db.example"),
        ("BACKENDS__KINETICA__STANDBY_URLS", r#"["https://standby.example"]"#),
        ("BACKENDS__KINETICA__CREDENTIALS__USERNAME", "admin"),
        ("BACKENDS__KINETICA__CREDENTIALS__PASSWORD", "kinetica-hush"),
        (
            "BACKENDS__CLARET",
            r#"{ vendor = "claret", base_url = "https://plan.claret.app", tenant = "demo" }"#,
        ),
        ("BACKENDS__CLARET__CREDENTIALS__BEARER__FILE", key),
        ("BACKENDS__data_saur__VENDOR", "datasaur"),
        ("BACKENDS__data_saur__BASE_URL", "https://app.datasaur.ai"),
        ("BACKENDS__data_saur__CREDENTIALS__CLIENT_ID", "jobwatch"),
        ("BACKENDS__data_saur__CREDENTIALS__CLIENT_SECRET", "datasaur-hush"),
    ]);
    let backends: Vec<_> =
        config.backends.iter().map(|backend| (&*backend.name, backend.vendor.kind().key)).collect();
    let expected = [
        ("claret", "claret"),
        ("data_saur", "datasaur"),
        ("immuta-prod", "immuta"),
        ("kinetica", "kinetica"),
    ];
    assert_eq!(backends, expected);
    let immuta = &config.backends[2];
    assert_eq!(immuta.credentials.secret().unwrap().expose_secret(), "immuta-hush");
    assert_eq!(immuta.poll.min_interval.as_millis(), 250);
    assert_eq!(immuta.network.headers["x-tenant"], "a");
    assert_eq!(immuta.network.headers["x-key"], "immuta-hush");
    assert_eq!(config.backends[3].vendor.other_urls().len(), 1);
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn tokens_and_policies_are_defined_by_variables_alone() {
    let hash = "0f".repeat(32);
    let list = format!("[{hash:?}]");
    let mut set = KINETICA.to_vec();
    set.extend([("ACCESS__TOKENS__MY_CI__SHA256", &*list), ("ACCESS__TOKENS__Other_one__SHA256", &*list)]);
    set.push(("ACCESS__POLICIES__0__PRINCIPALS", r#"["token:my-ci"]"#));
    set.push(("ACCESS__POLICIES__0__RIGHTS", r#"["read", "download"]"#));
    set.push(("ACCESS__POLICIES__0__WATCHES", "7"));
    let numbers: Vec<String> = (1..=10).map(|n| format!("ACCESS__POLICIES__{n}__PRINCIPALS")).collect();
    let principals: Vec<String> = (1..=10).map(|n| format!("[\"jwt:{n}\"]")).collect();
    set.extend(numbers.iter().zip(&principals).map(|(name, value)| (&**name, &**value)));
    let access = load(&set).access;
    assert_eq!(access.tokens.keys().collect::<Vec<_>>(), ["Other_one", "my-ci"]);
    assert_eq!(access.tokens["my-ci"].sha256[0].to_string(), hash);
    assert_eq!(access.policies[0].rights, [Right::Read, Right::Download]);
    assert_eq!(access.policies[0].watches.map(u32::from), Some(7));
    let of_all: Vec<_> = access.policies[1..].iter().map(|policy| policy.principals.concat()).collect();
    let expected: Vec<_> = (1..=10).map(|n| format!("jwt:{n}")).collect();
    assert_eq!(of_all, expected, "10 comes after 9");

    let mut set = KINETICA.to_vec();
    set.push(("ACCESS__POLICIES", r#"[{ principals = ["*"] }, { principals = ["anonymous"] }]"#));
    set.push(("ACCESS__POLICIES__1__RIGHTS", r#"["admin"]"#));
    let policies = load(&set).access.policies;
    assert_eq!((policies.len(), &*policies[1].rights), (2, &[Right::Admin][..]));
}

#[test]
fn variable_and_file_name_the_same_backend_token_header_and_policy() {
    let file = "allow_inline_secrets = true\n\
                [backends.\"my.db-1\"]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n\
                headers = { \"X-Tenant\" = \"a\" }\n\
                [access.tokens.\"ci.prod\"]\nsha256 = [\"11\"]\n[[access.policies]]\nprincipals = [\"token:a\"]";
    let list = format!("[\"{}\"]", "0f".repeat(32));
    let set = variables(&[
        ("BACKENDS__MY_DB_1__BASE_URL", "http://127.0.0.1:2"),
        ("BACKENDS__my_db_1__HEADERS__X_TENANT", "b"),
        ("ACCESS__TOKENS__CI_PROD__SHA256", &list),
        ("ACCESS__POLICIES__0__BACKENDS", r#"["my*"]"#),
        ("ACCESS__POLICIES__1__PRINCIPALS", r#"["token:b"]"#),
    ]);
    let config = Config::parse(file, set).unwrap();
    let backend = &config.backends[0];
    assert_eq!((&*backend.name, backend.base_url.as_str()), ("my.db-1", "http://127.0.0.1:2/"));
    assert_eq!(
        (backend.network.headers.len(), &backend.network.headers["x-tenant"]),
        (1, &"b".parse().unwrap())
    );
    assert_eq!(config.access.tokens.keys().collect::<Vec<_>>(), ["ci.prod"]);
    let policies: Vec<_> = config
        .access
        .policies
        .iter()
        .map(|policy| (policy.principals.concat(), policy.backends.concat()))
        .collect();
    assert_eq!(policies, [("token:a".to_owned(), "my*".to_owned()), ("token:b".to_owned(), "*".to_owned())]);
}

#[test]
fn place_of_a_secret_in_a_variable_replaces_that_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "from-file").unwrap();
    let file = "[backends.x]\nvendor = \"immuta\"\nbase_url = \"https://a.example\"\n\
                credentials = { api_key = { env = \"NOT_SET\" } }";
    for name in ["BACKENDS__X__CREDENTIALS__API_KEY__FILE", "BACKENDS__X__CREDENTIALS__API_KEY_FILE"] {
        let config = Config::parse(file, variables(&[(name, key.to_str().unwrap())])).unwrap();
        assert_eq!(config.backends[0].credentials.secret().unwrap().expose_secret(), "from-file");
    }
}

#[test]
fn missing_key_of_a_backend_without_a_file_names_its_variable() {
    for (set, expected) in [
        (
            &[("SERVER__LISTEN", "127.0.0.1:0")][..],
            "backends (variables JOBWATCH__BACKENDS__NAME__VENDOR, JOBWATCH__BACKENDS__NAME__BASE_URL and the like) is missing; write at least one backend, such as [backends.immuta-prod]",
        ),
        (
            &[("BACKENDS__MY_DB__VENDOR", "kinetica")],
            "backends.my-db.base_url (variable JOBWATCH__BACKENDS__MY_DB__BASE_URL) is missing; write a URL such as \"https://vendor.example\"",
        ),
        (
            &[
                ("BACKENDS__X__VENDOR", "immuta"),
                ("BACKENDS__X__BASE_URL", "https://a.example"),
                ("BACKENDS__X__CREDENTIALS__EXCHANGE", "true"),
            ],
            "backends.x.credentials.api_key (variable JOBWATCH__BACKENDS__X__CREDENTIALS__API_KEY) is missing; write { env = \"NAME\" } or { file = \"/path\" }",
        ),
        (
            &[("BACKENDS__X__BASE_URL", "https://a.example"), KINETICA[0], KINETICA[1]],
            "JOBWATCH__BACKENDS__X__BASE_URL names the backend x, which is not defined; write one of db, or define it with JOBWATCH__BACKENDS__X__VENDOR",
        ),
    ] {
        assert_eq!(problems(set), [expected]);
    }
    let hash = format!("[\"{}\"]", "0f".repeat(32));
    assert_eq!(
        with(&[("ACCESS__TOKENS__CI__SHA256", &hash)]),
        [
            "access.policies (variable JOBWATCH__ACCESS__POLICIES) is missing: nobody may do anything; write a policy, such as [[access.policies]] with principals = [\"token:*\"]"
        ]
    );
}

#[test]
fn backend_of_a_variable_with_a_typing_error_is_suggested() {
    let file = "[backends.immuta-prod]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"";
    let invalid = Config::parse(file, variables(&[("BACKENDS__IMUTA_PROD__BASE_URL", "http://127.0.0.1:2")]));
    let text = "JOBWATCH__BACKENDS__IMUTA_PROD__BASE_URL names the backend imuta-prod, which is not defined; \
                did you mean JOBWATCH__BACKENDS__IMMUTA_PROD? JOBWATCH__BACKENDS__IMUTA_PROD__VENDOR would define it";
    assert_eq!(invalid.unwrap_err().to_string(), text);
}

#[test]
fn bad_variable_is_refused_by_name_with_what_to_write() {
    for (set, expected) in [
        (
            &[("BACKENDS__a!__VENDOR", "kinetica"), ("BACKENDS__a!__BASE_URL", "http://127.0.0.1")][..],
            "backends.\"a!\" (set by JOBWATCH__BACKENDS__a!__VENDOR) is not a name for a backend; write 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit",
        ),
        (
            &[("ACCESS__POLICIES__FIRST__PRINCIPALS", "x")],
            "JOBWATCH__ACCESS__POLICIES__FIRST__PRINCIPALS has FIRST where a number stands; write JOBWATCH__ACCESS__POLICIES__0 for the first one",
        ),
        (
            &[("ACCESS__POLICIES__1__PRINCIPALS", "[\"*\"]")],
            "JOBWATCH__ACCESS__POLICIES__1__PRINCIPALS names access.policies[1], but there are 0 before it; number them from 0, without a gap",
        ),
        (
            &[("SERVER____LISTEN", "127.0.0.1:0")],
            "JOBWATCH__SERVER____LISTEN has nothing before or after '__'; write JOBWATCH__SECTION__KEY",
        ),
        (
            &[("SERVER__LISTEN", "127.0.0.1:0"), ("server__listen", "127.0.0.1:1")],
            "JOBWATCH__server__listen sets server.listen, but JOBWATCH__SERVER__LISTEN sets server.listen; remove one of them",
        ),
        (
            &[
                ("BACKENDS__DB__CREDENTIALS__BEARER", "hush"),
                ("BACKENDS__DB__CREDENTIALS__BEARER_FILE", "/hush"),
            ],
            "JOBWATCH__BACKENDS__DB__CREDENTIALS__BEARER_FILE sets backends.db.credentials.bearer.file, but JOBWATCH__BACKENDS__DB__CREDENTIALS__BEARER sets backends.db.credentials.bearer; remove one of them",
        ),
        (
            &[
                ("BACKENDS__DB__CREDENTIALS__BEARER__ENV", "hush"),
                ("BACKENDS__DB__CREDENTIALS__BEARER__FILE", "/dev/null"),
            ],
            "JOBWATCH__BACKENDS__DB__CREDENTIALS__BEARER__FILE sets backends.db.credentials.bearer.file, but JOBWATCH__BACKENDS__DB__CREDENTIALS__BEARER__ENV sets backends.db.credentials.bearer.env; remove one of them",
        ),
    ] {
        let found = with(set);
        assert!(found.iter().any(|problem| problem == expected), "{expected}\n{found:#?}");
        assert!(!found.concat().contains("hush") || expected.contains("ENV"), "{found:#?}");
    }
}

#[test]
fn list_in_a_variable_is_written_in_toml_or_with_commas() {
    for (text, expected) in [
        ("[\"token:a\", \"jwt:*\"]", &["token:a", "jwt:*"][..]),
        ("token:a, jwt:*", &["token:a", "jwt:*"]),
        ("token:a", &["token:a"]),
        ("[\"subject:CN=a,O=b\"]", &["subject:CN=a,O=b"]),
    ] {
        let set = [&KINETICA[..], &[("ACCESS__POLICIES__0__PRINCIPALS", text)]].concat();
        assert_eq!(load(&set).access.policies[0].principals, expected, "{text}");
    }
    for (name, text, expected) in [
        (
            "ACCESS__POLICIES__0__PRINCIPALS",
            "[hush",
            "is no list in TOML; write [\"a\", \"b\"], or a,b without brackets",
        ),
        ("ACCESS__POLICIES", "[hush", "is no list of tables in TOML; write [{ key = \"value\" }]"),
        (
            "BACKENDS__DB__CREDENTIALS",
            "{\"username\": \"hush\"}",
            "is no table in TOML; write { key = \"value\" }",
        ),
    ] {
        assert_eq!(with(&[(name, text)]), [format!("JOBWATCH__{name} {expected}")]);
    }
}

#[test]
fn variable_takes_the_place_of_one_of_opentelemetry_for_the_same_key() {
    let mut set = variables(&KINETICA);
    set.extend(variables(&[("TRACES__SERVICE_NAME", "own"), ("TRACES__HEADERS__X_A", "b")]));
    for (name, value) in [
        ("OTEL_SERVICE_NAME", "other"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=a,x-c=c"),
    ] {
        set.push((name.to_owned(), value.to_owned()));
    }
    let traces = Config::of_environment(set).unwrap().traces.unwrap();
    assert_eq!(traces.service_name, "own");
    assert_eq!(
        (&traces.headers["x-a"], &traces.headers["x-c"]),
        (&"b".parse().unwrap(), &"c".parse().unwrap())
    );
}

#[test]
fn variable_with_one_underscore_after_the_program_name_is_refused_where_it_names_a_section() {
    let set = |name: &str| [(name.to_owned(), "x".to_owned())];
    let file = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:1\"";
    let text = "JOBWATCH_SERVER__LISTEN sets nothing; write JOBWATCH__SERVER__LISTEN";
    assert_eq!(Config::parse(file, set("JOBWATCH_SERVER__LISTEN")).unwrap_err().to_string(), text);
    for name in ["JOBWATCH_SERVER", "JOBWATCH_SERVICE_HOST", "JOBWATCH_PORT_50051_TCP", "JOBWATCH_X__Y"] {
        assert!(Config::parse(file, set(name)).is_ok(), "{name}");
    }
}
