//! `jobwatch vendor new`: a definition that is begun from an answer of the vendor.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use super::{CASES, DEFINITION, SCHEMA};
use crate::{
    cli::exit::{Exit, Failure},
    vendors::declared::{
        Definition,
        draft::{Draft, LONGEST_ANSWER, Start},
    },
};

/// What the definition is begun from.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The name of the definition and of its folder: 1 to 63 of a-z, 0-9 and '-'.
    name: String,

    /// A file with the vendor's answer about one job: JSON, or what `curl -i` prints; `-` is stdin.
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    answer: PathBuf,

    /// The request that it answers, such as "GET https://api.example/v1/jobs/123".
    #[arg(long, value_name = "REQUEST")]
    request: Option<String>,

    /// The id of the job, where the request does not show it.
    #[arg(long, value_name = "ID")]
    id: Option<String>,

    /// The member of the job that has its state, such as job.status; can be repeated for a state
    /// of several members.
    #[arg(long = "word", value_name = "PATH")]
    word: Vec<String>,

    /// The folder in which the definition gets a folder of its own.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
}

impl Args {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Failure> {
        let answer = self.answer()?;
        // The file lies beside the folders of definitions, as in the repository.
        let schema = self.out.join(SCHEMA).exists().then(|| format!("../{SCHEMA}"));
        let start = Start {
            name: &self.name,
            answer: &answer,
            request: self.request.as_deref(),
            id: self.id.as_deref(),
            word: &self.word,
            schema: schema.as_deref(),
        };
        let draft = Draft::begin(&start).map_err(|unusable| Failure::Usage(unusable.to_string()))?;
        let folder =
            if self.out == Path::new(".") { PathBuf::from(&self.name) } else { self.out.join(&self.name) };
        write_new(&folder, &[(DEFINITION, &draft.definition), (CASES, &draft.cases)])?;
        report(out, &folder, &draft)?;
        Ok(Exit::Succeeded)
    }

    fn answer(&self) -> Result<Vec<u8>, Failure> {
        let limit = u64::try_from(LONGEST_ANSWER).unwrap_or(u64::MAX).saturating_add(1);
        let mut answer = Vec::new();
        if self.answer == Path::new("-") {
            let stdin = io::stdin();
            if stdin.is_terminal() {
                eprintln!("Paste the vendor's answer about one job, then press Ctrl-D.");
            }
            stdin.lock().take(limit).read_to_end(&mut answer).map_err(|error| unreadable("-", &error))?;
        } else {
            let read = File::open(&self.answer).and_then(|file| file.take(limit).read_to_end(&mut answer));
            read.map_err(|error| unreadable(&self.answer.display().to_string(), &error))?;
        }
        Ok(answer)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    Failure::Usage(format!("--answer {name} can't be read: {error}"))
}

/// Writes files that must not be there yet; none of them where one is.
fn write_new(folder: &Path, files: &[(&str, &str)]) -> Result<(), Failure> {
    let failed = |path: &Path, error: &io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Failure::Usage(format!(
            "{} is there already; write another NAME or --out, or remove it",
            path.display()
        )),
        _ => Failure::Usage(format!("{} can't be written: {error}", path.display())),
    };
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for (name, _) in files {
        let path = folder.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(failed(&path, &io::ErrorKind::AlreadyExists.into()));
        }
    }
    for (name, text) in files {
        let path = folder.join(name);
        let written = OpenOptions::new().write(true).create_new(true).open(&path);
        written
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| failed(&path, &error))?;
    }
    Ok(())
}

fn report(out: &mut impl Write, folder: &Path, draft: &Draft) -> Result<(), Failure> {
    let (definition, cases) = (folder.join(DEFINITION), folder.join(CASES));
    writeln!(out, "{}\n{}", definition.display(), cases.display())?;
    if !draft.redacted.is_empty() {
        writeln!(out, "\nRedacted in {CASES}: {}", draft.redactions())?;
    }
    writeln!(out, "\nTo fill in")?;
    for (line, text) in todos(&draft.definition) {
        writeln!(out, "  {}:{line}: {text}", definition.display())?;
    }
    if let Err(invalid) = Definition::parse(&draft.definition) {
        let is_listed = |line: usize| todos(&draft.definition).iter().any(|(listed, _)| *listed == line);
        for problem in invalid.problems.iter().filter(|problem| !is_listed(problem.line)) {
            writeln!(out, "  {}:{problem}", definition.display())?;
        }
    }
    let shown = quoted(&folder.display().to_string());
    let url = draft.base_url.clone().unwrap_or_else(|| "URL".to_owned());
    let mut params = String::new();
    for (name, value) in &draft.params {
        params = params + " --param " + &quoted(&format!("{name}={value}"));
    }
    writeln!(
        out,
        "\nNext\n  jobwatch vendor check {shown}\n  jobwatch vendor test {shown}\n  \
         jobwatch vendor try {shown} --base-url {} --job {}{params} --credential {}=env:SECRET\n  \
         jobwatch simulate {shown}",
        quoted(&url),
        quoted(&draft.job_id),
        draft.secret
    )?;
    Ok(())
}

/// The lines that something has to be filled in at.
fn todos(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate().filter_map(|(index, line)| {
        let (_, what) = line.split_once("fill in: ")?;
        Some((index + 1, what))
    });
    lines.collect()
}

/// A word of a shell's command.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
