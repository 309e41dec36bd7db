//! The barrier over a memory store: shares, sealing, tampering, transactions.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::sync::Arc;

use coffer_barrier::store::{Snapshot, Store};
use coffer_barrier::{Barrier, BarrierError, MountId, Read, RecordKind, RowKey, Writer};
use coffer_core::secret::SecretBytes;
use coffer_core::shamir::{Share, Threshold};
use coffer_storage::memory::MemoryStore;
use common::{over, sealed, unsealed};

const SYSTEM: MountId = MountId::SYSTEM;

fn entry(path: &str) -> RowKey {
    RowKey::path(SYSTEM, RecordKind::Entry, path)
}

async fn mount_with_secret(barrier: &Barrier, path: &str, value: &[u8]) -> MountId {
    let mount = MountId::random();
    let mut w = barrier.begin().await.unwrap();
    barrier.create_kek(&mut w, mount).await.unwrap();
    let key = RowKey::path(mount, RecordKind::Version, path).version(1);
    w.put_secret(&key, &SecretBytes::copy_of(value)).await.unwrap();
    w.link(mount, path).await.unwrap();
    w.commit().await.unwrap();
    mount
}

fn copies(shares: &[Share]) -> Vec<Share> {
    shares.iter().map(|s| Share::from_bytes(s.expose())).collect()
}

#[tokio::test]
async fn shares_open_the_vault_and_fewer_or_others_do_not() {
    let store = MemoryStore::new();
    let (barrier, shares) = sealed(Arc::new(store.clone()), 5, 3).await;
    assert!(barrier.sealed() && barrier.initialized().await.unwrap());
    let config = barrier.seal_config().await.unwrap().unwrap();
    assert_eq!((config.threshold.shares(), config.threshold.needed()), (5, 3));
    assert!(matches!(barrier.unseal(&shares[..2]).await, Err(BarrierError::WrongShares)));
    let (_, others) = sealed(Arc::new(MemoryStore::new()), 5, 4).await;
    assert!(matches!(barrier.unseal(&others[..3]).await, Err(BarrierError::WrongShares)));
    let mut mixed = copies(&shares[..2]);
    mixed.extend(copies(&others[3..4]));
    assert!(matches!(barrier.unseal(&mixed).await, Err(BarrierError::WrongShares)));
    let mut bent = shares[0].expose().to_vec();
    bent[0] ^= 1;
    let mut bad = copies(&shares[1..3]);
    bad.push(Share::from_bytes(&bent));
    assert!(matches!(barrier.unseal(&bad).await, Err(BarrierError::WrongShares)));
    assert!(barrier.sealed());
    for three in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
        let given: Vec<Share> = three.iter().map(|i| Share::from_bytes(shares[*i].expose())).collect();
        barrier.unseal(&given).await.unwrap();
        barrier.seal();
    }
}

#[tokio::test]
async fn initialises_once() {
    let store = MemoryStore::new();
    let (barrier, _) = sealed(Arc::new(store.clone()), 3, 2).await;
    let again = barrier.initialize(Threshold::new(1, 1).unwrap(), &mut common::rng()).await;
    assert!(matches!(again, Err(BarrierError::AlreadyInitialized)));
    let empty = Barrier::new(Arc::new(MemoryStore::new()));
    assert!(matches!(empty.unseal(&[Share::from_bytes(&[1; 32])]).await, Err(BarrierError::NotInitialized)));
}

#[tokio::test]
async fn what_was_written_is_there_after_the_next_unseal() {
    let store = MemoryStore::new();
    let (barrier, shares) = sealed(Arc::new(store.clone()), 3, 2).await;
    barrier.unseal(&shares[..2]).await.unwrap();
    let mount = mount_with_secret(&barrier, "app/db", b"hunter2").await;
    let mac = barrier.hmac_key("token").unwrap().mac(&[b"x"]);
    assert_ne!(mac, barrier.hmac_key("audit").unwrap().mac(&[b"x"]));
    let next = Barrier::new(Arc::new(store));
    next.unseal(&shares[1..]).await.unwrap();
    assert_eq!(next.hmac_key("token").unwrap().mac(&[b"x"]), mac);
    let reader = next.reader().await.unwrap();
    let key = RowKey::path(mount, RecordKind::Version, "app/db");
    assert_eq!(reader.get(&key.clone().version(1)).await.unwrap().unwrap().expose(), b"hunter2");
    assert_eq!(reader.versions(&key).await.unwrap(), [1]);
    assert_eq!(reader.list(mount, "", None, 10).await.unwrap(), ["app/"]);
}

