//! The life of a lease as a state machine, and the arithmetic of its expiry.
//!
//! A step takes the old state and gives the new one or refuses: there is no way around the table. Nothing here
//! touches a target or a store; the caller makes the new state durable before acting on it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// After this many failed attempts in a row a lease is shown as stuck. It is still retried, every
/// [`MAX_BACKOFF`], until it is revoked or force-revoked.
pub const ATTEMPTS_UNTIL_STUCK: u32 = 8;
/// The longest wait between two attempts.
pub const MAX_BACKOFF: Duration = Duration::from_secs(300);
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// How much of a failure's text is kept.
const MAX_WHY_CHARS: usize = 256;

/// Where a lease is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum LeaseState {
    /// The intent is durable; the credential may or may not exist yet. After the deadline it is cleaned up.
    Issuing {
        /// Until when the issue may still complete.
        deadline: Timestamp,
    },
    /// Handed out and valid.
    Active {
        /// When it ends unless renewed.
        expires: Timestamp,
    },
    /// Being taken back.
    Revoking {
        /// Failed attempts so far.
        attempt: u32,
        /// When to try next.
        next_try: Timestamp,
    },
    /// Gone at the target. Kept as a tombstone for a while.
    Revoked,
    /// Could not be taken back so far; visible, and tried again now and then.
    Stuck {
        /// What the last attempt failed with.
        why: String,
        /// When to try next.
        next_try: Timestamp,
    },
}

/// What can happen to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// The credential exists and is about to be handed out.
    Issued {
        /// When it ends unless renewed.
        expires: Timestamp,
    },
    /// The credential could not be made, or nobody knows: clean up.
    IssueFailed,
    /// The lease was renewed.
    Renewed {
        /// The new end.
        expires: Timestamp,
    },
    /// The sweeper found it due: past its expiry, or past its issue deadline.
    Due,
    /// Somebody (or the end of its token) wants it gone now.
    RevokeRequested,
    /// The target has confirmed that the credential is gone.
    TargetCleaned,
    /// An attempt failed.
    AttemptFailed {
        /// With what. Never a secret.
        why: String,
        /// Chance, from 0 to 255: how much of the wait that may be shortened is waited (see [`jittered`]).
        spread: u8,
    },
    /// An administrator wants it forgotten though the target never confirmed.
    ForceRevoked,
}

/// Why a step was refused. The state is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// This cannot happen to a lease in that state.
    #[error("a lease that is {state} cannot be {event}")]
    Illegal {
        /// The state.
        state: &'static str,
        /// The event.
        event: &'static str,
    },
    /// Its time is over: it can be revoked, never renewed.
    #[error("lease is expired")]
    Expired,
    /// Its time is not over.
    #[error("lease is not due yet")]
    NotDue,
    /// Renewal would not make it live any longer than now.
    #[error("lease has reached its maximum TTL")]
    MaxTtl,
}

impl LeaseState {
    /// The state's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Issuing { .. } => "issuing",
            Self::Active { .. } => "active",
            Self::Revoking { .. } => "revoking",
            Self::Revoked => "revoked",
            Self::Stuck { .. } => "stuck",
        }
    }

    /// When the sweeper must look at it next; `None` when it is done.
    pub const fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Issuing { deadline } => Some(*deadline),
            Self::Active { expires } => Some(*expires),
            Self::Revoking { next_try, .. } | Self::Stuck { next_try, .. } => Some(*next_try),
            Self::Revoked => None,
        }
    }

    /// Whether what was handed out is valid at `now`. At the very moment of expiry it no longer is.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        matches!(self, Self::Active { expires } if now < *expires)
    }

    /// The state after an event. Requests to revoke are idempotent in every state.
    pub fn step(self, event: LeaseEvent, now: Timestamp) -> Result<Self, LeaseError> {
        use LeaseEvent as E;
        use LeaseState as S;
        let begin = S::Revoking { attempt: 0, next_try: now };
        let illegal = LeaseError::Illegal { state: self.name(), event: event.name() };
        match (self, event) {
            // An issue that completes after its deadline is too late: the sweeper may already be cleaning.
            (S::Issuing { deadline }, E::Issued { .. }) if now >= deadline => Err(LeaseError::Expired),
            (S::Issuing { .. }, E::Issued { expires }) if expires <= now => Err(LeaseError::Expired),
            (S::Issuing { .. }, E::Issued { expires }) => Ok(S::Active { expires }),
            (S::Issuing { .. }, E::IssueFailed | E::RevokeRequested) => Ok(begin),
            (S::Issuing { deadline }, E::Due) if now < deadline => Err(LeaseError::NotDue),
            (S::Issuing { .. }, E::Due) => Ok(begin),
            (S::Issuing { .. }, E::Renewed { .. } | E::TargetCleaned | E::AttemptFailed { .. }) => {
                Err(illegal)
            }

            (S::Active { expires }, E::Renewed { .. }) if now >= expires => Err(LeaseError::Expired),
            (S::Active { .. }, E::Renewed { expires }) if expires <= now => Err(LeaseError::MaxTtl),
            (S::Active { .. }, E::Renewed { expires }) => Ok(S::Active { expires }),
            (S::Active { expires }, E::Due) if now < expires => Err(LeaseError::NotDue),
            (S::Active { .. }, E::Due | E::RevokeRequested) => Ok(begin),
            (
                S::Active { .. },
                E::Issued { .. } | E::IssueFailed | E::TargetCleaned | E::AttemptFailed { .. },
            ) => Err(illegal),

            (S::Revoking { .. } | S::Stuck { .. }, E::TargetCleaned) => Ok(S::Revoked),
            (S::Revoking { attempt, .. }, E::AttemptFailed { why, spread }) => {
                Ok(failed(attempt, &why, spread, now))
            }
            (S::Stuck { .. }, E::AttemptFailed { why, spread }) => Ok(stuck(&why, spread, now)),
            // Asking again brings the next attempt forward and starts the count anew.
            (S::Revoking { .. } | S::Stuck { .. }, E::RevokeRequested) => Ok(begin),
            (S::Revoking { next_try, .. } | S::Stuck { next_try, .. }, E::Due) if now < next_try => {
                Err(LeaseError::NotDue)
            }
            (state @ (S::Revoking { .. } | S::Stuck { .. }), E::Due) => Ok(state),
            (S::Revoking { .. } | S::Stuck { .. }, E::Issued { .. } | E::IssueFailed | E::Renewed { .. }) => {
                Err(illegal)
            }

            (S::Revoked, E::RevokeRequested | E::TargetCleaned | E::ForceRevoked) => Ok(S::Revoked),
            (
                S::Revoked,
                E::Issued { .. } | E::IssueFailed | E::Renewed { .. } | E::Due | E::AttemptFailed { .. },
            ) => Err(illegal),

            (
                S::Issuing { .. } | S::Active { .. } | S::Revoking { .. } | S::Stuck { .. },
                E::ForceRevoked,
            ) => Ok(S::Revoked),
        }
    }
}

