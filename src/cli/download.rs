//! `jobwatch download`: one of a job's files, into a file that is there once it is
//! whole.
//!
//! A download that breaks off goes on from the byte it got to, as long as each of
//! a few tries in a row brings some further.

use std::{
    fs::{self, OpenOptions},
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use console::Term;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::{
    board::bar,
    client::{Client, Connection, name, parse_job},
    exit::{Exit, Failure},
    fault, follow,
    render::{Paint, one_line},
};
use crate::proto::v1::{ArtifactInfo, DownloadArtifactRequest, JobRef};

/// Tries in a row that bring nothing.
const TRIES: u32 = 5;

/// How often progress is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// Downloads one of a job's files.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job; the backend's name ends at the first slash.
    #[arg(value_name = "BACKEND/JOB_ID", value_parser = parse_job)]
    job: JobRef,

    /// The file, as the job's status names it.
    #[arg(value_name = "ARTIFACT_ID")]
    artifact_id: String,

    /// Where to write it; "-" is the standard output. Otherwise the file's own
    /// name, in this directory, where nothing may be in its way.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Start at this byte.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut client = self.connection.open().await?;
        let mut transfer = Transfer { offset: self.offset, info: None, sink: None, meter: Meter::new() };
        let mut failures = 0;
        loop {
            let before = transfer.offset;
            let status = match self.call(&mut client, &mut transfer).await {
                Ok(()) => break,
                Err(Trouble::Ours(failure)) => return Err(failure),
                Err(Trouble::Call(status)) => status,
            };
            transfer.meter.clear();
            failures = if transfer.offset > before { 1 } else { failures + 1 };
            let subject = format!("{}/{}", name(&self.job), self.artifact_id);
            if failures > TRIES || !follow::is_lost(&status) {
                eprint!("{}", fault::render(&one_line(&subject), &status, Paint::stderr()));
                return Ok(Exit::Failed);
            }
            let asked = fault::retry_delay(&status).unwrap_or_default();
            let wait = follow::delay(failures, rand::random()).max(asked);
            let (at, wait_text) = (transfer.offset, fault::seconds(wait));
            let cause = format!("{}: {}", fault::code(status.code()), one_line(status.message()));
            eprintln!("{}: broke off at byte {at} ({cause}); going on in {wait_text}", one_line(&subject));
            sleep(wait).await;
        }
        transfer.meter.clear();
        if let Some(sink) = transfer.sink {
            sink.finish()?;
        }
        Ok(Exit::Succeeded)
    }

    /// One call, from where the transfer is to the end of the file.
    async fn call(&self, client: &mut Client, transfer: &mut Transfer) -> Result<(), Trouble> {
        let request = DownloadArtifactRequest {
            job: Some(self.job.clone()),
            artifact_id: self.artifact_id.clone(),
            offset: transfer.offset,
        };
        let mut stream = client.download_artifact(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            if let Some(info) = response.info {
                transfer.begin(info, self.output.as_deref())?;
            }
            transfer.write(&response.data)?;
        }
        if transfer.sink.is_none() {
            return Err(Status::internal("the gateway said nothing about the file").into());
        }
        Ok(())
    }
}

/// Why a call ended early.
enum Trouble {
    Call(Status),
    Ours(Failure),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Ours(failure)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Ours(error.into())
    }
}

/// What has come so far.
struct Transfer {
    offset: i64,
    info: Option<ArtifactInfo>,
    sink: Option<Sink>,
    meter: Meter,
}

impl Transfer {
    fn begin(&mut self, info: ArtifactInfo, output: Option<&Path>) -> Result<(), Trouble> {
        if self.info.as_ref().is_some_and(|first| first.size_bytes != info.size_bytes) {
            return Err(Status::aborted("the file changed while it was downloaded").into());
        }
        if self.sink.is_none() {
            self.sink = Some(Sink::open(&info, output)?);
        }
        self.info = Some(info);
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Trouble> {
        let Some(sink) = &mut self.sink else {
            return Err(Status::internal("the gateway said nothing about the file").into());
        };
        sink.write(data)?;
        self.offset = self.offset.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
        self.meter.draw(self.offset, self.info.as_ref().and_then(|info| info.size_bytes))?;
        Ok(())
    }
}

/// Where the bytes go.
enum Sink {
    Stdout,
    File(Unfinished),
}

/// A file that gets its name when it is whole, and is removed if it never is.
struct Unfinished {
    file: fs::File,
    at: PathBuf,
    target: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the rename there is nothing left to remove.
        let _ = fs::remove_file(&self.at);
    }
}

