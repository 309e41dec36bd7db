//! The clock over hands that are moved at will.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const HOUR: u64 = 3_600_000;
const START: u64 = 1_795_000_000_000;

#[derive(Default)]
struct Hands {
    wall: AtomicU64,
    boot: AtomicU64,
}

impl Source for Arc<Hands> {
    fn wall(&self) -> u64 {
        self.wall.load(Ordering::Relaxed)
    }

    fn boot(&self) -> u64 {
        self.boot.load(Ordering::Relaxed)
    }
}

impl Hands {
    fn pass(&self, millis: u64) {
        self.wall.fetch_add(millis, Ordering::Relaxed);
        self.boot.fetch_add(millis, Ordering::Relaxed);
    }

    fn step(&self, by: i64) {
        let to = self.wall.load(Ordering::Relaxed).saturating_add_signed(by);
        self.wall.store(to, Ordering::Relaxed);
    }
}

fn started() -> (Arc<Hands>, SystemClock<Arc<Hands>>) {
    let hands = Arc::new(Hands { wall: AtomicU64::new(START), boot: AtomicU64::new(5 * HOUR) });
    let clock = SystemClock::over(Arc::clone(&hands));
    assert_eq!(clock.now(), Timestamp::from_millis(START));
    (hands, clock)
}

#[test]
fn an_hour_back_lengthens_nothing() {
    let (hands, clock) = started();
    hands.step(-(HOUR as i64));
    for passed in 1..=7200 {
        hands.pass(500);
        assert_eq!(clock.now(), Timestamp::from_millis(START + passed * 500), "as if nobody had touched it");
    }
    assert_eq!(clock.wall(), Timestamp::from_millis(START), "and the wall clock is told as it is");
}

#[test]
fn an_hour_forward_ends_nothing_at_once_and_is_caught_up_with() {
    let (hands, clock) = started();
    hands.step(HOUR as i64);
    assert_eq!(clock.now(), Timestamp::from_millis(START));
    // A lease of an hour that is renewed when two thirds are over is renewed in time.
    hands.pass(HOUR * 2 / 3);
    assert!(clock.now() < Timestamp::from_millis(START + HOUR));
    for _ in 0..10 {
        hands.pass(HOUR);
        clock.now();
    }
    assert_eq!(clock.now(), clock.wall());
    hands.pass(HOUR);
    assert_eq!(clock.now(), clock.wall(), "no further than that");
}

#[test]
fn a_suspended_machine_has_slept_and_nothing_is_longer_for_it() {
    let (hands, clock) = started();
    hands.pass(8 * HOUR);
    assert_eq!(clock.now(), Timestamp::from_millis(START + 8 * HOUR));
}

#[test]
fn what_the_store_has_seen_is_not_lived_again() {
    let (hands, clock) = started();
    clock.not_before(Timestamp::from_millis(START + HOUR));
    assert_eq!(clock.now(), Timestamp::from_millis(START + HOUR));
    // The wall clock was wrong and is set right: that is not counted a second time.
    hands.step(HOUR as i64);
    hands.pass(HOUR);
    assert_eq!(clock.now(), clock.wall());
    clock.not_before(Timestamp::from_millis(START));
    assert_eq!(clock.now(), clock.wall());
}

/// Whatever somebody does to the wall clock: at least as much time goes by as there was, and at most a tenth more.
#[test]
fn no_step_of_the_wall_clock_makes_time_slower_nor_much_faster() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let (hands, clock) = started();
        let (boot, mut last) = (hands.boot(), clock.now());
        for _ in 0..200 {
            if rng.random_range(0..4) == 0 {
                hands.step(rng.random_range(-3 * HOUR as i64..3 * HOUR as i64));
            }
            let passed = if rng.random() { rng.random_range(0..50) } else { rng.random_range(0..600_000) };
            hands.pass(passed);
            let now = clock.now();
            assert!(now.saturating_sub(last).as_millis() >= u128::from(passed), "seed {seed}");
            last = now;
        }
        let passed = hands.boot() - boot;
        let told = last.as_millis() - START;
        assert!(told >= passed && told <= passed + passed / GAIN, "seed {seed}: {told} of {passed}");
    }
}

#[test]
fn many_at_once_see_no_step_back() {
    let (hands, clock) = started();
    hands.step(HOUR as i64);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut last = clock.now();
                for _ in 0..5_000 {
                    hands.pass(7);
                    let now = clock.now();
                    assert!(now >= last);
                    last = now;
                }
            });
        }
    });
    let passed = hands.boot() - 5 * HOUR;
    assert!(clock.now().as_millis() - START <= passed + passed / GAIN);
}

#[test]
fn the_machine_has_both_clocks() {
    let clock = SystemClock::default();
    assert!(clock.now() > Timestamp::from_millis(START - 365 * 24 * HOUR));
    assert!(clock_gettime(ClockId::CLOCK_BOOTTIME).is_ok());
}
