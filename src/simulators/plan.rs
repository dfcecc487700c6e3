//! Plans of simulated jobs: how long a job waits and runs, and how it ends.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// What a job will do. In JSON the durations are whole milliseconds and their
/// keys end in `_ms`; every key may be left out.
///
/// All durations but `queued_for` and `running_for` count from the start and
/// don't delay the job: a job that appears late has run meanwhile.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// The vendor's id; a new one of the vendor's form if absent. An id that is in
    /// use is taken over.
    pub id: Option<String>,
    /// Kinetica's tag; a new one if absent.
    pub tag: Option<String>,
    /// Waits this long before it runs.
    #[serde(rename = "queued_for_ms", deserialize_with = "millis")]
    pub queued_for: Duration,
    /// Runs this long.
    #[serde(rename = "running_for_ms", deserialize_with = "millis")]
    pub running_for: Duration,
    /// Is unknown until then.
    #[serde(rename = "appears_after_ms", deserialize_with = "millis")]
    pub appears_after: Duration,
    /// Is unknown from then on.
    #[serde(rename = "vanishes_after_ms", deserialize_with = "some_millis")]
    pub vanishes_after: Option<Duration>,
    /// The error of a first attempt: the job runs, waits to be retried and runs
    /// again, each for a third of `running_for`.
    pub retried_after: Option<String>,
    /// How it ends.
    pub end: End,
    /// The state's word, in which it stays until a test moves it.
    pub held: Option<String>,
    /// Names of its steps (Claret).
    pub steps: Vec<String>,
    /// Its files (Claret).
    pub files: Vec<File>,
    /// Kinetica's endpoint, Claret's type; the vendor's usual one if absent.
    pub kind: Option<String>,
    /// What it is, for people (Claret).
    pub description: Option<String>,
}

/// How a job ends.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum End {
    /// It did what it should.
    Success(Outcome),
    /// It did not, with the vendor's message.
    Failure {
        /// The message.
        message: String,
    },
    /// Somebody cancelled it.
    Cancelled {
        /// How long it shows CANCELLED while it still runs (Kinetica).
        #[serde(default, rename = "still_running_for_ms", deserialize_with = "millis")]
        still_running_for: Duration,
    },
    /// It took too long (Immuta).
    Expired,
}

impl Default for End {
    fn default() -> Self {
        Self::Success(Outcome::Nothing)
    }
}

/// The result of a successful job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No result.
    #[default]
    Nothing,
    /// A JSON value, sent on character by character.
    Json(Box<RawValue>),
    /// A text. Kinetica shows it as it is where JSON should stand.
    Text(String),
    /// Bytes: Kinetica's binary encoding. In a vendor's JSON one code point a byte.
    Binary(Vec<u8>),
    /// A text of so many bytes.
    Size(usize),
}

impl Outcome {
    /// A JSON result of these very characters.
    ///
    /// # Errors
    /// If they are not JSON.
    pub fn json(text: &str) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text.to_owned()).map(Self::Json)
    }

    /// The text of [`Outcome::Size`].
    pub fn text_of_size(bytes: usize) -> String {
        "x".repeat(bytes)
    }
}

/// One file of a Claret import.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// When it is there, and under which key.
    pub category: Category,
    /// Last segment of its path.
    pub name: String,
    /// Its content.
    #[serde(default)]
    pub content: Content,
    /// The location that the job shows, in place of the simulator's own.
    #[serde(default)]
    pub location: Option<String>,
}

/// When a file is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// At once.
    Input,
    /// After half of the run.
    Staging,
    /// After success.
    Output,
    /// After the end, however it went.
    Errors,
}

/// The content of a file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// These bytes; in JSON a text.
    #[serde(deserialize_with = "text")]
    Bytes(Bytes),
    /// So many bytes, of which the one at offset `n` is [`Content::pattern`]`(n)`:
    /// a file of any size that needs no memory.
    Pattern(u64),
}

impl Content {
    /// How long it is.
    #[allow(clippy::len_without_is_empty, reason = "no caller needs it")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Pattern(len) => *len,
        }
    }

    /// The byte at `offset` of a [`Content::Pattern`]; its period is prime, so that
    /// no block equals its neighbour.
    pub fn pattern(offset: u64) -> u8 {
        u8::try_from(offset % 251).unwrap_or_default()
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Plan {
    /// A job that succeeds.
    pub fn succeeds(outcome: Outcome) -> Self {
        Self { end: End::Success(outcome), ..Self::default() }
    }

    /// A job that fails with this message.
    pub fn fails(message: impl Into<String>) -> Self {
        Self { end: End::Failure { message: message.into() }, ..Self::default() }
    }

    /// A job that is cancelled and runs on for `still_running_for`.
    pub fn is_cancelled(still_running_for: Duration) -> Self {
        Self { end: End::Cancelled { still_running_for }, ..Self::default() }
    }

    /// A job that expires.
    pub fn expires() -> Self {
        Self { end: End::Expired, ..Self::default() }
    }

    /// A job that stays in the state with this word, known to the vendor or not.
    pub fn fixed(word: impl Into<String>) -> Self {
        Self { held: Some(word.into()), ..Self::default() }
    }

    /// With this id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// With this tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = Some(tag.into());
        self
    }

    /// Waits this long before it runs.
    #[must_use]
    pub fn queued_for(mut self, time: Duration) -> Self {
        self.queued_for = time;
        self
    }

    /// Runs this long.
    #[must_use]
    pub fn running_for(mut self, time: Duration) -> Self {
        self.running_for = time;
        self
    }

    /// Is unknown until then.
    #[must_use]
    pub fn appears_after(mut self, time: Duration) -> Self {
        self.appears_after = time;
        self
    }

    /// Is unknown from then on.
    #[must_use]
    pub fn vanishes_after(mut self, time: Duration) -> Self {
        self.vanishes_after = Some(time);
        self
    }

    /// Is retried after a first attempt that ended with this error.
    #[must_use]
    pub fn retried_after(mut self, error: impl Into<String>) -> Self {
        self.retried_after = Some(error.into());
        self
    }

    /// Ends like this once it ends.
    #[must_use]
    pub fn ends(mut self, end: End) -> Self {
        self.end = end;
        self
    }

    /// With these steps.
    #[must_use]
    pub fn steps<S: Into<String>>(mut self, steps: impl IntoIterator<Item = S>) -> Self {
        self.steps = steps.into_iter().map(Into::into).collect();
        self
    }

    /// With one more file.
    #[must_use]
    pub fn file(mut self, category: Category, name: impl Into<String>, content: Content) -> Self {
        self.files.push(File { category, name: name.into(), content, location: None });
        self
    }

    /// Of this kind: Kinetica's endpoint, Claret's type.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = Some(kind.into());
        self
    }
}

pub(super) fn millis<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u64::deserialize(from).map(Duration::from_millis)
}

fn some_millis<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
}

fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
    String::deserialize(from).map(Bytes::from)
}
