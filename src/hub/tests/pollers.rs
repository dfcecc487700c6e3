//! A poller never ends by itself; should one, the hub's owner learns of it.

use futures_util::future::BoxFuture;

use super::*;
use crate::{
    job::BackendFault,
    transport::{Permit, PollResponse, Upstream},
};

/// Breaks the poller's task itself, not only one of its requests.
struct Breaks;

impl Upstream for Breaks {
    fn poll<'a>(&'a self, _: &'a [JobRef], _: Permit) -> BoxFuture<'a, Result<PollResponse, BackendFault>> {
        Box::pin(std::future::pending())
    }

    fn credentials_rotated(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            pass(SECOND).await;
            panic!("the upstream breaks its poller");
        })
    }
}

fn start(upstreams: Vec<(&str, Arc<dyn Upstream>)>) -> (Hub, Pollers) {
    let setup = |(name, upstream): (&str, Arc<dyn Upstream>)| BackendSetup {
        name: name.into(),
        vendor: "immuta",
        long_poll: false,
        check: Box::new(|_| Ok(())),
        max_batch: NonZeroUsize::MIN,
        upstream,
        poll: poll(1),
    };
    let limits = WatchLimits { total: 4, per_caller: 4, per_call: 4 };
    let setups = upstreams.into_iter().map(setup).collect();
    Hub::start(setups, Duration::ZERO, limits, CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn a_poller_that_ends_is_told_and_one_that_goes_on_is_not() {
    let (_hub, mut pollers) = start(vec![("good", Script::new(LATENCY))]);
    assert!(timeout(3600 * SECOND, pollers.broken()).await.is_err());
    let (_hub, mut pollers) = start(Vec::new());
    assert!(timeout(3600 * SECOND, pollers.broken()).await.is_err(), "without any there is none to end");
    let (_hub, mut pollers) = start(vec![("good", Script::new(LATENCY)), ("bad", Arc::new(Breaks))]);
    assert!(timeout(2 * SECOND, pollers.broken()).await.is_ok());
}
