//! A poll task never ends by itself; should one, the owner of the engine learns of it.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{rig::*, script::Script};
use crate::{
    engine::{Engine, PollTasks},
    job::{BackendFault, JobRef},
    transport::{Permit, PollResponse, Upstream},
};

/// Breaks the backend's task itself, not only one of its polls.
struct Breaks;

impl Upstream for Breaks {
    fn poll<'a>(&'a self, _: &'a [JobRef], _: Permit) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(std::future::pending())
    }

    fn credentials_rotated(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            pass(SECOND).await;
            panic!("the upstream breaks its poll task");
        })
    }
}

fn engine(upstreams: Vec<(&str, Arc<dyn Upstream>)>) -> (Arc<Engine>, PollTasks) {
    let (engine, tasks) = Engine::new(limits(many_watches()), CancellationToken::new());
    for (name, upstream) in upstreams {
        engine.start_backend(setup(name, 1, upstream));
    }
    (engine, tasks)
}

#[tokio::test(start_paused = true)]
async fn poll_task_that_ends_is_reported_and_one_that_goes_on_or_is_retired_is_not() {
    let (running, tasks) = engine(vec![("good", Script::new(LATENCY))]);
    assert!(timeout(3600 * SECOND, tasks.failed()).await.is_err());
    running.retire_backend("good");
    assert!(timeout(3600 * SECOND, tasks.failed()).await.is_err(), "it was stopped");
    let (_engine, tasks) = engine(Vec::new());
    assert!(timeout(3600 * SECOND, tasks.failed()).await.is_err(), "there is no task that could end");
    let (_engine, tasks) = engine(vec![("good", Script::new(LATENCY)), ("bad", Arc::new(Breaks))]);
    assert!(timeout(2 * SECOND, tasks.failed()).await.is_ok());
}
