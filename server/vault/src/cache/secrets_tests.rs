use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;

use coffer_core::secret::SecretBytes;
use prometheus::Registry;

use super::super::CacheMeters;
use super::*;

const TTL: Duration = Duration::from_secs(5);

fn cache(bytes: usize) -> SecretCache {
    SecretCache::new(bytes, TTL, CacheMeters::new(&Registry::new()).unwrap().secrets)
}

fn secret(json: &str) -> Arc<Encoded> {
    Arc::new(Encoded { json: SecretBytes::copy_of(json.as_bytes()), until: None })
}

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

const MOUNT: MountId = MountId::from_bytes([1; 16]);

fn keep(cache: &SecretCache, subject: &str, number: u64, json: &str) {
    let began = cache.began(MOUNT, subject);
    cache.fill(began, MOUNT, subject, number, at(10), &secret(json));
}

fn kept(cache: &SecretCache, subject: &str, number: u64) -> Option<String> {
    let found = cache.get(MOUNT, subject, number, at(11))?;
    Some(String::from_utf8(found.json.expose().to_vec()).unwrap())
}

#[test]
fn what_was_filled_is_served_by_mount_subject_and_number() {
    let cache = cache(1 << 20);
    keep(&cache, "a", 0, "newest");
    keep(&cache, "a", 1, "first");
    assert_eq!(kept(&cache, "a", 0).as_deref(), Some("newest"));
    assert_eq!(kept(&cache, "a", 1).as_deref(), Some("first"));
    assert_eq!(kept(&cache, "a", 2), None);
    assert_eq!(kept(&cache, "b", 0), None);
    assert!(cache.get(MountId::from_bytes([2; 16]), "a", 0, at(11)).is_none());
    assert_eq!((cache.meter.hits.get(), cache.meter.misses.get()), (2, 3));
}

#[test]
fn nothing_is_served_past_its_time_or_from_before_it() {
    let cache = cache(1 << 20);
    keep(&cache, "a", 0, "x");
    assert!(cache.get(MOUNT, "a", 0, at(14)).is_some());
    assert!(cache.get(MOUNT, "a", 0, at(15)).is_none());
    assert!(cache.get(MOUNT, "a", 0, at(9)).is_none());
    let ends = Arc::new(Encoded { json: SecretBytes::copy_of(b"x"), until: Some(at(12)) });
    cache.fill(cache.began(MOUNT, "b"), MOUNT, "b", 0, at(10), &ends);
    assert!(cache.get(MOUNT, "b", 0, at(11)).is_some());
    assert!(cache.get(MOUNT, "b", 0, at(12)).is_none());
}

#[test]
fn zero_of_either_keeps_nothing() {
    let meters = || CacheMeters::new(&Registry::new()).unwrap().secrets;
    for cache in [SecretCache::new(0, TTL, meters()), SecretCache::new(1 << 20, Duration::ZERO, meters())] {
        keep(&cache, "a", 0, "x");
        assert_eq!(kept(&cache, "a", 0), None);
        assert_eq!(cache.bytes(), 0);
    }
}

#[test]
fn a_write_drops_its_subject_in_all_numbers_and_nothing_else() {
    let cache = cache(1 << 20);
    for subject in ["a", "b"] {
        keep(&cache, subject, 0, "newest");
        keep(&cache, subject, 1, "first");
    }
    drop(cache.writing(MOUNT, Touches::One("a")));
    assert_eq!((kept(&cache, "a", 0), kept(&cache, "a", 1)), (None, None));
    assert!(kept(&cache, "b", 0).is_some());
    drop(cache.writing(MOUNT, Touches::Nothing));
    assert!(kept(&cache, "b", 0).is_some());
    cache.forget_mount(MOUNT);
    assert_eq!(kept(&cache, "b", 0), None);
    assert_eq!(cache.bytes(), 0);
}

#[test]
fn what_began_before_or_during_a_write_is_not_kept() {
    let cache = cache(1 << 20);
    for touches in [Touches::One("a"), Touches::All] {
        let before = cache.began(MOUNT, "a");
        let writing = cache.writing(MOUNT, touches);
        cache.fill(before, MOUNT, "a", 0, at(10), &secret("old"));
        let during = cache.began(MOUNT, "a");
        cache.fill(during, MOUNT, "a", 0, at(10), &secret("old"));
        assert_eq!(kept(&cache, "a", 0), None);
        drop(writing);
        cache.fill(during, MOUNT, "a", 0, at(10), &secret("old"));
        assert_eq!(kept(&cache, "a", 0), None);
        keep(&cache, "a", 0, "new");
        assert_eq!(kept(&cache, "a", 0).as_deref(), Some("new"));
    }
}

#[test]
fn of_two_writers_the_last_one_opens_the_subject_again() {
    let cache = cache(1 << 20);
    let first = cache.writing(MOUNT, Touches::One("a"));
    let second = cache.writing(MOUNT, Touches::One("a"));
    drop(first);
    keep(&cache, "a", 0, "x");
    assert_eq!(kept(&cache, "a", 0), None);
    drop(second);
    keep(&cache, "a", 0, "x");
    assert!(kept(&cache, "a", 0).is_some());
}

