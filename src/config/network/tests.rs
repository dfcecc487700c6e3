//! Tests of the keys about the network.

use super::*;
use crate::config::{Backend, Config};

fn parse(keys: &str, variables: &[(&str, &str)]) -> Result<Backend, String> {
    let text = format!("[backends.db]\nvendor = \"kinetica\"\nbase_url = \"https://db.example\"\n{keys}");
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let config = Config::parse(&text, variables.collect::<Vec<_>>());
    config.map(|mut config| config.backends.remove(0)).map_err(|invalid| invalid.to_string())
}

fn login(proxy: &Proxy) -> Option<String> {
    let value = proxy.authorization.as_ref()?;
    assert!(value.is_sensitive());
    let login = BASE64_STANDARD.decode(value.to_str().unwrap().strip_prefix("Basic ").unwrap());
    Some(String::from_utf8(login.unwrap()).unwrap())
}

#[test]
fn proxy_of_a_backend_replaces_that_of_the_environment() {
    let variables = [("HTTPS_PROXY", "http://other.example:1"), ("PASSWORD", "p@ss:w#rd")];
    for (keys, uri, expected) in [
        ("proxy = \"http://proxy.example:3128\"", "http://proxy.example:3128/", None),
        ("proxy = \"proxy.example:3128\"", "http://proxy.example:3128/", None),
        ("proxy = \"HTTPS://u%40x@[::1]:3128/\"", "https://[::1]:3128/", Some("u@x:")),
        (
            "proxy = \"http://me@proxy:8080\"\nproxy_password = { env = \"PASSWORD\" }",
            "http://proxy:8080/",
            Some("me:p@ss:w#rd"),
        ),
    ] {
        let Proxies::Own(proxy) = parse(keys, &variables).unwrap().network.proxy else { panic!("{keys}") };
        assert_eq!(proxy.uri, uri);
        assert_eq!(login(&proxy).as_deref(), expected);
        assert!(!format!("{proxy:?}").contains("me"), "{proxy:?}");
    }
    let none = parse("proxy = \"none\"", &[("HTTPS_PROXY", "\"hush\"")]).unwrap();
    assert!(matches!(none.network.proxy, Proxies::None));
}

#[test]
fn proxy_variables_are_read_as_curl_reads_them() {
    let proxies = |variables: &[(&str, &str)]| match parse("", variables).unwrap().network.proxy {
        Proxies::Environment { http, https, no_proxy } => {
            let uri = |proxy: Option<Proxy>| proxy.map(|proxy| proxy.uri.to_string());
            (uri(http), uri(https), no_proxy)
        }
        other => panic!("{other:?}"),
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(proxies(&[]), (None, None, String::new()));
    assert_eq!(
        proxies(&[("all_proxy", "http://a:1"), ("HTTPS_PROXY", "b:2"), ("NO_PROXY", "x, y")]),
        (some("http://a:1/"), some("http://b:2/"), "x, y".to_owned())
    );
    assert_eq!(proxies(&[("HTTP_PROXY", ""), ("http_proxy", "http://a")]), (None, None, String::new()));
    let cgi = parse("", &[("HTTP_PROXY", "http://a"), ("REQUEST_METHOD", "GET")]).unwrap();
    assert!(matches!(cgi.network.proxy, Proxies::None));
}

#[test]
fn unusable_proxy_variable_is_refused_by_name_without_its_value() {
    for (value, expected) in [
        ("\"http://hush:3128\"", "begins or ends with a quote"),
        ("'http://hush:3128'", "begins or ends with a quote"),
        ("http://hush:3128\"", "begins or ends with a quote"),
        ("http://hush:3128 ", "has white space around its value"),
        ("\thttp://hush:3128", "has white space around its value"),
        ("http://hush:3128\n", "has white space around its value"),
        ("http://hu sh:3128", "holds white space, a quote"),
        ("http://me:hu@sh@proxy:3128", "holds more than one '@': write %40"),
        ("http://me:hu/sh@proxy:3128", "has a path, or a '/', '?' or '#'"),
        ("http://me:1#hush@proxy:3128", "has a path, or a '/', '?' or '#'"),
        ("http://me:hush%@proxy:3128", "holds a '%' that escapes nothing; write %25"),
        ("http://me:hush%ff@proxy:3128", "has escapes that are not UTF-8"),
        ("http://:hush@proxy:3128", "has an empty user name"),
        ("socks5://hush:3128", "is not the URL of an HTTP proxy"),
        ("ftp://hush:3128", "is not the URL of an HTTP proxy"),
        ("http://", "has no valid host and port"),
        ("http://hush:port", "has no valid host and port"),
        ("http://hush:99999", "has no valid host and port"),
    ] {
        for name in ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"] {
            let error = parse("", &[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("{name} {expected}")), "{value}: {error}");
            assert!(!error.contains("hu") && error.lines().count() == 1, "{error}");
        }
    }
    assert!(parse("", &[("NO_PROXY", "'a,b'")]).unwrap_err().starts_with("NO_PROXY begins or ends"));
}

