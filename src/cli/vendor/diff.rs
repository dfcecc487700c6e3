//! `jobwatch vendor diff`: what another version of a definition changes.

use std::io::Write;

use super::{report, source::find};
use crate::{
    cli::exit::{Exit, Failure},
    vendors::declared::Definition,
};

pub(super) fn run(out: &mut impl Write, old: &str, new: &str) -> Result<Exit, Failure> {
    let instead = "compare two definitions";
    let (old_file, old_text) = find(old, instead)?;
    let (new_file, new_text) = find(new, instead)?;
    let earlier = match Definition::parse(&old_text) {
        Ok(definition) => definition,
        Err(invalid) => return report(out, &old_file, &invalid),
    };
    let later = match Definition::parse(&new_text) {
        Ok(definition) => definition,
        Err(invalid) => return report(out, &new_file, &invalid),
    };
    let found = earlier.differences(&old_text, &later, &new_text);
    for (grade, text) in &found.changes {
        writeln!(out, "{grade:<5}  {text}")?;
    }
    let (from, to) = (earlier.label(), later.label());
    match (found.grade(), found.version_problem) {
        (None, None) => writeln!(out, "{from} and {to}: no difference")?,
        (None, Some(problem)) => {
            writeln!(out, "{from} and {to}: no other difference, but {problem}")?;
            return Ok(Exit::Unsuccessful);
        }
        (Some(grade), None) => writeln!(out, "{from} to {to}: a {grade} change, and the version says so")?,
        (Some(grade), Some(problem)) => {
            writeln!(out, "{from} to {to}: a {grade} change, but {problem}")?;
            return Ok(Exit::Unsuccessful);
        }
    }
    Ok(Exit::Succeeded)
}
