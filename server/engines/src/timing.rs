//! `rotation_period`, or `rotation_schedule` with `rotation_window`: how requests say when something rotates, and how
//! reads show it. Names, limits and messages are Vault's
//! ([source](https://developer.hashicorp.com/vault/api-docs/secret/databases#create-static-role)). Reads no clock.

use std::time::Duration;

use coffer_core::schedule::{Schedule, Timing};
use serde_json::{Map, Value, json};

use crate::{EngineError, input};

/// As in Vault.
const WINDOW_MIN: Duration = Duration::from_secs(3600);

/// What the request says, if it says anything. `period_min` is the shortest `rotation_period`; a zero one means none
/// ([`Asked::None`]) where `may_be_none`.
pub(crate) fn asked(
    body: &Map<String, Value>,
    stored: Option<&Timing>,
    period_min: Duration,
    may_be_none: bool,
) -> Result<Asked, EngineError> {
    let period = input::duration(body, "rotation_period")?;
    let schedule = input::text(body, "rotation_schedule")?;
    let window = input::duration(body, "rotation_window")?;
    // What takes one thing away is no second thing.
    let schedule = schedule.filter(|text| !(text.is_empty() && (period.is_some() || may_be_none)));
    let period = period.filter(|period| !(period.is_zero() && schedule.is_some()));
    match (period, schedule) {
        (Some(_), Some(_)) => Err(EngineError::bad(
            "mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can \
             be provided",
        )),
        (Some(period), None) if period.is_zero() && may_be_none => Ok(Asked::None),
        (Some(period), None) => {
            if window.is_some_and(|window| !window.is_zero()) {
                return Err(EngineError::bad("rotation_window is invalid with use of rotation_period"));
            }
            if period < period_min {
                let secs = period_min.as_secs();
                return Err(EngineError::bad(format!("rotation_period must be {secs} seconds or more")));
            }
            Ok(Asked::Timing(Timing::Every(period)))
        }
        (None, Some(text)) => {
            let schedule = Schedule::parse(text)
                .map_err(|why| EngineError::bad(format!("could not parse rotation_schedule: {why}")))?;
            let kept = match stored {
                Some(Timing::At { window, .. }) => *window,
                _ => Duration::ZERO,
            };
            Ok(Asked::Timing(Timing::At { schedule, window: checked(window)?.unwrap_or(kept) }))
        }
        (None, None) if input::field(body, "rotation_schedule").is_some() && may_be_none => Ok(Asked::None),
        (None, None) => match (checked(window)?, stored) {
            (None, _) => Ok(Asked::Nothing),
            (Some(window), Some(Timing::At { schedule, .. })) => {
                Ok(Asked::Timing(Timing::At { schedule: schedule.clone(), window }))
            }
            (Some(window), _) if window.is_zero() => Ok(Asked::Nothing),
            (Some(_), _) => Err(EngineError::bad("rotation_window needs rotation_schedule")),
        },
    }
}

/// What a request says of when something rotates.
pub(crate) enum Asked {
    /// Nothing: it stays as it is.
    Nothing,
    /// That it does not.
    None,
    /// When.
    Timing(Timing),
}

fn checked(window: Option<Duration>) -> Result<Option<Duration>, EngineError> {
    if window.is_some_and(|window| !window.is_zero() && window < WINDOW_MIN) {
        return Err(EngineError::bad(format!(
            "rotation_window is invalid: rotation_window must be {} seconds or more",
            WINDOW_MIN.as_secs()
        )));
    }
    Ok(window)
}

/// What a read shows: one of the two ways only.
pub(crate) fn show(timing: &Timing, shown: &mut Map<String, Value>) {
    match timing {
        Timing::Every(period) => {
            shown.insert("rotation_period".to_owned(), json!(period.as_secs()));
        }
        Timing::At { schedule, window } => {
            shown.insert("rotation_schedule".to_owned(), json!(schedule.as_str()));
            shown.insert("rotation_window".to_owned(), json!(window.as_secs()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: Value, stored: Option<&Timing>, may_be_none: bool) -> Result<Asked, String> {
        let body = input::object(body);
        asked(&body, stored, Duration::from_secs(5), may_be_none).map_err(|error| error.to_string())
    }

    #[test]
    fn a_window_belongs_to_a_schedule_and_stays_with_it() {
        let body = json!({ "rotation_schedule": "0 3 * * *", "rotation_window": "2h" });
        let Ok(Asked::Timing(first)) = ask(body, None, false) else { panic!("a schedule") };
        let window = |timing: &Timing| match timing {
            Timing::At { window, .. } => window.as_secs(),
            Timing::Every(_) => panic!("a schedule"),
        };
        assert_eq!(window(&first), 7200);
        let other = json!({ "rotation_schedule": "0 4 * * *" });
        let Ok(Asked::Timing(second)) = ask(other, Some(&first), false) else { panic!("a schedule") };
        assert_eq!(window(&second), 7200);
        let wider = json!({ "rotation_window": 10_800 });
        let Ok(Asked::Timing(third)) = ask(wider, Some(&second), false) else { panic!("a schedule") };
        assert_eq!(window(&third), 10_800);
        let every = json!({ "rotation_period": "24h", "rotation_schedule": "" });
        assert!(matches!(ask(every, Some(&third), false), Ok(Asked::Timing(Timing::Every(_)))));
        assert!(matches!(ask(json!({}), Some(&third), false), Ok(Asked::Nothing)));
        for none in [json!({ "rotation_period": 0 }), json!({ "rotation_schedule": "" })] {
            assert!(matches!(ask(none, Some(&third), true), Ok(Asked::None)));
        }
    }

    #[test]
    fn what_does_not_fit_together_is_refused_in_vaults_words() {
        for (body, why) in [
            (json!({ "rotation_period": "24h", "rotation_schedule": "* * * * *" }), "mutually exclusive"),
            (
                json!({ "rotation_period": "24h", "rotation_window": "2h" }),
                "invalid with use of rotation_period",
            ),
            (json!({ "rotation_window": "2h" }), "needs rotation_schedule"),
            (json!({ "rotation_schedule": "* * * * *", "rotation_window": "59m" }), "3600 seconds or more"),
            (json!({ "rotation_schedule": "every day" }), "could not parse rotation_schedule"),
            (json!({ "rotation_schedule": "" }), "could not parse rotation_schedule"),
            (json!({ "rotation_period": "4s" }), "5 seconds or more"),
            (json!({ "rotation_period": 0 }), "5 seconds or more"),
        ] {
            let error = ask(body, None, false).err().unwrap();
            assert!(error.contains(why), "{error}");
        }
    }
}
