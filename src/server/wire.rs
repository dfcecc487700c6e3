//! The bytes of one connection, on their way between the socket or TLS and HTTP/2.
//!
//! Counts the frames by which a client can cause work without a call: h2 bounds neither
//! changes of settings, each of which visits every stream, nor resets of calls that were
//! accepted. A connection with too many of them ends.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Bytes of the write buffer: room for one HTTP/2 frame and the small frames before it.
const WRITE_BUFFER: usize = 20 << 10;

/// Bytes that a connection reads before other tasks have their turn.
const TURN: usize = 32 << 10;

/// Length of HTTP/2's preface.
const PREFACE: usize = 24;

/// SETTINGS frames that a client may send at once, and for each second later.
const SETTINGS: (u32, u32) = (100, 10);

/// RST_STREAM frames that a client may send for each second, beyond two for each stream
/// that it may have open.
const RESETS_PER_SECOND: u32 = 500;

const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;

/// A connection below HTTP/2.
///
/// It does not report support for vectored writes. h2 then copies messages of up to 1 KiB
/// into one buffer, instead of writing each of more than 256 bytes alone.
#[derive(Debug)]
pub(super) struct Wire<T> {
    stream: T,
    unsent: Unsent,
    frames: Frames,
    seen: Arc<Seen>,
    /// Bytes read since other tasks had their turn.
    turn: usize,
}

impl<T: AsyncRead + AsyncWrite> Wire<T> {
    /// `streams`: how many a client may have open.
    pub(super) fn new(stream: T, streams: u32) -> Self {
        Self {
            stream,
            unsent: Unsent::default(),
            frames: Frames::new(streams, Instant::now()),
            seen: Arc::default(),
            turn: 0,
        }
    }

    /// What has been read so far.
    pub(super) fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }
}

/// What a connection has read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    bytes: AtomicU64,
    flood: OnceLock<&'static str>,
}

impl Seen {
    /// Number of bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The frame of which there were too many.
    pub(super) fn flood(&self) -> Option<&'static str> {
        self.flood.get().copied()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for Wire<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn >= TURN || self.seen.flood().is_some() {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            self.turn = 0;
        }
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            self.turn += bytes.len();
            self.seen.bytes.fetch_add(bytes.len() as u64, Relaxed);
            if let Err(Flood(kind)) = self.frames.count(bytes) {
                let _ = self.seen.flood.set(kind);
            }
        }
        read
    }
}

/// Bytes that the socket or TLS has not taken. The buffer exists only meanwhile: an idle
/// connection has none.
#[derive(Debug, Default)]
struct Unsent {
    bytes: Vec<u8>,
    /// How many of them were taken.
    sent: usize,
}

impl Unsent {
    /// Passes all bytes on.
    fn poll_send<T: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut T,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        *self = Self::default();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, unsent, .. } = &mut *self;
        if unsent.bytes.len() + buf.len() > WRITE_BUFFER {
            ready!(unsent.poll_send(stream, cx))?;
        }
        if buf.len() >= WRITE_BUFFER {
            return Pin::new(stream).poll_write(cx, buf);
        }
        if unsent.bytes.capacity() == 0 {
            unsent.bytes.reserve_exact(WRITE_BUFFER);
        }
        unsent.bytes.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unsent, .. } = &mut *self;
        ready!(unsent.poll_send(stream, cx))?;
        Pin::new(stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, unsent, .. } = &mut *self;
        ready!(unsent.poll_send(stream, cx))?;
        Pin::new(stream).poll_shutdown(cx)
    }
}

/// A client sends too many frames of this kind.
#[derive(Debug, PartialEq)]
struct Flood(&'static str);

/// Reads the heads of frames.
#[derive(Debug)]
struct Frames {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; 9],
    filled: usize,
    settings: Allowance,
    resets: Allowance,
}

impl Frames {
    fn new(streams: u32, now: Instant) -> Self {
        Self {
            skip: PREFACE,
            head: [0; 9],
            filled: 0,
            settings: Allowance::new("SETTINGS", SETTINGS.0, SETTINGS.1, now),
            resets: Allowance::new("RST_STREAM", streams.saturating_mul(2).max(200), RESETS_PER_SECOND, now),
        }
    }

    /// Counts the frames that begin in `bytes`.
    fn count(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return Ok(());
            }
            let taken = bytes.len().min(self.head.len() - self.filled);
            self.head[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < self.head.len() {
                return Ok(());
            }
            self.filled = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let is_acknowledgement = flags & 1 == 1;
            match kind {
                SETTINGS_FRAME if !is_acknowledgement => self.settings.take()?,
                RST_STREAM => self.resets.take()?,
                _ => {}
            }
        }
    }
}

