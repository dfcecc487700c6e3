//! Faults on their way to another replica.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crate::{
    job::{BackendFault, FaultKind},
    proto::cluster::v1::{Fault, fault::Kind},
};

/// Most different reasons of other releases that are kept.
const REASONS: usize = 256;

/// The fault as it is sent.
pub(super) fn to_message(fault: &BackendFault) -> Fault {
    let (kind, why) = match &fault.kind {
        FaultKind::Unreachable { why } => (Kind::Unreachable, why.clone()),
        FaultKind::Unavailable { why } => (Kind::Unavailable, why.clone()),
        FaultKind::Throttled => (Kind::Throttled, String::new()),
        FaultKind::Overloaded => (Kind::Overloaded, String::new()),
        FaultKind::CredentialsRejected => (Kind::CredentialsRejected, String::new()),
        FaultKind::Forbidden => (Kind::Forbidden, String::new()),
        FaultKind::Rejected { message } => (Kind::Rejected, message.clone()),
        FaultKind::TooLarge => (Kind::TooLarge, String::new()),
        FaultKind::Malformed { why } => (Kind::Malformed, (*why).to_owned()),
    };
    Fault {
        kind: kind.into(),
        why,
        http_status: fault.http_status.map_or(0, u32::from),
        detail: fault.detail.unwrap_or_default().to_owned(),
        token_refresh: fault.token_refresh,
        retry_after_ms: fault.retry_after.map_or(0, milliseconds),
        exchange: fault.exchange.as_deref().unwrap_or_default().to_owned(),
    }
}

/// The fault that was sent. One of a later release's kind is that the vendor is unavailable.
pub(super) fn from_message(fault: Fault) -> BackendFault {
    let Fault { kind, why, http_status, detail, token_refresh, retry_after_ms, exchange } = fault;
    let kind = match Kind::try_from(kind).unwrap_or_default() {
        Kind::Unreachable => FaultKind::Unreachable { why },
        Kind::Unspecified | Kind::Unavailable => FaultKind::Unavailable { why },
        Kind::Throttled => FaultKind::Throttled,
        Kind::Overloaded => FaultKind::Overloaded,
        Kind::CredentialsRejected => FaultKind::CredentialsRejected,
        Kind::Forbidden => FaultKind::Forbidden,
        Kind::Rejected => FaultKind::Rejected { message: why },
        Kind::TooLarge => FaultKind::TooLarge,
        Kind::Malformed => {
            FaultKind::Malformed { why: shared(&why).unwrap_or("see the other replica's log") }
        }
    };
    BackendFault {
        kind,
        http_status: u16::try_from(http_status).ok().filter(|status| *status > 0),
        detail: shared(&detail).filter(|detail| !detail.is_empty()),
        token_refresh,
        retry_after: (retry_after_ms > 0).then(|| Duration::from_millis(retry_after_ms)),
        exchange: (!exchange.is_empty()).then(|| exchange.into()),
    }
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The same text for as long as the program runs; `None` where there are too many.
fn shared(text: &str) -> Option<&'static str> {
    static TEXTS: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    let texts = texts.get_or_insert_default();
    if let Some(known) = texts.get(text) {
        return Some(known);
    }
    if texts.len() >= REASONS || text.len() > 512 {
        return None;
    }
    let kept: &'static str = Box::leak(text.into());
    texts.insert(kept);
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_is_the_same_after_the_way() {
        let kinds = [
            FaultKind::Unreachable { why: "no route".into() },
            FaultKind::Unavailable { why: "reset".into() },
            FaultKind::Throttled,
            FaultKind::Overloaded,
            FaultKind::CredentialsRejected,
            FaultKind::Forbidden,
            FaultKind::Rejected { message: "no".into() },
            FaultKind::TooLarge,
            FaultKind::Malformed { why: "not JSON" },
        ];
        for kind in kinds {
            let bare = BackendFault::from(kind.clone());
            assert_eq!(from_message(to_message(&bare)), bare);
            let whole = BackendFault {
                http_status: Some(503),
                detail: Some("closer"),
                token_refresh: true,
                retry_after: Some(Duration::from_millis(1500)),
                exchange: Some("GET /jobs: HTTP 503".into()),
                ..kind.into()
            };
            assert_eq!(from_message(to_message(&whole)), whole);
        }
    }
}
