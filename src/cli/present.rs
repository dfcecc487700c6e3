//! Presents the updates of watched jobs in the format that fits the output.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    board::{Board, Row, name_width},
    exit::Exit,
    fault, json,
    render::{Paint, one_line},
    watcher::{Update, Watcher},
};
use crate::proto::v1::{Interruption, WatchJobResponse, watch_job_response::Event};

/// The output's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// Every response except heartbeats as proto-JSON, for programs.
    Json,
    /// Rows that change in place, on a terminal.
    Board,
    /// A line of text for each change, in a file or a pipe.
    #[cfg_attr(not(feature = "demo"), allow(dead_code))]
    Log,
}

/// Updates the rows until all watches have ended. Returns the worst exit code.
pub(super) async fn present(mut watcher: Watcher, rows: &mut [Row], format: Format) -> io::Result<Exit> {
    let mut board = (format == Format::Board).then(Board::new);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tick = 0;
    let width = name_width(rows, usize::MAX);
    loop {
        tokio::select! {
            update = watcher.next() => match update {
                Some((at, update)) => {
                    let before = headline(&rows[at]);
                    apply(&mut rows[at], update, format)?;
                    if format == Format::Log && headline(&rows[at]) != before {
                        log(&rows[at], width)?;
                    }
                }
                None => break,
            },
            _ = ticks.tick(), if board.is_some() => {
                tick += 1;
                if let Some(board) = &mut board {
                    board.draw(rows, tick)?;
                }
            }
        }
    }
    match board {
        // The details of a single job are printed next and include its row.
        Some(board) if rows.len() == 1 => board.clear(),
        Some(mut board) => board.draw(rows, 0)?,
        None => {}
    }
    Ok(rows.iter().map(exit).max().unwrap_or(Exit::Succeeded))
}

fn apply(row: &mut Row, update: Update, format: Format) -> io::Result<()> {
    match update {
        Update::Response(response) => {
            let heartbeat = matches!(response.event, Some(Event::Heartbeat(_)));
            if format == Format::Json && !heartbeat {
                json::print("WatchJobResponse", &*response)?;
            }
            apply_response(row, *response);
        }
        Update::Disconnected { cause, retry_in } => {
            let trouble = format!("connection lost; trying again in {}", fault::seconds(retry_in));
            if format != Format::Board || !io::stderr().is_terminal() {
                eprintln!("{}: {trouble} ({})", row.name, one_line(&cause));
            }
            row.trouble = Some(trouble);
        }
        Update::Ended(Ok(())) => row.trouble = None,
        Update::Ended(Err(status)) => row.failed = Some(*status),
    }
    Ok(())
}

fn apply_response(row: &mut Row, response: WatchJobResponse) {
    match response.event {
        Some(Event::Status(status)) => {
            row.status = Some(status);
            row.trouble = None;
        }
        Some(Event::Interruption(Interruption { cause, observe_time: _, retry_time: _ })) => {
            let cause = tonic::Status::from(&cause.unwrap_or_default());
            row.trouble = Some(format!("{}: {}", fault::code(cause.code()), one_line(cause.message())));
        }
        // A heartbeat shows that the connection is back, but not that the vendor is.
        Some(Event::Heartbeat(_)) | None => {}
    }
}

fn exit(row: &Row) -> Exit {
    match (&row.failed, &row.status) {
        (None, Some(status)) => Exit::of(status),
        _ => Exit::Failed,
    }
}

/// The parts of a row whose change is logged. The percentage is not one of them.
fn headline(row: &Row) -> impl PartialEq + use<> {
    let status = row.status.as_ref();
    let step =
        status.and_then(|status| status.progress.as_ref()).map(|progress| progress.current_step.clone());
    let failed = row.failed.as_ref().map(tonic::Status::code);
    (status.map(|status| status.state), step, row.trouble.clone(), failed)
}

fn log(row: &Row, width: usize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", row.line(width, Timestamp::now(), None, Paint::stdout()))?;
    out.flush()
}