#[test]
fn unusable_network_key_is_refused_with_what_to_write() {
    for (keys, expected) in [
        ("proxy = \"\"", "backends.db.proxy is empty; write a URL such as"),
        ("proxy = 3128", "backends.db.proxy can't be used; write a URL such as"),
        ("proxy = \"socks5://a\"", "backends.db.proxy is not the URL of an HTTP proxy"),
        ("proxy = \"http://me:hush@a\"", "backends.db.proxy holds a password; write it as proxy_password"),
        (
            "proxy_password = \"hush\"",
            "backends.db.proxy_password is set, but backends.db.proxy names no user",
        ),
        (
            "proxy = \"http://a\"\nproxy_password = { env = \"P\" }",
            "backends.db.proxy_password is set, but backends.db.proxy names no user",
        ),
        (
            "proxy = \"http://me@a\"\nproxy_password = \"hush\"",
            "backends.db.proxy_password is a secret in the file",
        ),
        (
            "proxy = \"http://me@a\"\nproxy_password = { env = \"P\" }",
            "backends.db.proxy_password is the variable P, which is not set",
        ),
        ("ca = \"\"", "backends.db.ca is missing; write the path of a PEM file"),
        ("ca = \"/no/such.pem\"", "backends.db.ca is the file /no/such.pem, which can't be read"),
        ("headers = \"X-Tenant: a\"", "backends.db.headers can't be used; write a table such as"),
        (
            "headers = { \"X Tenant\" = \"a\" }",
            "backends.db.headers.\"X Tenant\" is not the name of a header",
        ),
        ("headers.Authorization = \"hush\"", "backends.db.headers.Authorization is set from credentials"),
        (
            "headers.proxy-authorization = \"hush\"",
            "backends.db.headers.proxy-authorization is set from proxy",
        ),
        ("headers.HOST = \"a\"", "backends.db.headers.HOST is set by the gateway; remove it"),
        ("headers.Content-Length = \"1\"", "backends.db.headers.Content-Length is set by the gateway"),
        ("headers.Keep-Alive = \"1\"", "backends.db.headers.Keep-Alive is set by the gateway"),
        ("headers = { X-A = \"1\", x-a = \"2\" }", "backends.db.headers.x-a is set twice"),
        ("headers.X-A = \"hush\\n\"", "backends.db.headers.X-A holds a character that a header can't"),
        ("headers.X-A = { env = \"P\" }", "backends.db.headers.X-A is the variable P, which is not set"),
        ("headers.X-A = 1", "backends.db.headers.X-A is no text; write it in quotes"),
        ("proxi = \"none\"", "backends.db.proxi is not a key here; did you mean proxy?"),
    ] {
        let error = parse(keys, &[]).unwrap_err();
        assert!(error.starts_with(expected) && !error.contains("hush"), "{keys}: {error}");
    }
}

#[test]
fn headers_are_sensitive_and_may_come_from_the_environment() {
    let keys = "headers = { X-Tenant = \"a\", X-Gate = { env = \"GATE\" } }";
    let headers = parse(keys, &[("GATE", "two words")]).unwrap().network.headers;
    assert_eq!(
        (&headers["x-tenant"], &headers["x-gate"]),
        (&"a".parse().unwrap(), &"two words".parse().unwrap())
    );
    assert!(headers.values().all(HeaderValue::is_sensitive));
}
