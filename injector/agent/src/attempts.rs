//! What failed how often, and when it may be tried again. Never decides what to do instead.

use std::collections::BTreeMap;
use std::fmt;

/// What can be tried.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// Reading the delivery document of a secret.
    Document(String),
    /// Taking a secret.
    Issue(String),
    /// Prolonging a secret's lease.
    Lease(String),
    /// Logging in.
    Login,
    /// Putting a secret's files in place.
    Render(String),
    /// Revoking what is no longer used.
    Revoke(String),
    /// Prolonging the token.
    Token,
}

/// For people: these words reach the pod's Events through `ready`.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(name) => write!(f, "reading what {name:?} delivers"),
            Self::Issue(name) => write!(f, "taking secret {name:?}"),
            Self::Lease(name) => write!(f, "renewing the lease of {name:?}"),
            Self::Login => f.write_str("logging in"),
            Self::Render(name) => write!(f, "writing the files of {name:?}"),
            Self::Revoke(name) => write!(f, "revoking what is left of {name:?}"),
            Self::Token => f.write_str("renewing the token"),
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Attempt {
    failures: u32,
    not_before_ms: u64,
}

/// The failures so far.
#[derive(Debug, Default)]
pub struct Attempts(BTreeMap<Subject, Attempt>);

const FIRST_MS: u64 = 1_000;
const LONGEST_MS: u64 = 30_000;

impl Attempts {
    /// When the subject may be tried: 0 if it has not failed.
    pub fn not_before(&self, subject: &Subject) -> u64 {
        self.0.get(subject).map_or(0, |attempt| attempt.not_before_ms)
    }

    /// How often the subject has failed in a row.
    pub fn failures(&self, subject: &Subject) -> u32 {
        self.0.get(subject).map_or(0, |attempt| attempt.failures)
    }

    /// Counts a failure and sets the next attempt, each twice as far away as the one before.
    pub fn failed(&mut self, subject: Subject, now_ms: u64, jitter: u8) {
        let attempt = self.0.entry(subject).or_default();
        attempt.not_before_ms = now_ms + pause_ms(attempt.failures, jitter);
        attempt.failures = attempt.failures.saturating_add(1);
    }

    /// Sets the next attempt without counting up.
    pub fn postpone(&mut self, subject: Subject, until_ms: u64) {
        self.0.entry(subject).or_default().not_before_ms = until_ms;
    }

    /// Forgets the failures of a subject.
    pub fn succeeded(&mut self, subject: &Subject) {
        self.0.remove(subject);
    }

    /// Forgets every failure, for when the world has changed.
    pub fn forget(&mut self, matching: impl Fn(&Subject) -> bool) {
        self.0.retain(|subject, _| !matching(subject));
    }
}

// Between three and five quarters of the nominal pause, so that pods that failed together do not
// come back together.
fn pause_ms(failures: u32, jitter: u8) -> u64 {
    let nominal = FIRST_MS.saturating_mul(1 << failures.min(10)).min(LONGEST_MS);
    nominal * 3 / 4 + nominal / 2 * u64::from(jitter) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_words() {
        assert_eq!(Subject::Issue("orders-db".to_owned()).to_string(), "taking secret \"orders-db\"");
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_spread() {
        let at = |failures| (pause_ms(failures, 0), pause_ms(failures, 255));
        assert_eq!(at(0), (750, 1_250));
        assert_eq!(at(1), (1_500, 2_500));
        assert_eq!(at(5), (22_500, 37_500));
        assert_eq!(at(u32::MAX), (22_500, 37_500));
    }

    #[test]
    fn success_clears() {
        let mut attempts = Attempts::default();
        attempts.failed(Subject::Login, 10, 0);
        assert_eq!(attempts.not_before(&Subject::Login), 760);
        attempts.succeeded(&Subject::Login);
        assert_eq!(attempts.not_before(&Subject::Login), 0);
    }
}
