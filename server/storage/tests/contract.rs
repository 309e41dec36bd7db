//! The storage port's contract, run over every implementation. A new store adds one line at the bottom.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

use std::sync::Arc;

use coffer_barrier::store::{
    KEY_BYTES_MAX, KeyRange, SCAN_PAGE_MAX, Snapshot, Store, StoreError, VALUE_BYTES_MAX,
};

type Shared = Arc<dyn Store>;

async fn put(store: &Shared, key: &[u8], value: &[u8]) -> u64 {
    let mut txn = store.begin().await.unwrap();
    txn.put(key, value.to_vec()).unwrap();
    txn.commit().await.unwrap()
}

async fn remove(store: &Shared, key: &[u8]) -> u64 {
    let mut txn = store.begin().await.unwrap();
    txn.delete(key).unwrap();
    txn.commit().await.unwrap()
}

async fn get(store: &Shared, key: &[u8]) -> Option<Vec<u8>> {
    store.snapshot().await.unwrap().get(key).await.unwrap()
}

async fn keys(snapshot: &dyn Snapshot, range: &KeyRange, limit: usize) -> Vec<String> {
    let rows = snapshot.scan(range, limit).await.unwrap();
    rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

async fn round_trip(store: Shared) {
    assert_eq!(get(&store, b"Ca").await, None);
    let one = put(&store, b"Ca", b"1").await;
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    let two = put(&store, b"Ca", b"2").await;
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"2");
    let gone = remove(&store, b"Ca").await;
    assert_eq!(get(&store, b"Ca").await, None);
    let absent = remove(&store, b"Cnever").await;
    assert!(one < two && two < gone && gone < absent);
    let big = vec![7; VALUE_BYTES_MAX];
    put(&store, &[b'k'; KEY_BYTES_MAX], &big).await;
    assert_eq!(get(&store, &[b'k'; KEY_BYTES_MAX]).await.unwrap(), big);
}

async fn snapshots_do_not_move(store: Shared) {
    put(&store, b"Ca", b"old").await;
    put(&store, b"Cb", b"old").await;
    let before = store.snapshot().await.unwrap();
    let version = put(&store, b"Ca", b"new").await;
    remove(&store, b"Cb").await;
    put(&store, b"Cc", b"new").await;
    assert_eq!(before.get(b"Ca").await.unwrap().unwrap(), b"old");
    assert_eq!(keys(&*before, &KeyRange::prefix(b"C"), 10).await, ["Ca", "Cb"]);
    let after = store.snapshot().await.unwrap();
    assert!(before.version() < version && version <= after.version());
    assert_eq!(keys(&*after, &KeyRange::prefix(b"C"), 10).await, ["Ca", "Cc"]);
}

async fn scans_are_ordered_and_paged(store: Shared) {
    let mut txn = store.begin().await.unwrap();
    for n in (0..250).rev() {
        txn.put(format!("Cp/{n:03}").as_bytes(), vec![1]).unwrap();
    }
    txn.put(b"Cp", vec![1]).unwrap();
    txn.put(b"Cp0", vec![1]).unwrap();
    txn.put(&[0xff, 0xff], vec![1]).unwrap();
    txn.commit().await.unwrap();
    let snapshot = store.snapshot().await.unwrap();
    let mut range = KeyRange::prefix(b"Cp/");
    let mut found: Vec<String> = Vec::new();
    loop {
        let page = keys(&*snapshot, &range, 99).await;
        let Some(last) = page.last() else { break };
        range.start = [last.as_bytes(), &[0]].concat();
        found.extend(page);
    }
    assert_eq!(found, (0..250).map(|n| format!("Cp/{n:03}")).collect::<Vec<_>>());
    let to_the_end = KeyRange { start: vec![0xff], end: Vec::new() };
    assert_eq!(snapshot.scan(&to_the_end, 10).await.unwrap(), [(vec![0xff, 0xff], vec![1])]);
    assert_eq!(KeyRange::prefix(&[0xff, 0xff]).end, Vec::<u8>::new());
    let backwards = KeyRange { start: b"Cz".to_vec(), end: b"Ca".to_vec() };
    assert!(snapshot.scan(&backwards, 10).await.unwrap().is_empty());
}

