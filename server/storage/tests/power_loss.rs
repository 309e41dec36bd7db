//! Power cuts. A disk that keeps only what was synced, and of the rest what a seed picks: any subset of the 512-byte
//! sectors written since, in any order, and any of the lengths the file had. The store must open over what is left,
//! pass redb's own check, and hold every commit that was acknowledged before the cut, whole.
//!
//! And the check must be able to fail: with syncs that do nothing, or are forgotten now and then, it finds losses.
//!
//! `COFFER_SEEDS` sets how many seeds run; a failure names its seed.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use coffer_barrier::store::{Store, StoreError};
use coffer_storage::embedded::EmbeddedStore;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use redb::{Database, StorageBackend};

const SECTOR: usize = 512;
/// Cuts that one disk lives through, one after the other.
const CUTS: usize = 3;

#[derive(Clone, Debug)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Clone, Copy, Debug)]
enum Syncs {
    Honest,
    /// Say they are done and do nothing.
    Never,
    /// One in four does nothing.
    Forgetful,
}

#[derive(Debug)]
struct State {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Pending>,
    syncs: Syncs,
    rng: StdRng,
    /// Calls until the power goes.
    cut_in: u64,
    /// What is left after the cut.
    left: Option<Vec<u8>>,
    /// What had been acknowledged at the cut.
    acknowledged_at_cut: BTreeMap<u64, u64>,
    acknowledged: BTreeMap<u64, u64>,
}

/// The disk. Goes on working after the cut, as a process does that has not noticed; what counts is `left`.
#[derive(Clone, Debug)]
struct Disk(Arc<Mutex<State>>);

impl State {
    fn tick(&mut self) {
        if self.left.is_some() {
            return;
        }
        if self.cut_in == 0 {
            self.left = Some(self.after_the_cut());
            self.acknowledged_at_cut = self.acknowledged.clone();
        } else {
            self.cut_in -= 1;
        }
    }

    /// What of the unsynced writes has reached the disk is the seed's choice, sector by sector.
    fn after_the_cut(&mut self) -> Vec<u8> {
        let mut image = self.durable.clone();
        let mut lengths = vec![self.durable.len() as u64];
        let mut sectors: BTreeMap<(usize, usize), Vec<Vec<u8>>> = BTreeMap::new();
        for pending in &self.pending {
            match pending {
                Pending::Length(len) => lengths.push(*len),
                Pending::Write(offset, data) => {
                    let mut at = usize::try_from(*offset).unwrap();
                    let mut rest = data.as_slice();
                    while !rest.is_empty() {
                        let take = (SECTOR - at % SECTOR).min(rest.len());
                        sectors.entry((at, take)).or_default().push(rest[..take].to_vec());
                        rest = &rest[take..];
                        at += take;
                    }
                }
            }
        }
        let len = lengths[self.rng.random_range(0..lengths.len())];
        image.resize(usize::try_from(len).unwrap(), 0);
        let kept = self.rng.random_range(0..=100);
        for ((at, take), versions) in sectors {
            // Any of the versions may be the one that got there, not just the last.
            let version = &versions[self.rng.random_range(0..versions.len())];
            if self.rng.random_range(0..100) < kept && at + take <= image.len() {
                image[at..at + take].copy_from_slice(version);
            }
        }
        image
    }
}

