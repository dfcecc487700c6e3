//! Environment variables: the process's own and those of an environment file.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use super::{InvalidConfig, Problem, overrides, text_file};

/// The variables that replace keys and hold secrets.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    file: Option<PathBuf>,
    /// The variables that the file sets.
    of_file: BTreeSet<String>,
}

impl Environment {
    /// The variables of this process.
    ///
    /// # Errors
    /// A variable that sets a key is not UTF-8.
    pub fn of_process() -> Result<Self, InvalidConfig> {
        let mut problems = Vec::new();
        let mut variables = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            // Any other variable that is not UTF-8 is not for this program.
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => drop(variables.insert(name, value)),
                Err(_) if name.starts_with(overrides::PREFIX) => {
                    let text = "holds bytes that are not UTF-8; write the value in UTF-8".to_owned();
                    problems.push(Problem { subject: name, text });
                }
                Err(_) => {}
            }
        }
        if problems.is_empty() { Ok(variables.into()) } else { Err(InvalidConfig { problems }) }
    }

    /// Adds the variables of a file, which take precedence.
    #[must_use]
    pub fn with_file(mut self, file: EnvFile) -> Self {
        let EnvFile { path, variables } = file;
        self.of_file.extend(variables.keys().cloned());
        self.variables.extend(variables);
        self.file = Some(path);
        self
    }

    pub(super) fn variables(&self) -> &BTreeMap<String, String> {
        &self.variables
    }

    /// The names of the variables that set keys.
    pub fn keys(&self) -> Vec<&str> {
        self.variables.keys().map(String::as_str).filter(|name| name.starts_with(overrides::PREFIX)).collect()
    }

    /// The environment file, if it sets this variable.
    pub(super) fn file_of(&self, variable: &str) -> Option<&Path> {
        self.file().filter(|_| self.of_file.contains(variable))
    }

    /// The environment file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl<I: IntoIterator<Item = (String, String)>> From<I> for Environment {
    fn from(variables: I) -> Self {
        Self { variables: variables.into_iter().collect(), ..Self::default() }
    }
}

/// The values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// The variables of an environment file.
///
/// A line is empty, a comment that begins with `#`, or `NAME=value`, after
/// `export ` if need be. A value in single quotes is taken as it is; in double
/// quotes `\"`, `\\`, `\$`, `\n`, `\r` and `\t` are escapes as in a shell;
/// without quotes it reaches to the end of the line, less the white space around
/// it. Nothing is expanded. The last value of a repeated name counts.
#[derive(Clone)]
pub struct EnvFile {
    path: PathBuf,
    variables: BTreeMap<String, String>,
}

impl EnvFile {
    /// Reads the file.
    ///
    /// # Errors
    /// Names every bad line by its number.
    pub fn load(path: &Path) -> Result<Self, InvalidConfig> {
        let text = text_file::read_text(path).map_err(|text| InvalidConfig {
            problems: vec![Problem { subject: path.display().to_string(), text }],
        })?;
        Self::parse(path, &text)
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    /// Names every bad line by its number.
    pub fn parse(path: &Path, text: &str) -> Result<Self, InvalidConfig> {
        let mut variables = BTreeMap::new();
        let mut problems = Vec::new();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (n, line) in text.lines().enumerate() {
            match variable(line.trim()) {
                Ok(None) => {}
                Ok(Some((name, value))) => {
                    variables.insert(name.to_owned(), value);
                }
                Err(text) => {
                    let subject = format!("{} line {}", path.display(), n + 1);
                    problems.push(Problem { subject, text: text.to_owned() });
                }
            }
        }
        if problems.is_empty() {
            Ok(Self { path: path.to_owned(), variables })
        } else {
            Err(InvalidConfig { problems })
        }
    }

    /// Reads the file again. An empty file is being written, so it is an error.
    pub(super) fn load_again(path: &Path) -> Result<Self, Problem> {
        let problem = |text| Problem { subject: path.display().to_string(), text };
        text_file::refuse_pipe(path).map_err(problem)?;
        let file = Self::load(path).map_err(|mut invalid| invalid.problems.swap_remove(0))?;
        if file.variables.is_empty() {
            return Err(problem("holds no variable; write NAME=value".to_owned()));
        }
        Ok(file)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.variables.remove(name)
    }
}

/// The values may be secrets.
impl fmt::Debug for EnvFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvFile")
            .field("path", &self.path)
            .field("variables", &self.variables.keys())
            .finish()
    }
}

