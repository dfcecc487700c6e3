use super::*;

fn settings(base_url: &str, key_in_path: Option<&'static str>) -> Settings {
    let secret = Some("credentials.password from the variable P".to_owned());
    Settings { base_url: base_url.parse().unwrap(), key_in_path, secret, proxy: "HTTPS_PROXY" }
}

pub(super) fn of_head(base_url: &str, path: &str, status: u16, headers: &[(&str, &str)]) -> (Wrong, String) {
    let settings = settings(base_url, path.starts_with("/demo/").then_some("tenant"));
    let uri = settings.base_url.join(path);
    let mut head = Response::builder().status(status);
    for (name, value) in headers {
        head = head.header(*name, *value);
    }
    settings.of_head(&settings.base_url, &uri, &head.body(Bytes::new()).unwrap())
}

#[test]
fn redirect_is_told_with_its_target_and_the_address_to_write() {
    for (base_url, location, wrong, expected) in [
        (
            "http://v.example",
            "https://v.example/jobs",
            Wrong::Address,
            "write base_url = \"https://v.example\"",
        ),
        (
            "http://v.example/x/",
            "https://v.example/x/jobs/",
            Wrong::Address,
            "write base_url = \"https://v.example/x\"",
        ),
        (
            "https://v.example",
            "https://www.v.example/jobs?a=hush",
            Wrong::Address,
            "write base_url = \"https://www.v.example\"",
        ),
        ("http://v.example", "https://v.example/", Wrong::Address, "write https:// in base_url"),
        (
            "https://v.example",
            "/app",
            Wrong::Path,
            "it redirects to https://v.example/app; write the address",
        ),
        (
            "https://v.example",
            "/login?next=hush",
            Wrong::Credentials,
            "it leads to the login page https://v.example/login; replace",
        ),
        (
            "https://v.example",
            "https://me:hush@sso.example/login",
            Wrong::Address,
            "it redirects to https://sso.example/login;",
        ),
        ("https://v.example", "", Wrong::Path, "write base_url"),
    ] {
        let (told, advice) = of_head(base_url, "/jobs", 302, &[("location", location)]);
        assert_eq!(told, wrong, "{location}: {advice}");
        assert!(advice.contains(expected) && !advice.contains("hush"), "{location}: {advice}");
    }
}

#[test]
fn missing_path_is_the_tenant_where_one_stands_in_it() {
    let page = [("content-type", "text/html; charset=utf-8")];
    for (base_url, path, status, headers, wrong, expected) in [
        ("https://v.example", "/demo/api", 404, &[][..], Wrong::Tenant, "check tenant, which is \"demo\""),
        ("https://v.example/api", "/demo/api", 404, &[], Wrong::Path, "base_url has a path"),
        ("https://v.example", "/jobs", 404, &[], Wrong::Path, "check base_url"),
        ("https://v.example", "/jobs", 405, &[], Wrong::Path, "check base_url"),
        ("https://v.example", "/jobs", 200, &page, Wrong::Address, "an HTML page came"),
        ("https://v.example", "/demo/api", 200, &page, Wrong::Address, "a login page of the network"),
        ("https://v.example", "/jobs", 404, &page, Wrong::Path, "an HTML page came"),
        ("https://v.example", "/jobs", 403, &page, Wrong::Other, "a firewall or a proxy"),
        ("https://v.example", "/jobs", 403, &[], Wrong::Permission, "the permission"),
        (
            "https://v.example",
            "/jobs",
            401,
            &[],
            Wrong::Credentials,
            "credentials.password from the variable P",
        ),
        ("https://v.example", "/jobs", 407, &[], Wrong::Proxy, "check HTTPS_PROXY"),
        ("http://v.example", "/jobs", 400, &page, Wrong::Tls, "write https:// in base_url"),
        ("https://v.example", "/jobs", 400, &[], Wrong::Other, "check that base_url is this vendor's API"),
    ] {
        let (told, advice) = of_head(base_url, path, status, headers);
        assert_eq!(told, wrong, "{base_url} {status}: {advice}");
        assert!(advice.contains(expected), "{base_url} {status}: {advice}");
    }
}

#[test]
fn fault_is_told_by_what_had_come_of_the_response() {
    let unreachable = |why: &str| BackendFault::from(FaultKind::Unreachable { why: why.to_owned() });
    let cut = || BackendFault::from(FaultKind::Unavailable { why: "no whole response within 2s".to_owned() });
    let after = |exchange: &str| BackendFault { exchange: Some(exchange.into()), ..cut() };
    let throttled = BackendFault::from(FaultKind::Throttled);
    let wait = throttled.clone().with_retry_after(Some(std::time::Duration::from_millis(20_500)));
    for (fault, wrong, expected) in [
        (unreachable("no connection: the proxy: Connection refused"), Wrong::Proxy, "check HTTPS_PROXY"),
        (unreachable("no connection: Connection refused"), Wrong::Address, "nothing listens there"),
        (after("POST /jobs"), Wrong::Address, "check base_url"),
        (after("POST /jobs: HTTP 200"), Wrong::Other, "raise poll.timeout"),
        (FaultKind::TooLarge.into(), Wrong::Other, "raise poll.max_response_bytes"),
        (throttled, Wrong::Other, "try again later"),
        (wait, Wrong::Other, "try again in 21 s"),
    ] {
        let settings = settings("http://v.example", None);
        let (told, advice) = settings.of_fault(&settings.base_url, &fault);
        assert_eq!(told, wrong, "{fault}: {advice}");
        assert!(advice.contains(expected), "{fault}: {advice}");
    }
}

#[test]
fn failed_connection_is_told_by_its_reason() {
    for (base_url, why, wrong) in [
        ("https://v", "no connection: Connection refused (os error 111)", Wrong::Address),
        (
            "https://v",
            "no connection: failed to lookup address information: Name or service not known",
            Wrong::Address,
        ),
        ("https://v", "connecting took too long", Wrong::Address),
        ("https://v", "no connection: invalid peer certificate: UnknownIssuer", Wrong::Tls),
        (
            "https://v",
            "no connection: invalid peer certificate: certificate not valid for name \"v\"",
            Wrong::Tls,
        ),
        ("https://v", "no connection: invalid peer certificate: certificate expired: ...", Wrong::Tls),
        ("https://v", "no connection: received corrupt message of type InvalidContentType", Wrong::Tls),
        ("https://v", "no connection: received fatal alert: HandshakeFailure", Wrong::Tls),
        ("http://v", "the connection broke: invalid HTTP version parsed", Wrong::Tls),
        ("http://v", "the connection broke: connection closed", Wrong::Address),
    ] {
        assert_eq!(of_connection(&base_url.parse().unwrap(), why).0, wrong, "{why}");
    }
}

#[test]
fn certificate_of_an_authority_is_told_from_one_of_an_unknown_authority() {
    let base_url = "https://v.example".parse().unwrap();
    for (why, expected) in [
        (
            "no connection: invalid peer certificate: Other(OtherError(CaUsedAsEndEntity))",
            "have the certificate replaced",
        ),
        ("no connection: invalid peer certificate: UnknownIssuer", "write ca = "),
        ("no connection: tls handshake eof", "write http:// in base_url"),
    ] {
        let (wrong, advice) = of_connection(&base_url, why);
        assert_eq!(wrong, Wrong::Tls);
        assert!(advice.contains(expected), "{why}: {advice}");
    }
}
