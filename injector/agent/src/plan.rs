//! What to do next, given what is held and what time it is. Pure: no IO, no clock, no randomness.
//!
//! The order is the story of a pod: log in; know every document; only then take credentials, so that
//! none is issued to a pod that cannot start yet; show them; keep them alive; give back what was replaced.

use crate::attempts::{Attempts, Subject};
use crate::config::Wanted;
use crate::duration;
use crate::state::{Held, Issue, Life, State};
use std::collections::BTreeSet;

/// The next thing to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Step {
    /// Nothing until then; `None`: until something happens.
    Idle(Option<u64>),
    /// Read the secret; a lease it had before is superseded.
    Issue(String),
    /// Log in; a token there was before retires.
    Login,
    /// Read the secret's delivery document.
    ReadDocument(String),
    /// Prolong the secret's lease.
    RenewLease(String),
    /// Prolong the token.
    RenewToken,
    /// Revoke the nth of what retires.
    Revoke(usize),
    /// Put the secret's files in place.
    Show(String),
}

/// All a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The secrets the pod asked for.
    pub wanted: &'a [Wanted],
    /// What is held.
    pub state: &'a State,
    /// What failed lately.
    pub attempts: &'a Attempts,
    /// Secrets whose document may have changed.
    pub stale: &'a BTreeSet<String>,
    /// The time.
    pub now_ms: u64,
}

const OVERLAP_DEFAULT_MS: u64 = 300_000;
const OVERLAP_MAX_MS: u64 = 24 * 3_600_000;
const RENEW_AT_PERCENT_DEFAULT: u8 = 66;
/// Time to issue, swap and tell the application, on top of the overlap.
const SWAP_MARGIN_MS: u64 = 30_000;
/// The least time between two calls for one token or lease: a TTL of a second must not become a flood.
const CALM_MS: u64 = 1_000;
/// How old a secret without a lease may get before it is read again.
const STATIC_REFRESH_MS: u64 = 300_000;

/// Decides the next step. A step that has failed is due again only at the time its attempts say.
pub fn next(situation: &Situation<'_>) -> Step {
    let mut earliest: Option<u64> = None;
    for (step, due_ms) in agenda(situation) {
        let due_ms = due_ms.max(situation.attempts.not_before(&subject(&step, situation.state)));
        if due_ms <= situation.now_ms {
            return step;
        }
        earliest = Some(earliest.map_or(due_ms, |e| e.min(due_ms)));
    }
    Step::Idle(earliest)
}

fn subject(step: &Step, state: &State) -> Subject {
    match step {
        Step::Issue(name) => Subject::Issue(name.clone()),
        Step::Idle(_) | Step::Login => Subject::Login,
        Step::ReadDocument(name) => Subject::Document(name.clone()),
        Step::RenewLease(name) => Subject::Lease(name.clone()),
        Step::RenewToken => Subject::Token,
        Step::Revoke(i) => {
            Subject::Revoke(state.retiring.get(*i).map_or_else(String::new, |r| r.what.name().to_owned()))
        }
        Step::Show(name) => Subject::Render(name.clone()),
    }
}

// Every step that is or will be due, most important first.
fn agenda(s: &Situation<'_>) -> Vec<(Step, u64)> {
    let mut out = Vec::new();
    let held = |w: &Wanted| s.state.secrets.get(&w.name);
    // Files first: they need no server.
    for wanted in s.wanted {
        if held(wanted).is_some_and(needs_showing) {
            out.push((Step::Show(wanted.name.clone()), 0));
        }
    }
    let Some(token) = &s.state.token else {
        out.push((Step::Login, 0));
        return out;
    };
    if token.life.ttl_ms > 0 {
        let calm_ms = token.life.since_ms + CALM_MS;
        if s.now_ms >= token.life.since_ms + token.life.ttl_ms {
            // Its leases went with it.
            out.push((Step::Login, calm_ms));
            return out;
        }
        let (step, due_ms) = token_upkeep(token.life, s.wanted.iter().filter_map(held));
        // A renewal that showed the token's end may be followed by the login at once.
        let floods = step == Step::RenewToken || token.life.ttl_ms < CALM_MS;
        out.push((step, if floods { due_ms.max(calm_ms) } else { due_ms }));
    }
    let mut documents = 0;
    for wanted in s.wanted {
        let known = held(wanted).is_some_and(|h| h.document.is_some());
        documents += usize::from(known);
        if !known || s.stale.contains(&wanted.name) {
            out.push((Step::ReadDocument(wanted.name.clone()), 0));
        }
    }
    for wanted in s.wanted {
        let Some(held) = held(wanted) else { continue };
        let (Some(document), Some(issue)) = (&held.document, &held.issue) else {
            if documents == s.wanted.len() {
                out.push((Step::Issue(wanted.name.clone()), 0));
            }
            continue;
        };
        let foreign = issue.lease.is_some() && issue.owner != token.accessor;
        if foreign || issue.source != document.body.source.path {
            out.push((Step::Issue(wanted.name.clone()), 0));
        } else {
            out.extend(upkeep(&wanted.name, held, issue, s.now_ms));
        }
    }
    for (i, retiring) in s.state.retiring.iter().enumerate() {
        if let Some(revoke_ms) = retiring.revoke_ms {
            out.push((Step::Revoke(i), revoke_ms));
        }
    }
    out
}