/// The variable that a line sets, if it sets one.
fn variable(line: &str) -> Result<Option<(&str, String)>, &'static str> {
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let assignment = match line.strip_prefix("export") {
        Some(rest) if rest.starts_with(char::is_whitespace) => rest.trim_start(),
        _ => line,
    };
    let (name, text) =
        assignment.split_once('=').ok_or("is no variable; write NAME=value, or # before a comment")?;
    let name = name.trim_end();
    if !is_name(name) {
        return Err(
            "has no name before the '='; write letters, digits and '_', beginning with none of the digits",
        );
    }
    Ok(Some((name, value(text.trim_start())?)))
}

fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn value(text: &str) -> Result<String, &'static str> {
    const OPEN: &str = "has a quote that is not closed in the same line; close it";
    let (value, rest) = if let Some(quoted) = text.strip_prefix('\'') {
        let (value, rest) = quoted.split_once('\'').ok_or(OPEN)?;
        (value.to_owned(), rest)
    } else if let Some(quoted) = text.strip_prefix('"') {
        let mut value = String::new();
        let mut chars = quoted.chars();
        loop {
            match chars.next().ok_or(OPEN)? {
                '"' => break,
                '\\' => value.push(match chars.next().ok_or(OPEN)? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    same @ ('"' | '\\' | '$' | '`') => same,
                    _ => return Err("holds a backslash that stands for nothing; write \\\\"),
                }),
                other => value.push(other),
            }
        }
        (value, chars.as_str())
    } else if text.contains(" #") || text.contains("\t#") {
        // Programs differ in whether the value ends there.
        return Err("holds a '#' after white space; put the value into quotes");
    } else {
        return Ok(text.to_owned());
    };
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        Ok(value)
    } else {
        Err("goes on after the closing quote; put the whole value into quotes")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        match EnvFile::parse(Path::new("prod.env"), text) {
            Ok(file) => Ok(file.variables.into_iter().collect()),
            Err(invalid) => Err(invalid.to_string()),
        }
    }

    #[test]
    fn value_is_read_literally() {
        for (line, expected) in [
            ("A=b", "b"),
            ("export A=b", "b"),
            ("  export\tA = b  ", "b"),
            ("A=", ""),
            ("A=b=c==", "b=c=="),
            ("A=b#c", "b#c"),
            ("A=b c", "b c"),
            ("A=$B\\n", "$B\\n"),
            ("A=it's", "it's"),
            ("A='b \"$c\" \\n #'", "b \"$c\" \\n #"),
            (r#"A="b \"c\" \\ \$ \t'#" # why"#, "b \"c\" \\ $ \t'#"),
            ("A='' # none", ""),
            ("\u{feff}A=b\r\n", "b"),
            ("A=a\n# A=c\n\nA=b", "b"),
        ] {
            assert_eq!(read(line), Ok(vec![("A".to_owned(), expected.to_owned())]), "of {line}");
        }
        assert_eq!(read("exported=1\n_2=x").unwrap().len(), 2);
        assert_eq!(read("\n # nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn bad_line_is_reported_by_number_without_content() {
        for (line, expected) in [
            ("hush", "is no variable; write NAME=value, or # before a comment"),
            ("=hush", "has no name before the '='"),
            ("1A=hush", "has no name before the '='"),
            ("A-B=hush", "has no name before the '='"),
            ("hush hush=1", "has no name before the '='"),
            ("A=\"hush", "has a quote that is not closed"),
            ("A='hush\\'s'", "goes on after the closing quote"),
            ("A=\"hush\"hush", "goes on after the closing quote"),
            (r#"A="hush\""#, "has a quote that is not closed"),
            (r#"A="hush\u""#, "holds a backslash that stands for nothing"),
            ("A=hush # hush", "holds a '#' after white space"),
        ] {
            let error = read(&format!("OK=1\n\n{line}\n")).unwrap_err();
            assert!(error.starts_with(&format!("prod.env line 3 {expected}")), "{line} gave {error}");
            assert!(!error.contains("hush"), "{error}");
        }
        assert_eq!(read("a\nb\nc=1").unwrap_err().lines().count(), 2, "all of them at once");
    }

    #[test]
    fn environment_debug_output_hides_values() {
        let file = EnvFile::parse(Path::new("prod.env"), "A=hush").unwrap();
        let environment = Environment::from([("B".to_owned(), "hush".to_owned())]);
        let shown = format!("{file:?} {environment:?} {:?}", environment.clone().with_file(file.clone()));
        assert!(shown.contains("\"A\"") && !shown.contains("hush"), "{shown}");
    }

    proptest! {
        #[test]
        fn quoted_value_round_trips(value in "[ -~äß€]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let read = read(&format!("A=\"{escaped}\"")).unwrap();
            prop_assert_eq!(&read[0].1, &value);
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in "[ -~\\n\\t]{0,200}") {
            let _ = read(&text);
        }
    }
}
