//! What stands before every request: its deadline, the headers of its response, and the name
//! that a browser may know this address by.

use std::{net::IpAddr, time::Duration};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};

use super::{Admin, page};

/// Longest time until a response begins.
const RESPONSE_TIME: Duration = Duration::from_secs(10);

/// Ends a request that takes too long, such as one whose body does not come, and adds the
/// headers that a browser needs.
pub(super) async fn protect(request: Request, next: Next) -> Response {
    let mut response = match tokio::time::timeout(RESPONSE_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    };
    page::protect(response.headers_mut());
    response
}

/// Refuses a request under a name that is not this address's. A site that resolves its own
/// name to this address could otherwise read the page in an operator's browser.
pub(super) async fn check_host(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    match host.and_then(|host| foreign_host(host.as_bytes(), &admin.hosts)) {
        None => next.run(request).await,
        Some(host) => {
            let host = host.escape_default();
            let text = format!(
                "\"{host}\" is not a name of this address; open it by its IP address or as localhost, or add the \
                 name to admin.hosts\n"
            );
            (StatusCode::MISDIRECTED_REQUEST, text).into_response()
        }
    }
}

/// The name in a Host header, unless it is an address, localhost or one of `hosts`. A browser
/// always sends the header.
pub fn foreign_host(host: &[u8], hosts: &[String]) -> Option<String> {
    let text = String::from_utf8_lossy(host);
    // What follows is a part of the name if it is no port, such as `:x@evil.example`.
    let name = match text.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => &*text,
    };
    let (name, is_ipv6) = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => (address, true),
        None => (name, false),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let is_address = name.parse().is_ok_and(|address: IpAddr| address.is_ipv6() == is_ipv6);
    let is_local = name == "localhost" || name.ends_with(".localhost");
    let is_listed = hosts.iter().any(|host| host.eq_ignore_ascii_case(&name));
    (!is_address && !is_local && !is_listed).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_localhost_and_listed_names_are_hosts() {
        let hosts = ["jobwatch.internal".to_owned()];
        let foreign = |host: &str| foreign_host(host.as_bytes(), &hosts);
        for host in [
            "127.0.0.1:9090",
            "127.0.0.1",
            "[::1]:9090",
            "[::1]",
            "192.0.2.7:80",
            "localhost",
            "LOCALHOST:9090",
            "a.localhost:1",
            "jobwatch.internal:9090",
            "JobWatch.Internal.",
        ] {
            assert_eq!(foreign(host), None, "{host}");
        }
        for (host, name) in [
            ("evil.example:9090", "evil.example"),
            ("127.0.0.1.evil.example", "127.0.0.1.evil.example"),
            ("localhost.evil.example", "localhost.evil.example"),
            ("jobwatch.internal.evil.example", "jobwatch.internal.evil.example"),
            ("[127.0.0.1]", "127.0.0.1"),
            ("[evil", "[evil"),
            ("[::1]x.evil.example", "[::1]x.evil.example"),
            ("localhost:x@evil.example", "localhost:x@evil.example"),
            ("localhost:x@evil.example:80", "localhost:x@evil.example"),
            ("", ""),
        ] {
            assert_eq!(foreign(host).as_deref(), Some(name), "{host}");
        }
    }
}
