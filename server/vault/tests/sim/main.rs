//! A deterministic simulator: a seed drives clients, the clock, crashes, a faulty store and a simulated database
//! through leases and revocation, and after every event the promises are checked.
//!
//! What a seed fixes: what the clients do, when the clock moves, which call the process dies in, and which calls of
//! store and database fail, by their number. Names, tokens and keys stay random, so that things due at the same moment
//! may be taken in another order. `COFFER_SIM_SEED=n` replays one seed and prints its story; `COFFER_SIM_SEEDS=n` runs
//! the first n.
#![allow(clippy::unwrap_used, unreachable_pub, reason = "tests")]

mod act;
mod bugs;
mod check;
mod process;
mod store;
mod target;
mod world;

use bugs::Bug;
use world::World;

/// How many events a seed has.
const EVENTS: usize = 80;

/// Runs a seed; what was broken, if anything was.
fn run(seed: u64, bug: Option<Bug>) -> Result<(), String> {
    let mut world = World::new(seed, bug);
    let outcome = (0..EVENTS)
        .try_for_each(|_| {
            world.act();
            world.check()
        })
        .and_then(|()| world.settle());
    outcome.map_err(|why| {
        let story = world.story();
        let last = story[story.len().saturating_sub(12)..].join("\n  ");
        format!(
            "seed {seed}: {why}\n  {last}\nreplay: COFFER_SIM_SEED={seed} cargo test -p coffer-vault --test sim -- --nocapture seeds"
        )
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

#[test]
fn seeds_keep_every_promise() {
    let seeds = match number("COFFER_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("COFFER_SIM_SEEDS").unwrap_or(12),
    };
    let broken: Vec<String> = seeds.filter_map(|seed| run(seed, None).err()).collect();
    assert!(broken.is_empty(), "{} seeds failed:\n{}", broken.len(), broken.join("\n"));
}

/// The simulator is worth something only if it finds what is wrong.
#[test]
fn planted_bugs_are_found() {
    for bug in Bug::ALL {
        let found = (0..400).find_map(|seed| run(seed, Some(bug)).err());
        let found = found.unwrap_or_else(|| panic!("{bug:?} was not found"));
        eprintln!("{bug:?}: {}", found.lines().next().unwrap_or_default());
    }
}
