//! When the engine's own password rotates by itself: `rotation_period`, `rotation_schedule`, `rotation_window` and
//! `disable_automated_rotation` of a connection, as in Vault. Never sees the password.

use std::time::Duration;

use coffer_core::rotation::Attempts;
use coffer_core::schedule::Timing;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::EngineRequest;
use crate::timing::{self, Asked};
use crate::{EngineError, input};

/// As in Vault.
const PERIOD_MIN: Duration = Duration::from_secs(10);

/// When it is due, and how it went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RootRotation {
    timing: Option<Timing>,
    disabled: bool,
    last: Option<Timestamp>,
    due: Timestamp,
    attempts: Attempts,
}

impl RootRotation {
    /// As it is once the request is carried out.
    pub(super) fn merged(mut self, req: &EngineRequest<'_>) -> Result<Self, EngineError> {
        if let Some(disabled) = input::boolean(req.body, "disable_automated_rotation")? {
            self.disabled = disabled;
        }
        match timing::asked(req.body, self.timing.as_ref(), PERIOD_MIN, true)? {
            Asked::Nothing => {}
            Asked::None => self.timing = None,
            Asked::Timing(timing) => {
                let from = match timing {
                    Timing::Every(_) => self.last.unwrap_or(req.now),
                    Timing::At { .. } => req.now,
                };
                self.due = timing.next_after(from);
                self.attempts = Attempts::default();
                self.timing = Some(timing);
            }
        }
        Ok(self)
    }

    /// When somebody has to look at it; none for never.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        let waits = self.timing.is_some() && !self.disabled;
        waits.then(|| self.due.max(self.attempts.next_try))
    }

    /// Whether what is due may still be begun.
    pub(super) fn in_time(&self, now: Timestamp) -> bool {
        self.timing.as_ref().is_none_or(|timing| timing.allows(self.due, now))
    }

    /// The window went by: the next time is the schedule's next one.
    pub(super) fn missed(&mut self, now: Timestamp) {
        self.attempts = Attempts::default();
        self.due = self.timing.as_ref().map_or(self.due, |timing| timing.next_after(now));
    }

    /// The password was replaced, whoever asked for it.
    pub(super) fn done(&mut self, now: Timestamp) {
        self.last = Some(now);
        self.missed(now);
    }

    /// It did not succeed, and is tried again later.
    pub(super) fn failed(&mut self, now: Timestamp, why: &str) {
        self.attempts.fail(now, why);
    }

    /// What a read of the connection shows.
    pub(super) fn show(&self, shown: &mut Map<String, Value>) {
        shown.insert("rotation_period".to_owned(), json!(0));
        shown.insert("rotation_schedule".to_owned(), json!(""));
        shown.insert("rotation_window".to_owned(), json!(0));
        if let Some(timing) = &self.timing {
            timing::show(timing, shown);
        }
        shown.insert("disable_automated_rotation".to_owned(), json!(self.disabled));
        shown.insert("next_rotation".to_owned(), json!(self.wake().map(Timestamp::to_rfc3339)));
        shown.insert("last_rotation".to_owned(), json!(self.last.map(Timestamp::to_rfc3339)));
        shown.insert("rotation_error".to_owned(), json!(self.attempts.why));
    }
}