// A lease never outlives its token, so one that cannot be prolonged may only say that the token is at its
// end. Then the login comes first: a credential taken with the old token would be replaced at once.
fn token_upkeep<'a>(token: Life, held: impl Iterator<Item = &'a Held> + Clone) -> (Step, u64) {
    let swaps = held.clone().filter_map(|h| {
        let life = h.issue.as_ref()?.lease.as_ref()?.life;
        life.exhausted.then(|| (replace_ms(life, overlap_ms(h)), life.since_ms + life.ttl_ms))
    });
    if token.exhausted {
        let overlap = held.map(overlap_ms).max().unwrap_or(0);
        let token_end = token.since_ms + token.ttl_ms;
        let bound = swaps.filter(|(_, lease_end)| token_end <= lease_end + SWAP_MARGIN_MS);
        let first = bound.map(|(swap, _)| swap).min().unwrap_or(u64::MAX);
        (Step::Login, replace_ms(token, overlap).min(first))
    } else {
        let ask = swaps.map(|(swap, _)| swap).filter(|swap| *swap > token.since_ms).min();
        (Step::RenewToken, renew_ms(token, RENEW_AT_PERCENT_DEFAULT).min(ask.unwrap_or(u64::MAX)))
    }
}

// How a secret in hand is kept: a lease by renewal, then by replacement; anything else by reading again.
fn upkeep(name: &str, held: &Held, issue: &Issue, now_ms: u64) -> Option<(Step, u64)> {
    let again = Step::Issue(name.to_owned());
    let Some(lease) = &issue.lease else {
        return Some((again, issue.read_ms + STATIC_REFRESH_MS));
    };
    if lease.life.ttl_ms == 0 {
        return None;
    }
    if now_ms >= lease.life.since_ms + lease.life.ttl_ms {
        return Some((again, issue.read_ms + CALM_MS));
    }
    if lease.life.exhausted {
        return Some((again, replace_ms(lease.life, overlap_ms(held)).max(issue.read_ms + CALM_MS)));
    }
    let due_ms = renew_ms(lease.life, renew_at_percent(held)).max(lease.life.since_ms + CALM_MS);
    Some((Step::RenewLease(name.to_owned()), due_ms))
}

fn needs_showing(held: &Held) -> bool {
    match (&held.document, &held.issue) {
        (Some(document), Some(issue)) => {
            // While a new source is being read, the old data does not fit the new document.
            issue.source == document.body.source.path && held.shown != Some((document.version, issue.number))
        }
        _ => false,
    }
}

fn renew_ms(life: Life, percent: u8) -> u64 {
    life.since_ms + life.ttl_ms / 100 * u64::from(percent)
}

// Early enough that old and new are both valid for the whole overlap, if the life left allows that.
fn replace_ms(life: Life, overlap_ms: u64) -> u64 {
    let lead = (overlap_ms + SWAP_MARGIN_MS).min(life.ttl_ms / 2);
    life.since_ms + life.ttl_ms - lead
}

/// How long a secret's old and new credential are valid side by side.
pub fn overlap_ms(held: &Held) -> u64 {
    let stated = held.document.as_ref().and_then(|d| d.body.overlap.as_deref()).and_then(duration::parse_ms);
    stated.unwrap_or(OVERLAP_DEFAULT_MS).min(OVERLAP_MAX_MS)
}

fn renew_at_percent(held: &Held) -> u8 {
    let stated = held.document.as_ref().and_then(|d| d.body.renew_at_percent);
    stated.unwrap_or(RENEW_AT_PERCENT_DEFAULT).clamp(10, 90)
}

/// Whether every file is in place, for the startup probe.
pub fn all_shown(wanted: &[Wanted], state: &State) -> bool {
    wanted.iter().all(|w| state.secrets.get(&w.name).is_some_and(|held| held.shown.is_some()))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
