//! Points in time and Vault's spelling of durations.
//!
//! Never reads a clock: a `Timestamp` always comes from the caller.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest duration accepted from outside: a hundred years. Keeps every later sum far from overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// What can be wrong with a time or duration given from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not one of the accepted spellings.
    #[error("invalid duration {0:?}: use seconds (60) or units (1h30m, 45s, 1d)")]
    Duration(String),
    /// Longer than [`MAX_DURATION`].
    #[error("duration is longer than 100 years")]
    TooLong,
    /// Not an RFC 3339 timestamp.
    #[error("invalid RFC 3339 timestamp")]
    Timestamp,
}

/// A point in time: milliseconds since the Unix epoch. Serialised as a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch.
    pub const ZERO: Self = Self(0);
    /// Later than every time this program meets.
    pub const MAX: Self = Self(u64::MAX);

    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// From whole seconds since the Unix epoch.
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This time moved on by `by`, stopping at the latest time there is.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn saturating_sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// `2026-11-24T11:58:59.250Z`; whole seconds are written without a fraction.
    pub fn to_rfc3339(self) -> String {
        let (days, in_day) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (secs, millis) = (in_day / 1000, in_day % 1000);
        let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
        let fraction = if millis == 0 { String::new() } else { format!(".{millis:03}") };
        format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}{fraction}Z")
    }

    /// Reads RFC 3339, with `Z` or a numeric offset. Fractions beyond milliseconds are cut off.
    pub fn parse_rfc3339(text: &str) -> Result<Self, TimeError> {
        parse_rfc3339(text).ok_or(TimeError::Timestamp)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// Days since the epoch to year, month, day. Years are counted from March, so that the leap day is the last
/// day of its year and the month lengths follow the 153-days-in-five-months rhythm.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468; // days from 0000-03-01 to the epoch
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil_from_days`]; `None` before 1970 and for days no month has.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1..=12).contains(&month) || day == 0 || year < 1970 {
        return None;
    }
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let year_from_march = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year_from_march / 400, year_from_march % 400);
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = (era * 146_097 + day_of_era).checked_sub(719_468)?;
    (civil_from_days(days) == (year, month, day)).then_some(days)
}

fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || separators.iter().any(|(at, c)| bytes[*at] != *c) {
        return None;
    }
    if !matches!(bytes[10], b'T' | b't' | b' ') {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        digits.bytes().all(|c| c.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let days = days_from_civil(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
    let (h, m, s) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if h > 23 || m > 59 || s > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let len = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if len == 0 {
            return None;
        }
        let padded: String = fraction[..len].chars().chain("000".chars()).take(3).collect();
        millis = padded.parse::<u64>().ok()?;
        rest = &fraction[len..];
    }
    let local = (days * 86_400 + h * 3600 + m * 60 + s) * 1000 + millis;
    let offset = match rest.as_bytes() {
        b"Z" | b"z" => return Some(Timestamp(local)),
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let (oh, om) = (number(at, at + 2)?, number(at + 3, at + 5)?);
            if oh > 23 || om > 59 {
                return None;
            }
            (*sign, (oh * 60 + om) * 60_000)
        }
        _ => return None,
    };
    let utc = if offset.0 == b'+' { local.checked_sub(offset.1)? } else { local + offset.1 };
    Some(Timestamp(utc))
}

/// Reads a duration as Vault does: `"60"` is seconds; otherwise numbers with the units `ms`, `s`, `m`, `h`,
/// `d` and `w` in any order, as in `"1h30m"`. The empty string is zero. Negative ones are refused.
pub fn parse_duration(text: &str) -> Result<Duration, TimeError> {
    let invalid = || TimeError::Duration(text.chars().take(32).collect());
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Duration::ZERO);
    }
    if trimmed.len() > 64 {
        return Err(invalid());
    }
    if trimmed.bytes().all(|c| c.is_ascii_digit()) {
        return bounded(trimmed.parse::<u64>().ok().and_then(|s| s.checked_mul(1000)));
    }
    let mut rest = trimmed;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(unit_len);
        let unit_millis: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            _ => return Err(invalid()),
        };
        let millis = scaled(number, unit_millis).ok_or_else(invalid)?;
        total = total.checked_add(millis).ok_or(TimeError::TooLong)?;
        rest = tail;
    }
    bounded(Some(total))
}

/// `number` (digits, at most one point) times `unit`, rounded down to milliseconds, without floating point.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole) * u128::from(unit);
    if !fraction.is_empty() {
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        total += u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit) / scale;
    }
    u64::try_from(total).ok()
}

fn bounded(millis: Option<u64>) -> Result<Duration, TimeError> {
    let duration = Duration::from_millis(millis.ok_or(TimeError::TooLong)?);
    if duration > MAX_DURATION { Err(TimeError::TooLong) } else { Ok(duration) }
}

/// Reads a duration out of JSON: a number is seconds (fractions allowed), a string is as for
/// [`parse_duration`], `null` is zero.
pub fn duration_from_json(value: &serde_json::Value) -> Result<Duration, TimeError> {
    use serde_json::Value;
    match value {
        Value::Null => Ok(Duration::ZERO),
        Value::String(text) => parse_duration(text),
        Value::Number(n) => match n.as_u64() {
            Some(secs) => bounded(secs.checked_mul(1000)),
            None => n
                .as_f64()
                .and_then(|secs| Duration::try_from_secs_f64(secs).ok())
                .filter(|d| *d <= MAX_DURATION)
                .ok_or_else(|| TimeError::Duration(n.to_string())),
        },
        other => Err(TimeError::Duration(other.to_string().chars().take(32).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_rfc3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_827_696_000, "2000-02-29T12:34:56Z"),
            (1_709_164_800_001, "2024-02-29T00:00:00.001Z"),
            (4_102_444_799_000, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_rfc3339(), text);
            assert_eq!(Timestamp::parse_rfc3339(text), Ok(Timestamp::from_millis(millis)));
        }
    }

    #[test]
    fn reads_offsets_and_refuses_nonsense() {
        let utc = Timestamp::parse_rfc3339("2026-11-24T10:00:00Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-24T12:00:00+02:00"), utc);
        assert_eq!(Timestamp::parse_rfc3339("2026-11-24T04:30:00.0-05:30"), utc);
        for bad in ["", "2026-02-30T00:00:00Z", "2026-11-24T24:00:00Z", "2026-11-24", "2026-11-24T10:00:00"] {
            assert!(Timestamp::parse_rfc3339(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_as_vault_spells_them() {
        for (text, millis) in [
            ("", 0),
            ("0", 0),
            ("60", 60_000),
            ("1h30m", 5_400_000),
            ("1d", 86_400_000),
            ("1.5h", 5_400_000),
            ("250ms", 250),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["-1", "1x", "h", "1h-", "1.2.3s", "1h 30m", "٣s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_duration("99999999999999999999"), Err(TimeError::TooLong));
        assert_eq!(parse_duration("40000d"), Err(TimeError::TooLong));
    }

    #[test]
    fn durations_from_json() {
        let read = |text: &str| duration_from_json(&serde_json::from_str(text).unwrap());
        assert_eq!(read("60"), Ok(Duration::from_secs(60)));
        assert_eq!(read("\"90s\""), Ok(Duration::from_secs(90)));
        assert_eq!(read("null"), Ok(Duration::ZERO));
        assert!(read("-5").is_err());
        assert!(read("[]").is_err());
    }

    proptest::proptest! {
        #[test]
        fn rfc3339_round_trips(millis in 0u64..253_402_300_800_000) {
            let t = Timestamp::from_millis(millis);
            proptest::prop_assert_eq!(Timestamp::parse_rfc3339(&t.to_rfc3339()), Ok(t));
        }
    }
}
