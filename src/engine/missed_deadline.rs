//! Whose deadline ended a call, and what it ended.

/// A deadline that has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MissedDeadline {
    /// The caller's, before there was a status to return.
    #[error("the caller's deadline passed before the vendor answered")]
    Answer,
    /// The server's, of a call that has none of its own.
    #[error("server.default_deadline passed before the vendor answered; the caller set no deadline")]
    DefaultAnswer,
    /// The caller's, of a watch that could have gone on.
    #[error("the caller's deadline ended the watch; resume it with the last resume_token, or set none")]
    Watch,
    /// The caller's, before the file was complete.
    #[error("the caller's deadline ended the download; continue it with an offset")]
    Download,
    /// The caller's.
    #[error("the caller's deadline passed")]
    Call,
    /// The server's, of a response over HTTP/1.1 that has not begun.
    #[error("the response did not begin in the longest time that HTTP/1.1 has here; send the request again")]
    Silence,
}

impl MissedDeadline {
    /// Whose deadline it was: the caller's, or the server's default.
    pub fn owner(self) -> &'static str {
        match self {
            Self::DefaultAnswer | Self::Silence => "server",
            Self::Answer | Self::Watch | Self::Download | Self::Call => "caller",
        }
    }
}
