//! The files of an import: where they are, and their download, whole or in part.

use std::{
    io,
    ops::Range,
    sync::{Arc, LazyLock},
};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Serialize;

use super::{JobSnapshot, SimulatorState, kind, not_found};
use crate::simulators::{
    job_state::Phase,
    plan::{Category, Content, File},
};

/// How much of a [`Content::Pattern`] is sent at once.
const PIECE: u64 = 64 * 1024;

/// The pattern's period.
const PERIOD: u64 = 251;

/// A piece of the pattern from any offset of its period.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD + PIECE).map(Content::pattern).collect());

#[derive(Serialize)]
pub(super) struct Listing {
    input: Vec<String>,
    staging: Vec<String>,
    output: Vec<String>,
    errors: Vec<String>,
}

impl Listing {
    pub(super) fn of(snapshot: &JobSnapshot, tenant: &str) -> Self {
        let of = |category| {
            let files = present(snapshot).filter(|file| file.category == category);
            files
                .map(|file| file.location.clone().unwrap_or_else(|| location(snapshot, tenant, file)))
                .collect()
        };
        Self {
            input: of(Category::Input),
            staging: of(Category::Staging),
            output: of(Category::Output),
            errors: of(Category::Errors),
        }
    }
}

fn present(snapshot: &JobSnapshot) -> impl Iterator<Item = &File> {
    snapshot.plan.files.iter().filter(|file| match file.category {
        Category::Input => true,
        Category::Staging => snapshot.progress >= 50 || snapshot.phase.has_ended(),
        Category::Output => snapshot.phase == Phase::Succeeded,
        Category::Errors => snapshot.phase.has_ended(),
    })
}

/// The tenant stands in it twice, as on the vendor's page.
fn location(snapshot: &JobSnapshot, tenant: &str, file: &File) -> String {
    let day = snapshot.created_at.strftime("%Y-%m-%d");
    format!("/{tenant}/download/{tenant}/user-uploads/{}/{day}/{}/{}", kind(snapshot), snapshot.id, file.name)
}

pub(super) async fn download(
    State(state): State<Arc<SimulatorState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let tenant = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    let jobs = state.jobs.all();
    let found = jobs.iter().find_map(|snapshot| {
        present(snapshot)
            .find(|file| location(snapshot, &tenant, file) == uri.path())
            .map(|file| file.content.clone())
    });
    match found {
        Some(content) => send(content, headers.get(header::RANGE).and_then(|range| range.to_str().ok())),
        None => not_found(uri).await,
    }
}

fn send(content: Content, range: Option<&str>) -> Response {
    let len = content.len();
    let (status, part) = match range.map(|range| part_of(range, len)) {
        None | Some(StatusRequest::Unclear) => (StatusCode::OK, 0..len),
        Some(StatusRequest::Part(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(StatusRequest::Outside) => {
            let whole = format!("bytes */{len}");
            return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, whole)]).into_response();
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/csv; charset=UTF-8")
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, part.end - part.start);
    if status == StatusCode::PARTIAL_CONTENT {
        let offset = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        response = response.header(header::CONTENT_RANGE, offset);
    }
    response.body(body(content, part)).expect("the headers above are all legal")
}

fn body(content: Content, part: Range<u64>) -> Body {
    match content {
        Content::Bytes(bytes) => {
            let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
            Body::from(bytes.slice(at(part.start)..at(part.end)))
        }
        Content::Pattern(_) => Body::from_stream(stream::unfold(part, |part| async move {
            let end = part.end.min(part.start + PIECE);
            let (from, len) = (part.start % PERIOD, end - part.start);
            let piece = PATTERN.slice(index(from)..index(from + len));
            (len > 0).then_some((Ok::<_, io::Error>(piece), end..part.end))
        })),
    }
}

/// An index within [`PATTERN`].
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// The range of a Range header.
#[derive(Debug, PartialEq, Eq)]
enum StatusRequest {
    Part(Range<u64>),
    Outside,
    /// Several parts, other units, nonsense: the whole is sent (RFC 9110, 14.2).
    Unclear,
}

fn part_of(range: &str, len: u64) -> StatusRequest {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|part| part.split_once('-')) else {
        return StatusRequest::Unclear;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => StatusRequest::Unclear,
        (Ok(first), _) if first >= len => StatusRequest::Outside,
        (Ok(first), Ok(last)) => StatusRequest::Part(first..len.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => StatusRequest::Part(first..len),
        (Err(_), Ok(0)) if first.is_empty() => StatusRequest::Outside,
        (Err(_), Ok(last)) if first.is_empty() && len > 0 => {
            StatusRequest::Part(len.saturating_sub(last)..len)
        }
        _ => StatusRequest::Unclear,
    }
}
