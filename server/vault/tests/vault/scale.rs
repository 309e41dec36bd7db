//! What many living leases cost: nothing, until they are due. Counted in what is asked of the store.

use std::time::Duration;

use coffer_vault::Operation::{Read, Update};
use serde_json::{Value, json};

use crate::bed::{Bed, hours};

const FEW: usize = 20;
const MANY: usize = 400;

async fn with_leases(leases: usize) -> Bed {
    let bed = Bed::new().await;
    bed.root(Update, "sys/mounts/database", json!({"type": "database"})).await.expect(204);
    issue(&bed, leases).await;
    bed
}

async fn issue(bed: &Bed, leases: usize) {
    for _ in 0..leases {
        bed.root(Read, "database/creds/at-one", Value::Null).await.expect(200);
    }
}

/// Calls, and rows that are read, of a sweep.
async fn of_a_sweep(bed: &Bed) -> (u64, u64) {
    bed.asked.take();
    bed.sweep().await;
    bed.asked.take()
}

#[tokio::test]
async fn a_sweep_costs_the_same_however_many_leases_live() {
    let (few, many) = (with_leases(FEW).await, with_leases(MANY).await);
    assert_eq!(of_a_sweep(&few).await, of_a_sweep(&many).await);
}

#[tokio::test]
async fn a_sweep_costs_by_what_is_due() {
    let bed = with_leases(FEW).await;
    bed.advance(Duration::from_secs(1800)).await;
    issue(&bed, MANY).await;
    let idle = of_a_sweep(&bed).await;
    bed.advance(Duration::from_secs(1800)).await;
    let due = of_a_sweep(&bed).await;
    assert_eq!(bed.database.accounts().len(), MANY, "those that were due are gone");
    let each = 60 * FEW as u64;
    assert!(due.0 < idle.0 + each && due.1 < idle.1 + each, "{due:?}, {idle:?} when nothing is due");
    // What waits at a target that fails costs as little: it is not even looked at in its pause.
    bed.database.refuse_revoke.store(true, std::sync::atomic::Ordering::SeqCst);
    bed.advance(hours(1)).await;
    bed.sweep().await;
    let vault = std::sync::Arc::clone(&bed.vault);
    bed.asked.take();
    vault.sweep().await.unwrap();
    let (calls, _) = bed.asked.take();
    assert!(calls < idle.0 + 20, "{calls} calls in a pause, {idle:?} when nothing is due");
}

#[tokio::test]
async fn a_start_costs_the_same_however_many_leases_live() {
    let mut costs = Vec::new();
    for leases in [FEW, MANY] {
        let mut bed = with_leases(leases).await;
        bed.root(Update, "secret/data/x", json!({"data": {"a": "b"}})).await.expect(200);
        // As the background does all the time: how much of the log of changes there is to be read is not of leases.
        bed.vault.trim().await.unwrap();
        bed.vault.close().await.unwrap();
        bed.asked.take();
        bed.restart().await;
        bed.root(Read, "secret/data/x", Value::Null).await.expect(200);
        costs.push(bed.asked.take());
    }
    assert_eq!(costs[0], costs[1]);
}
