//! What an open download reads, and how fast its reader takes it.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, Permit as Room},
    time::{Instant, sleep},
};

use super::{DownloadFailure, FileFault, Reporter};
use crate::{
    engine::download_slots::DownloadSlots,
    snapshot::Charge,
    transport::{File, FileVersion},
};

/// How long a download may stand without its reader taking a piece.
pub(super) const READER_TIMEOUT: Duration = Duration::from_mins(10);

/// How long a reader may take for [`PIECE`] bytes while another download waits for a slot,
/// and how often that is looked at.
pub(super) const SLOW: Duration = Duration::from_mins(1);
const LOOK: Duration = Duration::from_secs(1);

/// Most bytes of a piece.
pub(super) const PIECE: usize = 64 << 10;

/// The end is said, so that a channel that just closes is not taken for it.
pub(super) type Piece = Result<Option<Bytes>, DownloadFailure>;

/// Where the bytes come from.
pub(super) enum Source {
    File(File),
    /// A copy of a part of a response.
    Held {
        rest: Bytes,
        size: u64,
        content_type: &'static str,
        version: FileVersion,
        /// Counts the bytes as held for statuses.
        _charge: Charge,
    },
}

impl Source {
    pub(super) fn content_type(&self) -> &str {
        match self {
            Self::File(file) => file.content_type(),
            Self::Held { content_type, .. } => content_type,
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Self::File(file) => file.size(),
            Self::Held { size, .. } => Some(*size),
        }
    }

    pub(super) fn version(&self) -> &FileVersion {
        match self {
            Self::File(file) => file.version(),
            Self::Held { version, .. } => version,
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, FileFault> {
        match self {
            Self::File(file) => file.next().await,
            Self::Held { rest, .. } if rest.is_empty() => Ok(None),
            Self::Held { rest, .. } => Ok(Some(rest.split_to(rest.len().min(PIECE)))),
        }
    }
}

/// Who takes the pieces, and how fast.
pub(super) struct Reader {
    pieces: mpsc::Sender<Piece>,
    slots: Arc<DownloadSlots>,
    /// Bytes to take within [`SLOW`].
    owed: usize,
    /// How long they have been waited for.
    waited: Duration,
}

impl Reader {
    pub(super) fn new(pieces: mpsc::Sender<Piece>, slots: &Arc<DownloadSlots>) -> Self {
        Self { pieces, slots: Arc::clone(slots), owed: PIECE, waited: Duration::ZERO }
    }

    /// Waits until it takes the next piece; `None` when nobody reads any more.
    async fn room(&mut self) -> Result<Option<Room<'_, Piece>>, DownloadFailure> {
        let began = Instant::now();
        let mut looked = began;
        let mut room = std::pin::pin!(self.pieces.reserve());
        loop {
            let pause = SLOW.saturating_sub(self.waited).max(LOOK);
            tokio::select! {
                biased;
                room = &mut room => {
                    self.waited += looked.elapsed();
                    return Ok(room.ok());
                }
                () = sleep(pause) => {
                    self.waited += looked.elapsed();
                    looked = Instant::now();
                }
            }
            let is_slow = self.waited >= SLOW && self.slots.is_wanted();
            if is_slow || began.elapsed() >= READER_TIMEOUT {
                return Err(DownloadFailure::Stalled);
            }
        }
    }

    /// Notes that it took so many bytes.
    fn took(&mut self, bytes: usize) {
        self.owed = self.owed.saturating_sub(bytes);
        if self.owed == 0 {
            (self.owed, self.waited) = (PIECE, Duration::ZERO);
        }
    }
}

/// Passes pieces on, each as soon as there is room for it. Ends, too, when nobody reads
/// any more.
pub(super) async fn relay(
    mut source: Source,
    mut reader: Reader,
    report: &Reporter,
) -> Result<(), DownloadFailure> {
    let mut last = 0;
    loop {
        reader.took(last);
        let Some(room) = reader.room().await? else { return Ok(()) };
        let Some(piece) = source.next().await.map_err(|fault| report.failure(fault, None))? else {
            return Ok(());
        };
        last = piece.len();
        room.send(Ok(Some(piece)));
    }
}
