//! Logging to stderr.
//!
//! Lines go through a bounded queue to a thread that writes them, so that a reader of stderr
//! that stalls delays nothing: lines without room are dropped and counted. The filter can be
//! replaced while the process runs.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::Duration,
};

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// Most lines that wait to be written.
const QUEUED_LINES: usize = 8192;

/// Most bytes of those.
const QUEUED_BYTES: usize = 4 << 20;

/// How long the last lines may take when the process ends.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging can't be initialised.
#[derive(Debug, Error)]
pub enum InitError {
    /// The filter is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// Logging is initialised already.
    #[error("logging is already initialised")]
    AlreadyInitialised,
}

/// A filter that can't be used.
#[derive(Debug, Error)]
#[error("the log filter {filter:?} is invalid: {error}; write one such as \"info\" or \"jobwatch=debug\"")]
pub struct InvalidFilter {
    /// The filter.
    filter: String,
    /// The problem.
    error: ParseError,
}

/// Why the filter can't be replaced.
#[derive(Debug, Error)]
pub enum LevelError {
    /// The new one is invalid.
    #[error(transparent)]
    Filter(#[from] InvalidFilter),
    /// This process does not log.
    #[error("this process does not log")]
    NotLogging,
}

/// The log of this process.
struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    /// As it was written.
    filter_text: Mutex<String>,
    dropped: Dropped,
    /// Dropped lines that were reported.
    reported: AtomicU64,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Counts dropped lines.
#[derive(Clone)]
struct Dropped {
    /// For want of bytes, by [`Queue`].
    bytes: Arc<AtomicU64>,
    /// For want of lines, by the appender.
    lines: ErrorCounter,
}

impl Dropped {
    fn get(&self) -> u64 {
        self.bytes.load(Relaxed) + self.lines.dropped_lines() as u64
    }
}

/// Writes what still waits, for a while, when it is dropped. The process's last lines are
/// lost without it.
#[must_use = "the last lines are written when it is dropped"]
#[derive(Debug)]
pub struct Flush(Option<WorkerGuard>);

impl Drop for Flush {
    fn drop(&mut self) {
        let Some(guard) = self.0.take() else { return };
        // Where nobody reads stderr, the end of the process does not wait for it.
        let (done, ended) = mpsc::channel();
        thread::spawn(move || {
            drop(guard);
            let _ = done.send(());
        });
        let _ = ended.recv_timeout(LAST_LINES);
    }
}

/// Initialises logging to stderr for the whole process.
///
/// # Errors
/// If the filter is invalid, or the second time in one process.
pub fn init(format: Format, filter: &str) -> Result<Flush, InitError> {
    let (env_filter, handle) = reload::Layer::new(parse(filter)?);
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (queue, guard) = Queue::new(stderr);
    let dropped = queue.dropped();
    // If stderr is closed, a log line is lost. To report that on stderr would panic in the
    // code that logs.
    let layer = fmt::layer().with_ansi(colours).with_writer(move || queue.clone()).log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(env_filter);
    let initialised = match format {
        Format::Text => registry.with(layer).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true).with_current_span(false)).try_init(),
    };
    initialised.map_err(|_| InitError::AlreadyInitialised)?;
    let filter_text = Mutex::new(filter.to_owned());
    let _ = LOG.set(Log { filter: handle, filter_text, dropped, reported: AtomicU64::new(0) });
    Ok(Flush(Some(guard)))
}

fn parse(filter: &str) -> Result<EnvFilter, InvalidFilter> {
    let parsed = EnvFilter::builder().parse(filter);
    parsed.map_err(|error| InvalidFilter { filter: filter.to_owned(), error })
}

/// Checks a filter.
///
/// # Errors
/// It is invalid.
pub fn check_filter(filter: &str) -> Result<(), InvalidFilter> {
    parse(filter).map(|_| ())
}

/// The filter of `JOBWATCH_LOG`, else of `RUST_LOG`, else `default`. Of h2 it shows errors,
/// unless it names h2: a client can cause any number of its warnings. Of async_nats, which
/// logs each attempt to connect, it shows nothing: `cluster` logs changes of the connection.
pub fn filter(default: &str) -> String {
    let filter = of_environment().map_or_else(|| default.to_owned(), |(_, filter)| filter);
    let with = |filter: String, target: &str, level: &str| {
        if filter.contains(target) { filter } else { format!("{filter},{target}={level}") }
    };
    with(with(filter, "h2", "error"), "async_nats", "off")
}

fn of_environment() -> Option<(&'static str, String)> {
    let set = |name| Some((name, std::env::var(name).ok().filter(|filter| !filter.trim().is_empty())?));
    set("JOBWATCH_LOG").or_else(|| set("RUST_LOG"))
}

/// The variable that comes before the configuration's filter, if it is set.
pub fn filter_variable() -> Option<&'static str> {
    of_environment().map(|(name, _)| name)
}