async fn transactions_see_their_own_writes(store: Shared) {
    for key in [b"C1", b"C3", b"C5"] {
        put(&store, key, b"base").await;
    }
    let mut txn = store.begin().await.unwrap();
    txn.put(b"C2", b"own".to_vec()).unwrap();
    txn.put(b"C3", b"own".to_vec()).unwrap();
    txn.delete(b"C1").unwrap();
    txn.put(b"C6", b"own".to_vec()).unwrap();
    txn.delete(b"C6").unwrap();
    assert_eq!(txn.get(b"C1").await.unwrap(), None);
    assert_eq!(txn.get(b"C3").await.unwrap().unwrap(), b"own");
    let range = KeyRange::prefix(b"C");
    assert_eq!(keys(&*txn, &range, 10).await, ["C2", "C3", "C5"]);
    assert_eq!(keys(&*txn, &range, 2).await, ["C2", "C3"]);
    assert_eq!(keys(&*txn, &range, 1).await, ["C2"]);
    // Not anybody else's, and nothing at all once dropped.
    assert_eq!(get(&store, b"C2").await, None);
    drop(txn);
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(keys(&*snapshot, &range, 10).await, ["C1", "C3", "C5"]);
}

async fn two_writers_of_a_key_conflict(store: Shared) {
    put(&store, b"Ca", b"0").await;
    let mut first = store.begin().await.unwrap();
    let mut second = store.begin().await.unwrap();
    first.put(b"Ca", b"1".to_vec()).unwrap();
    second.put(b"Ca", b"2".to_vec()).unwrap();
    second.put(b"Cother", b"2".to_vec()).unwrap();
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(StoreError::Conflict)));
    assert_eq!(get(&store, b"Ca").await.unwrap(), b"1");
    assert_eq!(get(&store, b"Cother").await, None);
    // Deletion is a write, also of what is not there.
    let mut first = store.begin().await.unwrap();
    let mut second = store.begin().await.unwrap();
    first.delete(b"Cnone").unwrap();
    second.put(b"Cnone", b"2".to_vec()).unwrap();
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(StoreError::Conflict)));
}

async fn other_keys_do_not_conflict(store: Shared) {
    let mut first = store.begin().await.unwrap();
    let mut second = store.begin().await.unwrap();
    first.put(b"Ca", b"1".to_vec()).unwrap();
    second.put(b"Cb", b"2".to_vec()).unwrap();
    second.guard(b"Cc");
    let one = first.commit().await.unwrap();
    let two = second.commit().await.unwrap();
    assert!(one < two);
}

/// Two doctors on call: each takes the other for a reason to leave.
async fn guards_prevent_write_skew(store: Shared) {
    put(&store, b"Ca", b"on call").await;
    put(&store, b"Cb", b"on call").await;
    let mut first = store.begin().await.unwrap();
    let mut second = store.begin().await.unwrap();
    first.guard(b"Cb");
    first.delete(b"Ca").unwrap();
    second.guard(b"Ca");
    second.delete(b"Cb").unwrap();
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(StoreError::Conflict)));
    assert!(get(&store, b"Cb").await.is_some());
}