#[test]
fn a_full_cache_evicts_by_bytes_and_spares_what_is_used() {
    let room = 1 << 20;
    let cache = cache(room);
    let json = "x".repeat(1000);
    keep(&cache, "hot", 0, &json);
    for n in 0..5000 {
        keep(&cache, &format!("cold/{n}"), 0, &json);
        assert!(cache.bytes() <= room);
        assert!(kept(&cache, "hot", 0).is_some(), "{n}");
    }
    assert!(cache.bytes() > room / 2, "{}", cache.bytes());
    assert!(cache.meter.evictions.get() > 3000);
    assert_eq!(cache.meter.bytes.get(), cache.bytes() as i64);
    keep(&cache, "huge", 0, &"x".repeat(room / SHARDS));
    assert_eq!(kept(&cache, "huge", 0), None, "one entry must not empty a shard");
}

#[test]
fn bytes_return_to_nothing_whatever_the_order() {
    let cache = cache(1 << 20);
    for round in 0..200 {
        for n in 0..6 {
            keep(&cache, "many", n, &"x".repeat(n as usize * 7 + round));
        }
        keep(&cache, &format!("s{}", round % 5), 0, "y");
        drop(cache.writing(MOUNT, Touches::One(&format!("s{}", round % 3))));
    }
    let turns: usize = (0..SHARDS).map(|at| cache.read(at).turns.len()).sum();
    assert!(turns <= SHARDS * (64 + 2 * 10), "{turns} turns pile up");
    cache.forget_mount(MOUNT);
    assert_eq!((cache.bytes(), cache.meter.bytes.get()), (0, 0));
}

/// Readers and writers over a store of numbers. A reader must never get less than what was acknowledged when it began,
/// nor less than what anybody saw before it began: the cache must not be told from the store itself.
#[test]
fn no_read_is_older_than_an_acknowledged_write_or_an_earlier_read() {
    const SUBJECTS: usize = 3;
    const ROUNDS: usize = 30_000;
    for seed in 0..4u64 {
        let cache = cache(1 << 20);
        let stored: [AtomicU64; SUBJECTS] = Default::default();
        // The least that a read which begins now may give.
        let floor: [AtomicU64; SUBJECTS] = Default::default();
        let writer: [Mutex<()>; SUBJECTS] = Default::default();
        let hits = AtomicUsize::new(0);
        let names = ["a", "b", "c"];
        thread::scope(|scope| {
            for worker in 0..4u64 {
                let (cache, stored, floor, writer, hits) = (&cache, &stored, &floor, &writer, &hits);
                scope.spawn(move || {
                    let mut random = seed * 31 + worker + 1;
                    for round in 0..ROUNDS {
                        random = random
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let subject = (random >> 33) as usize % SUBJECTS;
                        if worker == 0 || (random >> 50) % 16 == 0 {
                            let _one_at_a_time = writer[subject].lock().unwrap();
                            let writing = cache.writing(MOUNT, Touches::One(names[subject]));
                            let next = stored[subject].load(Ordering::SeqCst) + 1;
                            if round % 3 == 0 {
                                thread::yield_now();
                            }
                            stored[subject].store(next, Ordering::SeqCst);
                            if round % 2 == 0 {
                                thread::yield_now();
                            }
                            drop(writing);
                            floor[subject].fetch_max(next, Ordering::SeqCst);
                            continue;
                        }
                        let least = floor[subject].load(Ordering::SeqCst);
                        let found = match cache.get(MOUNT, names[subject], 0, at(11)) {
                            Some(kept) => {
                                hits.fetch_add(1, Ordering::Relaxed);
                                std::str::from_utf8(kept.json.expose()).unwrap().parse().unwrap()
                            }
                            None => {
                                let began = cache.began(MOUNT, names[subject]);
                                let value = stored[subject].load(Ordering::SeqCst);
                                if round % 5 == 0 {
                                    thread::yield_now();
                                }
                                let json = secret(&value.to_string());
                                cache.fill(began, MOUNT, names[subject], 0, at(10), &json);
                                value
                            }
                        };
                        assert!(found >= least, "{found} after {least} was seen");
                        floor[subject].fetch_max(found, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(hits.load(Ordering::Relaxed) > 0);
    }
}

#[test]
fn what_is_past_its_time_is_wiped_though_nobody_asks_for_it() {
    let cache = cache(1 << 20);
    keep(&cache, "a", 0, "x");
    cache.expire(at(14));
    assert!(cache.get(MOUNT, "a", 0, at(14)).is_some());
    cache.expire(at(15));
    assert_eq!((cache.bytes(), cache.meter.bytes.get()), (0, 0));
    keep(&cache, "a", 0, "y");
    assert_eq!(kept(&cache, "a", 0).as_deref(), Some("y"));
}