impl Disk {
    fn new(image: Vec<u8>, syncs: Syncs, rng: &mut StdRng) -> Self {
        Self(Arc::new(Mutex::new(State {
            live: image.clone(),
            durable: image,
            pending: Vec::new(),
            syncs,
            rng: StdRng::seed_from_u64(rng.next_u64()),
            cut_in: rng.random_range(0..220),
            left: None,
            acknowledged_at_cut: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn open(&self) -> Result<EmbeddedStore, StoreError> {
        let disk = self.clone();
        EmbeddedStore::with_backend(Box::new(move || Ok(Box::new(disk.clone()))), Box::new(|| None))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let at = usize::try_from(offset).unwrap();
        let found = state.live.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        state.live.resize(usize::try_from(len).unwrap(), 0);
        state.pending.push(Pending::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        let works = match state.syncs {
            Syncs::Honest => true,
            Syncs::Never => false,
            Syncs::Forgetful => !state.rng.random_ratio(1, 4),
        };
        if works {
            state.durable = state.live.clone();
            state.pending.clear();
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.tick();
        let at = usize::try_from(offset).unwrap();
        state.live[at..at + data.len()].copy_from_slice(data);
        state.pending.push(Pending::Write(offset, data.to_vec()));
        Ok(())
    }
}

/// Both rows of a commit: key and value follow from its number and size.
fn rows(number: u64, size: u64) -> [(Vec<u8>, Vec<u8>); 2] {
    let value = |salt: u64| {
        let mut rng = StdRng::seed_from_u64(number * 2 + salt);
        let mut value = vec![0; usize::try_from(size).unwrap() + 1];
        rng.fill_bytes(&mut value);
        value
    };
    [0, 1].map(|side| ([b"C".as_slice(), &number.to_be_bytes(), &[side as u8]].concat(), value(side)))
}

/// Commits until the power is gone.
async fn work(disk: &Disk, first: u64, rng: &mut StdRng) -> Result<u64, StoreError> {
    let store = disk.open()?;
    let mut number = first;
    // The power may not go while the store is being opened and may be gone before.
    while disk.state().left.is_none() && number < first + 60 {
        let writers = rng.random_range(1..4);
        let mut txns = Vec::new();
        for _ in 0..writers {
            let size = rng.random_range(0..6000);
            let mut txn = store.begin().await?;
            for (key, value) in rows(number, size) {
                txn.put(&key, value)?;
            }
            // Some rows go again: the same two, two commits later.
            if number > first + 2 && rng.random_ratio(1, 4) {
                txn.delete(b"Cscratch")?;
            } else if number == first {
                txn.put(b"Cscratch", vec![1; 4000])?;
            }
            txns.push((number, size, txn));
            number += 1;
        }
        for (number, size, txn) in txns {
            match txn.commit().await {
                Ok(_) => drop(disk.state().acknowledged.insert(number, size)),
                Err(StoreError::Conflict) => {}
                Err(other) => return Err(other),
            }
        }
    }
    let mut state = disk.state();
    state.cut_in = 0;
    state.tick();
    Ok(number)
}

/// Everything acknowledged is there, every commit is whole, and redb finds nothing wrong.
async fn check(
    image: &[u8],
    acknowledged: &BTreeMap<u64, u64>,
    upto: u64,
    rng: &mut StdRng,
) -> Result<(), String> {
    let disk = Disk::new(image.to_vec(), Syncs::Honest, rng);
    {
        let store = disk.open().map_err(|e| format!("does not open: {e}"))?;
        let snapshot = store.snapshot().await.map_err(|e| e.to_string())?;
        for number in 0..upto {
            let size = acknowledged.get(&number).copied();
            let mut present = 0;
            for (key, value) in rows(number, size.unwrap_or(0)) {
                let found = snapshot.get(&key).await.map_err(|e| e.to_string())?;
                present += usize::from(found.is_some());
                if size.is_some() && found.as_ref() != Some(&value) {
                    return Err(format!("commit {number} was acknowledged and is lost or changed"));
                }
            }
            if present == 1 {
                return Err(format!("commit {number} is torn"));
            }
        }
    }
    let mut database = Database::builder().create_with_backend(disk).map_err(|e| e.to_string())?;
    match database.check_integrity() {
        Ok(true) => Ok(()),
        Ok(false) => Err("redb repaired something after a clean close".into()),
        Err(e) => Err(format!("redb's check: {e}")),
    }
}

/// Returns how many commits were acknowledged.
fn one_seed(seed: u64, syncs: Syncs) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut rng = StdRng::seed_from_u64(seed);
    // The store puts a new file in place by renaming it once it is whole and synced, so the first cut comes after.
    let fresh = Disk::new(Vec::new(), Syncs::Honest, &mut rng);
    drop(fresh.open().map_err(|e| format!("cannot be created: {e}"))?);
    let mut image = fresh.state().live.clone();
    let (mut acknowledged, mut next) = (BTreeMap::new(), 0);
    for _ in 0..CUTS {
        let disk = Disk::new(image, syncs, &mut rng);
        disk.state().acknowledged = acknowledged;
        next = runtime.block_on(work(&disk, next, &mut rng)).map_err(|e| format!("cannot work: {e}"))?;
        let mut state = disk.state();
        image = state.left.take().unwrap();
        acknowledged = std::mem::take(&mut state.acknowledged_at_cut);
        drop(state);
        runtime.block_on(check(&image, &acknowledged, next, &mut rng))?;
    }
    Ok(acknowledged.len())
}

fn seeds() -> u64 {
    std::env::var("COFFER_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_000)
}

/// How many seeds show a loss, a tear or a store that does not open (redb may also panic over nonsense).
fn losses(syncs: Syncs, seeds: u64) -> usize {
    let lost = |seed: &u64| {
        !matches!(std::panic::catch_unwind(AssertUnwindSafe(|| one_seed(*seed, syncs))), Ok(Ok(_)))
    };
    (0..seeds).filter(lost).count()
}

#[test]
fn acknowledged_commits_survive_power_cuts() {
    let mut acknowledged = 0;
    for seed in 0..seeds() {
        match one_seed(seed, Syncs::Honest) {
            Ok(count) => acknowledged += count as u64,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    // Cuts that come before anything was promised would prove nothing.
    assert!(acknowledged > seeds() * 5, "{acknowledged} commits");
}

#[test]
fn without_syncs_the_check_finds_losses() {
    let seeds = seeds().min(40);
    let found = losses(Syncs::Never, seeds);
    assert!(found as u64 > seeds / 2, "{found} of {seeds}");
}

#[test]
fn with_forgotten_syncs_the_check_finds_losses() {
    let found = losses(Syncs::Forgetful, seeds().min(100));
    assert!(found > 0);
}
