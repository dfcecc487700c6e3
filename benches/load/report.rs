//! The report of a run: a table for people, JSON for programs.

use std::{fmt::Write as _, fs, path::Path};

use serde::Serialize;

use crate::{Outcome, machine::Machine};

/// What was measured for one row of goals.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    name: &'static str,
    title: String,
    measures: Vec<Measure>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Measure {
    what: String,
    unit: &'static str,
    /// The median, where there are several.
    value: f64,
    least: f64,
    most: f64,
    #[serde(skip)]
    values: Vec<f64>,
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
        Self { name, title: title.into(), measures: Vec::new(), remarks: Vec::new() }
    }

    /// A value that has a goal.
    pub(crate) fn goal(&mut self, what: impl Into<String>, unit: &'static str, values: &[f64], goal: Goal) {
        self.add(what.into(), unit, values, Some(goal));
    }

    /// A value for information.
    pub(crate) fn note(&mut self, what: impl Into<String>, unit: &'static str, values: &[f64]) {
        self.add(what.into(), unit, values, None);
    }

    /// Something to know about the row that is no number.
    pub(crate) fn remark(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.remarks.contains(&text) {
            self.remarks.push(text);
        }
    }

    fn add(&mut self, what: String, unit: &'static str, values: &[f64], goal: Option<Goal>) {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        let (Some(least), Some(most)) = (values.first().copied(), values.last().copied()) else { return };
        let value = f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2]);
        let met = goal.map(|goal| goal.is_met(value));
        self.measures.push(Measure { what, unit, value, least, most, values, goal, met });
    }

    /// Adds the values of the same row, measured again.
    pub(crate) fn merge(&mut self, again: Self) {
        let mut again = again;
        for measure in std::mem::take(&mut self.measures) {
            let mut values = measure.values;
            if let Some(at) = again.measures.iter().position(|other| other.what == measure.what) {
                values.extend(again.measures.remove(at).values);
            }
            self.add(measure.what, measure.unit, &values, measure.goal);
        }
        for measure in again.measures {
            self.add(measure.what, measure.unit, &measure.values, measure.goal);
        }
        again.remarks.into_iter().for_each(|text| self.remark(text));
    }

    /// The value of a measure.
    fn value_of(&self, what: &str) -> Option<f64> {
        self.measures.iter().find(|measure| measure.what == what).map(|measure| measure.value)
    }

    /// The row as lines of a Markdown table, with a column for a `baseline`.
    pub(crate) fn lines(&self, baseline: Option<&Self>) -> String {
        let mut lines = format!("| **{}** | | | |", self.title);
        lines.push_str(if baseline.is_some() { " | |\n" } else { "\n" });
        for measure in &self.measures {
            let Measure { what, unit, value, least, most, values: _, goal, met } = measure;
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
            let _ = write!(lines, "| {what} | {}{unit}{spread} | {goal} | {met} |", shown(*value));
            if let Some(baseline) = baseline {
                let before = baseline.value_of(what);
                let change = before.filter(|before| *before != 0.0).map(|before| shown(value / before));
                let before = before.map(shown);
                let _ = write!(
                    lines,
                    " {} | {} |",
                    before.as_deref().unwrap_or("-"),
                    change.as_deref().unwrap_or("-")
                );
            }
            lines.push('\n');
        }
        for remark in &self.remarks {
            let _ = writeln!(lines, "| ({remark}) |");
        }
        for remark in baseline.iter().flat_map(|baseline| &baseline.remarks) {
            let _ = writeln!(lines, "| (baseline: {remark}) |");
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

/// The same with a baseline.
pub(crate) const HEAD_WITH_BASELINE: &str = "| what | measured | goal | | baseline | measured by baseline |\n\
     | --- | --- | --- | --- | --- | --- |\n";

#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    short: bool,
    rows: &'a [Row],
    /// The same rows of the baseline.
    #[serde(skip_serializing_if = "<[Row]>::is_empty")]
    baseline: &'a [Row],
}

/// Writes all rows for programs.
pub(crate) fn write(file: &Path, machine: &Machine, short: bool, rows: &[Row], baseline: &[Row]) -> Outcome {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let text = serde_json::to_string_pretty(&Report { machine, short, rows, baseline })?;
    fs::write(file, text + "\n").map_err(|error| format!("{}: {error}", file.display()).into())
}
