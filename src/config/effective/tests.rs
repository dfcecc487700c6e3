use super::*;
use crate::config::EnvFile;

const FILE: &str = r#"allow_inline_secrets = true
[server]
default_deadline = "90s"

[[access.policies]]
principals = ["anonymous"]
[[access.policies]]
principals = ["token:a"]
watches = 7

[backends."my.db"]
vendor = "kinetica"
base_url = "https://db.example"
credentials = { username = "admin", password = "hush" }
headers = { X-Plain = "hush", X-Key = { env = "KEY" } }
poll.timeout = "2s"

[backends.plan]
vendor = "claret"
base_url = "https://plan.claret.app"
tenant = "demo"
credentials = { email = "a@example.com", password = { env = "KEY" } }
proxy = "http://me@proxy.example:3128"
proxy_password = { env = "KEY" }
"#;

fn effective(variables: &[(&str, &str)]) -> Effective {
    let variables = variables.iter().chain(&[("KEY", "hush")]);
    let variables: Vec<_> =
        variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let env_file = EnvFile::parse(Path::new("prod.env"), "JOBWATCH__LIMITS__JOBS=9").unwrap();
    let env = Environment::from(variables).with_file(env_file);
    Effective::parse(Some((Path::new("gateway.toml"), FILE)), env)
        .unwrap_or_else(|invalid| panic!("{invalid}"))
}

/// The line of the output that begins with this, without runs of blanks.
fn line(shown: &str, table: &str, key: &str) -> String {
    let table = format!("[{table}]\n");
    let at = shown.find(&table).unwrap_or_else(|| panic!("{table} is missing: {shown}"));
    let lines = shown[at + table.len()..].lines().take_while(|line| !line.is_empty());
    let line = lines.into_iter().find(|line| line.starts_with(&format!("{key} =")));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_value_is_shown_with_its_origin() {
    let shown = effective(&[
        ("JOBWATCH__BACKENDS__MY_DB__POLL__MAX_INTERVAL", "20s"),
        ("JOBWATCH__ACCESS__POLICIES__1__RIGHTS", "read,admin"),
    ])
    .to_string();
    for (table, key, expected) in [
        ("server", "default_deadline", "default_deadline = \"1m 30s\" # gateway.toml:3"),
        ("server", "listen", "listen = \"127.0.0.1:50051\" # default"),
        ("limits", "jobs", "jobs = 9 # JOBWATCH__LIMITS__JOBS in prod.env"),
        ("limits", "watches_per_caller", "watches_per_caller = 500000 # default"),
        ("limits", "status_bytes", "status_bytes = \"512 MiB\" # default"),
        ("backends.\"my.db\"", "base_url", "base_url = \"https://db.example/\" # gateway.toml:13"),
        ("backends.\"my.db\"", "encoding", "encoding = \"json\" # default"),
        ("backends.\"my.db\".poll", "timeout", "timeout = \"2s\" # gateway.toml:16"),
        ("backends.\"my.db\".poll", "connect_timeout", "connect_timeout = \"2s\" # default"),
        ("backends.\"my.db\".poll", "max_batch", "max_batch = 1 # default"),
        (
            "backends.\"my.db\".poll",
            "max_interval",
            "max_interval = \"20s\" # JOBWATCH__BACKENDS__MY_DB__POLL__MAX_INTERVAL",
        ),
        ("backends.plan", "proxy", "proxy = \"http://me@proxy.example:3128\" # gateway.toml:23"),
        ("backends.plan", "proxy_password", "proxy_password = { env = \"KEY\" } # gateway.toml:24"),
        ("backends.plan.credentials", "password", "password = { env = \"KEY\" } # gateway.toml:22"),
        ("backends.plan.credentials", "email", "email = \"a@example.com\" # gateway.toml:22"),
    ] {
        assert_eq!(line(&shown, table, key), expected, "{shown}");
    }
    let policies = "[[access.policies]]";
    assert_eq!(shown.matches(policies).count(), 2);
    let second = &shown[shown.rfind(policies).unwrap()..];
    let second: Vec<String> =
        second.lines().take(5).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        second[1..],
        [
            "backends = [\"*\"] # default",
            "principals = [\"token:a\"] # gateway.toml:8",
            "rights = [\"read\", \"admin\"] # JOBWATCH__ACCESS__POLICIES__1__RIGHTS",
            "watches = 7 # gateway.toml:9",
        ]
    );
}

#[test]
fn secret_is_shown_as_its_place_or_not_at_all() {
    let variables = [("JOBWATCH__BACKENDS__PLAN__CREDENTIALS__PASSWORD", "hush")];
    let effective = effective(&variables);
    let shown = effective.to_string();
    let variable = "{ env = \"JOBWATCH__BACKENDS__PLAN__CREDENTIALS__PASSWORD\" }";
    for (table, key, expected) in [
        ("backends.\"my.db\".credentials", "password", "\"<redacted>\" # gateway.toml:14"),
        ("backends.\"my.db\".headers", "X-Plain", "\"<redacted>\" # gateway.toml:15"),
        ("backends.\"my.db\".headers", "X-Key", "{ env = \"KEY\" } # gateway.toml:15"),
        ("backends.plan.credentials", "password", &format!("{variable} # {}", variables[0].0)),
    ] {
        assert_eq!(line(&shown, table, key), format!("{key} = {expected}"), "{shown}");
    }
    let all = format!("{shown}{effective:?}{}", effective.to_json());
    assert!(!all.contains("hush"), "{all}");
}