impl Sink {
    fn open(info: &ArtifactInfo, output: Option<&Path>) -> Result<Self, Failure> {
        let target = match output {
            Some(output) if output.as_os_str() == "-" => return Ok(Self::Stdout),
            Some(output) => output.to_owned(),
            None => own_name(&info.file_name)?,
        };
        let usage = |why: &str| Failure::Usage(format!("{} {why}", target.display()));
        let name = target.file_name().ok_or_else(|| usage("is not the name of a file; write -o FILE"))?;
        let temporary = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let at = target.with_file_name(temporary);
        let file = OpenOptions::new().write(true).create_new(true).open(&at);
        let file = file.map_err(|error| usage(&format!("can't be written: {error}")))?;
        Ok(Self::File(Unfinished { file, at, target }))
    }

    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(data),
            Self::File(unfinished) => unfinished.file.write_all(data),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().flush(),
            Self::File(unfinished) => {
                unfinished.file.sync_all()?;
                fs::rename(&unfinished.at, &unfinished.target)
            }
        }
    }
}

/// The name that the vendor gave, if it harms nothing here.
fn own_name(name: &str) -> Result<PathBuf, Failure> {
    let usage = |why: &str| Failure::Usage(format!("the file's own name, {name:?}, {why}; write -o FILE"));
    if name.is_empty()
        || name.starts_with('.')
        || name.contains(|c: char| c.is_control() || "/\\:".contains(c))
    {
        return Err(usage("is not safe to use"));
    }
    let target = PathBuf::from(name);
    if target.symlink_metadata().is_ok() {
        return Err(usage("is taken here"));
    }
    Ok(target)
}

/// Shows on a terminal how far it is.
struct Meter {
    term: Option<Term>,
    begun: Instant,
    first: Option<i64>,
    drawn: Option<Instant>,
}

impl Meter {
    fn new() -> Self {
        let term = io::stderr().is_terminal().then(Term::stderr);
        Self { term, begun: Instant::now(), first: None, drawn: None }
    }

    fn draw(&mut self, done: i64, size: Option<i64>) -> io::Result<()> {
        let Some(term) = &self.term else { return Ok(()) };
        let first = *self.first.get_or_insert(done);
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < FRAME) {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        term.clear_line()?;
        let line = line(done, size, done - first, self.begun.elapsed(), Paint::stderr());
        term.write_str(&console::truncate_str(&line, usize::from(term.size().1), ""))
    }

    fn clear(&mut self) {
        if let (Some(term), Some(_)) = (&self.term, self.drawn.take()) {
            // A terminal that is gone shows nothing anyway.
            let _ = term.clear_line();
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn line(done: i64, size: Option<i64>, moved: i64, time: Duration, paint: Paint) -> String {
    let mebi = |bytes: i64| bytes as f64 / f64::from(1 << 20);
    let speed = mebi(moved) / time.as_secs_f64().max(0.001);
    match size.filter(|size| *size > 0) {
        Some(size) => {
            let bar = bar(done as f64 / size as f64, paint);
            format!("{bar}  {:.1} of {:.1} MiB  {speed:.1} MiB/s", mebi(done), mebi(size))
        }
        None => format!("{:.1} MiB  {speed:.1} MiB/s", mebi(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_harm_is_not_used() {
        for name in ["", ".", "..", ".bashrc", "a/b", "a\\b", "c:a", "a\nb", "Cargo.toml"] {
            assert!(matches!(own_name(name), Err(Failure::Usage(_))), "{name}");
        }
        assert_eq!(own_name("inventory ä.csv").unwrap(), PathBuf::from("inventory ä.csv"));
    }

    #[test]
    fn a_file_that_is_never_whole_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.csv");
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let mut sink = Sink::open(&ArtifactInfo::default(), Some(&target)).unwrap();
        sink.write(b"half").unwrap();
        assert!(count() == 1 && !target.exists());
        drop(sink);
        assert_eq!(count(), 0);
        let mut sink = Sink::open(&ArtifactInfo::default(), Some(&target)).unwrap();
        sink.write(b"whole").unwrap();
        sink.finish().unwrap();
        assert_eq!((fs::read(&target).unwrap(), count()), (b"whole".to_vec(), 1));
    }

    #[test]
    fn progress_says_how_much_and_how_fast() {
        let mebi = 1 << 20;
        let second = Duration::from_secs(1);
        assert_eq!(line(3 * mebi, None, mebi, second, Paint::NONE), "3.0 MiB  1.0 MiB/s");
        let half = line(mebi, Some(2 * mebi), mebi, 2 * second, Paint::NONE);
        assert!(half.ends_with("  1.0 of 2.0 MiB  0.5 MiB/s"), "{half}");
    }
}
