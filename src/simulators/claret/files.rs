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

use super::{View, World, kind, not_found};
use crate::simulators::{
    life::Phase,
    plan::{Category, Content, File},
};

/// How much of a [`Content::Pattern`] is sent at once.
const PIECE: u64 = 64 * 1024;

/// The pattern's period.
const PERIOD: u64 = 251;

/// A piece of the pattern from any place in its period on.
static PATTERN: LazyLock<Bytes> = LazyLock::new(|| (0..PERIOD + PIECE).map(Content::pattern).collect());

#[derive(Serialize)]
pub(super) struct Listing {
    input: Vec<String>,
    staging: Vec<String>,
    output: Vec<String>,
    errors: Vec<String>,
}

impl Listing {
    pub(super) fn of(view: &View, tenant: &str) -> Self {
        let of = |category| {
            let files = present(view).filter(|file| file.category == category);
            files.map(|file| file.location.clone().unwrap_or_else(|| location(view, tenant, file))).collect()
        };
        Self {
            input: of(Category::Input),
            staging: of(Category::Staging),
            output: of(Category::Output),
            errors: of(Category::Errors),
        }
    }
}

fn present(view: &View) -> impl Iterator<Item = &File> {
    view.plan.files.iter().filter(|file| match file.category {
        Category::Input => true,
        Category::Staging => view.progress >= 50 || view.phase.has_ended(),
        Category::Output => view.phase == Phase::Succeeded,
        Category::Errors => view.phase.has_ended(),
    })
}

/// The tenant stands in it twice, as on the vendor's page.
fn location(view: &View, tenant: &str, file: &File) -> String {
    let day = view.created_at.strftime("%Y-%m-%d");
    format!("/{tenant}/download/{tenant}/user-uploads/{}/{day}/{}/{}", kind(view), view.id, file.name)
}

pub(super) async fn download(State(world): State<Arc<World>>, uri: Uri, headers: HeaderMap) -> Response {
    let tenant = uri.path().split('/').nth(1).unwrap_or_default().to_owned();
    let jobs = world.jobs.all();
    let found = jobs.iter().find_map(|view| {
        present(view)
            .find(|file| location(view, &tenant, file) == uri.path())
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
        None | Some(Asked::Unclear) => (StatusCode::OK, 0..len),
        Some(Asked::Part(part)) => (StatusCode::PARTIAL_CONTENT, part),
        Some(Asked::Outside) => {
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
        let place = format!("bytes {}-{}/{len}", part.start, part.end - 1);
        response = response.header(header::CONTENT_RANGE, place);
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

/// A place within [`PATTERN`].
fn index(place: u64) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Part(Range<u64>),
    Outside,
    /// Several parts, other units, nonsense: the whole is sent (RFC 9110, 14.2).
    Unclear,
}

fn part_of(range: &str, len: u64) -> Asked {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|part| part.split_once('-')) else {
        return Asked::Unclear;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => Asked::Unclear,
        (Ok(first), _) if first >= len => Asked::Outside,
        (Ok(first), Ok(last)) => Asked::Part(first..len.min(last.saturating_add(1))),
        (Ok(first), Err(_)) if last.is_empty() => Asked::Part(first..len),
        (Err(_), Ok(0)) if first.is_empty() => Asked::Outside,
        (Err(_), Ok(last)) if first.is_empty() && len > 0 => Asked::Part(len.saturating_sub(last)..len),
        _ => Asked::Unclear,
    }
}