#[test]
fn secret_whose_place_a_variable_sets_has_the_variable_as_its_origin() {
    let variables = [
        ("JOBWATCH__BACKENDS__PLAN__CREDENTIALS__PASSWORD__ENV", "KEY"),
        ("JOBWATCH__BACKENDS__PLAN__HEADERS__X_TENANT__ENV", "KEY"),
    ];
    let shown = effective(&variables).to_string();
    for (table, key, variable) in
        [("credentials", "password", variables[0].0), ("headers", "x-tenant", variables[1].0)]
    {
        let expected = format!("{key} = {{ env = \"KEY\" }} # {variable}");
        assert_eq!(line(&shown, &format!("backends.plan.{table}"), key), expected, "{shown}");
    }
}

#[test]
fn traces_are_shown_with_their_defaults_and_as_numbers() {
    let shown = effective(&[("JOBWATCH__TRACES__SAMPLE_RATIO", "0.1")]).to_string();
    let ratio = "sample_ratio = 0.1 # JOBWATCH__TRACES__SAMPLE_RATIO";
    assert_eq!(line(&shown, "traces", "sample_ratio"), ratio, "{shown}");
    assert_eq!(line(&shown, "traces", "service_name"), "service_name = \"jobwatch\" # default", "{shown}");
    // The attribute is the name, too.
    let shown = effective(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name=gateway")]).to_string();
    assert_eq!(line(&shown, "traces", "service_name"), "", "{shown}");
}

#[test]
fn shown_configuration_is_a_configuration_of_the_same_effect() {
    let file =
        FILE.replace("password = \"hush\"", "password.env = \"KEY\"").replace("X-Plain = \"hush\", ", "");
    let load = |text: &str| {
        let env = [("KEY".to_owned(), "hush".to_owned())];
        Effective::parse(Some((Path::new("gateway.toml"), text)), env)
            .unwrap_or_else(|invalid| panic!("{invalid}\n{text}"))
    };
    let first = load(&file);
    let again = load(&first.to_string());
    assert_eq!(first.values, again.values);
    let is_set = |(_, origin): &(&str, &Origin)| !matches!(origin, Origin::File { .. });
    assert_eq!(again.origins().find(is_set), None, "everything is written there");

    let example = include_str!("../../../jobwatch.example.toml");
    let env = || {
        ["IMMUTA_API_KEY", "KINETICA_PASSWORD", "CLARET_PASSWORD", "DATASAUR_CLIENT_SECRET"]
            .map(|name| (name.to_owned(), "hush".to_owned()))
    };
    let first = Effective::parse(Some((Path::new("e.toml"), example)), env()).unwrap();
    let again = Effective::parse(Some((Path::new("e.toml"), &first.to_string())), env()).unwrap();
    assert_eq!(first.values, again.values);
}

#[test]
fn json_has_values_and_origins() {
    let json = effective(&[("JOBWATCH__SERVER__LISTEN", "127.0.0.1:0")]).to_json();
    assert_eq!(json["file"], "gateway.toml");
    assert_eq!(json["configuration"]["backends"]["my.db"]["poll"]["timeout"], "2s");
    assert_eq!(json["configuration"]["access"]["policies"][1]["watches"], 7);
    let origins = &json["origins"];
    assert_eq!(
        origins["server.listen"],
        json!({ "source": "environment", "variable": "JOBWATCH__SERVER__LISTEN" })
    );
    let of_file =
        json!({ "source": "environment", "variable": "JOBWATCH__LIMITS__JOBS", "env_file": "prod.env" });
    assert_eq!(origins["limits.jobs"], of_file);
    assert_eq!(
        origins["server.default_deadline"],
        json!({ "source": "file", "file": "gateway.toml", "line": 3 })
    );
    assert_eq!(origins["limits.watches"], json!({ "source": "default" }));
    assert_eq!(origins["access.policies[1].watches"]["line"], 9);
}

#[test]
fn configuration_without_a_file_has_no_file_in_its_origins() {
    let env = [("VENDOR", "kinetica"), ("BASE_URL", "http://127.0.0.1:1")]
        .map(|(name, value)| (format!("JOBWATCH__BACKENDS__DB__{name}"), value.to_owned()));
    let effective = Effective::load(None, env).unwrap();
    let shown = effective.to_string();
    assert_eq!(
        line(&shown, "backends.db", "vendor"),
        "vendor = \"kinetica\" # JOBWATCH__BACKENDS__DB__VENDOR"
    );
    assert_eq!(line(&shown, "backends.db", "credentials"), "credentials = \"none\" # default");
    assert_eq!(effective.to_json()["file"], Value::Null);
}
