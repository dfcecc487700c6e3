//! Secrets: where they come from, and that they are shown nowhere.

use super::*;

#[test]
fn secret_that_looks_like_toml_is_taken_as_text() {
    let variable = "JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY";
    let config = Config::parse(IMMUTA, env(&[(variable, "[1,2]")])).unwrap();
    assert_eq!(secret(&config.backends[0], &Scheme::Bare), "[1,2]");
}

#[test]
fn secret_file_of_an_editor_is_read_and_odd_secrets_are_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    let backend = |secret: &str| {
        let credentials = format!("credentials = {{ username = \"u\", password = {secret} }}");
        format!("[backends.x]\nvendor = \"kinetica\"\nbase_url = \"http://127.0.0.1\"\n{credentials}")
    };
    let text = backend(&format!("{{ file = {file:?} }}"));
    for (content, warning) in [
        ("hush", None),
        ("\u{feff}hush\r\n", None),
        ("\u{feff}hush\n", None),
        ("'hush'\n", Some("begins and ends with a quote")),
        ("hush \n", Some("holds U+0020 (space) at position 5 of 5")),
        ("\u{feff}hu\u{200b}sh\r\n", Some("holds U+200B (zero width space) at position 3 of 5")),
    ] {
        std::fs::write(&file, content).unwrap();
        let config = Config::parse(&text, []).unwrap();
        let secret = config.backends[0].credentials.secret().unwrap();
        let again = secret.read_again().unwrap().unwrap();
        assert_eq!(again.expose_secret(), secret.expose_secret(), "a rotated file is read in the same way");
        if warning.is_none() {
            assert_eq!(secret.expose_secret(), "hush");
        }
        let warnings = config.warnings();
        let place = format!("backends.x.credentials.password is the file {}, which ", file.display());
        let expected = warning.map(|warning| format!("{place}{warning}"));
        assert_eq!(warnings.len(), usize::from(warning.is_some()), "{warnings:?}");
        assert!(
            warnings.iter().all(|text| text.starts_with(expected.as_deref().unwrap_or_default())),
            "{warnings:?}"
        );
        assert!(!warnings.concat().contains("hush"));
    }
    std::fs::write(&file, [0xff, 0xfe, b'h', 0]).unwrap();
    let problems = problems(&text, &[]);
    assert!(problems[0].ends_with("is not text in UTF-8; save it as UTF-8"), "{problems:?}");

    let text = backend("{ env = \"P\" }");
    let config = Config::parse(&text, [("P".to_owned(), "\"hush\"".to_owned())]).unwrap();
    let place = "backends.x.credentials.password is the variable P, which begins and ends with a quote";
    assert!(config.warnings()[0].starts_with(place), "{:?}", config.warnings());
    assert_eq!(
        self::problems(&text, &[("P", "hush\r\n")]),
        [
            "backends.x.credentials.password is the variable P, which holds U+000D (carriage return) at position 5; write the secret alone"
        ]
    );
}

/// The first inline table of a text.
fn inline_table(text: &str) -> &str {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return &text[..=at],
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("no inline table: {text}");
}

#[test]
fn credentials_that_a_problem_shows_as_example_are_accepted() {
    for kind in KINDS {
        let backend = |credentials: &str| {
            let key = kind.key;
            format!("[backends.x]\nvendor = {key:?}\nbase_url = \"http://x\"\ncredentials = {credentials}")
        };
        let is_about_credentials = |problem: &String| problem.contains(".credentials");
        let refused = problems(&backend("{}"), &[]);
        assert!(refused.iter().any(|problem| problem.ends_with(kind.credentials.example)), "{refused:?}");
        let shown = problems(&backend(inline_table(kind.credentials.example)), &[]);
        assert!(!shown.iter().any(is_about_credentials), "{shown:?}");
    }
}

#[test]
fn variable_names_the_place_of_a_secret() {
    let variable = "JOBWATCH__BACKENDS__IMMUTA_PROD__CREDENTIALS__API_KEY__ENV";
    let config = Config::parse(IMMUTA, env(&[(variable, "CLARET_PASSWORD")])).unwrap();
    assert_eq!(secret(&config.backends[0], &Scheme::Bare), "claret-hush");
}

#[test]
fn secret_from_file_loses_last_line_break() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "from-file\r\n").unwrap();
    let text = IMMUTA.replace("{ env = \"IMMUTA_API_KEY\" }", &format!("{{ file = {path:?} }}"));
    assert_eq!(secret(&one(&text), &Scheme::Bare), "from-file");
    std::fs::write(&path, "\n").unwrap();
    let expected = "which is empty; write the secret there";
    assert!(problems(&text, &[])[0].ends_with(expected));
}

#[test]
fn configuration_debug_output_hides_secrets() {
    let config = Config::parse(include_str!("../../../jobwatch.example.toml"), env(&[])).unwrap();
    assert!(!format!("{config:#?}").contains("hush"));
}

#[test]
fn problem_text_hides_secrets() {
    for text in [
        "allow_inline_secrets = true\n[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://x\"\ncredentials = { bearer = \"hush hush\" }",
        "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://x\"\ncredentials = { bearer = \"hush\" }",
        "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://me:hush@x\"\ncredentials = { bearer = \"hush\"",
        "[backends.x]\nvendor = \"immuta\"\nbase_url = \"http://me:hush@x\"\ncredentials = \"hush\"",
    ] {
        let problems = problems(text, &[]);
        assert!(!problems.is_empty() && !problems.concat().contains("hush"), "{problems:#?}");
    }
}

#[test]
fn credentials_over_plain_http_to_another_host_give_a_warning() {
    let config = Config::parse(&IMMUTA.replace("https", "http"), env(&[])).unwrap();
    assert_eq!(config.warnings().len(), 1);
    let config =
        Config::parse(&IMMUTA.replace("https://immuta.example", "http://localhost:1"), env(&[])).unwrap();
    assert!(config.warnings().is_empty());
    let standby = "[backends.k]\nvendor = \"kinetica\"\nbase_url = \"https://a\"\nstandby_urls = [\"http://b\"]\n\
                   credentials = { username = \"a\", password.env = \"KINETICA_PASSWORD\" }";
    let warnings = Config::parse(standby, env(&[])).unwrap().warnings();
    assert!(
        matches!(&warnings[..], [one] if one.starts_with("backends.k.standby_urls is http://b/")),
        "{warnings:?}"
    );
}
