//! Initialisation under faults: all of it or nothing, and never keys that nobody has.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::sync::Arc;

use coffer_barrier::{Barrier, BarrierError, MountId, Read, RecordKind, RowKey, Writer};
use coffer_core::shamir::Threshold;
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_storage::memory::MemoryStore;
use common::rng;

fn first_row() -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Entry, "first")
}

async fn write_first(mut w: Writer) -> Result<(Writer, ()), BarrierError> {
    w.put_system(&first_row(), b"row").await?;
    Ok((w, ()))
}

#[tokio::test]
async fn whatever_fails_there_are_keys_somebody_has_with_the_first_rows_or_no_keys() {
    let t = Threshold::new(1, 1).unwrap();
    let (mut done, mut nothing) = (0, 0);
    for seed in 0..200 {
        let memory = MemoryStore::new();
        let faults = Faults {
            read_fails: 0.1,
            commit_fails: 0.3,
            unknown_applied: 0.15,
            unknown_lost: 0.1,
            unknown_late: 0.1,
            ..Faults::default()
        };
        let faulty = FaultyStore::new(Arc::new(memory.clone()), seed, faults);
        let barrier = Barrier::new(Arc::new(faulty.clone()));
        let made = barrier.initialize_with(t, &mut rng(), None, write_first).await;
        faulty.set_faults(Faults::default());
        faulty.land_late().await;
        let look = Barrier::new(Arc::new(memory.clone()));
        match made {
            Ok((shares, ())) => {
                look.unseal(&shares).await.unwrap();
                let reader = look.reader().await.unwrap();
                assert_eq!(reader.get(&first_row()).await.unwrap().unwrap().expose(), b"row", "seed {seed}");
                done += 1;
            }
            Err(error) => {
                assert!(!look.initialized().await.unwrap(), "seed {seed}: {error}");
                nothing += 1;
            }
        }
    }
    assert!(done > 20 && nothing > 20, "{done} {nothing}");
}

#[tokio::test]
async fn first_rows_that_cannot_be_written_leave_an_uninitialised_vault() {
    let barrier = Barrier::new(Arc::new(MemoryStore::new()));
    let t = Threshold::new(1, 1).unwrap();
    let fails = |_: Writer| async { Err::<(Writer, ()), _>(BarrierError::Limit("no")) };
    let failed = barrier.initialize_with(t, &mut rng(), None, fails).await;
    assert!(matches!(failed.map(drop), Err(BarrierError::Limit("no"))));
    assert!(!barrier.initialized().await.unwrap());
    let (shares, ()) = barrier.initialize_with(t, &mut rng(), None, write_first).await.unwrap();
    barrier.unseal(&shares).await.unwrap();
}
