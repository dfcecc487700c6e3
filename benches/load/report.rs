//! What a run says: a table for people, JSON for programs.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;

use crate::{Outcome, machine::Machine};

/// What was measured for one row of goals.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    title: String,
    measures: Vec<Measure>,
}

#[derive(Debug, Serialize)]
struct Measure {
    what: String,
    unit: &'static str,
    /// The median, where there are several.
    value: f64,
    least: f64,
    most: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<Goal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// What a value should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    Exactly(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
            Self::Exactly(goal) => (value - goal).abs() < f64::EPSILON,
        }
    }
}

impl Row {
    pub(crate) fn new(name: &'static str, title: impl Into<String>) -> Self {
        Self { name, title: title.into(), measures: Vec::new() }
    }

    /// A value that has a goal.
    pub(crate) fn goal(&mut self, what: impl Into<String>, unit: &'static str, values: &[f64], goal: Goal) {
        self.add(what.into(), unit, values, Some(goal));
    }

    /// A value for information.
    pub(crate) fn note(&mut self, what: impl Into<String>, unit: &'static str, values: &[f64]) {
        self.add(what.into(), unit, values, None);
    }

    fn add(&mut self, what: String, unit: &'static str, values: &[f64], goal: Option<Goal>) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else { return };
        let value = f64::midpoint(sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        let met = goal.map(|goal| goal.is_met(value));
        self.measures.push(Measure { what, unit, value, least: *least, most: *most, goal, met });
    }

    /// The row as lines of a Markdown table.
    pub(crate) fn lines(&self) -> String {
        let mut lines = format!("| **{}** | | | |\n", self.title);
        for measure in &self.measures {
            let Measure { what, unit, value, least, most, goal, met } = measure;
            let spread = if (least - most).abs() < f64::EPSILON {
                String::new()
            } else {
                format!(" ({}..{})", shown(*least), shown(*most))
            };
            let goal = match goal {
                None => String::new(),
                Some(Goal::AtLeast(goal)) => format!("at least {}", shown(*goal)),
                Some(Goal::AtMost(goal)) => format!("at most {}", shown(*goal)),
                Some(Goal::Exactly(goal)) => shown(*goal),
            };
            let met = match met {
                None => "",
                Some(true) => "met",
                Some(false) => "missed",
            };
            let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
            let _ = writeln!(lines, "| {what} | {}{unit}{spread} | {goal} | {met} |", shown(*value));
        }
        lines
    }
}

/// Three digits where they say something, thousands apart.
fn shown(value: f64) -> String {
    if value.abs() < 100.0 {
        let digits = if value.abs() < 10.0 { 2 } else { 1 };
        let text = format!("{value:.digits$}");
        return text.strip_suffix(".00").map_or(text.clone(), ToOwned::to_owned);
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How the table is headed.
pub(crate) const HEAD: &str = "| what | measured | goal | |\n| --- | --- | --- | --- |\n";

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    short: bool,
    rows: &'a [Row],
}

/// Writes all rows for programs.
pub(crate) fn write(file: &Path, machine: &Machine, short: bool, rows: &[Row]) -> Outcome {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(&Report { machine, short, rows })?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()).into())
}
