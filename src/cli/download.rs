//! `jobwatch download`: downloads one of a job's files, its result or its vendor payload.
//!
//! The output file appears once it is complete. An interrupted download resumes at the
//! byte it reached, until a few attempts in a row have made no progress.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use tokio::time::sleep;
use tonic::Status;

use super::{
    connection::{Client, Connection},
    exit::{Exit, Failure},
    fault,
    job_list::parse_job,
    render::{Paint, RESULT, VENDOR_PAYLOAD, name},
    text::one_line,
};
use crate::{
    client::{backoff, is_resumable, retry_delay},
    proto::v1::{ArtifactInfo, DownloadArtifactRequest, JobRef},
};

/// Attempts in a row without progress.
const MAX_ATTEMPTS: u32 = 5;

/// How progress is shown if the file's size is known, and if not.
const KNOWN_SIZE: &str = "{bar:20.cyan/dim}  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}";
const UNKNOWN_SIZE: &str = "{binary_bytes}  {binary_bytes_per_sec}";

/// Downloads one of a job's files, its result or its vendor payload.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The job. The backend's name ends at the first slash.
    #[arg(value_name = "BACKEND/JOB_ID", value_parser = parse_job)]
    job: JobRef,

    /// The file's artifact id in the job's status, or jobwatch:result for the job's result,
    /// or jobwatch:vendor_payload for the vendor's job object.
    #[arg(value_name = "ARTIFACT_ID")]
    artifact_id: String,

    /// Output file, or "-" for standard output. The default is the file's own name, or
    /// one such as result.json, in this directory, if no such file exists yet.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// First byte to download.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    offset: i64,

    #[command(flatten)]
    connection: Connection,
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut client = self.connection.open().await?;
        let mut transfer =
            Transfer { offset: self.offset, info: None, sink: None, progress: progress_bar(self.offset) };
        let mut failures = 0;
        loop {
            let before = transfer.offset;
            let status = match self.call(&mut client, &mut transfer).await {
                Ok(()) => break,
                Err(Interruption::Local(failure)) => return Err(failure),
                Err(Interruption::Call(status)) => status,
            };
            failures = if transfer.offset > before { 1 } else { failures + 1 };
            let subject = format!("{}/{}", name(&self.job), self.artifact_id);
            if failures > MAX_ATTEMPTS || !is_resumable(&status) {
                transfer.progress.finish_and_clear();
                eprint!("{}", fault::render(&one_line(&subject), &status, Paint::stderr()));
                return Ok(Exit::Failed);
            }
            let wait = backoff(failures, rand::random()).max(retry_delay(&status).unwrap_or_default());
            let (at, wait_text) = (transfer.offset, fault::seconds(wait));
            let cause = fault::line(&status);
            let subject = one_line(&subject);
            transfer.progress.suspend(|| {
                eprintln!("{subject}: interrupted at byte {at} ({cause}); resuming in {wait_text}");
            });
            sleep(wait).await;
        }
        transfer.progress.finish_and_clear();
        if let Some(sink) = transfer.sink {
            sink.finish()?;
        }
        Ok(Exit::Succeeded)
    }

    /// One call, from the transfer's offset to the end of the file.
    async fn call(&self, client: &mut Client, transfer: &mut Transfer) -> Result<(), Interruption> {
        let request = DownloadArtifactRequest {
            job: Some(self.job.clone()),
            artifact_id: self.artifact_id.clone(),
            offset: transfer.offset,
            if_version: transfer.info.as_ref().map(|info| info.version.clone()).unwrap_or_default(),
        };
        let mut stream = client.download_artifact(request).await?.into_inner();
        while let Some(response) = stream.message().await? {
            if let Some(info) = response.info {
                transfer.begin(info, &self.artifact_id, self.output.as_deref())?;
            }
            transfer.write(&response.data)?;
        }
        if transfer.sink.is_none() {
            return Err(Status::data_loss("the gateway sent no information about the file").into());
        }
        Ok(())
    }
}

/// Why a call ended early.
enum Interruption {
    Call(Status),
    Local(Failure),
}

