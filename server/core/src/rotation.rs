//! The rotation of a credential that outlives its readers, as a state machine: intent, apply and prove, publish,
//! retire. Nothing here touches a target or a store; the caller makes each state durable before acting on it.
//!
//! With one account the next password takes the place of the last one. With two they take turns: the last password
//! stays good until it is retired, so that nothing changes under a live session.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lease::MAX_BACKOFF;
use crate::time::Timestamp;

const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// How much of a failure's text is kept.
const MAX_WHY_CHARS: usize = 256;

/// Failed attempts at a step, and when the next one is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// How many failed so far.
    pub failed: u32,
    /// When to try next.
    pub next_try: Timestamp,
    /// What the last one failed with.
    pub why: Option<String>,
}

impl Attempts {
    fn at(now: Timestamp) -> Self {
        Self { failed: 0, next_try: now, why: None }
    }

    /// Another one failed at `now`: the next is later, and later each time.
    pub fn fail(&mut self, now: Timestamp, why: &str) {
        let wait = FIRST_BACKOFF.saturating_mul(1 << self.failed.min(16)).min(MAX_BACKOFF);
        self.failed = self.failed.saturating_add(1);
        self.next_try = now.plus(wait);
        self.why = Some(why.chars().take(MAX_WHY_CHARS).collect());
    }
}

/// The next password: durable before the target hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate<P> {
    /// The version it will be.
    pub version: u64,
    /// Which account it is for.
    pub account: usize,
    /// The password.
    pub secret: P,
    /// How it goes.
    pub attempts: Attempts,
}

/// The last password, still good at its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retiring {
    /// Its version.
    pub version: u64,
    /// Its account.
    pub account: usize,
    /// Until when it is good.
    pub until: Timestamp,
    /// How its retirement goes.
    pub attempts: Attempts,
}

/// A rotating credential. `P` is a password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation<P> {
    /// The version that is handed out; zero before the first.
    pub version: u64,
    /// Its account.
    pub account: usize,
    /// Its password; none before the first.
    pub secret: Option<P>,
    /// Since when it is handed out.
    pub since: Option<Timestamp>,
    /// What comes next, while it is under way.
    pub candidate: Option<Candidate<P>>,
    /// What went before, while it is still good.
    pub retiring: Option<Retiring>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this time.
    Wait(Timestamp),
    /// Invent the next password ([`Rotation::intend`]).
    Intend,
    /// Set the candidate at the target and log in with it ([`Rotation::published`], [`Rotation::failed`]).
    Apply,
    /// Shut the last account ([`Rotation::retired`], [`Rotation::failed`]).
    Retire,
}

/// Why a rotation cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// One is under way.
    #[error("a rotation is under way already")]
    UnderWay,
    /// The other account's password is still good for somebody.
    #[error("the last password is still good until its grace period is over")]
    Grace,
}

impl<P> Default for Rotation<P> {
    fn default() -> Self {
        Self { version: 0, account: 0, secret: None, since: None, candidate: None, retiring: None }
    }
}

impl<P> Rotation<P> {
    /// What is to be done at `now`, if the next rotation is due at `due`.
    pub fn next(&self, due: Timestamp, now: Timestamp) -> Step {
        let wake = self.wake(due);
        if wake > now {
            return Step::Wait(wake);
        }
        match (&self.candidate, &self.retiring) {
            (Some(_), _) => Step::Apply,
            (None, Some(_)) => Step::Retire,
            (None, None) => Step::Intend,
        }
    }

    /// When there is something to do next.
    pub fn wake(&self, due: Timestamp) -> Timestamp {
        match (&self.candidate, &self.retiring) {
            (Some(candidate), _) => candidate.attempts.next_try,
            // The next rotation needs the account that is being retired.
            (None, Some(retiring)) => retiring.until.max(retiring.attempts.next_try),
            (None, None) => due,
        }
    }

    /// Takes `secret` for the next of `accounts` (1 or 2) accounts. Make this durable, then apply it.
    ///
    /// # Errors
    /// [`Busy`] while another rotation is not over.
    pub fn intend(&mut self, secret: P, accounts: usize, now: Timestamp) -> Result<(), Busy> {
        if self.candidate.is_some() {
            return Err(Busy::UnderWay);
        }
        if self.retiring.is_some() {
            return Err(Busy::Grace);
        }
        let account = if self.version == 0 || accounts < 2 { self.account } else { 1 - self.account.min(1) };
        let attempts = Attempts::at(now);
        self.candidate = Some(Candidate { version: self.version + 1, account, secret, attempts });
        Ok(())
    }

    /// The candidate `version` has logged in: it is the current one from now on. Where it has an account of its own the
    /// one before stays good for `grace`. False if somebody else has said so already.
    pub fn published(&mut self, version: u64, now: Timestamp, grace: Duration) -> bool {
        let Some(candidate) = self.candidate.take_if(|candidate| candidate.version == version) else {
            return false;
        };
        if self.version > 0 && candidate.account != self.account {
            self.retiring = Some(Retiring {
                version: self.version,
                account: self.account,
                until: now.plus(grace),
                attempts: Attempts::default(),
            });
        }
        self.version = candidate.version;
        self.account = candidate.account;
        self.secret = Some(candidate.secret);
        self.since = Some(now);
        true
    }

    /// The step at hand is to be tried again now, however often it failed.
    pub fn hurry(&mut self, now: Timestamp) {
        if let Some(candidate) = &mut self.candidate {
            candidate.attempts.next_try = candidate.attempts.next_try.min(now);
        } else if let Some(retiring) = &mut self.retiring {
            retiring.attempts.next_try = retiring.attempts.next_try.min(now);
        }
    }

    /// The candidate `version` is not at the target, and is not to be set there before `until`.
    pub fn deferred(&mut self, version: u64, until: Timestamp) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.version == version) {
            candidate.attempts.next_try = until;
        }
    }

    /// Everybody who ever had the last password has the current one: no need to wait any longer.
    pub fn released(&mut self, version: u64, now: Timestamp) {
        if let Some(retiring) = self.retiring.as_mut().filter(|retiring| retiring.version == version) {
            retiring.until = retiring.until.min(now);
        }
    }

    /// The last account is shut.
    pub fn retired(&mut self, version: u64) -> bool {
        self.retiring.take_if(|retiring| retiring.version == version).is_some()
    }

    /// The step that concerns `version` did not succeed. It is taken again, with the same password.
    pub fn failed(&mut self, version: u64, now: Timestamp, why: &str) {
        if let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.version == version) {
            candidate.attempts.fail(now, why);
        } else if let Some(retiring) = self.retiring.as_mut().filter(|last| last.version == version) {
            retiring.attempts.fail(now, why);
        }
    }

    /// Why the step at hand failed the last time.
    pub fn trouble(&self) -> Option<&str> {
        let attempts = match (&self.candidate, &self.retiring) {
            (Some(candidate), _) => &candidate.attempts,
            (None, Some(retiring)) => &retiring.attempts,
            (None, None) => return None,
        };
        attempts.why.as_deref()
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