async fn guards_hold_on_absent_and_deleted_rows(store: Shared) {
    // A phantom: absent when guarded, there at commit.
    let mut txn = store.begin().await.unwrap();
    assert_eq!(txn.get(b"Ctombstone").await.unwrap(), None);
    txn.guard(b"Ctombstone");
    txn.put(b"Clogin", b"1".to_vec()).unwrap();
    put(&store, b"Ctombstone", b"1").await;
    assert!(matches!(txn.commit().await, Err(StoreError::Conflict)));
    // There when guarded, deleted at commit.
    let mut txn = store.begin().await.unwrap();
    txn.guard(b"Ctombstone");
    txn.put(b"Clogin", b"1".to_vec()).unwrap();
    remove(&store, b"Ctombstone").await;
    assert!(matches!(txn.commit().await, Err(StoreError::Conflict)));
    // Created and deleted again in between: the same bytes, another history.
    let mut txn = store.begin().await.unwrap();
    txn.guard(b"Ctombstone");
    put(&store, b"Ctombstone", b"1").await;
    remove(&store, b"Ctombstone").await;
    txn.put(b"Clogin", b"1".to_vec()).unwrap();
    assert!(matches!(txn.commit().await, Err(StoreError::Conflict)));
    assert_eq!(get(&store, b"Clogin").await, None);
    // Guards alone are validated too.
    let mut txn = store.begin().await.unwrap();
    txn.guard(b"Ctombstone");
    put(&store, b"Ctombstone", b"1").await;
    assert!(matches!(txn.commit().await, Err(StoreError::Conflict)));
    let mut txn = store.begin().await.unwrap();
    txn.guard(b"Ctombstone");
    txn.commit().await.unwrap();
}

async fn limits_are_refused(store: Shared) {
    let limit = |result: Result<(), StoreError>| matches!(result, Err(StoreError::Limit(_)));
    let mut txn = store.begin().await.unwrap();
    assert!(limit(txn.put(b"Ca", Vec::new())));
    assert!(limit(txn.put(b"Ca", vec![0; VALUE_BYTES_MAX + 1])));
    assert!(limit(txn.put(&[b'C'; KEY_BYTES_MAX + 1], vec![1])));
    assert!(limit(txn.delete(&[b'C'; KEY_BYTES_MAX + 1])));
    let all = KeyRange::prefix(b"C");
    assert!(limit(txn.scan(&all, SCAN_PAGE_MAX + 1).await.map(drop)));
    assert!(limit(store.snapshot().await.unwrap().scan(&all, SCAN_PAGE_MAX + 1).await.map(drop)));
    // What was refused leaves the transaction as it was.
    txn.put(b"Cfine", vec![1]).unwrap();
    txn.commit().await.unwrap();
    assert_eq!(keys(&*store.snapshot().await.unwrap(), &all, 10).await, ["Cfine"]);
}

/// Issue: the token lives, so a lease is written. Revoke: the token dies, then its leases are swept. Whatever the
/// order, no lease may be left under a dead token.
async fn a_thousand_races_of_issue_against_revoke(store: Shared) {
    let mut races = tokio::task::JoinSet::new();
    for race in 0..1000 {
        if races.len() >= 16 {
            races.join_next().await.unwrap().unwrap();
        }
        races.spawn(one_race(Arc::clone(&store), race));
    }
    races.join_all().await;
}

