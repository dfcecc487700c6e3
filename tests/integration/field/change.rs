//! Changes to a vendor's response on the way to the gateway, on any HTTP version.

use std::{convert::Infallible, io, io::Write, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

pub(super) type ChangedBody = BoxBody<Bytes, io::Error>;

/// Larger than `max_response_bytes` of every backend here.
const TOO_LARGE: usize = 1 << 20;

/// How long the half of a truncated body is on its way before the connection breaks.
const UNTIL_SENT: Duration = Duration::from_millis(50);

/// What becomes of a body. Its announced length stays the whole one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Delivery {
    #[default]
    Whole,
    /// Ends after the first half, and the response with it.
    Truncated,
    /// Nothing comes after the first half; the connection stays open.
    Stalled,
    /// Is much longer, with or without an announced length.
    TooLarge { announced: bool },
}

/// The value of a header.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    /// So many seconds after the response, in this form.
    Time(i64, &'static str),
}

impl Value {
    fn now(&self) -> HeaderValue {
        let text = match self {
            Self::Text(text) => text.clone(),
            Self::Time(seconds, form) => {
                let time = Timestamp::now() + SignedDuration::from_secs(*seconds);
                time.strftime(form).to_string()
            }
        };
        HeaderValue::from_str(&text).unwrap()
    }
}

/// A response instead of the vendor's: the vendor's own, but for what is set here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Change {
    status: Option<u16>,
    removed: Vec<&'static str>,
    headers: Vec<(&'static str, Value)>,
    body: Option<Bytes>,
    /// Comes before the body.
    prefix: &'static [u8],
    /// How many members of gzip the body is compressed to.
    gzip_members: usize,
    delivery: Delivery,
}

impl Change {
    /// The vendor's response as it is.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// A page for people with this status, as balancers send it.
    pub(crate) fn page(status: u16) -> Self {
        let page = format!("<html><head><title>{status}</title></head><body>BODY</body></html>\n");
        Self::none().status(status).body("text/html; charset=UTF-8", page)
    }

    /// This status and an empty JSON object.
    pub(crate) fn json(status: u16, body: impl Into<String>) -> Self {
        Self::none().status(status).body("application/json", body)
    }

    pub(crate) fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The status, if it is one of a failure.
    pub(super) fn failure(&self) -> Option<u16> {
        self.status.filter(|status| !(200..300).contains(status))
    }

    /// One more header line.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, Value::Text(value.into())));
        self
    }

    /// One more header line, with the time of so many seconds after the response in this
    /// form of `strftime`.
    pub(crate) fn time_header(mut self, name: &'static str, seconds: i64, form: &'static str) -> Self {
        self.headers.push((name, Value::Time(seconds, form)));
        self
    }

    /// Without the vendor's header.
    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.removed.push(name);
        self
    }

    pub(crate) fn body(self, content_type: &str, body: impl Into<String>) -> Self {
        let mut changed = self.content_type(content_type);
        changed.body = Some(body.into().into());
        changed
    }

    pub(crate) fn content_type(self, content_type: &str) -> Self {
        self.without("content-type").header("content-type", content_type)
    }

    /// The body after these bytes.
    pub(crate) fn prefix(mut self, prefix: &'static [u8]) -> Self {
        self.prefix = prefix;
        self
    }

    /// The body compressed, in so many members, under this name of the coding.
    pub(crate) fn gzip(mut self, label: &str, members: usize) -> Self {
        self.gzip_members = members;
        self.header("content-encoding", label)
    }

    /// A body that is not compressed, as the header says.
    pub(crate) fn mislabelled(self) -> Self {
        self.header("content-encoding", "gzip")
    }

    pub(crate) fn truncated(mut self) -> Self {
        self.delivery = Delivery::Truncated;
        self
    }

    pub(crate) fn stalled(mut self) -> Self {
        self.delivery = Delivery::Stalled;
        self
    }

    pub(crate) fn too_large(mut self, announced: bool) -> Self {
        self.delivery = Delivery::TooLarge { announced };
        self
    }

    /// The vendor's response with the change.
    pub(super) fn apply(&self, response: Response<Bytes>) -> Response<ChangedBody> {
        let (mut parts, body) = response.into_parts();
        if let Some(status) = self.status {
            parts.status = StatusCode::from_u16(status).unwrap();
        }
        for name in &self.removed {
            parts.headers.remove(*name);
        }
        for (name, value) in &self.headers {
            parts.headers.append(HeaderName::from_static(name), value.now());
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        let body = self.body.clone().unwrap_or(body);
        let mut body = Bytes::from([self.prefix, &body].concat());
        if self.gzip_members > 0 {
            body = gzip(&body, self.gzip_members);
        }
        if let Delivery::TooLarge { .. } = self.delivery {
            body = Bytes::from([&*body, &vec![b' '; TOO_LARGE]].concat());
        }
        if self.delivery != (Delivery::TooLarge { announced: false }) {
            parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
        }
        Response::from_parts(parts, self.deliver(body))
    }

    fn deliver(&self, body: Bytes) -> ChangedBody {
        let half = body.slice(..body.len() / 2);
        let half = stream::iter([Ok(Frame::data(half))]);
        match self.delivery {
            Delivery::Whole | Delivery::TooLarge { announced: true } => {
                Full::new(body).map_err(|never: Infallible| match never {}).boxed()
            }
            Delivery::TooLarge { announced: false } => {
                BodyExt::boxed(StreamBody::new(stream::iter([Ok(Frame::data(body))])))
            }
            Delivery::Truncated => {
                // An end at once would take the head with it.
                let end = stream::once(async {
                    sleep(UNTIL_SENT).await;
                    Err(io::ErrorKind::BrokenPipe.into())
                });
                BodyExt::boxed(StreamBody::new(stream::StreamExt::chain(half, end)))
            }
            Delivery::Stalled => {
                BodyExt::boxed(StreamBody::new(stream::StreamExt::chain(half, stream::pending())))
            }
        }
    }
}

/// The bytes in so many members of gzip.
fn gzip(bytes: &[u8], members: usize) -> Bytes {
    let mut compressed = Vec::new();
    for member in bytes.chunks(bytes.len().div_ceil(members).max(1)) {
        let mut encoder = GzEncoder::new(&mut compressed, Compression::default());
        encoder.write_all(member).unwrap();
        encoder.finish().unwrap();
    }
    compressed.into()
}
