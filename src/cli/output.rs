//! The format of the output: `--output` and `--json`.

use std::io::{self, IsTerminal, Write};

use clap::{Args, ValueEnum};
use prost::Message;

use super::{
    json::{self, Data},
    render::Paint,
};

/// The format of the output.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct Output {
    /// Format of the output. Without it: table on a terminal, else canonical proto-JSON, one
    /// object per line.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Kind>,

    /// Print canonical proto-JSON, one object per line, errors included. Results and
    /// payloads are base64.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Text for people. Errors go to stderr.
    Table,
    /// One JSON array when all is known, errors included. Results and payloads that are
    /// JSON are shown as JSON, others in base64.
    Json,
    /// The same with one JSON object per line, each as soon as it is known.
    Jsonl,
    /// Names alone, one per line: BACKEND/JOB_ID of a job, or the name of a backend. Errors go
    /// to stderr.
    Name,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// Text for people.
    Text,
    /// An object per line.
    Lines(Data),
    /// One array.
    Document,
    /// Names.
    Names,
}

impl Output {
    /// The chosen style, or the one that fits where the output goes.
    pub(super) fn style(self) -> Style {
        match self.output {
            _ if self.json => Style::Lines(Data::Base64),
            Some(Kind::Table) => Style::Text,
            Some(Kind::Json) => Style::Document,
            Some(Kind::Jsonl) => Style::Lines(Data::Decoded),
            Some(Kind::Name) => Style::Names,
            None if io::stdout().is_terminal() => Style::Text,
            None => Style::Lines(Data::Base64),
        }
    }

    /// Whether errors are objects on standard output: only if JSON was asked for.
    pub(super) fn json_errors(self) -> bool {
        self.json || matches!(self.output, Some(Kind::Json | Kind::Jsonl))
    }

    /// Whether a board may be drawn: on a terminal that can move its cursor.
    pub(super) fn allows_board(self) -> bool {
        self.style() == Style::Text && io::stdout().is_terminal() && Paint::allowed()
    }

    /// A printer in this style.
    pub(super) fn printer(self) -> Printer {
        Printer { style: self.style(), items: Vec::new(), blocks: 0 }
    }
}

/// Prints one item after another. An array is printed by [`Printer::finish`].
#[derive(Debug)]
pub(super) struct Printer {
    style: Style,
    items: Vec<String>,
    blocks: usize,
}

impl Printer {
    /// Prints a message of `jobwatch.v1`, as JSON, as its name, or as the text.
    pub(super) fn print(
        &mut self,
        message: (&str, &impl Message),
        name: Option<&str>,
        text: impl FnOnce() -> String,
    ) -> io::Result<()> {
        match self.style {
            Style::Text => {
                self.separate()?;
                json::write(&text())
            }
            Style::Lines(data) => json::print(message.0, message.1, data),
            Style::Document => {
                self.items.push(json::object(message.0, message.1, Data::Decoded));
                Ok(())
            }
            Style::Names => name.map_or(Ok(()), |name| json::write(&format!("{name}\n"))),
        }
    }

    /// Prints a blank line between the blocks of two jobs, if the output is text.
    pub(super) fn separate(&mut self) -> io::Result<()> {
        self.blocks += 1;
        if self.style == Style::Text && self.blocks > 1 { writeln!(io::stdout()) } else { Ok(()) }
    }

    /// Prints the array, if the output is one.
    pub(super) fn finish(self) -> io::Result<()> {
        match self.style {
            Style::Document if self.items.is_empty() => json::write("[]\n"),
            Style::Document => json::write(&format!("[\n{}\n]\n", self.items.join(",\n"))),
            _ => Ok(()),
        }
    }
}