#[tokio::test]
async fn a_sealed_barrier_refuses_everything_and_cuts_off_who_is_at_work() {
    let (barrier, _) = unsealed().await;
    let reader = barrier.reader().await.unwrap();
    let mut writer = barrier.begin().await.unwrap();
    writer.put_system(&entry("a"), b"x").await.unwrap();
    barrier.seal();
    assert!(barrier.sealed());
    assert!(matches!(reader.get(&entry("a")).await, Err(BarrierError::Sealed)));
    assert!(matches!(reader.list(SYSTEM, "", None, 1).await, Err(BarrierError::Sealed)));
    assert!(matches!(writer.put_system(&entry("b"), b"x").await, Err(BarrierError::Sealed)));
    assert!(matches!(writer.commit().await, Err(BarrierError::Sealed)));
    assert!(matches!(barrier.reader().await.map(drop), Err(BarrierError::Sealed)));
    assert!(matches!(barrier.begin().await.map(drop), Err(BarrierError::Sealed)));
    assert!(matches!(barrier.hmac_key("token"), Err(BarrierError::Sealed)));
}

#[tokio::test]
async fn moved_and_changed_rows_do_not_open() {
    let (barrier, store) = unsealed().await;
    let mount = mount_with_secret(&barrier, "a", b"value of a").await;
    let mut w = barrier.begin().await.unwrap();
    let second = RowKey::path(mount, RecordKind::Version, "a").version(2);
    w.put_secret(&second, &SecretBytes::copy_of(b"second")).await.unwrap();
    w.put_system(&entry("one"), b"1").await.unwrap();
    w.put_system(&entry("two"), b"2").await.unwrap();
    w.commit().await.unwrap();

    let prefix = [b"C".as_slice(), mount.as_bytes()].concat();
    let rows = store.dump();
    let secrets: Vec<_> = rows.iter().filter(|(k, v)| k.starts_with(&prefix) && v[0] == 2).collect();
    let [(k1, v1), (k2, v2)] = secrets.as_slice() else { panic!("two versions") };
    store.tamper(k1, Some(v2.clone()));
    store.tamper(k2, Some(v1.clone()));
    let reader = barrier.reader().await.unwrap();
    let first = RowKey::path(mount, RecordKind::Version, "a").version(1);
    for key in [&first, &second] {
        assert!(matches!(reader.get(key).await, Err(BarrierError::Tampered { .. })));
    }
    store.tamper(k1, Some(v1.clone()));
    for bit in 0..v1.len() * 8 {
        let mut bent = v1.clone();
        bent[bit / 8] ^= 1 << (bit % 8);
        store.tamper(k1, Some(bent));
        let reader = barrier.reader().await.unwrap();
        assert!(reader.get(&first).await.is_err(), "bit {bit}");
    }
}

