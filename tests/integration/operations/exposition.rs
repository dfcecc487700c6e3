//! A strict reader of Prometheus' text format, and the rules of its naming.

use std::collections::{BTreeMap, BTreeSet};

/// One metric.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) kind: String,
    pub(super) help: String,
    /// Values by the series' names and labels, as they are written.
    pub(super) series: BTreeMap<String, f64>,
    /// Names of its labels but for `le`.
    pub(super) labels: BTreeSet<String>,
}

/// Reads a whole page; panics at anything that the format does not allow.
pub(super) fn read(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line is not ended");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let family = Family { help: help.to_owned(), ..Family::default() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, current, "TYPE without HELP before it");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            kind.clone_into(&mut families.get_mut(name).unwrap().kind);
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').map_or((series, ""), |(name, labels)| {
                (name, labels.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
            });
            let family = families.get_mut(&current).unwrap();
            let suffix = name.strip_prefix(&*current).unwrap_or_else(|| panic!("{line} below {current}"));
            let suffixes: &[&str] =
                if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffixes.contains(&suffix), "{line}");
            let labels = labels_of(labels);
            assert_eq!(labels.contains(&"le".to_owned()), suffix == "_bucket", "{line}");
            family.labels.extend(labels.into_iter().filter(|label| label != "le"));
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(family.series.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
    }
    for (name, family) in &families {
        family.check(name);
    }
    families
}

/// Names of labels in `a="x",b="y"`.
fn labels_of(mut text: &str) -> Vec<String> {
    let mut names = Vec::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(is_name(name), "{name}");
        names.push(name.to_owned());
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let rest = &rest[end.unwrap_or_else(|| panic!("{text}")) + 1..];
        text = rest.strip_prefix(',').unwrap_or(rest);
        assert!(text.is_empty() || rest.starts_with(','), "{rest}");
    }
    names
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

impl Family {
    /// What `promtool check metrics` asks for.
    fn check(&self, name: &str) {
        assert!(is_name(name) && !self.help.is_empty() && !self.kind.is_empty(), "{name}");
        assert!(name.starts_with("jobwatch_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), self.kind == "counter", "{name}");
        for unit in ["milliseconds", "_ms", "minutes", "kilobytes", "_kb", "percent"] {
            assert!(!name.contains(unit), "{name}: not a base unit");
        }
        assert!(!self.series.is_empty(), "{name} has no series");
        for (series, value) in &self.series {
            assert!(self.kind == "gauge" || *value >= 0.0, "{series} {value}");
        }
        if self.kind == "histogram" {
            self.check_histogram(name);
        }
    }

    fn check_histogram(&self, name: &str) {
        let counts = self.series.iter().filter(|(series, _)| series.starts_with(&format!("{name}_count")));
        for (series, count) in counts {
            let labels = series.strip_prefix(&format!("{name}_count")).unwrap().trim_matches(['{', '}']);
            let mut buckets: Vec<(f64, f64)> = Vec::new();
            for (bucket, value) in &self.series {
                let Some(rest) = bucket.strip_prefix(&format!("{name}_bucket{{")) else { continue };
                let Some((others, bound)) = rest.trim_end_matches('}').split_once("le=\"") else { continue };
                if others.trim_end_matches(',') == labels {
                    let bound = bound.trim_end_matches('"');
                    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                    buckets.push((bound, *value));
                }
            }
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{series}: {buckets:?}");
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
        }
    }

    /// The sum of its series whose text contains all of these.
    pub(super) fn sum(&self, parts: &[&str]) -> f64 {
        let matching =
            self.series.iter().filter(|(series, _)| parts.iter().all(|part| series.contains(part)));
        matching.map(|(_, value)| value).sum()
    }
}

#[test]
fn reader_accepts_the_format_and_refuses_what_is_not() {
    let page = "# HELP jobwatch_a_total A.\n# TYPE jobwatch_a_total counter\njobwatch_a_total{x=\"a\\\"}, b\",y=\"\"} 1\n";
    let families = read(page);
    assert_eq!(families["jobwatch_a_total"].labels.iter().collect::<Vec<_>>(), ["x", "y"]);
    for wrong in [
        page.trim_end().to_owned(),
        page.replace("counter", "gauge"),
        page.replace("# HELP", "#"),
        format!("{page}{}", page.lines().last().unwrap().to_owned() + "\n"),
        page.replace("} 1", "} one"),
    ] {
        assert!(std::panic::catch_unwind(|| read(&wrong)).is_err(), "{wrong}");
    }
}
