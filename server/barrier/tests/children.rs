//! LIST: directories appear with their first descendant and go with their last, whatever runs at the same time.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::sync::Arc;

use coffer_barrier::{Barrier, BarrierError, MountId, Read, RecordKind, RowKey, Writer};
use common::unsealed;

const SYSTEM: MountId = MountId::SYSTEM;

async fn link(barrier: &Barrier, paths: &[&str]) {
    let mut w = barrier.begin().await.unwrap();
    for path in paths {
        w.link(SYSTEM, path).await.unwrap();
    }
    w.commit().await.unwrap();
}

async fn unlink(barrier: &Barrier, paths: &[&str]) {
    let mut w = barrier.begin().await.unwrap();
    for path in paths {
        w.unlink(SYSTEM, path).await.unwrap();
    }
    w.commit().await.unwrap();
}

async fn list(barrier: &Barrier, dir: &str) -> Vec<String> {
    barrier.reader().await.unwrap().list(SYSTEM, dir, None, 1000).await.unwrap()
}

#[tokio::test]
async fn lists_names_sorted_with_directories_marked() {
    let (barrier, _) = unsealed().await;
    assert!(list(&barrier, "").await.is_empty());
    link(&barrier, &["b", "a/x", "a/y/z", "a", "c/d"]).await;
    link(&barrier, &["a/x"]).await;
    assert_eq!(list(&barrier, "").await, ["a", "a/", "b", "c/"]);
    assert_eq!(list(&barrier, "a").await, ["x", "y/"]);
    assert_eq!(list(&barrier, "a/").await, ["x", "y/"]);
    assert_eq!(list(&barrier, "a/y").await, ["z"]);
    assert!(list(&barrier, "nothing").await.is_empty());
    let reader = barrier.reader().await.unwrap();
    assert_eq!(reader.list(SYSTEM, "", Some("a"), 2).await.unwrap(), ["a/", "b"]);
    assert!(matches!(reader.list(SYSTEM, "a//b", None, 1).await, Err(BarrierError::Path)));
    let other = MountId::random();
    assert!(reader.list(other, "", None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_last_descendant_takes_its_directories_with_it() {
    let (barrier, store) = unsealed().await;
    let empty = store.dump().len();
    link(&barrier, &["a/b/c", "a/b/d", "a/e"]).await;
    unlink(&barrier, &["a/b/c"]).await;
    assert_eq!(list(&barrier, "a").await, ["b/", "e"]);
    unlink(&barrier, &["a/b/d"]).await;
    assert_eq!(list(&barrier, "a").await, ["e"]);
    unlink(&barrier, &["a/b/d", "never/there"]).await;
    link(&barrier, &["a/b/d"]).await;
    unlink(&barrier, &["a/e", "a/b/d"]).await;
    assert!(list(&barrier, "").await.is_empty());
    // What is left: the root's markers, the log's rows and its stream.
    assert!(store.dump().len() <= empty + 32 + 8);
}

#[tokio::test]
async fn a_directory_cannot_be_emptied_under_somebody_who_adds_to_it() {
    let (barrier, _) = unsealed().await;
    for adder_first in [true, false] {
        link(&barrier, &["dir/old"]).await;
        let mut adder = barrier.begin().await.unwrap();
        let mut remover = barrier.begin().await.unwrap();
        adder.link(SYSTEM, "dir/new").await.unwrap();
        remover.unlink(SYSTEM, "dir/old").await.unwrap();
        let (first, second) = if adder_first { (adder, remover) } else { (remover, adder) };
        first.commit().await.unwrap();
        assert!(matches!(second.commit().await, Err(BarrierError::Conflict)));
        unlink(&barrier, &["dir/old", "dir/new"]).await;
        assert!(list(&barrier, "").await.is_empty());
    }
}

#[tokio::test]
async fn two_removers_do_not_leave_an_empty_directory() {
    let (barrier, _) = unsealed().await;
    link(&barrier, &["dir/a", "dir/b"]).await;
    let mut one = barrier.begin().await.unwrap();
    let mut two = barrier.begin().await.unwrap();
    one.unlink(SYSTEM, "dir/a").await.unwrap();
    two.unlink(SYSTEM, "dir/b").await.unwrap();
    one.commit().await.unwrap();
    assert!(matches!(two.commit().await, Err(BarrierError::Conflict)));
    unlink(&barrier, &["dir/b"]).await;
    assert!(list(&barrier, "").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adders_and_removers_at_once_leave_exactly_what_is_there() {
    let (barrier, _) = unsealed().await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..6 {
        let barrier = Arc::clone(&barrier);
        workers.spawn(async move {
            for round in 0..20 {
                let path = &format!("d{}/e{}/leaf{worker}", round % 2, round % 3);
                let row = &RowKey::path(SYSTEM, RecordKind::Meta, path);
                let add = |mut w: Writer| async move {
                    w.put_system(row, b"x").await?;
                    w.link(SYSTEM, path).await?;
                    Ok::<_, BarrierError>((w, ()))
                };
                barrier.transact(add).await.unwrap();
                let remove = |mut w: Writer| async move {
                    w.delete(row).await?;
                    w.unlink(SYSTEM, path).await?;
                    Ok::<_, BarrierError>((w, ()))
                };
                let last = round == 19 && worker == 0;
                if !last {
                    barrier.transact(remove).await.unwrap();
                }
            }
        });
    }
    workers.join_all().await;
    assert_eq!(list(&barrier, "").await, ["d1/"]);
    assert_eq!(list(&barrier, "d1").await, ["e1/"]);
    assert_eq!(list(&barrier, "d1/e1").await, ["leaf0"]);
}
