use std::io::Write as _;

use super::*;
use crate::config::{Config, Diff, Effective};

const BACKEND: &str = "[backends.db]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1:9191\"\n";
const LEAST: &str = "nats = [\"nats://127.0.0.1:4222\"]\nname = \"prod\"\nreplicas = 3\n";

fn config(keys: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let text = format!("{BACKEND}[cluster]\n{keys}");
    Config::parse(&text, variables).map_err(|invalid| invalid.to_string())
}

fn cluster(keys: &str) -> Cluster {
    config(&format!("{LEAST}{keys}"), &[]).unwrap().cluster.unwrap()
}

#[test]
fn replicas_work_by_themselves_without_the_section() {
    assert_eq!(Config::parse(BACKEND, []).unwrap().cluster, None);
}

#[test]
fn keys_have_defaults_but_for_servers_name_and_replicas() {
    let Cluster { nats, name, replicas, member, credentials, tls, lease, isolated_share } = cluster("");
    assert_eq!((&nats[..], &*name, replicas), (&["nats://127.0.0.1:4222".to_owned()][..], "prod", 3));
    assert!(!member.is_empty(), "the host's name");
    assert_eq!((credentials.to_string(), tls, lease.as_secs()), ("no credentials".to_owned(), None, 15));
    assert!((isolated_share - 0.2).abs() < f64::EPSILON);
    let text = config("", &[]).unwrap_err();
    let expected = [
        "cluster.nats is missing; write a list such as [\"nats://nats-0:4222\"]",
        "cluster.name is missing; write a name such as \"prod\"",
        "cluster.replicas is missing; write how many replicas run at most, such as 3",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn variables_set_the_keys() {
    let variables = [
        ("JOBWATCH__CLUSTER__NATS", "nats://nats-0:4222,tls://nats-1:4222"),
        ("JOBWATCH__CLUSTER__NAME", "test"),
        ("JOBWATCH__CLUSTER__REPLICAS", "5"),
        ("JOBWATCH__CLUSTER__ISOLATED_SHARE", "0.5"),
        ("JOBWATCH__CLUSTER__CREDENTIALS__TOKEN", "hush"),
    ];
    let set = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let cluster = Config::parse(BACKEND, set).unwrap().cluster.unwrap();
    assert_eq!((cluster.nats.len(), &*cluster.name, cluster.replicas), (2, "test", 5));
    assert!((cluster.isolated_share - 0.5).abs() < f64::EPSILON);
    assert!(
        matches!(&cluster.credentials, ClusterCredentials::Token(token) if token.expose_secret() == "hush")
    );
}

#[test]
fn bad_key_is_refused_with_what_to_write() {
    const URL: &str = "write one such as \"nats://nats-0:4222\"";
    for (key, value, expected) in [
        ("nats", "[]", "is missing; write a list such as [\"nats://nats-0:4222\"]".to_owned()),
        ("nats[0]", "[\"nats-0\"]", format!("is no URL; {URL}, or \"tls://nats-0:4222\" for TLS")),
        ("nats[0]", "[\"nats-0:4222\"]", format!("begins with neither nats:// nor tls://; {URL}")),
        ("nats[0]", "[\"http://nats-0\"]", format!("begins with neither nats:// nor tls://; {URL}")),
        (
            "nats[1]",
            "[\"tls://a:1\", \"nats://me:hush@b:1\"]",
            "holds a user; write it and its password in cluster.credentials, and the URL without".to_owned(),
        ),
        (
            "nats[0]",
            "[\"nats://a:1/x\"]",
            "is not a host and its port; write such as \"nats://nats-0:4222\"".to_owned(),
        ),
        (
            "name",
            "\"a.b\"",
            "is \"a.b\"; write 1 to 63 of a-z, A-Z, 0-9, '_' and '-', such as \"prod\"".to_owned(),
        ),
        (
            "name",
            "\"a b\"",
            "is \"a b\"; write 1 to 63 of a-z, A-Z, 0-9, '_' and '-', such as \"prod\"".to_owned(),
        ),
        ("replicas", "0", "is 0; write a whole number from 1 to 1000".to_owned()),
        ("replicas", "\"many\"", "is \"many\"; write a whole number from 1 to 1000".to_owned()),
        (
            "member",
            "\"a b\"",
            "is \"a b\"; write 1 to 253 of a-z, A-Z, 0-9, '.', '_' and '-', such as \"gateway-0\"".to_owned(),
        ),
        ("lease", "\"2s\"", "is \"2s\"; write a duration from 3s to 5m".to_owned()),
        ("isolated_share", "1.5", "is 1.5; write a number from 0 to 1, such as 0.05".to_owned()),
        ("isolated_share", "-0.1", "is -0.1; write a number from 0 to 1, such as 0.05".to_owned()),
        ("tls.key", "", "is missing; write the path of the PEM private key".to_owned()),
        (
            "tls.ca",
            "\"/no/such/file\"",
            "is the file /no/such/file, which can't be read: No such file or directory (os error 2)".to_owned(),
        ),
        (
            "credentials",
            "{ token = { env = \"A\" }, nkey = { env = \"A\" } }",
            "holds both nkey and token; keep one way to sign in".to_owned(),
        ),
        (
            "credentials",
            "{}",
            "is empty; write creds, nkey, user and password, or token, or remove it".to_owned(),
        ),
        (
            "credentials.password",
            "{ user = \"me\" }",
            "is missing; write { env = \"NAME\" } or { file = \"/path\" }".to_owned(),
        ),
        (
            "credentials.user",
            "{ password = { env = \"A\" } }",
            "is missing; write the password's user".to_owned(),
        ),
        (
            "credentials.token",
            "{ token = \"hush\" }",
            "is a secret in the file; write { env = \"NAME\" } or { file = \"/path\" }, or allow_inline_secrets = \
             true at the top"
                .to_owned(),
        ),
        (
            "credentials.creds",
            "{ creds = { file = \"/no/such\" } }",
            "is the file /no/such, which can't be read: No such file or directory (os error 2)".to_owned(),
        ),
        ("replica", "3", "is not a key here; did you mean replicas?".to_owned()),
    ] {
        let name = key.split(['[', '.']).next().unwrap();
        let value = if key == "tls.key" { "{ cert = \"Cargo.toml\" }" } else { value };
        let value = if key == "tls.ca" { format!("{{ ca = {value} }}") } else { value.to_owned() };
        let others: String = LEAST.lines().filter(|line| !line.starts_with(&format!("{name} "))).fold(
            String::new(),
            |text, line| text + line + "\n",
        );
        let text = config(&format!("{others}{name} = {value}"), &[("A", "secret")]).unwrap_err();
        assert_eq!(text, format!("cluster.{key} {expected}"), "{value}");
        assert!(!text.contains("hush"), "{text}");
    }
}

#[test]
fn each_way_to_sign_in_is_read() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"-----BEGIN NATS USER JWT-----\nabc\n------END NATS USER JWT------\n").unwrap();
    let creds = format!("credentials = {{ creds = {{ file = {:?} }} }}", file.path());
    let ClusterCredentials::Creds(secret) = cluster(&creds).credentials else { panic!("{creds}") };
    assert_eq!(secret.expose_secret().lines().count(), 3);
    for (keys, expected) in [
        ("nkey = { env = \"A\" }", "nkey"),
        ("token = { env = \"A\" }", "token"),
        ("user = \"me\", password = { env = \"A\" }", "user and password"),
    ] {
        let text = format!("{LEAST}credentials = {{ {keys} }}");
        let cluster = config(&text, &[("A", "hush")]).unwrap().cluster.unwrap();
        assert_eq!(cluster.credentials.to_string(), expected);
        assert_eq!(cluster.credentials.secret().unwrap().expose_secret(), "hush");
        assert!(!format!("{cluster:?}").contains("hush"));
    }
}