impl From<Status> for Interruption {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl From<Failure> for Interruption {
    fn from(failure: Failure) -> Self {
        Self::Local(failure)
    }
}

impl From<io::Error> for Interruption {
    fn from(error: io::Error) -> Self {
        Self::Local(error.into())
    }
}

/// The state of a download.
struct Transfer {
    offset: i64,
    info: Option<ArtifactInfo>,
    sink: Option<Sink>,
    progress: ProgressBar,
}

impl Transfer {
    fn begin(
        &mut self,
        info: ArtifactInfo,
        artifact_id: &str,
        output: Option<&Path>,
    ) -> Result<(), Interruption> {
        if self.info.as_ref().is_some_and(|first| first.size_bytes != info.size_bytes) {
            return Err(Status::aborted("the file changed while it was downloaded").into());
        }
        if self.sink.is_none() {
            self.sink = Some(Sink::open(&info, artifact_id, output)?);
            if let Some(size) = info.size_bytes.and_then(|size| u64::try_from(size).ok()) {
                self.progress.set_length(size);
                self.progress.set_style(style(KNOWN_SIZE));
            }
        }
        // A later part may say less of the file.
        self.info.get_or_insert(info);
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<(), Interruption> {
        let Some(sink) = &mut self.sink else {
            return Err(Status::data_loss("the gateway sent no information about the file").into());
        };
        sink.write(data)?;
        self.offset = self.offset.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
        self.progress.set_position(self.offset.unsigned_abs());
        Ok(())
    }
}

/// The output.
enum Sink {
    Stdout,
    File(Unfinished),
}

/// A file that gets its name once it is complete. Until then, dropping removes it.
struct Unfinished {
    file: fs::File,
    at: PathBuf,
    target: PathBuf,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Fails harmlessly after the rename.
        let _ = fs::remove_file(&self.at);
    }
}

impl Sink {
    fn open(info: &ArtifactInfo, artifact_id: &str, output: Option<&Path>) -> Result<Self, Failure> {
        let target = match output {
            Some(output) if output.as_os_str() == "-" => return Ok(Self::Stdout),
            Some(output) => output.to_owned(),
            None => default_output(info, artifact_id)?,
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

/// The output file without `--output`: the file's own name, or for a result or a payload,
/// which have none, one according to their content type.
fn default_output(info: &ArtifactInfo, artifact_id: &str) -> Result<PathBuf, Failure> {
    let stem = match artifact_id {
        RESULT => "result",
        VENDOR_PAYLOAD => "vendor_payload",
        _ => return safe_name(&info.file_name),
    };
    let media_type = info.content_type.split(';').next().unwrap_or_default().trim();
    let extension = match media_type {
        "application/json" => "json",
        "text/plain" => "txt",
        _ => "bin",
    };
    safe_name(&format!("{stem}.{extension}"))
}

/// The file name as a path in this directory, if it is safe and no such file exists.
fn safe_name(name: &str) -> Result<PathBuf, Failure> {
    let usage = |why: &str| Failure::Usage(format!("the default output file {name:?} {why}; write -o FILE"));
    if name.is_empty()
        || name.starts_with('.')
        || name.contains(|c: char| c.is_control() || "/\\:".contains(c))
    {
        return Err(usage("is not safe to use"));
    }
    let target = PathBuf::from(name);
    if target.symlink_metadata().is_ok() {
        return Err(usage("already exists here"));
    }
    Ok(target)
}

/// Shows progress on stderr if that is a terminal.
fn progress_bar(offset: i64) -> ProgressBar {
    let progress =
        ProgressBar::no_length().with_style(style(UNKNOWN_SIZE)).with_finish(ProgressFinish::AndClear);
    // Bytes before the offset don't count for the speed.
    progress.set_position(offset.unsigned_abs());
    progress.reset_eta();
    progress
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are valid").progress_chars("━━─")
}

#[cfg(test)]
mod tests {
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::*;

    #[test]
    fn unsafe_file_name_is_refused() {
        for name in ["", ".", "..", ".bashrc", "a/b", "a\\b", "c:a", "a\nb", "Cargo.toml"] {
            assert!(matches!(safe_name(name), Err(Failure::Usage(_))), "{name}");
        }
        assert_eq!(safe_name("inventory ä.csv").unwrap(), PathBuf::from("inventory ä.csv"));
    }

    #[test]
    fn default_output_of_a_result_or_payload_depends_on_its_content_type() {
        let output = |artifact_id: &str, content_type: &str| {
            let info = ArtifactInfo { content_type: content_type.to_owned(), ..Default::default() };
            default_output(&info, artifact_id).unwrap()
        };
        assert_eq!(output(RESULT, "application/json"), PathBuf::from("result.json"));
        assert_eq!(output(RESULT, "text/plain; charset=utf-8"), PathBuf::from("result.txt"));
        assert_eq!(output(RESULT, "avro/binary"), PathBuf::from("result.bin"));
        assert_eq!(output(VENDOR_PAYLOAD, "application/json"), PathBuf::from("vendor_payload.json"));
        assert!(matches!(default_output(&ArtifactInfo::default(), "output/a"), Err(Failure::Usage(_))));
    }

    #[test]
    fn incomplete_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("a.csv");
        let count = || fs::read_dir(dir.path()).unwrap().count();
        let mut sink = Sink::open(&ArtifactInfo::default(), "a", Some(&target)).unwrap();
        sink.write(b"half").unwrap();
        assert!(count() == 1 && !target.exists());
        drop(sink);
        assert_eq!(count(), 0);
        let mut sink = Sink::open(&ArtifactInfo::default(), "a", Some(&target)).unwrap();
        sink.write(b"whole").unwrap();
        sink.finish().unwrap();
        assert_eq!((fs::read(&target).unwrap(), count()), (b"whole".to_vec(), 1));
    }

    #[test]
    fn progress_of_resumed_download_shows_bytes_and_size() {
        let term = InMemoryTerm::new(5, 80);
        let target = ProgressDrawTarget::term_like(Box::new(term.clone()));
        let mut transfer =
            Transfer { offset: 1 << 20, info: None, sink: None, progress: progress_bar(1 << 20) };
        transfer.progress.set_draw_target(target);
        let info = ArtifactInfo { size_bytes: Some(4 << 20), ..Default::default() };
        assert!(transfer.begin(info, "a", Some(Path::new("-"))).is_ok());
        transfer.progress.force_draw();
        let shown = term.contents();
        assert!(shown.starts_with("━━━━━━──────────────  1.00 MiB of 4.00 MiB  0 B/s"), "{shown}");
        transfer.progress.finish_and_clear();
        assert_eq!(term.contents(), "");
    }
}
