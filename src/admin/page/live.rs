//! Server-sent events: the rows of a page that have changed.
//!
//! An open page costs at most one rendering a second, and waits twenty times as long as the
//! last one took. One page is rendered at a time, so many open pages make each other slower
//! and not the gateway.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Path, Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use http::{StatusCode, header};
use jiff::Timestamp;
use serde_json::json;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use xxhash_rust::xxh3::xxh3_64;

use super::{Name, Overview, job_tables, overview_tables, search::Search, table::Table};
use crate::{admin::Admin, job::JobRef};

/// Pages that may be open with live updates.
const PAGES: usize = 50;

/// Shortest time between two events of one page.
const EVERY: Duration = Duration::from_secs(1);

/// A page waits this many times as long as its last rendering took.
const REST: u32 = 20;

/// Time after which a page gets a comment, so that it notices a lost connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What the open pages share.
#[derive(Clone, Debug)]
pub struct Live {
    room: Arc<Semaphore>,
    turn: Arc<Mutex<()>>,
}

impl Default for Live {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(PAGES)), turn: Arc::default() }
    }
}

/// What a page shows.
#[derive(Debug)]
enum Subject {
    Overview(Search),
    Job(JobRef),
}

/// One open page.
struct Open {
    admin: Admin,
    subject: Subject,
    /// The hash of each row that was sent, and of the order of each table's rows.
    sent: HashMap<String, u64>,
    next: Instant,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn overview(State(admin): State<Admin>, Query(search): Query<Search>) -> Response {
    events(admin, Subject::Overview(search))
}

pub(super) async fn job(
    State(admin): State<Admin>,
    Path(backend): Path<String>,
    Query(name): Query<Name>,
) -> Response {
    events(admin, Subject::Job(name.of(backend)))
}

fn events(admin: Admin, subject: Subject) -> Response {
    let Ok(permit) = Arc::clone(&admin.live.room).try_acquire_owned() else {
        let why = format!(
            "{PAGES} pages with live updates are open, and no more may be; close one, or refresh by hand\n"
        );
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], why).into_response();
    };
    let open = Open { admin, subject, sent: HashMap::new(), next: Instant::now(), _permit: permit };
    let events = stream::unfold(open, async |mut open| {
        let event = open.next_event().await;
        Some((Ok::<_, Infallible>(event), open))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Open {
    /// Waits until something has changed.
    async fn next_event(&mut self) -> Event {
        loop {
            tokio::time::sleep_until(self.next).await;
            let began = Instant::now();
            let turn = Arc::clone(&self.admin.live.turn);
            let turn = turn.lock().await;
            let tables = self.tables().await;
            drop(turn);
            let now = Instant::now();
            self.next = now + EVERY.max(now.duration_since(began) * REST);
            let changes = self.changes(&tables);
            if !changes.is_empty() {
                return Event::default().data(serde_json::Value::Array(changes).to_string());
            }
        }
    }

    async fn tables(&self) -> Vec<Table> {
        let Self { admin, subject, .. } = self;
        match subject {
            Subject::Overview(search) => match search.run(&admin.engine).await {
                Ok(found) => {
                    let Overview { backends, replicas, jobs, recent } =
                        overview_tables(admin, search, &found, Timestamp::now());
                    [Some(backends), replicas, Some(jobs), Some(recent)].into_iter().flatten().collect()
                }
                Err(_) => Vec::new(),
            },
            Subject::Job(job) => match admin.engine.job_detail(job) {
                Some(detail) => job_tables(job, &detail, Timestamp::now()).into(),
                None => Vec::new(),
            },
        }
    }

    /// For each table that has changed: its id, the ids of its rows in their order, and the
    /// HTML of those that are new or differ.
    fn changes(&mut self, tables: &[Table]) -> Vec<serde_json::Value> {
        let mut sent = HashMap::new();
        let mut changes = Vec::new();
        for table in tables {
            let mut rows = String::new();
            for row in &table.rows {
                let hash = xxh3_64(row.html.as_bytes());
                if self.sent.get(&row.id) != Some(&hash) {
                    rows.push_str(&row.html);
                }
                sent.insert(row.id.clone(), hash);
            }
            let order: Vec<&str> = table.rows.iter().map(|row| &*row.id).collect();
            let hash = xxh3_64(order.join(" ").as_bytes());
            let has_moved = self.sent.get(table.id) != Some(&hash);
            sent.insert(table.id.to_owned(), hash);
            if has_moved || !rows.is_empty() {
                changes.push(json!({ "table": table.id, "order": order, "rows": rows }));
            }
        }
        self.sent = sent;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::{super::table::Row, *};

    fn open() -> Open {
        let admin = crate::admin::tests::admin();
        let permit = Arc::clone(&admin.live.room).try_acquire_owned().unwrap();
        let subject = Subject::Overview(Search::default());
        Open { admin, subject, sent: HashMap::new(), next: Instant::now(), _permit: permit }
    }

    fn row(id: &str, html: &str) -> Row {
        Row { id: id.to_owned(), html: html.to_owned() }
    }

    #[tokio::test]
    async fn only_rows_that_changed_are_sent() {
        let mut open = open();
        let changes = |open: &mut Open, rows| open.changes(&[Table { id: "jobs", rows }]);
        let all = changes(&mut open, vec![row("a", "<tr>1"), row("b", "<tr>2")]);
        assert_eq!(all, [json!({ "table": "jobs", "order": ["a", "b"], "rows": "<tr>1<tr>2" })]);
        assert!(changes(&mut open, vec![row("a", "<tr>1"), row("b", "<tr>2")]).is_empty());
        let one = changes(&mut open, vec![row("a", "<tr>1"), row("b", "<tr>3")]);
        assert_eq!(one, [json!({ "table": "jobs", "order": ["a", "b"], "rows": "<tr>3" })]);
        let gone = changes(&mut open, vec![row("b", "<tr>3")]);
        assert_eq!(gone, [json!({ "table": "jobs", "order": ["b"], "rows": "" })]);
        assert_eq!(open.sent.len(), 2, "what is not shown any more is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn page_without_changes_waits() {
        let mut open = open();
        let _all = open.next_event().await;
        let began = Instant::now();
        let waited = tokio::time::timeout(Duration::from_mins(1), open.next_event()).await;
        assert!(waited.is_err() && began.elapsed() == Duration::from_mins(1));
    }

    #[tokio::test(start_paused = true)]
    async fn page_whose_rows_change_all_the_time_gets_an_event_a_second() {
        let mut open = open();
        let began = Instant::now();
        for _ in 0..10 {
            open.sent.clear();
            let _all = open.next_event().await;
        }
        assert!(began.elapsed() >= 9 * EVERY && began.elapsed() < 10 * EVERY, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn pages_beyond_the_limit_are_refused_until_one_is_closed() {
        let admin = crate::admin::tests::admin();
        let open = || events(admin.clone(), Subject::Overview(Search::default()));
        let mut pages: Vec<_> = (0..PAGES).map(|_| open()).collect();
        assert!(pages.iter().all(|page| page.status() == StatusCode::OK));
        let refused = open();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "10");
        pages.pop();
        assert_eq!(open().status(), StatusCode::OK);
    }
}
