//! When something comes round again: every so often, or by a schedule as cron has it, in UTC. Reads no clock.
//!
//! A schedule may have a window: what did not begin within it waits for the schedule's next time, as Vault's
//! `rotation_window` says ([source](https://developer.hashicorp.com/vault/docs/concepts/scheduled-rotation)).

use std::fmt;
use std::time::Duration;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::time::Timestamp;

/// Longer than any schedule that means something.
const SCHEDULE_BYTES_MAX: usize = 256;
/// How far a leap day can be: eight years, over a year like 2100. The library looks four years ahead at a time.
const LOOKS: u32 = 3;
const LOOK: Duration = Duration::from_secs(4 * 365 * 24 * 3600);

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// More than that many bytes.
    #[error("a schedule has at most {SCHEDULE_BYTES_MAX} bytes")]
    TooLong,
    /// Zones, seconds, names such as `@daily`.
    #[error("expected 4 to 5 fields (minute, hour, day of month, month, day of week), in UTC")]
    Fields,
    /// What the library says.
    #[error("{0}")]
    Text(String),
    /// Such as the 30th of February.
    #[error("no time ever matches it")]
    Never,
}

/// Minute, hour, day of month, month, day of week (which may be left out): as cron has them, in UTC.
#[derive(Clone)]
pub struct Schedule {
    text: String,
    crontab: Crontab,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > SCHEDULE_BYTES_MAX {
            return Err(ScheduleError::TooLong);
        }
        let mut fields: Vec<String> = text.split_ascii_whitespace().map(str::to_owned).collect();
        if fields.len() == 4 {
            fields.push("*".to_owned());
        }
        let [_, _, day, _, weekday] = fields.as_mut_slice() else { return Err(ScheduleError::Fields) };
        // In Vault a day is bound by `*/2` as by `1-31/2`; cron of old takes whatever begins with a star for a star.
        *day = stepped(day, "1-31");
        *weekday = stepped(weekday, "0-6");
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(&fields.join(" "), options)
            .map_err(|why| ScheduleError::Text(one_line(&why.to_string())))?;
        let schedule = Self { text: text.to_owned(), crontab };
        schedule.next_after(Timestamp::ZERO).ok_or(ScheduleError::Never)?;
        Ok(schedule)
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first time that matches and is later than `at`. None beyond the times there are.
    pub fn next_after(&self, at: Timestamp) -> Option<Timestamp> {
        let mut from = at;
        for _ in 0..LOOKS {
            let millis = i64::try_from(from.as_millis()).ok()?;
            let from_there = MakeTimestamp::from_millisecond(millis).ok()?;
            if let Ok(next) = self.crontab.find_next(from_there) {
                return u64::try_from(next.timestamp().as_millisecond()).ok().map(Timestamp::from_millis);
            }
            from = from.plus(LOOK);
        }
        None
    }
}

/// `*/N` over the whole range that it stands for; `*/1` is a star.
fn stepped(field: &str, range: &str) -> String {
    let parts = field.split(',').map(|part| match part.strip_prefix("*/") {
        Some("1") => "*".to_owned(),
        Some(step) => format!("{range}/{step}"),
        None if part == "?" => "*".to_owned(),
        None => part.to_owned(),
    });
    parts.collect::<Vec<_>>().join(",")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Schedule").field(&self.text).finish()
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// When something comes round again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Timing {
    /// So long after the last time.
    Every(Duration),
    /// At the schedule's times.
    At {
        /// The times.
        schedule: Schedule,
        /// How long after such a time it may begin; zero for no limit.
        window: Duration,
    },
}

impl Timing {
    /// When it is due again if it was done at `last`.
    pub fn next_after(&self, last: Timestamp) -> Timestamp {
        match self {
            Self::Every(period) => last.plus(*period),
            Self::At { schedule, .. } => schedule.next_after(last).unwrap_or(Timestamp::MAX),
        }
    }

    /// Whether what was due at `due` may still be begun at `now`.
    pub fn allows(&self, due: Timestamp, now: Timestamp) -> bool {
        match self {
            Self::Every(_) => true,
            Self::At { window, .. } => window.is_zero() || now < due.plus(*window),
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
