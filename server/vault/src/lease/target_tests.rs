//! What is known of a target, whatever happens to it in whatever order.

use proptest::prelude::*;

use super::*;

const START: Timestamp = Timestamp::from_secs(1_000_000);

fn target() -> Arc<Target> {
    Target::new(TargetKey { mount: MountId::SYSTEM, name: "config/orders".into() })
}

fn failed_until_it_pauses(health: &mut Health, mut now: Timestamp, spread: u8) -> Timestamp {
    while !health.pausing(now) {
        health.failed("down", now, spread);
        now = now.plus(Duration::from_millis(1));
    }
    now
}

#[test]
fn one_failure_narrows_and_three_pause() {
    let mut health = Health::default();
    assert_eq!(health.width(), WIDTH);
    health.failed("down", START, 255);
    assert_eq!(health.width(), 1);
    health.failed("down", START, 255);
    assert!(!health.pausing(START) && health.failing().is_none(), "two leases may be to blame themselves");
    health.failed("down", START, 255);
    assert!(health.pausing(START) && !health.pausing(START.plus(PAUSE)));
    assert_eq!(health.failing(), Some((START, "down")));
    health.answered();
    assert_eq!((health.width(), health.failing()), (WIDTH, None));
}

#[test]
fn calls_that_were_under_way_when_the_pause_began_do_not_make_it_longer() {
    let mut health = Health::default();
    for _ in 0..40 {
        health.failed("no answer in time", START, 255);
    }
    assert!(!health.pausing(START.plus(PAUSE)) && !health.stuck());
}

#[test]
fn pauses_grow_up_to_a_bound_and_then_the_target_counts_as_stuck() {
    let mut health = Health::default();
    let (mut now, mut pauses) = (START, 0);
    while !health.stuck() {
        now = failed_until_it_pauses(&mut health, now, 255);
        let end = health.until.unwrap();
        assert!(end.saturating_sub(now) <= PAUSE_MAX);
        now = end;
        pauses += 1;
    }
    assert_eq!(pauses, PAUSES_UNTIL_STUCK);
    assert_eq!(health.failing().unwrap().0, START, "since the first failure");
}

proptest! {
    /// Whatever its answers: one success makes it whole, and no pause is longer than the bound or shorter than the
    /// half of the first.
    #[test]
    fn pauses_are_bounded_and_end(answers in prop::collection::vec((any::<bool>(), any::<u8>(), 0u64..90_000), 1..200)) {
        let mut health = Health::default();
        let mut now = START;
        for (well, spread, passed) in answers {
            now = now.plus(Duration::from_millis(passed));
            let was_pausing = health.pausing(now);
            if well { health.answered() } else { health.failed("down", now, spread) }
            prop_assert!(!health.pausing(now.plus(PAUSE_MAX)));
            if well {
                prop_assert!(!health.pausing(now) && health.width() == WIDTH);
            } else if health.pausing(now) && !was_pausing {
                prop_assert!(health.pausing(now.plus(PAUSE / 2 - Duration::from_millis(1))));
            }
            prop_assert!(health.width() >= 1);
        }
    }

    /// Whatever is asked for, found, worked at and stopped, in whatever order: nobody is worked at twice at a time,
    /// and whoever waits hears of each of his leases exactly once.
    #[test]
    fn everybody_who_waits_is_told_and_nobody_is_worked_at_twice(
        steps in prop::collection::vec((0u8..5, 0u8..12, any::<bool>()), 1..200)
    ) {
        let target = target();
        let mut tallies: Vec<(Arc<Tally>, usize)> = Vec::new();
        let mut working: HashSet<String> = HashSet::new();
        for (step, number, gone) in steps {
            let id = format!("lease-{number}");
            match step {
                0 => {
                    let leases = vec![(Arc::clone(&target), id), (Arc::clone(&target), format!("lease-{}", number + 1))];
                    tallies.push((push_all(leases), 2));
                }
                1 => if let Some(id) = target.take() {
                    prop_assert!(working.insert(id));
                },
                2 => if target.claim(&id) {
                    prop_assert!(working.insert(id));
                },
                3 => if let Some(id) = working.iter().next().cloned() {
                    working.remove(&id);
                    target.settled(&id, gone);
                },
                _ => {
                    target.stop();
                    working.clear();
                }
            }
            for (tally, leases) in &tallies {
                prop_assert!(tally.left.load(Ordering::SeqCst) <= *leases);
            }
        }
        target.stop();
        for (tally, _) in tallies {
            prop_assert_eq!(tally.left.load(Ordering::SeqCst), 0);
        }
    }
}

#[test]
fn what_there_is_no_room_for_waits_in_the_store_and_its_owner_is_told() {
    let target = target();
    let full = push_all((0..FRONT_MAX).map(|n| (Arc::clone(&target), n.to_string())).collect());
    assert_eq!(full.left.load(Ordering::SeqCst), FRONT_MAX);
    let more = push_all(vec![(Arc::clone(&target), "one more".into())]);
    assert_eq!(more.left.load(Ordering::SeqCst), 0);
    assert!(more.some_stayed.load(Ordering::SeqCst));
    assert_eq!(target.inside().front.len(), FRONT_MAX);
}

#[test]
fn one_works_at_a_time_and_what_comes_at_the_last_moment_is_not_left() {
    let target = target();
    assert!(target.begin() && !target.begin());
    let _waiting = push_all(vec![(Arc::clone(&target), "late".into())]);
    assert!(!target.rest(), "it goes on");
    assert_eq!(target.take().as_deref(), Some("late"));
    assert!(target.rest() && !target.is_running() && target.begin());
}
