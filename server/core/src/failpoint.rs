//! Named steps of a write, at which a test may end the process.
//!
//! Nothing that ships arms them: no configuration, argument, environment variable or request reaches [`arm`], which is
//! called by the crash test's own executable only (`docs/adr/0012-failpoints.md`). Unarmed, a step costs one look at
//! an atomic.

use std::sync::OnceLock;

/// What happens at a step. It may not return at all.
pub type AtStep = Box<dyn Fn(Step) + Send + Sync>;

static AT_STEP: OnceLock<AtStep> = OnceLock::new();

macro_rules! steps {
    ($($(#[doc = $doc:literal])* $step:ident = $name:literal,)*) => {
        /// A step of a write, or of what follows one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Step {
            $($(#[doc = $doc])* $step,)*
        }

        impl Step {
            /// All of them: those of a request, those of the store's committer, those of operations of several
            /// transactions, those in the background.
            pub const ALL: &[Self] = &[$(Self::$step,)*];

            /// Its name, as a crash is ordered and told by.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$step => $name,)*
                }
            }
        }
    };
}

steps! {
    /// The intent is made up, nothing is written.
    BeforeIntent = "before-intent",
    /// The audit log's writer has a batch of records.
    AuditBeforeAppend = "audit-before-append",
    /// The batch is in the file, nobody is told.
    AuditAppended = "audit-appended",
    /// The intent is as durable as was asked for.
    IntentWritten = "intent-written",
    /// A transaction has its snapshot.
    Begun = "begun",
    /// A transaction is complete and goes to the store.
    BeforeCommit = "before-commit",
    /// The store has said that it is committed; keys that it made are not in memory yet.
    Committed = "committed",
    /// An engine's write is committed, and what is kept in memory of its subject is still closed.
    EngineCommitted = "engine-committed",
    /// The effect is there, its completion is not.
    BeforeCompletion = "before-completion",
    /// The completion is recorded, the reply is not on its way.
    CompletionWritten = "completion-written",
    /// The last moment before the reply leaves the vault.
    BeforeReply = "before-reply",
    /// The committer has opened its transaction.
    CommitterBeforeWrite = "committer-before-write",
    /// The rows are handed to the file, and are to be synced.
    CommitterBeforeSync = "committer-before-sync",
    /// A sync has returned.
    CommitterAfterSync = "committer-after-sync",
    /// The batch is durable, nobody is told.
    CommitterDurable = "committer-durable",
    /// Tokens are dead, what hangs from them is still there.
    TokensKilled = "tokens-killed",
    /// A mount is marked to go, what it issued is still there.
    MountTainted = "mount-tainted",
    /// What the mount issued is gone, its rows are to be erased.
    MountTakenBack = "mount-taken-back",
    /// Some of a removed mount's rows are gone.
    MountErasing = "mount-erasing",
    /// A rotation is committed, its caller is not told.
    Rotated = "rotated",
    /// A rekey is committed, the new master key is not in use yet.
    Rekeyed = "rekeyed",
    /// A batch of old rows is under the new keys.
    Rewrapped = "rewrapped",
    /// A session at a target may act, and the statement that makes an account goes there next.
    TargetBeforeCreate = "target-before-create",
    /// The target has made the account, nobody is told.
    TargetCreated = "target-created",
    /// A session at a target may act, and the statement that changes a password goes there next.
    TargetBeforeAlter = "target-before-alter",
    /// The audit log's head is anchored in the barrier.
    Anchored = "anchored",
}

/// Makes every step of this process call `at_step`. The first call counts; gives back whether this was it.
pub fn arm(at_step: AtStep) -> bool {
    AT_STEP.set(at_step).is_ok()
}

/// A step is reached.
#[inline]
pub fn reach(step: Step) {
    if let Some(at_step) = AT_STEP.get() {
        at_step(step);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn steps_do_nothing_until_armed_and_are_armed_once() {
        reach(Step::Begun);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        assert!(arm(Box::new(move |step| log.lock().unwrap().push(step))));
        assert!(!arm(Box::new(|_| panic!("armed twice"))));
        reach(Step::Committed);
        assert_eq!(*seen.lock().unwrap(), [Step::Committed]);
    }
}
