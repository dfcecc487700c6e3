use super::*;

const BACKEND: &str = "
    [backends.claret]
    vendor = \"claret\"
    base_url = \"https://claret.example\"
    tenant = \"demo\"
    credentials = { email = \"me@claret.example\", password = { env = \"PASSWORD\" } }
";

fn config(text: &str, variables: &[(&str, &str)]) -> Config {
    let secrets = [("PASSWORD", "hush-1"), ("OTHER", "hush-2")];
    let variables =
        secrets.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(text, variables.collect::<Vec<_>>()).unwrap()
}

fn diff(old: &str, new: &str) -> Diff {
    let (old, new) = (config(old, &[]), config(new, &[]));
    let (diff, effective) = Diff::between(&old, new);
    let (again, _) = Diff::between(&old, effective.clone());
    assert!(again.restart.is_empty(), "what needs a restart is not in effect: {again:?}");
    assert_eq!((&again.settings, &again.changed), (&diff.settings, &diff.changed));
    let (nothing, _) = Diff::between(&effective, effective.clone());
    assert!(nothing.is_empty(), "{nothing:?}");
    assert!(!format!("{diff:?}").contains("hush"), "{diff:?}");
    diff
}

fn shown(changes: &[Change]) -> Vec<String> {
    changes.iter().map(Change::to_string).collect()
}

/// The keys of the only backend that has changed, and whether it moves.
fn change(old: &str, new: &str) -> (Vec<String>, bool) {
    let diff = diff(&format!("{BACKEND}{old}"), new);
    assert!(diff.added.is_empty() && diff.removed.is_empty() && diff.settings.is_empty(), "{diff:?}");
    let [change] = &diff.changed[..] else { panic!("{diff:?}") };
    assert_eq!(&*change.name, "claret");
    (shown(&change.changes), change.moves)
}

#[test]
fn same_configuration_written_in_another_way_has_no_difference() {
    let other = "
        [limits]
        watches = 2000000
        [backends.claret]
        credentials = { password = { env = \"PASSWORD\" }, email = \"me@claret.example\" }
        tenant = \"demo\"
        base_url = \"https://claret.example/\"
        vendor = \"claret\"
        poll.min_interval = \"1000ms\"
    ";
    assert!(diff(BACKEND, other).is_empty());
}

#[test]
fn backends_are_added_and_removed_by_their_names() {
    let renamed = BACKEND.replace("backends.claret", "backends.other");
    let diff = diff(BACKEND, &renamed);
    assert_eq!((diff.added, diff.removed), (vec!["other".into()], vec!["claret".into()]));
    assert_eq!((diff.changed, diff.settings, diff.restart), Default::default());
}

#[test]
fn changed_keys_of_a_backend_are_named_with_values_that_hold_no_secret() {
    let poll = "[backends.claret.poll]\nmin_interval = \"2s\"\nrequests_per_second = 5\nmax_response_bytes = \"1 MiB\"";
    let expected = [
        "poll.min_interval 1s -> 2s",
        "poll.requests_per_second 20 -> 5",
        "poll.max_response_bytes 8 MiB -> 1 MiB",
    ];
    assert_eq!(change("", &format!("{BACKEND}{poll}")), (expected.map(String::from).into(), false));
    for (from, to, key, moves) in [
        ("https://claret", "https://next", "base_url https://claret.example/ -> https://next.example/", true),
        ("\"demo\"", "\"prod\"", "tenant", true),
        ("me@", "you@", "credentials.email", false),
        ("\"PASSWORD\"", "\"OTHER\"", "credentials.password", false),
    ] {
        assert_eq!(change("", &BACKEND.replacen(from, to, 1)), (vec![key.to_owned()], moves));
    }
    let bearer = BACKEND.replace("email = \"me@claret.example\", password", "bearer");
    assert_eq!(
        change("", &bearer),
        (["credentials.email", "credentials.bearer"].map(String::from).into(), false)
    );
}

#[test]
fn another_vendor_under_the_same_name_is_a_change_that_moves() {
    let other = "
        [backends.claret]
        vendor = \"kinetica\"
        base_url = \"https://claret.example\"
    ";
    let (keys, moves) = change("", other);
    assert_eq!(
        keys,
        [
            "vendor claret -> kinetica",
            "credentials.email",
            "tenant",
            "credentials.password",
            "poll.max_batch 1 -> 1"
        ][..4]
    );
    assert!(moves);
}

#[test]
fn headers_proxy_and_authorities_are_named_without_their_values() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "one").unwrap();
    let network = |header: &str, proxy: &str, password: &str| {
        format!(
            "{BACKEND}\nheaders = {{ \"X-A\" = {{ env = {header:?} }} }}\nca = {:?}\n\
             proxy = \"http://me@{proxy}:1\"\nproxy_password = {{ env = {password:?} }}",
            file.path()
        )
    };
    let old = network("PASSWORD", "proxy", "PASSWORD");
    let changed = |new: &str| {
        let diff = diff(&old, new);
        shown(&diff.changed[0].changes)
    };
    assert_eq!(changed(&network("OTHER", "proxy", "PASSWORD")), ["headers.x-a"]);
    assert_eq!(changed(&network("PASSWORD", "proxy", "OTHER")), ["proxy_password"]);
    assert_eq!(changed(&network("PASSWORD", "other", "PASSWORD")), ["proxy"]);
    assert_eq!(changed(BACKEND).len(), 3);
    let before = config(&old, &[]);
    assert_eq!(before.files().collect::<Vec<_>>(), [file.path()]);
    std::fs::write(file.path(), "two").unwrap();
    let (diff, _) = Diff::between(&before, config(&old, &[]));
    assert_eq!(shown(&diff.changed[0].changes), ["ca"]);
}

#[test]
fn literal_secret_that_changes_is_a_change_and_one_that_is_read_again_is_not() {
    let text =
        format!("allow_inline_secrets = true\n{}", BACKEND.replace("{ env = \"PASSWORD\" }", "\"hush-3\""));
    let diff = diff(&text, &text.replace("hush-3", "hush-4"));
    assert_eq!(shown(&diff.changed[0].changes), ["credentials.password"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = BACKEND.replace("{ env = \"PASSWORD\" }", &format!("{{ file = {:?} }}", file.path()));
    std::fs::write(file.path(), "hush-5").unwrap();
    let old = config(&text, &[]);
    std::fs::write(file.path(), "hush-6").unwrap();
    assert!(Diff::between(&old, config(&text, &[])).0.is_empty());
}

#[test]
fn limits_and_the_log_level_take_effect_at_once_and_addresses_need_a_restart() {
    let new = format!(
        "[server]\nlisten = \"127.0.0.1:1\"\ndefault_deadline = \"5s\"\n[admin]\nlisten = \"127.0.0.1:2\"\n\
         [log]\nlevel = \"debug\"\nformat = \"json\"\n[limits]\nwatches = 8\nconnections = 100\nstatus_bytes = \"1 GiB\"\n{BACKEND}"
    );
    let diff = diff(BACKEND, &new);
    let expected = [
        "server.default_deadline 1m -> 5s",
        "log.level unset -> debug",
        "limits.watches 2000000 -> 8",
        "limits.watches_per_caller 500000 -> 2",
    ];
    assert_eq!(shown(&diff.settings), expected);
    let expected = [
        "server.listen 127.0.0.1:50051 -> 127.0.0.1:1",
        "admin.listen unset -> 127.0.0.1:2",
        "log.format",
        "limits.status_bytes 512 MiB -> 1 GiB",
        "limits.connections 5000 -> 100",
        "limits.connections_per_address 1250 -> 25",
    ];
    assert_eq!(shown(&diff.restart), expected);
    assert!(diff.sets(&["limits", "access"]) && !diff.sets(&["access", "limit"]));
}

#[test]
fn callers_and_policies_take_effect_at_once_and_are_named_without_hashes() {
    let access = |tokens: &[(&str, char)], policies: &str| {
        let token = |(name, digit): &(&str, char)| {
            format!("tokens.{name}.sha256 = [\"{}\"]\n", digit.to_string().repeat(64))
        };
        let tokens = tokens.iter().map(token).collect::<Vec<_>>().concat();
        format!("[access]\n{tokens}policies = [{policies}]\n{BACKEND}")
    };
    let (all, few) = ("{ principals = [\"*\"] }", "{ principals = [\"token:a\"], watches = 1 }");
    let old = access(&[("a", '1'), ("b", '2')], &format!("{all}, {all}"));
    let new = access(&[("b", '3'), ("c", '4')], &format!("{all}, {few}, {all}"));
    let expected =
        ["access.tokens.a", "access.tokens.b", "access.tokens.c", "access.policies[1]", "access.policies[2]"];
    let diff = diff(&old, &new);
    assert_eq!(shown(&diff.settings), expected);
    assert!(diff.restart.is_empty() && diff.changed.is_empty());
}

#[test]
fn files_of_the_servers_identity_need_a_restart_where_their_names_change() {
    let [one, other] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
    let tls = |file: &tempfile::NamedTempFile| {
        format!("[server.tls]\ncert = {:?}\nkey = {:?}\n{BACKEND}", file.path(), one.path())
    };
    let restart = |old: &str, new: &str| shown(&diff(old, new).restart);
    let changed = restart(&tls(&one), &tls(&other));
    assert!(changed.len() == 1 && changed[0].starts_with("server.tls.cert "), "{changed:?}");
    assert_eq!(restart(BACKEND, &tls(&one)), ["server.tls"]);
    assert_eq!(restart(&tls(&one), BACKEND), ["server.tls"]);
}
