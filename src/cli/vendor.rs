//! `jobwatch vendor`: the definitions of vendors, for people who use and write them.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    exit::{Exit, Failure},
    exit_codes,
    render::Paint,
};
use crate::vendors::{
    KINDS,
    declared::{Definition, InvalidDefinition, SHIPPED, cases::Cases, cases::Report, schema},
};

mod diff;
mod new;
pub(super) mod source;
mod trial;

use source::{CASES, DEFINITION, definition_file, find, read_cases, read_definition};

/// The schema of definitions, beside their folders.
const SCHEMA: &str = "definition.schema.json";

/// Shows, checks and tests the definitions of vendors.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the vendors that a backend can name.
    #[command(after_help = exit_codes::VENDOR)]
    List,
    /// Show what a definition needs, asks and reads.
    #[command(after_help = exit_codes::VENDOR)]
    Show {
        /// The name of a shipped definition, or the path of a file.
        #[arg(value_name = "NAME|FILE")]
        name: String,
        /// Print the definition itself, to start another one from.
        #[arg(long)]
        source: bool,
    },
    /// Begin a definition from an answer of the vendor.
    ///
    /// Writes DIR/NAME/definition.toml and cases.toml, with what the answer and its request show: where the id, the state, the times and so on stand, each guess with its reason. "fill in:" marks what one answer can't show, such as the vendor's other words. Secrets, addresses of people and signed URLs of the answer are redacted. No file is overwritten.
    #[command(after_help = exit_codes::VENDOR_NEW)]
    New(new::Args),
    /// Report every problem of a definition.
    #[command(after_help = exit_codes::VENDOR)]
    Check {
        /// The definition, or the folder that has it as definition.toml.
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,
    },
    /// Read the cases of a definition with it, and compare.
    ///
    /// The cases are in cases.toml beside the definition. Each word, fault rule and file rule has to be covered by a case, or to stand in [untested] with the reason.
    #[command(after_help = exit_codes::VENDOR)]
    Test {
        /// A definition, a folder that has one as definition.toml, or a folder of such
        /// folders.
        #[arg(value_name = "FILE|DIR")]
        path: PathBuf,
    },
    /// Print JSON Schema (draft 2020-12) of definitions, for editors and linters.
    #[command(after_help = exit_codes::TOOL)]
    Schema {
        /// Of cases.toml instead.
        #[arg(long)]
        cases: bool,
    },
    /// Poll one job of the real vendor once, and show how each field is read.
    ///
    /// Shows the request with its secrets redacted, the head of the answer, the fault rule that applies, and what each field of the definition finds. Values of the answer are shown, shortened.
    #[command(after_help = exit_codes::VENDOR_TRY)]
    Try(trial::Args),
    /// Show what another version of a definition changes, and whether its version says so.
    ///
    /// A word that moves to an end or from one is a major change, and so is what callers or operators have to follow.
    #[command(after_help = exit_codes::VENDOR_DIFF)]
    Diff {
        /// The earlier one: the name of a shipped definition, a file, or a folder.
        #[arg(value_name = "NAME|FILE")]
        old: String,
        /// The later one.
        #[arg(value_name = "NAME|FILE")]
        new: String,
    },
}

impl Args {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut out = io::stdout();
        match self.command {
            Command::List => list(&mut out),
            Command::Show { name, source } => show(&mut out, &name, source),
            Command::New(args) => args.run(&mut out),
            Command::Check { path } => check(&mut out, &definition_file(&path)),
            Command::Test { path } => test(&mut out, &path),
            Command::Schema { cases } => {
                let schema = if cases { schema::cases() } else { schema::definition() };
                writeln!(out, "{schema:#}")?;
                Ok(Exit::Succeeded)
            }
            Command::Try(args) => args.run(&mut out).await,
            Command::Diff { old, new } => diff::run(&mut out, &old, &new),
        }
    }
}

fn list(out: &mut impl Write) -> Result<Exit, Failure> {
    let width = SHIPPED.iter().map(|shipped| shipped.name.len()).max().unwrap_or_default();
    for kind in KINDS {
        writeln!(out, "{:<width$}  built in  {}", kind.key, kind.name)?;
    }
    for shipped in SHIPPED {
        let definition =
            Definition::parse(shipped.definition).map_err(|invalid| problem(shipped.name, &invalid))?;
        let Definition { version, title, verified, .. } = &definition;
        let unverified = if *verified == Some(false) { " (not verified)" } else { "" };
        writeln!(out, "{:<width$}  {version:<8}  {title}{unverified}", shipped.name)?;
    }
    Ok(Exit::Succeeded)
}

