//! Rules that a test can leave out, to see whether the checks notice.

use std::cell::Cell;

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Messages of other sessions are taken in.
    AnySession,
    /// An observation of another replica counts whenever its poll began.
    AnyBeginning,
    /// Whatever is said about a job answers those that wait for it.
    AnyAnswer,
    /// What is said about a slot's earlier job counts for the present one.
    AnySlot,
}

impl Mutant {
    pub(super) const ALL: [Self; 4] = [Self::AnySession, Self::AnyBeginning, Self::AnyAnswer, Self::AnySlot];
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
