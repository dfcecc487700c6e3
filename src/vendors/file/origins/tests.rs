use proptest::prelude::*;

use super::*;
use crate::vendors::FileFault;

fn origins(locations: &[&str], redirects: &[&str], allowed: &[&str]) -> FileOrigins {
    let patterns = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let allowed =
        allowed.iter().map(|text| AllowedOrigin { url: text.parse().unwrap(), with_credentials: false });
    FileOrigins {
        locations: patterns(locations),
        redirects: patterns(redirects),
        allowed: allowed.collect(),
        headers: HeaderMap::new(),
    }
}

#[test]
fn pattern_names_an_origin_its_subdomains_or_any() {
    for (pattern, named, unnamed) in [
        (
            "https://a.example",
            vec!["https://a.example/", "https://A.Example:443/x"],
            vec![
                "http://a.example/",
                "https://a.example:444/",
                "https://a.example./",
                "https://b.a.example/",
                "https://xa.example/",
            ],
        ),
        (
            "https://*.a.example",
            vec!["https://b.a.example/", "https://c.b.a.example/"],
            vec![
                "https://a.example/",
                "https://.a.example/",
                "https://xa.example/",
                "https://b.a.example:8443/",
                "https://b.a.example.evil.example/",
                "https://b.a.example./",
                "http://b.a.example/",
            ],
        ),
        (
            "https://*.a.example:8443",
            vec!["https://b.a.example:8443/"],
            vec!["https://b.a.example/", "https://a.example:8443/"],
        ),
        ("https://*", vec!["https://a.example/", "https://10.0.0.1:9/"], vec!["http://a.example/"]),
        ("https://10.0.0.1:9000", vec!["https://10.0.0.1:9000/"], vec!["https://10.0.0.1/"]),
    ] {
        let read: OriginPattern = pattern.parse().unwrap();
        assert_eq!(read.shown(), pattern);
        for url in named {
            assert!(read.names(&Url::parse(url).unwrap()), "{pattern} {url}");
        }
        for url in unnamed {
            assert!(!read.names(&Url::parse(url).unwrap()), "{pattern} {url}");
        }
    }
}

#[test]
fn pattern_that_is_no_origin_is_refused_with_the_reason() {
    use InvalidOriginPattern as I;
    for (pattern, problem) in [
        ("", I::NoOrigin),
        ("a.example", I::NoOrigin),
        ("https://a.example/", I::NoOrigin),
        ("https://a.example/x", I::NoOrigin),
        ("https://me@a.example", I::NoOrigin),
        ("https://A.example", I::NoOrigin),
        ("https://a.example:443", I::NoOrigin),
        ("https://a.*.example", I::NoOrigin),
        ("https://*.*.example", I::NoOrigin),
        ("https://a*.example.com", I::NoOrigin),
        ("https://*.10.0.0.1", I::NoOrigin),
        ("https://*:8443", I::NoOrigin),
        ("https://*.", I::NoOrigin),
        ("ftp://a.example", I::NoOrigin),
        ("file:///a", I::NoOrigin),
        ("http://a.example", I::NotEncrypted),
        ("http://*.a.example", I::NotEncrypted),
        ("https://*.com", I::TooWide),
    ] {
        assert_eq!(pattern.parse::<OriginPattern>(), Err(problem), "{pattern}");
    }
}

#[test]
fn redirect_is_one_of_four_statuses_to_another_origin() {
    let origins = origins(&[], &["https://*.logs.example"], &["https://a.logs.example"]);
    let own: Uri = "https://api.example/v1/log?x=1".parse().unwrap();
    let redirect = |status: u16, location: &str| {
        let head = Response::builder().status(status).header(header::LOCATION, location);
        match origins.redirect(&own, &head.body(Bytes::new()).unwrap()) {
            Ok(elsewhere) => Ok(elsewhere.map(|(request, _)| request.uri().to_string())),
            Err(FileFault::Origin(refused)) => Err(refused.why),
            Err(other) => panic!("{other:?}"),
        }
    };
    let target = "https://a.logs.example/x?sig=a%2Fb";
    for status in [302, 303, 307, 308] {
        assert_eq!(redirect(status, target), Ok(Some(target.to_owned())));
    }
    assert_eq!(redirect(302, "//a.logs.example/x"), Ok(Some("https://a.logs.example/x".to_owned())));
    for status in [200, 206, 300, 301, 304, 305, 404] {
        assert_eq!(redirect(status, target), Ok(None), "{status}");
    }
    for location in
        ["", "/v1/other", "https://api.example/x", "https://API.example:443/x", "https:\\\\a.logs.example"]
    {
        assert_eq!(redirect(302, location), Ok(None), "{location}");
    }
    for (location, why) in [
        ("https://b.logs.example/x", OriginRefusal::NotAllowed),
        ("https://a.logs.example:8443/x", OriginRefusal::NotNamed),
        ("https://elsewhere.example/x", OriginRefusal::NotNamed),
        ("http://a.logs.example/x", OriginRefusal::NotEncrypted),
        ("http://api.example/x", OriginRefusal::NotEncrypted),
    ] {
        assert_eq!(redirect(302, location), Err(why), "{location}");
    }
}

#[test]
fn request_elsewhere_shows_its_origin_in_place_of_its_path() {
    let origins = origins(&["https://a.example"], &[], &["https://a.example"]);
    let (request, allowed) = origins.locate("https://a.example/hush?sig=hush#hush").unwrap();
    assert_eq!(request.uri(), "https://a.example/hush?sig=hush");
    assert_eq!(allowed.origin(), "https://a.example");
    assert_eq!(crate::vendors::Asked::of(&request).to_string(), "GET at https://a.example");
}

/// What an attacker would try, in any order, among anything else.
fn hostile() -> impl Strategy<Value = String> {
    let words = [
        "https://",
        "http:",
        "https:",
        "files.example",
        "evil.example",
        "10.0.0.1",
        "//",
        "/",
        "\\",
        "..",
        "%2e",
        "%2f",
        "@",
        ":",
        ":443",
        "?",
        "#",
        "\t",
        ".",
        "*",
    ];
    let piece = prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,3}",
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_location_leads_to_an_origin_that_is_not_allowed(rest in hostile(), prefix in any::<bool>()) {
        let location = if prefix { format!("https://files.example{rest}") } else { rest };
        let origins = origins(&["https://*"], &["https://*"], &["https://files.example"]);
        if let Ok((request, _)) = origins.locate(&location) {
            prop_assert_eq!(request.uri().scheme_str(), Some("https"));
            prop_assert_eq!(request.uri().authority().map(http::uri::Authority::as_str), Some("files.example"));
            let sent = Url::parse(&request.uri().to_string()).unwrap();
            prop_assert_eq!(sent.origin().ascii_serialization(), "https://files.example");
        }
        if let Ok(location) = http::HeaderValue::from_str(&location) {
            let own: Uri = "https://api.example/log".parse().unwrap();
            let head = Response::builder().status(302).header(header::LOCATION, location).body(Bytes::new()).unwrap();
            if let Ok(Some((request, _))) = origins.redirect(&own, &head) {
                prop_assert_eq!(request.uri().authority().map(http::uri::Authority::as_str), Some("files.example"));
            }
        }
    }
}
