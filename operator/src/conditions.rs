//! Conditions of an object's status. Never writes them anywhere.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::error::brief;

/// What is said about one aspect of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    /// The condition's type.
    pub(crate) type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub(crate) status: &'static str,
    /// CamelCase reason.
    pub(crate) reason: String,
    /// What a person should know or do.
    pub(crate) message: String,
}

impl Verdict {
    /// The aspect is as it should be.
    pub(crate) fn yes(type_: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status: "True", reason: reason.into(), message: message.into() }
    }

    /// It is not.
    pub(crate) fn no(type_: &'static str, reason: &str, message: impl Into<String>) -> Self {
        Self { type_, status: "False", reason: reason.into(), message: message.into() }
    }

    /// Whether the status is `True`.
    pub(crate) fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// Whether what the server has under the object's name is somebody else's.
pub(crate) fn is_foreign(verdicts: &[Verdict]) -> bool {
    verdicts.iter().any(|verdict| verdict.type_ == "Ready" && verdict.reason == "NotOwned")
}

/// The conditions that follow from the old ones and today's verdicts. A transition time changes only with the status,
/// so that saying the same again is no change at all.
pub(crate) fn merge(
    old: &[Condition],
    verdicts: &[Verdict],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let before = old.iter().find(|condition| condition.type_ == verdict.type_);
            let since = before
                .filter(|condition| condition.status == verdict.status)
                .map_or_else(|| now.clone(), |condition| condition.last_transition_time.clone());
            Condition {
                type_: verdict.type_.to_owned(),
                status: verdict.status.to_owned(),
                reason: verdict.reason.clone(),
                message: brief(&verdict.message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The condition of a type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether an object's Ready condition is `True` for its present generation.
pub(crate) fn is_ready(conditions: &[Condition], generation: Option<i64>) -> bool {
    find(conditions, "Ready")
        .is_some_and(|ready| ready.status == "True" && ready.observed_generation == generation)
}

/// Whether the status or the reason of Ready differs: only then an Event is worth emitting.
pub(crate) fn transition(old: &[Condition], new: &[Condition]) -> Option<Condition> {
    let ready = find(new, "Ready")?;
    let same = find(old, "Ready")
        .is_some_and(|before| before.status == ready.status && before.reason == ready.reason);
    (!same).then(|| ready.clone())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn saying_the_same_again_changes_nothing() {
        let verdict = [Verdict::yes("Ready", "Applied", "fine")];
        let first = merge(&[], &verdict, Some(1), &at(10));
        let second = merge(&first, &verdict, Some(1), &at(20));
        assert_eq!(first, second);
        assert!(transition(&first, &second).is_none());
    }

    #[test]
    fn a_change_of_status_has_a_new_time_and_an_event() {
        let first = merge(&[], &[Verdict::yes("Ready", "Applied", "fine")], Some(1), &at(10));
        let second = merge(&first, &[Verdict::no("Ready", "Sealed", "unseal")], Some(1), &at(20));
        assert_eq!(second[0].last_transition_time, at(20));
        assert_eq!(transition(&first, &second).unwrap().reason, "Sealed");
        assert!(!is_ready(&second, Some(1)));
    }

    #[test]
    fn ready_for_an_older_generation_is_not_ready() {
        let conditions = merge(&[], &[Verdict::yes("Ready", "Applied", "fine")], Some(1), &at(10));
        assert!(is_ready(&conditions, Some(1)));
        assert!(!is_ready(&conditions, Some(2)));
    }
}