async fn one_race(store: Shared, race: u32) {
    let token = format!("Ctoken/{race:04}").into_bytes();
    let leases = format!("Clease/{race:04}/").into_bytes();
    put(&store, &token, b"alive").await;
    let issue = {
        let (store, token, leases) = (Arc::clone(&store), token.clone(), leases.clone());
        tokio::spawn(async move {
            for n in 0..3_u8 {
                let mut txn = store.begin().await.unwrap();
                txn.guard(&token);
                if txn.get(&token).await.unwrap().is_none() {
                    return;
                }
                for _ in 0..race % 4 {
                    tokio::task::yield_now().await;
                }
                txn.put(&[leases.as_slice(), &[n]].concat(), vec![1]).unwrap();
                match txn.commit().await {
                    Ok(_) | Err(StoreError::Conflict) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        })
    };
    let revoke = {
        let (store, token, leases) = (Arc::clone(&store), token.clone(), leases.clone());
        tokio::spawn(async move {
            for _ in 0..race % 7 {
                tokio::task::yield_now().await;
            }
            remove(&store, &token).await;
            let mut txn = store.begin().await.unwrap();
            for (lease, _) in txn.scan(&KeyRange::prefix(&leases), 10).await.unwrap() {
                txn.delete(&lease).unwrap();
            }
            txn.commit().await.unwrap();
        })
    };
    issue.await.unwrap();
    revoke.await.unwrap();
    let left = store.snapshot().await.unwrap().scan(&KeyRange::prefix(&leases), 10).await.unwrap();
    assert!(left.is_empty(), "race {race}: a lease under a dead token");
}

async fn many_writers_at_once(store: Shared) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..64_u8 {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let mut last = 0;
            for n in 0..10_u8 {
                let version = put(&store, &[b'C', writer, n], &[writer]).await;
                assert!(version > last, "versions go up");
                last = version;
                assert!(store.snapshot().await.unwrap().version() >= version, "acknowledged is visible");
            }
            last
        });
    }
    let mut versions = writers.join_all().await;
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 64, "each commit has a version of its own");
    let snapshot = store.snapshot().await.unwrap();
    assert_eq!(snapshot.scan(&KeyRange::prefix(b"C"), 1000).await.unwrap().len(), 640);
}

/// Lost updates and torn reads: money is moved about, and every snapshot must show the same sum.
async fn sums_are_kept(store: Shared) {
    for account in 0..4_u8 {
        put(&store, &[b'C', account], &[50]).await;
    }
    let mut movers = tokio::task::JoinSet::new();
    for mover in 0..8_u8 {
        let store = Arc::clone(&store);
        movers.spawn(async move {
            for n in 0..25 {
                let (from, to) = ([b'C', (mover + n) % 4], [b'C', (mover + n + 1 + n % 3) % 4]);
                let mut txn = store.begin().await.unwrap();
                let (a, b) = (txn.get(&from).await.unwrap().unwrap(), txn.get(&to).await.unwrap().unwrap());
                if a[0] > 1 && from != to {
                    txn.put(&from, vec![a[0] - 1]).unwrap();
                    txn.put(&to, vec![b[0] + 1]).unwrap();
                    assert!(matches!(txn.commit().await, Ok(_) | Err(StoreError::Conflict)));
                }
                let rows = store.snapshot().await.unwrap().scan(&KeyRange::prefix(b"C"), 10).await.unwrap();
                assert_eq!(rows.iter().map(|(_, v)| u32::from(v[0])).sum::<u32>(), 200);
            }
        });
    }
    movers.join_all().await;
}

macro_rules! contract {
    ($name:ident, $make:expr) => {
        contract!($name, $make,
            round_trip snapshots_do_not_move scans_are_ordered_and_paged transactions_see_their_own_writes
            two_writers_of_a_key_conflict other_keys_do_not_conflict guards_prevent_write_skew
            guards_hold_on_absent_and_deleted_rows limits_are_refused a_thousand_races_of_issue_against_revoke
            many_writers_at_once sums_are_kept);
    };
    ($name:ident, $make:expr, $($check:ident)*) => {
        mod $name {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    // What else is made (a directory) lives until the test is over.
                    let (store, _keep) = $make;
                    super::$check(store).await;
                }
            )*
        }
    };
}

contract!(memory, {
    let store: Shared = Arc::new(coffer_storage::memory::MemoryStore::new());
    (store, ())
});

contract!(embedded, {
    let dir = tempfile::tempdir().unwrap();
    let store: Shared = Arc::new(coffer_storage::embedded::EmbeddedStore::open(dir.path()).unwrap());
    (store, dir)
});

contract!(faulty_without_faults, {
    use coffer_storage::faulty::{Faults, FaultyStore};
    let inner = Arc::new(coffer_storage::memory::MemoryStore::new());
    let faults = Faults { delay: 0.5, ..Faults::default() };
    let store: Shared = Arc::new(FaultyStore::new(inner, 1, faults));
    (store, ())
});
