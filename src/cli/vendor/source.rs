//! Finds definitions by the name or the path that somebody writes, and reads their files.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    cli::exit::Failure,
    vendors::{
        KINDS,
        declared::{LONGEST_DEFINITION, SHIPPED, Shipped, closest},
    },
};

/// The names of the two files in the folder of a definition.
pub(super) const DEFINITION: &str = "definition.toml";
pub(in crate::cli) const CASES: &str = "cases.toml";

/// Largest file of cases in bytes.
const LONGEST_CASES: usize = 4 << 20;

/// The text of a definition, with its file, or its name where it is shipped. A built-in vendor
/// has none; `instead` says what to do then.
pub(in crate::cli) fn find(name: &str, instead: &str) -> Result<(PathBuf, String), Failure> {
    if let Some(shipped) = Shipped::find(name) {
        return Ok((PathBuf::from(name), shipped.definition.to_owned()));
    }
    if !Path::new(name).exists() {
        return Err(Failure::Usage(unknown(name, instead)));
    }
    let file = definition_file(Path::new(name));
    let text = read_definition(&file)?;
    Ok((file, text))
}

/// That a name is neither a shipped definition nor a path.
fn unknown(name: &str, instead: &str) -> String {
    if KINDS.iter().any(|kind| kind.key == name) {
        return format!("{name} is built in and has no definition; {instead}");
    }
    let is_path = name.contains(['/', '.']);
    let names: Vec<&str> =
        SHIPPED.iter().map(|shipped| shipped.name).chain(KINDS.iter().map(|kind| kind.key)).collect();
    match closest(name, &names).filter(|_| !is_path) {
        Some(close) => format!("{name} is neither a vendor nor a file; did you mean {close}?"),
        None if is_path => format!("{name} is no file; write the path of a definition or of its folder"),
        None => format!(
            "{name} is neither a vendor nor a file; write a name that jobwatch vendor list shows, or the path of a \
             definition"
        ),
    }
}

/// The definition of a folder, or the file itself.
pub(in crate::cli) fn definition_file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(DEFINITION) } else { path.to_owned() }
}

/// The text of a definition. Of one that is too long only the beginning is read, which its
/// reader refuses.
pub(in crate::cli) fn read_definition(file: &Path) -> Result<String, Failure> {
    let name = file.to_str().unwrap_or_default();
    let is_shipped = Shipped::find(name).is_some();
    if (is_shipped || KINDS.iter().any(|kind| kind.key == name)) && !file.exists() {
        let text = if is_shipped {
            format!("write a file, such as one with what jobwatch vendor show {name} --source prints")
        } else {
            "it is built in and has no definition".to_owned()
        };
        return Err(Failure::Usage(format!("{name} is a vendor that jobwatch has already; {text}")));
    }
    read(file, LONGEST_DEFINITION)
}

/// The text of cases.
pub(in crate::cli) fn read_cases(file: &Path) -> Result<String, Failure> {
    let text = read(file, LONGEST_CASES)?;
    if text.len() > LONGEST_CASES {
        let text =
            format!("{} is larger than {} MiB, which no cases are", file.display(), LONGEST_CASES >> 20);
        return Err(Failure::Usage(text));
    }
    Ok(text)
}

/// At most one byte more than `longest`.
fn read(file: &Path, longest: usize) -> Result<String, Failure> {
    let unreadable = |why: String| Failure::Usage(format!("{} {why}", file.display()));
    let is_regular = std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file());
    if file.exists() && !is_regular {
        return Err(unreadable("is not a regular file".to_owned()));
    }
    let limit = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error: io::Error| unreadable(format!("can't be read: {error}")))?;
    if bytes.len() > longest {
        // The last character may be cut.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|_| unreadable("is not text in UTF-8; save it as UTF-8".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &str) -> String {
        match find(name, "do another thing") {
            Err(Failure::Usage(text)) => text,
            found => panic!("{name}: {found:?}"),
        }
    }

    #[test]
    fn name_of_nothing_is_refused_with_what_was_meant() {
        for (name, text) in [
            ("dbt-clud", "dbt-clud is neither a vendor nor a file; did you mean dbt-cloud?"),
            ("imuta", "imuta is neither a vendor nor a file; did you mean immuta?"),
            ("immuta", "immuta is built in and has no definition; do another thing"),
            ("my-own/airflow", "my-own/airflow is no file; write the path of a definition or of its folder"),
            ("airflow.toml", "airflow.toml is no file; write the path"),
            (
                "something",
                "something is neither a vendor nor a file; write a name that jobwatch vendor list shows",
            ),
        ] {
            let found = refused(name);
            assert!(found.starts_with(text), "{name}: {found}");
        }
    }

    #[test]
    fn file_is_read_no_further_than_a_definition_can_be() {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("definition.toml");
        // As large as it says, and without a block on the disk.
        File::create(&file).unwrap().set_len(1 << 40).unwrap();
        let text = read_definition(&file).unwrap();
        assert_eq!(text.len(), LONGEST_DEFINITION + 1);
        let found = read_cases(&file).unwrap_err();
        assert!(format!("{found:?}").contains("is larger than 4 MiB, which no cases are"), "{found:?}");
        std::fs::write(&file, [0xff]).unwrap();
        let found = read_definition(&file).unwrap_err();
        assert!(format!("{found:?}").contains("is not text in UTF-8; save it as UTF-8"), "{found:?}");
    }
}
