//! How long a response may send nothing, where a client that has left may go unnoticed: over HTTP
//! with JSON, whose proxies allow less, and over HTTP/1.1.

use std::time::Duration;

use tonic::Extensions;

use super::request::InvalidField;

/// The limit.
const LONGEST: Duration = Duration::from_mins(10);

/// The response to a request has this limit, as an extension of the request.
#[derive(Clone, Copy, Debug)]
pub struct SilenceLimit {
    /// The form of the request.
    form: &'static str,
}

impl SilenceLimit {
    /// That of HTTP with JSON.
    pub const JSON: Self = Self { form: "HTTP" };
    /// That of gRPC-Web over HTTP/1.1.
    pub const GRPC_WEB: Self = Self { form: "gRPC-Web over HTTP/1.1" };

    /// That of the call with these extensions, if it has one.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        extensions.get().copied()
    }

    /// Checks a time in which nothing is sent.
    ///
    /// # Errors
    /// It is longer than the limit.
    pub(super) fn check(self, field: &str, silence: Duration) -> Result<(), InvalidField> {
        if silence <= LONGEST {
            return Ok(());
        }
        let seconds = LONGEST.as_secs();
        let reason =
            format!("is too long for {}; write at most {seconds}s, and send another request", self.form);
        Err(InvalidField::new(field, &reason))
    }
}

/// A time in which nothing is sent, as a request with this limit gives it.
///
/// # Errors
/// It is longer than the limit.
pub(super) fn within(
    limit: Option<SilenceLimit>,
    field: &str,
    given: Option<Duration>,
) -> Result<Option<Duration>, InvalidField> {
    if let (Some(limit), Some(given)) = (limit, given) {
        limit.check(field, given)?;
    }
    Ok(given)
}

/// The same time, or the limit if that is shorter.
pub(super) fn reduced(limit: Option<SilenceLimit>, given: Duration) -> Duration {
    if limit.is_some() { given.min(LONGEST) } else { given }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_beyond_the_limit_is_refused_where_there_is_one() {
        let longer = LONGEST + Duration::from_nanos(1);
        for limit in [SilenceLimit::JSON, SilenceLimit::GRPC_WEB] {
            assert_eq!(within(Some(limit), "wait", Some(LONGEST)).unwrap(), Some(LONGEST));
            let refused = within(Some(limit), "wait", Some(longer)).unwrap_err();
            let reason =
                format!("is too long for {}; write at most 600s, and send another request", limit.form);
            assert_eq!((&*refused.field, refused.reason), ("wait", reason));
            assert_eq!(reduced(Some(limit), longer), LONGEST);
        }
        assert_eq!(within(None, "wait", Some(longer)).unwrap(), Some(longer));
        assert_eq!(reduced(None, longer), longer);
    }
}