/// The filter that is used now. `None` where this process does not log.
pub fn level() -> Option<String> {
    LOG.get().map(|log| log.filter_text.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Replaces the filter.
///
/// # Errors
/// It is invalid, and the old one stays.
pub fn set_level(filter: &str) -> Result<(), LevelError> {
    let log = LOG.get().ok_or(LevelError::NotLogging)?;
    let parsed = parse(filter)?;
    let mut text = log.filter_text.lock().unwrap_or_else(PoisonError::into_inner);
    log.filter.reload(parsed).map_err(|_| LevelError::NotLogging)?;
    tracing::info!(before = %text, now = %filter, "log filter replaced");
    filter.clone_into(&mut text);
    Ok(())
}

/// Lines that were dropped because nobody read them.
pub fn dropped_lines() -> u64 {
    LOG.get().map_or(0, |log| log.dropped.get())
}

/// Logs how many lines were dropped since the last time. To be called every second or so:
/// where that line is dropped too, the next call tries again.
pub fn report_dropped_lines() {
    let Some(log) = LOG.get() else { return };
    let (dropped, reported) = (log.dropped.get(), log.reported.load(Relaxed));
    if dropped > reported {
        tracing::warn!(dropped_lines = dropped - reported, "log lines were dropped: nobody read them");
        if log.dropped.get() == dropped {
            log.reported.store(dropped, Relaxed);
        }
    }
}

/// The queue of lines, bounded in lines and bytes.
#[derive(Clone)]
struct Queue {
    lines: NonBlocking,
    bytes: Arc<AtomicUsize>,
    dropped: Arc<AtomicU64>,
}

/// Where the thread writes the lines.
struct Written<W> {
    to: W,
    bytes: Arc<AtomicUsize>,
}

impl Queue {
    fn new(to: impl Write + Send + 'static) -> (Self, WorkerGuard) {
        let bytes = Arc::<AtomicUsize>::default();
        let written = Written { to, bytes: Arc::clone(&bytes) };
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(QUEUED_LINES);
        let (lines, guard) = builder.thread_name("log").finish(written);
        (Self { lines, bytes, dropped: Arc::default() }, guard)
    }

    fn dropped(&self) -> Dropped {
        Dropped { bytes: Arc::clone(&self.dropped), lines: self.lines.error_counter() }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len();
        if self.bytes.fetch_add(length, Relaxed) + length > QUEUED_BYTES {
            self.bytes.fetch_sub(length, Relaxed);
            self.dropped.fetch_add(1, Relaxed);
            return Ok(length);
        }
        let before = self.lines.error_counter().dropped_lines();
        let written = self.lines.write(line);
        // Another thread's dropped line may be taken for this one: then fewer bytes are
        // counted than wait, by one line.
        if self.lines.error_counter().dropped_lines() > before {
            self.bytes.fetch_sub(length, Relaxed);
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Write for Written<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let written = self.to.write(line);
        // A line that can't be written is lost.
        let gone = *written.as_ref().unwrap_or(&line.len());
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, |bytes| Some(bytes.saturating_sub(gone)));
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_filter_is_refused_with_an_example() {
        let error = init(Format::Text, "jobwatch=loud").unwrap_err().to_string();
        assert!(error.starts_with("the log filter \"jobwatch=loud\" is invalid: "), "{error}");
        assert!(error.ends_with("; write one such as \"info\" or \"jobwatch=debug\""), "{error}");
    }

    /// A reader that stalls until a signal lets it go on.
    struct Stalled {
        go_on: mpsc::Receiver<()>,
        written: mpsc::Sender<Vec<u8>>,
        goes_on: bool,
    }

    impl Write for Stalled {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.goes_on = self.goes_on || self.go_on.recv().is_ok();
            let _ = self.written.send(line.to_vec());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_beyond_the_bounds_are_dropped_and_counted_while_the_reader_stalls() {
        for (line, fit) in [(10, QUEUED_LINES), (QUEUED_BYTES / 16, 16)] {
            let ((go, go_on), (written, lines)) = (mpsc::channel(), mpsc::channel());
            let (mut queue, guard) = Queue::new(Stalled { go_on, written, goes_on: false });
            let total = fit + 100;
            for _ in 0..total {
                queue.write_all(&vec![b'x'; line]).unwrap();
            }
            // The thread has taken one line out of the queue, or not yet.
            let dropped = queue.dropped().get();
            assert!((99..=100).contains(&dropped), "{line}: {dropped}");
            go.send(()).unwrap();
            for _ in 0..total as u64 - dropped {
                lines.recv_timeout(Duration::from_mins(1)).unwrap();
            }
            // There is room again.
            while queue.bytes.load(Relaxed) > 0 {
                thread::yield_now();
            }
            queue.write_all(b"next").unwrap();
            assert_eq!(lines.recv_timeout(Duration::from_mins(1)).unwrap(), b"next");
            assert_eq!(queue.dropped().get(), dropped);
            drop(guard);
        }
    }
}
