//! The jobs of a command line: names, `@FILE` and `-` for standard input.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::exit::Failure;
use crate::proto::v1::JobRef;

/// Largest list of jobs.
const MAX_BYTES: u64 = 64 << 20;

/// One argument.
#[derive(Clone, Debug)]
pub(super) enum JobSource {
    /// A job by name.
    Job(JobRef),
    /// A file of names, one per line.
    File(PathBuf),
    /// Standard input, in the same form.
    Stdin,
}

/// Parses an argument.
pub(super) fn parse(text: &str) -> Result<JobSource, String> {
    match text.strip_prefix('@') {
        _ if text == "-" => Ok(JobSource::Stdin),
        Some("") => Err("the file after the @ is missing".to_owned()),
        Some(file) => Ok(JobSource::File(file.into())),
        None => parse_job(text).map(JobSource::Job),
    }
}

/// Parses the name of a job.
pub(super) fn parse_job(text: &str) -> Result<JobRef, String> {
    match text.split_once('/') {
        None => Err("write BACKEND/JOB_ID, such as immuta-prod/42".to_owned()),
        Some(("", _)) => Err("the backend before the slash is missing".to_owned()),
        Some((_, "")) => Err("the job id after the slash is missing".to_owned()),
        Some((backend, id)) => {
            Ok(JobRef { backend: backend.to_owned(), job_id: id.to_owned(), ..Default::default() })
        }
    }
}

/// The jobs in the order given.
pub(super) fn jobs(sources: &[JobSource]) -> Result<Vec<JobRef>, Failure> {
    let mut jobs = Vec::new();
    for source in sources {
        match source {
            JobSource::Job(job) => jobs.push(job.clone()),
            JobSource::File(file) => jobs.extend(lines(&read_file(file)?, &file.display().to_string())?),
            JobSource::Stdin => {
                let name = "standard input";
                jobs.extend(lines(&read(io::stdin().lock(), name)?, name)?);
            }
        }
    }
    if jobs.is_empty() {
        return Err(Failure::Usage(
            "there is no job in the list; write one BACKEND/JOB_ID per line".to_owned(),
        ));
    }
    Ok(jobs)
}

fn read_file(file: &Path) -> Result<String, Failure> {
    let name = file.display().to_string();
    let open = std::fs::File::open(file)
        .map_err(|error| Failure::Usage(format!("the list of jobs {name} can't be read: {error}")))?;
    read(open, &name)
}

fn read(source: impl Read, name: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = source.take(MAX_BYTES + 1).read_to_string(&mut text);
    match read {
        Ok(count) if count as u64 > MAX_BYTES => {
            Err(Failure::Usage(format!("the list of jobs {name} is larger than 64 MiB; split it")))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::Usage(format!("the list of jobs {name} can't be read: {error}"))),
    }
}

/// One job per line. Blank lines and those that begin with # are ignored.
fn lines(text: &str, name: &str) -> Result<Vec<JobRef>, Failure> {
    // Editors on Windows begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let named = text.lines().map(str::trim).enumerate();
    named
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(n, line)| {
            parse_job(line).map_err(|why| Failure::Usage(format!("{name}, line {}: {why}", n + 1)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::name;

    #[test]
    fn job_argument_is_split_at_the_first_slash() {
        let job = parse_job("immuta-prod/a/b?c").unwrap();
        assert_eq!((&*job.backend, &*job.job_id), ("immuta-prod", "a/b?c"));
        assert_eq!(name(&job), "immuta-prod/a/b?c");
    }

    #[test]
    fn job_argument_without_backend_or_id_is_refused() {
        for text in ["immuta", "/42", "immuta/", "", "@"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn list_of_jobs_has_comments_and_blank_lines() {
        let jobs = lines("\u{feff}# nightly\n\n  immuta/1 \r\nclaret/2\n", "list").unwrap();
        assert_eq!(jobs.iter().map(name).collect::<Vec<_>>(), ["immuta/1", "claret/2"]);
    }

    #[test]
    fn byte_order_mark_before_the_first_job_is_skipped() {
        let jobs = lines("\u{feff}immuta/1\r\n", "list").unwrap();
        assert_eq!(jobs.iter().map(name).collect::<Vec<_>>(), ["immuta/1"]);
    }

    #[test]
    fn wrong_line_of_a_list_is_named() {
        let Err(Failure::Usage(message)) = lines("immuta/1\nimmuta\n", "list") else { panic!() };
        assert_eq!(message, "list, line 2: write BACKEND/JOB_ID, such as immuta-prod/42");
    }
}
