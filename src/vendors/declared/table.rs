//! The table from a vendor's words to states.
//!
//! A word may have several parts, each from a field of its own. In a pattern `*` stands for
//! any part, also one that is absent, and `-` for an absent one. The pattern with the most
//! parts that are not `*` holds.

use std::ops::Range;

use super::reader::{Log, Section, closest, remedy};
use crate::job::JobState;

/// Every state by its name in a definition.
pub(super) const STATES: [(&str, JobState); 8] = [
    ("PENDING", JobState::Pending),
    ("RUNNING", JobState::Running),
    ("RETRYING", JobState::Retrying),
    ("CANCELLING", JobState::Cancelling),
    ("SUCCEEDED", JobState::Succeeded),
    ("FAILED", JobState::Failed),
    ("CANCELLED", JobState::Cancelled),
    ("EXPIRED", JobState::Expired),
];

/// The state of a word that the table does not have.
pub(super) const UNSPECIFIED: &str = "UNSPECIFIED";

/// Most patterns.
const MOST: usize = 512;

/// The table of a definition.
#[derive(Debug)]
pub(super) struct StateTable {
    patterns: Vec<Pattern>,
    /// The states that have a key, with words or without any yet.
    listed: Vec<&'static str>,
    otherwise: JobState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    parts: Vec<Part>,
    state: JobState,
    state_name: &'static str,
    place: (Range<usize>, String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any,
    Absent,
    Word(String),
}

impl Part {
    fn of(text: &str) -> Self {
        match text {
            "*" => Self::Any,
            "-" => Self::Absent,
            word => Self::Word(word.to_owned()),
        }
    }

    fn fits(&self, word: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => word.is_none(),
            Self::Word(own) => word == Some(own),
        }
    }

    /// What both stand for, if there is anything.
    fn meet(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Any, part) | (part, Self::Any) => Some(part.clone()),
            (one, other) => (one == other).then(|| one.clone()),
        }
    }
}

impl Pattern {
    fn written(&self) -> String {
        written(&self.parts)
    }

    fn weight(&self) -> usize {
        self.parts.iter().filter(|part| **part != Part::Any).count()
    }

    fn fits(&self, word: &[Option<String>]) -> bool {
        self.parts.iter().zip(word).all(|(part, word)| part.fits(word.as_deref()))
    }
}

fn written(parts: &[Part]) -> String {
    let parts: Vec<&str> = parts
        .iter()
        .map(|part| match part {
            Part::Any => "*",
            Part::Absent => "-",
            Part::Word(word) => word,
        })
        .collect();
    parts.join("/")
}

impl StateTable {
    /// Reads `[states]` for words of this many parts.
    pub(super) fn read(mut section: Section<'_>, parts: Option<usize>, log: &Log<'_>) -> Self {
        let (mut patterns, mut listed, mut no_failure) = (Vec::<Pattern>::new(), Vec::new(), false);
        let (mut otherwise, mut unreadable) = (JobState::Unknown, Vec::new());
        for (key, span, node) in section.entries() {
            if key == "otherwise" {
                let Some(name) = node.text(log) else { continue };
                match STATES.iter().find(|(known, _)| *known == name) {
                    Some((_, state)) if state.is_terminal() => {
                        let text = format!(
                            "is {name}, which is an end: one new word of the vendor's would end jobs; write RUNNING or PENDING"
                        );
                        node.report(log, text);
                    }
                    Some((_, state)) => otherwise = *state,
                    None if name == UNSPECIFIED => node.report(
                        log,
                        "is UNSPECIFIED, which a word is that no state has; remove it, or write RUNNING or PENDING",
                    ),
                    None => node.report(log, format!("is {name:?}; write RUNNING or PENDING")),
                }
                continue;
            }
            if key == "no_failure" {
                no_failure = node.text(log).is_some();
                continue;
            }
            let Some((state_name, state)) = STATES.iter().find(|(known, _)| *known == key) else {
                let names: Vec<&str> = STATES.iter().map(|(name, _)| *name).collect();
                let cure = if key == UNSPECIFIED {
                    "it is what a word has that no state has; remove it".to_owned()
                } else {
                    remedy(key, &names)
                };
                log.add(span, &node.path, format!("is not a state; {cure}"));
                // The problem with its name is the only one.
                let meant = closest(key, &names);
                let meant = STATES.iter().find(|(known, _)| meant == Some(*known));
                if let Some((state_name, state)) = meant {
                    listed.push(*state_name);
                    unreadable.push(*state);
                }
                continue;
            };
            listed.push(*state_name);
            for word in node.list() {
                let Some(split) = parts_of(&word, parts, log) else {
                    unreadable.push(*state);
                    continue;
                };
                let place = (word.span.clone(), word.path.clone());
                patterns.push(Pattern { parts: split, state: *state, state_name, place });
            }
        }
        let mut table = Self { patterns, listed, otherwise };
        let missing = table.check(&section, no_failure, &unreadable, log);
        table.listed.extend(missing);
        table.check_widest(&mut section, log);
        table
    }