impl LeaseEvent {
    /// The event's name, as a participle.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Issued { .. } => "issued",
            Self::IssueFailed => "given up",
            Self::Renewed { .. } => "renewed",
            Self::Due => "swept",
            Self::RevokeRequested => "revoked",
            Self::TargetCleaned => "cleaned",
            Self::AttemptFailed { .. } => "failed",
            Self::ForceRevoked => "force-revoked",
        }
    }
}

fn failed(attempt: u32, why: &str, spread: u8, now: Timestamp) -> LeaseState {
    let attempt = attempt.saturating_add(1);
    if attempt >= ATTEMPTS_UNTIL_STUCK {
        return stuck(why, spread, now);
    }
    LeaseState::Revoking { attempt, next_try: now.plus(jittered(backoff(attempt), spread)) }
}

fn stuck(why: &str, spread: u8, now: Timestamp) -> LeaseState {
    let next_try = now.plus(jittered(MAX_BACKOFF, spread));
    LeaseState::Stuck { why: why.chars().take(MAX_WHY_CHARS).collect(), next_try }
}

/// A wait of which the second half is shortened by chance, so that what failed together is not tried together again:
/// at 0 the half of `whole`, at 255 all of it.
pub fn jittered(whole: Duration, spread: u8) -> Duration {
    let half = whole / 2;
    half + (whole - half) * u32::from(spread) / 255
}

/// How long to wait after so many failed attempts: 1 s, 2 s, 4 s ... up to [`MAX_BACKOFF`].
pub fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (FIRST_BACKOFF * 2u32.pow(doublings)).min(MAX_BACKOFF)
}

/// What the expiry of a new lease depends on.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The TTL asked for or configured.
    pub ttl: Duration,
    /// The longest a lease may live, counted from its issue, renewals included.
    pub max_ttl: Duration,
    /// When the token it belongs to ends; `None` for a token without end.
    pub token_expiry: Option<Timestamp>,
}

impl Limits {
    fn cap(&self, issued: Timestamp) -> Timestamp {
        let own = issued.plus(self.max_ttl);
        self.token_expiry.map_or(own, |token| own.min(token))
    }
}

/// The expiry of a new lease.
pub fn first_expiry(now: Timestamp, limits: &Limits) -> Result<Timestamp, LeaseError> {
    after_now(now, now.plus(limits.ttl).min(limits.cap(now)))
}

/// The expiry of a lease after renewal at `now`: `now` plus the increment (zero or none: the TTL), never beyond
/// the maximum TTL counted from `issued`, nor beyond the token. A lease whose time is over is never renewed,
/// however little it is over (CVE-2021-32923 was a lease renewed in its last second that then never ended).
pub fn renewed_expiry(
    now: Timestamp,
    issued: Timestamp,
    current: Timestamp,
    increment: Option<Duration>,
    limits: &Limits,
) -> Result<Timestamp, LeaseError> {
    if now >= current {
        return Err(LeaseError::Expired);
    }
    let wanted = increment.filter(|i| !i.is_zero()).unwrap_or(limits.ttl);
    let expires = now.plus(wanted).min(limits.cap(issued));
    after_now(now, expires)
}

fn after_now(now: Timestamp, expires: Timestamp) -> Result<Timestamp, LeaseError> {
    if expires > now { Ok(expires) } else { Err(LeaseError::MaxTtl) }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
