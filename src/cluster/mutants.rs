//! Rules that a test can leave out, to see whether the checks notice.

use std::cell::Cell;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// An observation of another replica counts only if its poll began after the registration.
    LaterObservation,
    /// Only what was asked for ends the wait of those that asked.
    OwnAnswer,
    /// What is said about a slot's earlier job does not count for the present one.
    SameJob,
}

impl Mutant {
    pub(super) const ALL: [Self; 3] = [Self::LaterObservation, Self::OwnAnswer, Self::SameJob];
}

thread_local! {
    static MUTANT: Cell<Option<Mutant>> = const { Cell::new(None) };
}

/// Whether this rule is left out.
pub(super) fn leaves_out(mutant: Mutant) -> bool {
    MUTANT.get() == Some(mutant)
}

/// Runs `body` without a rule.
pub(super) fn with_mutant<T>(mutant: Mutant, body: impl FnOnce() -> T) -> T {
    MUTANT.set(Some(mutant));
    let result = body();
    MUTANT.set(None);
    result
}
