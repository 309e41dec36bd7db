use super::*;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);

fn at(offset: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(1_000_000 + offset).unwrap())
}

fn states() -> Vec<LeaseState> {
    use LeaseState as S;
    vec![
        S::Issuing { deadline: at(1000) },
        S::Issuing { deadline: at(0) },
        S::Active { expires: at(1000) },
        S::Active { expires: at(0) },
        S::Revoking { attempt: 1, next_try: at(0) },
        S::Revoking { attempt: 7, next_try: at(500) },
        S::Stuck { why: "x".into(), next_try: at(0) },
        S::Revoked,
    ]
}

fn events() -> Vec<LeaseEvent> {
    use LeaseEvent as E;
    vec![
        E::Issued { expires: at(5000) },
        E::IssueFailed,
        E::Renewed { expires: at(9000) },
        E::Due,
        E::RevokeRequested,
        E::TargetCleaned,
        E::AttemptFailed { why: "down".into(), spread: 255 },
        E::ForceRevoked,
    ]
}

fn short(result: &Result<LeaseState, LeaseError>) -> String {
    let rel = |t: Timestamp| i128::from(t.as_millis()) - 1_000_000;
    match result {
        Ok(LeaseState::Issuing { deadline }) => format!("I{}", rel(*deadline)),
        Ok(LeaseState::Active { expires }) => format!("A{}", rel(*expires)),
        Ok(LeaseState::Revoking { attempt, next_try }) => format!("R{attempt}@{}", rel(*next_try)),
        Ok(LeaseState::Revoked) => "gone".into(),
        Ok(LeaseState::Stuck { next_try, .. }) => format!("S@{}", rel(*next_try)),
        Err(LeaseError::Illegal { .. }) => "-".into(),
        Err(LeaseError::Expired) => "expired".into(),
        Err(LeaseError::NotDue) => "notdue".into(),
        Err(LeaseError::MaxTtl) => "max".into(),
    }
}

/// Every state with every event. Rows: states above; columns: events above.
#[test]
fn golden_table() {
    let golden = [
        "A5000 R0@0 - notdue R0@0 - - gone",
        "expired R0@0 - R0@0 R0@0 - - gone",
        "- - A9000 notdue R0@0 - - gone",
        "- - expired R0@0 R0@0 - - gone",
        "- - - R1@0 R0@0 gone R2@2000 gone",
        "- - - notdue R0@0 gone S@300000 gone",
        "- - - S@0 R0@0 gone S@300000 gone",
        "- - - - gone gone - gone",
    ];
    for (state, row) in states().into_iter().zip(golden) {
        let cells: Vec<String> =
            events().into_iter().map(|event| short(&state.clone().step(event, NOW))).collect();
        assert_eq!(cells.join(" "), row, "{state:?}");
    }
}

#[test]
fn nothing_leaves_revoked_and_every_request_to_revoke_is_accepted() {
    for event in events() {
        if let Ok(next) = LeaseState::Revoked.step(event, NOW) {
            assert_eq!(next, LeaseState::Revoked);
        }
    }
    for state in states() {
        assert!(state.step(LeaseEvent::RevokeRequested, NOW).is_ok());
    }
}

#[test]
fn a_failing_revocation_is_never_forgotten() {
    let mut state = LeaseState::Revoking { attempt: 0, next_try: NOW };
    let mut now = NOW;
    for _ in 0..50 {
        state = state.step(LeaseEvent::AttemptFailed { why: "y".repeat(10_000), spread: 255 }, now).unwrap();
        let next = state.due().expect("still to be tried");
        assert!(next > now && next.saturating_sub(now) <= MAX_BACKOFF);
        now = next;
    }
    assert!(matches!(&state, LeaseState::Stuck { why, .. } if why.len() == 256));
}

#[test]
fn backoff_doubles_and_stops() {
    let seconds: Vec<u64> = (1..=11).map(|n| backoff(n).as_secs()).collect();
    assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    assert_eq!(backoff(u32::MAX), MAX_BACKOFF);
}

#[test]
fn expiry_is_capped() {
    let s = Duration::from_secs;
    let limits = Limits { ttl: s(3600), max_ttl: s(7200), token_expiry: None };
    assert_eq!(first_expiry(NOW, &limits), Ok(NOW.plus(s(3600))));
    let short_token = Limits { token_expiry: Some(NOW.plus(s(60))), ..limits };
    assert_eq!(first_expiry(NOW, &short_token), Ok(NOW.plus(s(60))));
    assert_eq!(first_expiry(NOW.plus(s(60)), &short_token), Err(LeaseError::MaxTtl));
    let later = NOW.plus(s(3599));
    let current = NOW.plus(s(3600));
    assert_eq!(renewed_expiry(later, NOW, current, None, &limits), Ok(NOW.plus(s(7199))));
    assert_eq!(renewed_expiry(later, NOW, current, Some(s(99_999)), &limits), Ok(NOW.plus(s(7200))));
    assert_eq!(renewed_expiry(later, NOW, current, Some(s(10)), &limits), Ok(later.plus(s(10))));
    assert_eq!(renewed_expiry(current, NOW, current, None, &limits), Err(LeaseError::Expired));
    let last_milli = Timestamp::from_millis(current.as_millis() - 1);
    assert!(renewed_expiry(last_milli, NOW, current, None, &limits).is_ok());
}

proptest! {
    /// However a lease is renewed, it ends by its maximum TTL and by its token, and never without end.
    #[test]
    fn no_lease_outlives_its_limits(
        ttl in 1u64..100_000,
        max in 1u64..1_000_000,
        token in proptest::option::of(1u64..1_000_000),
        steps in proptest::collection::vec((0u64..50_000, proptest::option::of(0u64..u64::MAX)), 0..30),
    ) {
        let ms = Duration::from_millis;
        let limits = Limits { ttl: ms(ttl), max_ttl: ms(max), token_expiry: token.map(|t| NOW.plus(ms(t))) };
        let Ok(mut expires) = first_expiry(NOW, &limits) else { return Ok(()) };
        let cap = limits.token_expiry.unwrap_or(Timestamp::MAX).min(NOW.plus(ms(max)));
        let mut now = NOW;
        prop_assert!(expires <= cap);
        for (wait, increment) in steps {
            now = now.plus(ms(wait));
            match renewed_expiry(now, NOW, expires, increment.map(ms), &limits) {
                Ok(next) => {
                    prop_assert!(now < expires && next > now && next <= cap);
                    expires = next;
                }
                Err(error) => prop_assert!(error == LeaseError::Expired && now >= expires || error == LeaseError::MaxTtl),
            }
        }
    }
}

#[test]
fn chance_takes_at_most_half_of_a_wait() {
    let whole = Duration::from_secs(300);
    assert_eq!(jittered(whole, 255), whole);
    assert_eq!(jittered(whole, 0), whole / 2);
    for spread in 0..255 {
        assert!(jittered(whole, spread) < jittered(whole, spread + 1));
    }
}

#[test]
fn leases_that_failed_together_are_not_tried_together() {
    let next = |spread| {
        let event = LeaseEvent::AttemptFailed { why: "down".into(), spread };
        LeaseState::Revoking { attempt: 3, next_try: at(0) }.step(event, at(0)).unwrap().due()
    };
    assert!(next(10) < next(200));
    assert_eq!(next(255), Some(at(8000)));
}
