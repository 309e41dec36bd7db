//! Schedules beside a reference that looks at every single minute.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse_rfc3339(text).unwrap()
}

#[test]
fn schedules_come_round_when_vault_says() {
    for (schedule, from, next) in [
        ("0 0 * * SAT", "2026-11-25T01:00:00Z", "2026-11-28T00:00:00Z"),
        ("*/15 * * * *", "2026-11-25T01:00:00Z", "2026-11-25T01:15:00Z"),
        ("*/15 * * * *", "2026-11-25T00:59:59.999Z", "2026-11-25T01:00:00Z"),
        // Four fields are enough.
        ("30 2 1 *", "2026-11-25T01:00:00Z", "2026-12-01T02:30:00Z"),
        ("30 2 ? * ?", "2026-11-25T02:30:00Z", "2026-11-26T02:30:00Z"),
        // Of two bound days either will do, also where one is bound by a step.
        ("0 0 13 * FRI", "2026-11-25T01:00:00Z", "2026-11-27T00:00:00Z"),
        ("0 0 */10 * SUN", "2026-11-25T01:00:00Z", "2026-11-29T00:00:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("0 0 * * 7", "2026-11-25T01:00:00Z", "2026-11-29T00:00:00Z"),
    ] {
        assert_eq!(Schedule::parse(schedule).unwrap().next_after(at(from)), Some(at(next)), "{schedule}");
    }
}

#[test]
fn what_is_no_schedule_is_refused_with_a_reason() {
    for (text, why) in [
        ("", "4 to 5 fields"),
        ("* * *", "4 to 5 fields"),
        ("@daily", "4 to 5 fields"),
        ("0 * * * * *", "4 to 5 fields"),
        ("* * * * * Europe/Berlin", "4 to 5 fields"),
        ("0 0 30 2 *", "no time ever"),
        ("60 * * * *", ""),
        ("* * * * MOO", ""),
        ("*/0 * * * *", ""),
        ("H * * * *", ""),
    ] {
        let error = Schedule::parse(text).unwrap_err().to_string();
        assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
    }
    assert_eq!(Schedule::parse(&"1,".repeat(200)).unwrap_err(), ScheduleError::TooLong);
}

#[test]
fn a_window_that_went_by_is_over() {
    let timing =
        Timing::At { schedule: Schedule::parse("0 3 * * *").unwrap(), window: Duration::from_secs(3600) };
    let due = timing.next_after(at("2026-11-25T01:00:00Z"));
    assert_eq!(due, at("2026-11-25T03:00:00Z"));
    assert!(
        timing.allows(due, at("2026-11-25T03:59:59Z")) && !timing.allows(due, at("2026-11-25T04:00:00Z"))
    );
    let stored = serde_json::to_string(&timing).unwrap();
    assert_eq!(serde_json::from_str::<Timing>(&stored).unwrap(), timing);
    let open = Timing::At { schedule: Schedule::parse("0 3 * * *").unwrap(), window: Duration::ZERO };
    assert!(open.allows(due, at("2030-01-01T00:00:00Z")));
    assert!(Timing::Every(Duration::from_secs(5)).allows(due, Timestamp::MAX));
}

/// A field as a list of what matches, and as it is written.
fn field(low: u64, high: u64) -> impl Strategy<Value = (Vec<u64>, String)> {
    prop_oneof![
        Just(((low..=high).collect(), "*".to_owned())),
        (low..=high).prop_map(|one| (vec![one], one.to_string())),
        (low..=high, low..=high).prop_map(|(a, b)| {
            let (a, b) = (a.min(b), a.max(b));
            ((a..=b).collect(), format!("{a}-{b}"))
        }),
        (low..=high, 2..=7_u64).prop_map(move |(a, step)| {
            let step = usize::try_from(step).unwrap();
            ((a..=high).step_by(step).collect(), format!("{a}-{high}/{step}"))
        }),
    ]
}

fn day_of_week(at: Timestamp) -> u64 {
    // The epoch was a Thursday.
    (at.as_secs() / 86_400 + 4) % 7
}

proptest! {
    #[test]
    fn the_next_time_is_the_first_minute_that_matches(
        minute in field(0, 59), hour in field(0, 23), weekday in field(0, 6),
        from in 1_700_000_000_u64..1_900_000_000,
    ) {
        let text = format!("{} {} * * {}", minute.1, hour.1, weekday.1);
        let schedule = Schedule::parse(&text).unwrap();
        let from = Timestamp::from_secs(from);
        let next = schedule.next_after(from).unwrap();
        let mut at = Timestamp::from_secs((from.as_secs() / 60 + 1) * 60);
        loop {
            let (m, h) = (at.as_secs() / 60 % 60, at.as_secs() / 3600 % 24);
            if minute.0.contains(&m) && hour.0.contains(&h) && weekday.0.contains(&day_of_week(at)) {
                break;
            }
            at = at.plus(Duration::from_secs(60));
        }
        prop_assert_eq!(next, at, "{}", text);
    }

    #[test]
    fn any_text_is_a_schedule_or_a_reason(text in "[0-9*/,#LWH? -]{0,40}", from in 0_u64..4_000_000_000) {
        if let Ok(schedule) = Schedule::parse(&text) {
            let from = Timestamp::from_secs(from);
            let next = schedule.next_after(from).unwrap();
            prop_assert!(next > from && next.as_millis() % 60_000 == 0);
            prop_assert_eq!(Schedule::parse(schedule.as_str()).unwrap(), schedule);
        }
    }
}
