//! Shows the news of followed jobs, in the way that suits the reader.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    batch,
    board::{Board, Row, name_width},
    exit::Exit,
    fault,
    follow::{Following, News},
    json,
    render::{Paint, one_line},
};
use crate::proto::v1::{Interruption, WatchJobResponse, watch_job_response::Event};

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// A program: every response but heartbeats as proto-JSON.
    Program,
    /// A person at a terminal: rows that change in place.
    Terminal,
    /// A person, through a file or a pipe: one line for each change.
    #[cfg_attr(not(feature = "demo"), allow(dead_code))]
    Log,
}

/// Follows until all jobs are over, updating their rows. Returns the worst end.
pub(super) async fn present(mut following: Following, rows: &mut [Row], reader: Reader) -> io::Result<Exit> {
    let mut board = (reader == Reader::Terminal).then(Board::new);
    let mut ticks = interval(Duration::from_millis(100));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut tick = 0;
    let width = name_width(rows, usize::MAX);
    loop {
        tokio::select! {
            news = following.next() => match news {
                Some((at, news)) => {
                    let before = headline(&rows[at]);
                    tell(&mut rows[at], news, reader)?;
                    if reader == Reader::Log && headline(&rows[at]) != before {
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
        // The one job's details follow, which say all that its row does.
        Some(board) if rows.len() == 1 => board.clear(),
        Some(mut board) => board.draw(rows, 0)?,
        None => {}
    }
    Ok(rows.iter().map(exit).max().unwrap_or(Exit::Succeeded))
}

fn tell(row: &mut Row, news: News, reader: Reader) -> io::Result<()> {
    match news {
        News::Said(response) => {
            let heartbeat = matches!(response.event, Some(Event::Heartbeat(_)));
            if reader == Reader::Program && !heartbeat {
                json::print("WatchJobResponse", &*response)?;
            }
            said(row, *response);
        }
        News::Lost { cause, retry_in } => {
            let trouble = format!("connection lost; trying again in {}", fault::seconds(retry_in));
            if reader != Reader::Terminal || !io::stderr().is_terminal() {
                eprintln!("{}: {trouble} ({})", row.name, one_line(&cause));
            }
            row.trouble = Some(trouble);
        }
        News::Over(Ok(())) => row.trouble = None,
        News::Over(Err(status)) => row.failed = Some(*status),
    }
    Ok(())
}

fn said(row: &mut Row, response: WatchJobResponse) {
    match response.event {
        Some(Event::Status(status)) => {
            row.status = Some(status);
            row.trouble = None;
        }
        Some(Event::Interruption(Interruption { cause, observe_time: _, retry_time: _ })) => {
            let cause = batch::to_status(&cause.unwrap_or_default());
            row.trouble = Some(format!("{}: {}", fault::code(cause.code()), one_line(cause.message())));
        }
        // A heartbeat after a lost connection says that it is back, but not that
        // the vendor is.
        Some(Event::Heartbeat(_)) | None => {}
    }
}

fn exit(row: &Row) -> Exit {
    match (&row.failed, &row.status) {
        (None, Some(status)) => Exit::of(status),
        _ => Exit::Failed,
    }
}

/// What a change has to touch to be worth a line of its own: not the percentage.
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