    /// A word that is not readable counts as one of its state. Returns the states that are
    /// reported as missing, so that no rule about them is reported, too.
    fn check(
        &self,
        section: &Section<'_>,
        no_failure: bool,
        unreadable: &[JobState],
        log: &Log<'_>,
    ) -> Vec<&'static str> {
        let mut missing = Vec::new();
        if self.patterns.len() > MOST {
            section.report(log, format!("has more than {MOST} words; write fewer"));
            return missing;
        }
        for (at, one) in self.patterns.iter().enumerate() {
            for other in &self.patterns[..at] {
                self.compare(other, one, log);
            }
        }
        let has = |state: JobState| {
            unreadable.contains(&state) || self.patterns.iter().any(|pattern| pattern.state == state)
        };
        if !has(JobState::Succeeded) {
            section.report(log, "has nothing that is SUCCEEDED; add the vendor's word for it");
            missing.push("SUCCEEDED");
        }
        let fails = [JobState::Failed, JobState::Cancelled, JobState::Expired].into_iter().any(has);
        if no_failure && fails {
            let text = "has no_failure beside a word that is FAILED, CANCELLED or EXPIRED; remove no_failure";
            section.report(log, text);
        }
        if !no_failure && !fails {
            let text =
                "has nothing that is FAILED, CANCELLED or EXPIRED; add one, or write no_failure = \"why\"";
            section.report(log, text);
            missing.extend(["FAILED", "CANCELLED", "EXPIRED"]);
        }
        missing
    }

    /// A pattern that any word fits.
    fn check_widest(&self, section: &mut Section<'_>, log: &Log<'_>) {
        let Some(widest) = self.patterns.iter().find(|pattern| pattern.weight() == 0) else { return };
        let (span, path) = (widest.place.0.clone(), &widest.place.1);
        let (word, state) = (widest.written(), widest.state_name);
        if widest.state.is_terminal() {
            let text = format!(
                "is {word:?}, which any word fits: one new word of the vendor's would end jobs as {state}; \
                 write the words"
            );
            log.add(span, path, text);
        }
        if let Some(otherwise) = section.get("otherwise") {
            otherwise.report(
                log,
                format!("has no effect beside {word:?} in {state}, which any word fits; keep one"),
            );
        }
    }

    /// Whether a word is this state, or will be once its list is filled in.
    pub(super) fn can_be(&self, name: &str) -> bool {
        self.listed.contains(&name)
            || STATES.iter().any(|(known, state)| *known == name && *state == self.otherwise)
    }

    fn compare(&self, earlier: &Pattern, later: &Pattern, log: &Log<'_>) {
        let (span, path) = (later.place.0.clone(), &later.place.1);
        let word = later.written();
        if earlier.parts == later.parts {
            let text = if earlier.state == later.state {
                format!("is {word:?}, which stands in {} twice; keep one", later.state_name)
            } else {
                format!(
                    "is {word:?}, which stands in {} and in {}; keep one",
                    earlier.state_name, later.state_name
                )
            };
            return log.add(span, path, text);
        }
        if earlier.state == later.state || earlier.weight() != later.weight() {
            return;
        }
        let meet: Option<Vec<Part>> =
            earlier.parts.iter().zip(&later.parts).map(|(one, other)| one.meet(other)).collect();
        let Some(meet) = meet else { return };
        let is_settled = |pattern: &Pattern| {
            pattern.weight() > later.weight()
                && pattern.parts.iter().zip(&meet).all(|(part, met)| part == met || *part == Part::Any)
        };
        if !self.patterns.iter().any(is_settled) {
            let text = format!(
                "is {word:?}, and {:?} fits {:?} as well; add {:?} to one of the states",
                earlier.written(),
                written(&meet),
                written(&meet)
            );
            log.add(span, path, text);
        }
    }

    /// The state of a word, and the pattern that it has it from.
    pub(super) fn state(&self, word: &[Option<String>]) -> (JobState, Option<String>) {
        let pattern = self.fitting(word).map(Pattern::written);
        (self.state_of(word), pattern)
    }

    /// The state of a word.
    pub(super) fn state_of(&self, word: &[Option<String>]) -> JobState {
        self.fitting(word).map_or(self.otherwise, |pattern| pattern.state)
    }

    /// Whether a pattern fits the word.
    pub(super) fn knows(&self, word: &[Option<String>]) -> bool {
        self.fitting(word).is_some()
    }

    fn fitting(&self, word: &[Option<String>]) -> Option<&Pattern> {
        let fitting = self.patterns.iter().filter(|pattern| pattern.fits(word));
        fitting.max_by_key(|pattern| pattern.weight())
    }

    /// Whether this part of a word may be a number or a flag.
    pub(super) fn accepts_bare(&self, place: usize) -> bool {
        let is_bare = |part: &Part| match part {
            Part::Any => true,
            Part::Absent => false,
            Part::Word(word) => word.parse::<f64>().is_ok() || matches!(&**word, "true" | "false"),
        };
        self.patterns.iter().filter_map(|pattern| pattern.parts.get(place)).any(is_bare)
    }

    /// Every word that a pattern without `*` stands for, in parts.
    pub(super) fn words(&self) -> Vec<(&'static str, Vec<Option<String>>)> {
        let word = |pattern: &Pattern| {
            let parts = pattern.parts.iter().map(|part| match part {
                Part::Any => None,
                Part::Absent => Some(None),
                Part::Word(word) => Some(Some(word.clone())),
            });
            Some((pattern.state_name, parts.collect::<Option<_>>()?))
        };
        self.patterns.iter().filter_map(word).collect()
    }

    /// Every pattern with its state, as they are written.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.patterns.iter().map(|pattern| (pattern.state_name, pattern.written()))
    }
}

