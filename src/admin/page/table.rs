//! Tables whose rows can be sent one by one.

use maud::{Markup, PreEscaped, html};
use xxhash_rust::xxh3::xxh3_64;

/// A table of a page.
#[derive(Debug)]
pub(super) struct Table {
    /// Of the table's body.
    pub(super) id: &'static str,
    pub(super) rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug)]
pub(super) struct Row {
    /// The `id` of the element, the same as long as the row is about the same thing.
    pub(super) id: String,
    /// The whole element.
    pub(super) html: String,
}

/// A cell, and the header that it stands under.
pub(super) type Cell = (&'static str, Markup);

impl Row {
    /// A row about what `key` names. Its first cell is its header. A change is announced
    /// where `news` says what it is.
    pub(super) fn new(key: &[&str], class: &str, news: Option<&str>, cells: &[Cell]) -> Self {
        // Whatever characters the names have, and wherever one ends.
        let mut bytes = Vec::new();
        for part in key {
            bytes.extend(part.len().to_le_bytes());
            bytes.extend(part.as_bytes());
        }
        let id = format!("r{:016x}", xxh3_64(&bytes));
        let html = html! {
            tr id=(id) role="row" class=[(!class.is_empty()).then_some(class)] data-news=[news] {
                @for (number, (header, content)) in cells.iter().enumerate() {
                    @if number == 0 {
                        th scope="row" role="rowheader" data-label=(header) { (content) }
                    } @else {
                        td role="cell" data-label=(header) { (content) }
                    }
                }
            }
        };
        Self { id, html: html.into_string() }
    }

    /// The only row of a table that has no others.
    pub(super) fn empty(table: &str, columns: usize, text: &str) -> Self {
        let id = format!("{table}-none");
        let html =
            html! { tr id=(id) role="row" class="none" { td role="cell" colspan=(columns) { (text) } } };
        Self { id, html: html.into_string() }
    }
}

impl Table {
    /// A table, or one row that says why it has none.
    pub(super) fn new(id: &'static str, rows: Vec<Row>, columns: usize, empty: &str) -> Self {
        let rows = if rows.is_empty() { vec![Row::empty(id, columns, empty)] } else { rows };
        Self { id, rows }
    }

    /// The whole element, under these headers. The roles are named because the style sheet
    /// shows the rows as blocks on a narrow screen.
    pub(super) fn html(&self, caption: &str, headers: &[&str]) -> Markup {
        html! {
            table role="table" {
                caption class="hidden" { (caption) }
                thead role="rowgroup" {
                    tr role="row" { @for header in headers { th scope="col" role="columnheader" { (header) } } }
                }
                tbody id=(self.id) role="rowgroup" {
                    @for row in &self.rows { (PreEscaped(&row.html)) }
                }
            }
        }
    }
}