fn show(out: &mut impl Write, name: &str, source: bool) -> Result<Exit, Failure> {
    if let Some(kind) = KINDS.iter().find(|kind| kind.key == name) {
        writeln!(out, "{name} is built in: {}. It has no definition.", kind.name)?;
        return Ok(Exit::Succeeded);
    }
    let (file, text) = find(name, "")?;
    if source {
        write!(out, "{text}")?;
        return Ok(Exit::Succeeded);
    }
    match Definition::parse(&text) {
        Ok(definition) => write!(out, "{}", definition.describe())?,
        Err(invalid) => return report(out, &file, &invalid),
    }
    Ok(Exit::Succeeded)
}

fn check(out: &mut impl Write, file: &Path) -> Result<Exit, Failure> {
    match Definition::parse(&read_definition(file)?) {
        Ok(definition) => {
            writeln!(
                out,
                "{} {}: {}, no problem found",
                Paint::stdout().green("OK    "),
                file.display(),
                definition.label()
            )?;
            Ok(Exit::Succeeded)
        }
        Err(invalid) => report(out, file, &invalid),
    }
}

/// One line for each problem, as compilers write them.
fn report(out: &mut impl Write, file: &Path, invalid: &InvalidDefinition) -> Result<Exit, Failure> {
    for problem in &invalid.problems {
        writeln!(out, "{}:{problem}", file.display())?;
    }
    Ok(Exit::Unsuccessful)
}

fn test(out: &mut impl Write, path: &Path) -> Result<Exit, Failure> {
    let mut exit = Exit::Succeeded;
    for file in definitions(path)? {
        if test_one(out, &file)? != Exit::Succeeded {
            exit = Exit::Unsuccessful;
        }
    }
    Ok(exit)
}

fn test_one(out: &mut impl Write, file: &Path) -> Result<Exit, Failure> {
    let definition = match Definition::parse(&read_definition(file)?) {
        Ok(definition) => Arc::new(definition),
        Err(invalid) => return report(out, file, &invalid),
    };
    let cases_file = file.with_file_name(CASES);
    if !cases_file.exists() {
        let text = format!(
            "{} is missing; write [[case]] with ids, body and expect there, or begin both files with jobwatch vendor new",
            cases_file.display()
        );
        return Err(Failure::Usage(text));
    }
    let cases = match Cases::parse(Arc::clone(&definition), &read_cases(&cases_file)?) {
        Ok(cases) => cases,
        Err(invalid) => return report(out, &cases_file, &invalid),
    };
    let report = cases.run();
    let Report { failed, uncovered, needless, unfinished } = &report;
    let cases_file = cases_file.display();
    for (line, name, differences) in failed {
        for difference in differences {
            writeln!(out, "{cases_file}:{line}: {name}: {difference}")?;
        }
    }
    for name in uncovered {
        let cure = if name.starts_with("files[") { "expect its files = [\"..\"] in one" } else { "add one" };
        writeln!(
            out,
            "{cases_file}: no case covers {name}; {cure}, or write {name:?} = \"why\" in [untested]"
        )?;
    }
    for (line, text) in needless.iter().chain(unfinished) {
        writeln!(out, "{cases_file}:{line}: {text}")?;
    }
    let is_good = report.is_good();
    let paint = Paint::stdout();
    let verdict = if is_good { paint.green("OK    ") } else { paint.red("FAILED") };
    let (count, label) = (cases.count(), definition.label());
    let missing = match uncovered.len() {
        0 => String::new(),
        1 => ", a word or rule has no case".to_owned(),
        several => format!(", {several} words and rules have no case"),
    };
    writeln!(out, "{verdict} {label}: {} of {count} cases passed{missing}", count - failed.len())?;
    Ok(if is_good { Exit::Succeeded } else { Exit::Unsuccessful })
}

/// The definitions at a path: one, or one in each folder of it.
fn definitions(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let own = definition_file(path);
    if own.exists() || !path.is_dir() {
        return Ok(vec![own]);
    }
    let unreadable = |error: io::Error| Failure::Usage(format!("{} can't be read: {error}", path.display()));
    let entries = std::fs::read_dir(path).map_err(unreadable)?;
    let entries = entries.map(|entry| entry.map(|entry| entry.path().join(DEFINITION)));
    let mut files: Vec<PathBuf> = entries.collect::<Result<_, _>>().map_err(unreadable)?;
    files.retain(|file| file.exists());
    files.sort();
    if files.is_empty() {
        let text = format!("{} has no {DEFINITION}, and no folder with one", path.display());
        return Err(Failure::Usage(text));
    }
    Ok(files)
}

fn problem(name: &str, invalid: &InvalidDefinition) -> Failure {
    Failure::Usage(format!("{name}: {invalid}"))
}