#[test]
fn settings_that_are_probably_a_mistake_give_a_warning() {
    let warnings = |keys: &str| config(keys, &[]).unwrap().warnings();
    assert_eq!(warnings(LEAST), [""; 0]);
    let few = warnings(&LEAST.replace("replicas = 3", "replicas = 21"));
    assert_eq!(
        few,
        ["backends.db.poll.requests_per_second is 20, less than cluster.replicas = 21: a replica without a \
          connection to the backend's owner sends it no requests; raise the one or lower the other"]
    );
    let plain = warnings(&LEAST.replace("127.0.0.1", "nats-0"));
    assert_eq!(
        plain,
        [
            "cluster.nats[0] is nats://nats-0:4222: statuses travel unencrypted unless the server requires TLS; \
          write a tls:// URL"
        ]
    );
    for url in ["tls://nats-0:4222", "nats://localhost:4222", "nats://[::1]:4222"] {
        assert_eq!(warnings(&LEAST.replace("nats://127.0.0.1:4222", url)), [""; 0], "{url}");
    }
}

#[test]
fn every_change_needs_a_restart() {
    let restart = |old: &str, new: &str| {
        let read = |keys: &str| {
            let section = if keys.is_empty() { String::new() } else { format!("[cluster]\n{keys}") };
            Config::parse(&format!("{BACKEND}{section}"), []).unwrap()
        };
        let (diff, in_effect) = Diff::between(&read(old), read(new));
        assert!(diff.applies_nothing(), "{diff:?}");
        assert_eq!(in_effect.cluster, read(old).cluster, "the old one stays in effect");
        diff.restart.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(restart(LEAST, LEAST), [""; 0]);
    assert_eq!(restart("", LEAST), ["cluster"]);
    assert_eq!(restart(LEAST, ""), ["cluster"]);
    let other = "nats = [\"nats://127.0.0.1:4223\"]\nname = \"test\"\nreplicas = 5\nlease = \"30s\"\n";
    let changed =
        ["cluster.nats", "cluster.name prod -> test", "cluster.replicas 3 -> 5", "cluster.lease 15s -> 30s"];
    assert_eq!(restart(LEAST, other), changed);
}

#[test]
fn configuration_in_effect_shows_every_key_and_no_secret() {
    let keys =
        format!("{LEAST}member = \"gateway-0\"\ncredentials = {{ user = \"me\", password = \"hush\" }}\n");
    let text = format!("allow_inline_secrets = true\n{BACKEND}[cluster]\n{keys}");
    let shown = Effective::parse(Some(("file".as_ref(), &text)), []).unwrap().to_string();
    let section = shown.split("[cluster]\n").nth(1).unwrap();
    let lines: Vec<&str> = section
        .lines()
        .take_while(|line| !line.starts_with("[limits"))
        .filter(|line| !line.is_empty())
        .collect();
    let values: Vec<&str> = lines.iter().map(|line| line.split("  #").next().unwrap().trim_end()).collect();
    assert!(!shown.contains("hush"), "{shown}");
    for expected in [
        "isolated_share = 0.2",
        "lease = \"15s\"",
        "member = \"gateway-0\"",
        "name = \"prod\"",
        "nats = [\"nats://127.0.0.1:4222\"]",
        "replicas = 3",
        "[cluster.credentials]",
        "password = \"<redacted>\"",
        "user = \"me\"",
    ] {
        assert!(values.contains(&expected), "{expected} is not in {values:#?}");
    }
}

#[test]
fn example_shows_the_defaults_of_replicas() {
    let example = include_str!("../../../jobwatch.example.toml");
    let (_, section) = example.split_once("#   [cluster]\n").unwrap();
    let lines = section.lines().take_while(|line| !line.is_empty());
    let keys: Vec<&str> = lines.map(|line| line.strip_prefix("#   ").unwrap()).collect();
    assert_eq!(keys.len(), 8, "{keys:#?}");
    let keys: Vec<&str> =
        keys.into_iter().filter(|key| !key.starts_with("credentials") && !key.starts_with("tls")).collect();
    let shown = config(&keys.join("\n"), &[]).unwrap().cluster.unwrap();
    assert_eq!(shown, cluster("member = \"gateway-0\""));
}