/// A word as the table writes it.
pub(super) fn shown(parts: &[Option<String>]) -> String {
    let parts: Vec<&str> = parts.iter().map(|part| part.as_deref().unwrap_or("-")).collect();
    parts.join("/")
}

/// The parts of a word of the table.
fn parts_of(word: &super::reader::Node<'_>, parts: Option<usize>, log: &Log<'_>) -> Option<Vec<Part>> {
    if word.is_array() && word.list().is_empty() {
        let text = "is an empty list, which is no word; write the parts of a word, or [] alone for a state that \
                    the vendor does not have";
        return word.problem(log, text);
    }
    let texts: Vec<String> = if word.is_array() {
        word.list().iter().map(|part| one(part, log)).collect::<Option<_>>()?
    } else {
        let text = one(word, log)?;
        if parts == Some(1) { vec![text] } else { text.split('/').map(str::to_owned).collect() }
    };
    // How many there have to be is not known while status.word has too many.
    let parts = parts?;
    if texts.len() != parts {
        let shown = texts.join("/");
        let mut example = texts.clone();
        example.resize(parts, "*".to_owned());
        let example = example.join("/");
        let has = if texts.len() == 1 { "1 part".to_owned() } else { format!("{} parts", texts.len()) };
        return word.problem(
            log,
            format!("is {shown:?} with {has}, and status.word has {parts}; write {example:?}"),
        );
    }
    Some(texts.iter().map(|text| Part::of(text)).collect())
}

fn one(node: &super::reader::Node<'_>, log: &Log<'_>) -> Option<String> {
    if let Some(integer) = node.as_integer() {
        return Some(integer.to_string());
    }
    if let Some(flag) = node.as_bool() {
        return Some(flag.to_string());
    }
    let text = node.text(log)?;
    if text.len() > 128 {
        return node.problem(log, "is longer than 128 bytes, which no word is");
    }
    Some(text.to_owned())
}
