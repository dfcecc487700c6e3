//! The `Host` of a request over HTTP/1.1, as RFC 9112, section 3.2 requires it.

use http::{Version, header, request, uri::Authority};
use tonic::Status;

use crate::api;

/// Checks that a request names its host once, and by what can be a name. HTTP/1.0 has none.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(head: &request::Parts) -> Result<(), Status> {
    let mut given = head.headers.get_all(header::HOST).iter();
    let Some(host) = given.next() else {
        return match head.version {
            Version::HTTP_11 => Err(api::of_bad_host("is missing; HTTP/1.1 requires one")),
            _ => Ok(()),
        };
    };
    if given.next().is_some() {
        return Err(api::of_bad_host("is given twice; send it once"));
    }
    // That of a request whose target has none.
    if host.is_empty() {
        return Ok(());
    }
    match Authority::try_from(host.as_bytes()) {
        Ok(authority) if !authority.as_str().contains('@') => Ok(()),
        _ => Err(api::of_bad_host(
            "is no name or address, with or without a port; send one such as localhost:50051",
        )),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn host_is_one_name_or_address() {
        let check = |version, hosts: &[&str]| {
            let request = Request::builder().version(version);
            let request = hosts.iter().fold(request, |request, host| request.header("host", *host));
            check(&request.body(()).unwrap().into_parts().0).map_err(|status| status.message().to_owned())
        };
        let (zero, one) = (Version::HTTP_10, Version::HTTP_11);
        for (version, hosts) in
            [(one, &["localhost:50051"][..]), (one, &["[::1]:1"]), (one, &[""]), (zero, &[]), (zero, &["a"])]
        {
            assert_eq!(check(version, hosts), Ok(()), "{version:?} {hosts:?}");
        }
        for (version, hosts, problem) in [
            (one, &[][..], "is missing"),
            (one, &["a", "a"], "is given twice"),
            (zero, &["a", "b"], "is given twice"),
            (one, &["a b"], "is no name or address"),
            (one, &["a/b"], "is no name or address"),
            (one, &["user@a"], "is no name or address"),
        ] {
            let message = check(version, hosts).unwrap_err();
            assert!(message.contains(problem), "{hosts:?}: {message}");
        }
    }
}
