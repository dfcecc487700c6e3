//! The names of operations: `backends/{backend}/jobs/{job_id}`, and with a tag
//! `backends/{backend}/jobs/{job_id}/tags/{job_tag}`. Each part is percent-encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::NAME;
use crate::{api::request::InvalidField, job::JobRef, proto::v1 as pb};

/// What is not written as it is: all but the unreserved characters of URLs.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// In place of a backend: all of them.
pub(super) const ALL: &str = "-";

/// The job that an operation of this name stands for.
pub(super) fn job(name: &str) -> Result<pb::JobRef, InvalidField> {
    let parts: Vec<&str> = name.split('/').collect();
    let (backend, job_id, job_tag) = match parts[..] {
        ["backends", backend, "jobs", id] => (backend, id, ""),
        ["backends", backend, "jobs", id, "tags", tag] => (backend, id, tag),
        _ => {
            return Err(InvalidField::new(
                NAME,
                "is not that of an operation; write backends/BACKEND/jobs/JOB_ID, with percent-encoding within \
                 its parts",
            ));
        }
    };
    Ok(pb::JobRef { backend: decoded(backend)?, job_id: decoded(job_id)?, job_tag: decoded(job_tag)? })
}

/// The name of a job's operation.
pub(super) fn of(job: &JobRef) -> String {
    let JobRef { backend, id, tag, .. } = job;
    let encoded = |text| utf8_percent_encode(text, ENCODED);
    let name = format!("{}/jobs/{}", of_backend(backend), encoded(id));
    match tag {
        Some(tag) => format!("{name}/tags/{}", encoded(tag)),
        None => name,
    }
}

/// The backend whose operations a list of this name has; empty for all.
pub(super) fn backend(name: &str) -> Result<String, InvalidField> {
    match name.split('/').collect::<Vec<_>>()[..] {
        [""] | ["backends", ALL] => Ok(String::new()),
        ["backends", backend] if !backend.is_empty() => decoded(backend),
        _ => Err(InvalidField::new(NAME, "has no operations; write backends/BACKEND, or backends/- for all")),
    }
}

/// The name of a backend.
pub(super) fn of_backend(backend: &str) -> String {
    format!("backends/{}", utf8_percent_encode(backend, ENCODED))
}

fn decoded(part: &str) -> Result<String, InvalidField> {
    let decoded = percent_decode_str(part).decode_utf8();
    let decoded = decoded.map_err(|_| InvalidField::new(NAME, "is not UTF-8 in percent-encoding"))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn name_that_is_no_operations_is_refused() {
        for name in
            ["", "operations/1", "backends/b", "backends/b/jobs", "backends/b/jobs/1/2", "/backends/b/jobs/1"]
        {
            let invalid = job(name).unwrap_err();
            assert_eq!(invalid.field, "name");
            assert!(invalid.reason.contains("write backends/BACKEND/jobs/JOB_ID"), "{}", invalid.reason);
        }
        assert!(job("backends/b/jobs/%ff").unwrap_err().reason.contains("not UTF-8"));
    }

    #[test]
    fn list_names_one_backend_or_all() {
        for (name, wanted) in [("", ""), ("backends/-", ""), ("backends/immuta-prod", "immuta-prod")] {
            assert_eq!(backend(name).unwrap(), wanted);
        }
        for name in ["backends", "backends/", "operations", "backends/b/jobs"] {
            assert!(backend(name).unwrap_err().reason.contains("write backends/BACKEND"), "{name}");
        }
    }

    proptest! {
        #[test]
        fn name_of_any_job_is_read_as_that_job(
            backend in "[a-z0-9._-]{1,9}", id in "(?s).{1,20}", tag in proptest::option::of("(?s).{1,9}"),
        ) {
            let named = JobRef::new(&*backend, &*id);
            let named = match &tag { Some(tag) => named.with_tag(&**tag), None => named };
            let read = job(&of(&named)).unwrap();
            prop_assert_eq!((read.backend, read.job_id, read.job_tag), (backend, id, tag.unwrap_or_default()));
        }
    }
}
