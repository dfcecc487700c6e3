//! A definition in words, for people.

use std::fmt::Write;

use super::{
    Definition,
    credentials::Way,
    definition::Question,
    template::{RequestTemplate, Target},
};

impl Definition {
    /// What it needs, what it asks, and which word is which state.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "{name:<13} {value}");
            }
        };
        line("name", &self.label());
        line("title", &self.title);
        line("docs", &self.docs);
        line("verified", if self.verified { "yes" } else { "no: written from memory" });
        for (number, note) in self.notes.lines().enumerate() {
            line(if number == 0 { "notes" } else { "" }, note);
        }
        line("job id", self.id.written());
        line("", &self.id.example.as_ref().map(|example| format!("such as {example}")).unwrap_or_default());
        for (number, param) in self.params.iter().enumerate() {
            let default =
                param.default.as_ref().map(|default| format!(", {default} unless set")).unwrap_or_default();
            let about =
                if param.description.is_empty() { String::new() } else { format!(": {}", param.description) };
            line(if number == 0 { "params" } else { "" }, &format!("{}{default}{about}", param.example()));
        }
        for (number, way) in self.ways.iter().enumerate() {
            line(
                if number == 0 { "credentials" } else { "" },
                &format!("{}{}", way.example(), self.elsewhere(way)),
            );
        }
        if let Some(question) = &self.request {
            line("asks", &shown(question));
        }
        if let Some(batch) = &self.batch {
            line("asks", &format!("{}, for up to {} jobs", shown(&batch.question), batch.max));
        }
        for (number, (state, word)) in self.states.patterns().enumerate() {
            line(if number == 0 { "states" } else { "" }, &format!("{state:<10} {word}"));
        }
        let files = match self.files.len() {
            0 => String::new(),
            1 => "by 1 rule".to_owned(),
            many => format!("by {many} rules"),
        };
        line("files", &files);
        for (number, origin) in self.origins().iter().enumerate() {
            line(if number == 0 { "allow_origins" } else { "" }, origin);
        }
        text
    }

    fn elsewhere(&self, way: &Way) -> String {
        let place = self.ways.iter().position(|other| other.name == way.name);
        self.token_origin(place)
            .map(|origin| format!(", with allow_origins = [{origin:?}]"))
            .unwrap_or_default()
    }
}

fn shown(question: &Question) -> String {
    let RequestTemplate { method, target, query, .. } = &question.request;
    let path = match target {
        Target::Path(path) => path.shown(),
        Target::Location(_) => "{the location in the id}".to_owned(),
    };
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", value.shown())).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("{method} {path}{mark}{}", query.join("&"))
}