/// How many frames of a kind may still come.
#[derive(Debug)]
struct Allowance {
    name: &'static str,
    left: u32,
    most: u32,
    per_second: u32,
    since: Instant,
}

impl Allowance {
    fn new(name: &'static str, most: u32, per_second: u32, since: Instant) -> Self {
        Self { name, left: most, most, per_second, since }
    }

    fn take(&mut self) -> Result<(), Flood> {
        if self.left == 0 {
            let now = Instant::now();
            let seconds = now.saturating_duration_since(self.since).as_secs();
            let more = u64::from(self.per_second).saturating_mul(seconds);
            self.left = u32::try_from(more).unwrap_or(u32::MAX).min(self.most);
            self.since += Duration::from_secs(seconds);
        }
        self.left = self.left.checked_sub(1).ok_or(Flood(self.name))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const HEAD: [u8; 9] = [0, 0, 6, SETTINGS_FRAME, 0, 0, 0, 0, 0];

    fn settings_frames(number: u32) -> Vec<u8> {
        let mut bytes = vec![b'P'; PREFACE];
        for _ in 0..number {
            bytes.extend([&HEAD[..], &[0; 6]].concat());
        }
        bytes
    }

    #[tokio::test]
    async fn written_bytes_arrive_in_order_and_no_buffer_is_kept() {
        let (near, mut far) = tokio::io::duplex(1000);
        let pieces: Vec<Vec<u8>> = [1, 100, WRITE_BUFFER - 1, WRITE_BUFFER, 3, WRITE_BUFFER + 1, 7]
            .iter()
            .zip(0..)
            .map(|(length, n)| vec![n; *length])
            .collect();
        let written = pieces.concat();
        let writing = async {
            let mut wire = Wire::new(near, 100);
            for piece in &pieces {
                wire.write_all(piece).await.unwrap();
                assert!(wire.unsent.bytes.capacity() <= WRITE_BUFFER);
            }
            wire.flush().await.unwrap();
            assert_eq!(wire.unsent.bytes.capacity(), 0);
            wire.write_all(b"end").await.unwrap();
            wire.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        let ((), done) = tokio::join!(writing, far.read_to_end(&mut read));
        done.unwrap();
        assert!(read == [&written[..], b"end"].concat(), "{} bytes", read.len());
    }

    #[test]
    fn settings_frames_are_counted_however_they_are_split() {
        let (most, _) = SETTINGS;
        for piece in [1, 2, 7, 9, 15, 1000] {
            let mut frames = Frames::new(100, Instant::now());
            let counted = |frames: &mut Frames, bytes: &[u8]| {
                bytes.chunks(piece).try_for_each(|piece| frames.count(piece))
            };
            counted(&mut frames, &settings_frames(most)).unwrap();
            assert_eq!(counted(&mut frames, &HEAD), Err(Flood("SETTINGS")), "{piece}");
        }
    }

    #[test]
    fn payload_and_acknowledgements_are_not_counted() {
        let mut frames = Frames::new(100, Instant::now());
        frames.count(&[b'P'; PREFACE]).unwrap();
        for _ in 0..1000 {
            // DATA whose payload looks like the head of a SETTINGS frame.
            frames.count(&[&[0, 0, 9, 0, 0, 0, 0, 0, 1][..], &HEAD].concat()).unwrap();
            frames.count(&[0, 0, 0, SETTINGS_FRAME, 1, 0, 0, 0, 0]).unwrap();
        }
    }

    #[test]
    fn resets_of_all_streams_at_once_are_allowed() {
        let mut frames = Frames::new(1000, Instant::now());
        frames.count(&[b'P'; PREFACE]).unwrap();
        let reset = [0, 0, 4, RST_STREAM, 0, 0, 0, 0, 1, 0, 0, 0, 8];
        for _ in 0..2000 {
            frames.count(&reset).unwrap();
        }
        frames.count(&reset).unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn allowance_comes_back_with_time() {
        let mut allowance = Allowance::new("SETTINGS", 20, 10, Instant::now());
        (0..20).for_each(|_| allowance.take().unwrap());
        allowance.take().unwrap_err();
        tokio::time::advance(Duration::from_secs(1)).await;
        (0..10).for_each(|_| allowance.take().unwrap());
        allowance.take().unwrap_err();
        tokio::time::advance(Duration::from_hours(1)).await;
        (0..20).for_each(|_| allowance.take().unwrap());
        allowance.take().unwrap_err();
    }
}
