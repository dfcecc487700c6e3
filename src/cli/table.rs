//! Tables whose last column is text of any length.

use super::text::{columns, folded, padded};

/// The margin of lines that belong to the row above.
const MARGIN: &str = "  ";

/// Rows of equally wide columns. If they do not fit into `room` columns, the last cell has lines of
/// its own below its row; if the rest does not fit either, the first cell has, too. No cell is
/// shortened.
pub(super) fn table(head: &[&str], rows: &[Vec<String>], room: Option<usize>) -> String {
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let all: Vec<&[String]> = std::iter::once(&head).chain(rows).map(Vec::as_slice).collect();
    let whole = aligned(&all);
    let fits = |lines: &[String]| room.is_none_or(|room| lines.iter().all(|line| columns(line) <= room));
    if fits(&whole) {
        return joined(&whole);
    }
    let short: Vec<&[String]> = all.iter().filter_map(|row| row.split_last()).map(|(_, rest)| rest).collect();
    let mut lines = aligned(&short);
    let is_wide = !fits(&lines);
    if is_wide {
        let rest: Vec<&[String]> =
            short.iter().filter_map(|row| row.split_first()).map(|(_, rest)| rest).collect();
        let firsts = short.iter().filter_map(|row| row.first());
        lines = firsts.zip(aligned(&rest)).map(|(first, rest)| format!("{first}\n{MARGIN}{rest}")).collect();
    }
    let label = head.last().map(|label| label.to_lowercase()).unwrap_or_default();
    let lasts = all.iter().filter_map(|row| row.last());
    for (n, (line, last)) in lines.iter_mut().zip(lasts).enumerate() {
        if n > 0 && !last.is_empty() {
            let text = format!("{label}: {last}");
            for part in folded(&text, room.map(|room| room.saturating_sub(MARGIN.len()))) {
                *line = format!("{line}\n{MARGIN}{part}");
            }
        }
    }
    joined(&lines)
}

fn joined(lines: &[String]) -> String {
    lines.join("\n") + "\n"
}

/// A line for each row.
fn aligned(rows: &[&[String]]) -> Vec<String> {
    let count = rows.iter().map(|row| row.len()).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| columns(cell)).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &&[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| padded(cell, *width));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(error: &str) -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![row(["immuta/42", "RUNNING", "12", error]), row(["claret/1", "-", "1", ""])]
    }

    const HEAD: [&str; 4] = ["JOB", "STATE", "SUBSCRIBERS", "LAST ERROR"];

    #[test]
    fn table_that_fits_has_a_line_for_each_row() {
        let text = table(&HEAD, &rows("no answer"), Some(45));
        let expected = "\
JOB        STATE    SUBSCRIBERS  LAST ERROR
immuta/42  RUNNING  12           no answer
claret/1   -        1
";
        assert_eq!(text, expected);
    }

    #[test]
    fn wide_table_has_its_last_column_below_the_rows() {
        let error = "the vendor has not answered within 30 s";
        let text = table(&HEAD, &rows(error), Some(40));
        let expected = "\
JOB        STATE    SUBSCRIBERS
immuta/42  RUNNING  12
  last error: the vendor has not
  answered within 30 s
claret/1   -        1
";
        assert_eq!(text, expected);
        assert!(table(&HEAD, &rows(error), None).contains(&format!("12           {error}\n")));
    }

    #[test]
    fn narrow_table_has_its_first_column_above_the_rows() {
        let text = table(&HEAD, &rows("no answer"), Some(25));
        let expected = "\
JOB
  STATE    SUBSCRIBERS
immuta/42
  RUNNING  12
  last error: no answer
claret/1
  -        1
";
        assert_eq!(text, expected);
    }
}