#[tokio::test]
async fn transact_runs_again_on_conflict_and_can_be_spawned() {
    let (barrier, _) = unsealed().await;
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let barrier = Arc::clone(&barrier);
        tasks.push(tokio::spawn(async move {
            let counter = &entry("counter");
            for _ in 0..5 {
                let add = |mut w: Writer| async move {
                    let now = w.get(counter).await?.map_or(0, |v| v.expose()[0]);
                    w.put_system(counter, &[now + 1]).await?;
                    Ok::<_, BarrierError>((w, ()))
                };
                barrier.transact(add).await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let reader = barrier.reader().await.unwrap();
    assert_eq!(reader.get(&entry("counter")).await.unwrap().unwrap().expose(), [40]);
}

#[tokio::test]
async fn ordered_rows_come_oldest_first_up_to_a_bound() {
    let (barrier, _) = unsealed().await;
    let mut w = barrier.begin().await.unwrap();
    for (order, id) in [(30, "c"), (10, "a"), (20, "b"), (10, "d"), (u64::MAX, "last")] {
        w.put_system(&RowKey::ordered(SYSTEM, "expiry", order, id.as_bytes()), id.as_bytes()).await.unwrap();
    }
    w.commit().await.unwrap();
    let mut w = barrier.begin().await.unwrap();
    let due = w.range_ordered(SYSTEM, "expiry", 20, 10).await.unwrap();
    assert_eq!(due.iter().map(|(_, order, _)| *order).collect::<Vec<_>>(), [10, 10, 20]);
    for (key, _, _) in &due {
        w.delete(key).await.unwrap();
    }
    w.commit().await.unwrap();
    let reader = barrier.reader().await.unwrap();
    let rest = reader.range_ordered(SYSTEM, "expiry", u64::MAX, 10).await.unwrap();
    assert_eq!(rest.iter().map(|(_, order, _)| *order).collect::<Vec<_>>(), [30, u64::MAX]);
    assert_eq!(reader.range_ordered(SYSTEM, "expiry", u64::MAX, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_dropped_kek_takes_its_secrets_with_it() {
    let (barrier, _) = unsealed().await;
    let mount = mount_with_secret(&barrier, "a/b", b"v").await;
    let mut w = barrier.begin().await.unwrap();
    barrier.drop_kek(&mut w, mount).await.unwrap();
    w.commit().await.unwrap();
    let reader = barrier.reader().await.unwrap();
    let key = RowKey::path(mount, RecordKind::Version, "a/b").version(1);
    assert!(matches!(reader.get(&key).await, Err(BarrierError::NoKey)));
    let mut w = barrier.begin().await.unwrap();
    let put = w.put_secret(&key, &SecretBytes::copy_of(b"v")).await;
    assert!(matches!(put, Err(BarrierError::NoKey)));
    assert!(w.clear_mount(mount, 100).await.unwrap() > 0);
    assert_eq!(w.clear_mount(mount, 100).await.unwrap(), 0);
    w.commit().await.unwrap();
}

#[tokio::test]
async fn guards_keep_write_skew_out() {
    let (barrier, _) = unsealed().await;
    let mut a = barrier.begin().await.unwrap();
    let mut b = barrier.begin().await.unwrap();
    a.guard(&entry("token")).unwrap();
    a.put_system(&entry("lease"), b"l").await.unwrap();
    b.put_system(&entry("token"), b"dead").await.unwrap();
    b.commit().await.unwrap();
    assert!(matches!(a.commit().await, Err(BarrierError::Conflict)));
}

#[tokio::test]
async fn a_created_kek_of_another_process_is_found() {
    let store = MemoryStore::new();
    let (one, shares) = sealed(Arc::new(store.clone()), 1, 1).await;
    let two = Barrier::new(Arc::new(store));
    one.unseal(&shares).await.unwrap();
    two.unseal(&shares).await.unwrap();
    let mount = mount_with_secret(&one, "x", b"from one").await;
    let key = RowKey::path(mount, RecordKind::Version, "x").version(1);
    let reader = two.reader().await.unwrap();
    assert_eq!(reader.get(&key).await.unwrap().unwrap().expose(), b"from one");
}

#[tokio::test]
async fn no_name_and_no_value_is_in_the_store() {
    let store = MemoryStore::new();
    let barrier = over(Arc::new(store.clone())).await;
    let mount = mount_with_secret(&barrier, "canary-dir/canary-name", b"canary-value").await;
    let mut w = barrier.begin().await.unwrap();
    w.put_system(&entry("canary-token"), b"canary-row").await.unwrap();
    w.put_system(&RowKey::ordered(mount, "canary-family", 1, b"canary-id"), b"canary").await.unwrap();
    w.note(coffer_barrier::ChangeEntry::new("canary/topic", "canary/subject"));
    w.commit().await.unwrap();
    barrier.publish_log().await.unwrap();
    let snapshot: Box<dyn Snapshot> = store.snapshot().await.unwrap();
    assert!(snapshot.version() > 0);
    let rows = store.dump();
    assert!(rows.len() > 8);
    for (key, value) in rows {
        for bytes in [key, value] {
            assert!(!bytes.windows(6).any(|w| w == b"canary"));
        }
    }
}

#[tokio::test]
async fn no_name_and_no_value_is_in_the_embedded_stores_files() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(coffer_storage::embedded::EmbeddedStore::open(dir.path()).unwrap());
    let barrier = over(Arc::clone(&store) as Arc<dyn Store>).await;
    mount_with_secret(&barrier, "canary-dir/canary-name", b"canary-value").await;
    drop(barrier);
    drop(store);
    let mut bytes = 0;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        bytes += content.len();
        assert!(!content.windows(6).any(|w| w == b"canary"));
    }
    assert!(bytes > 0);
}
