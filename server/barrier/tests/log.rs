//! The change log: nothing committed is ever missed, however late it lands (R4, R5).

#![allow(clippy::unwrap_used, reason = "a test that fails may panic, in its helpers too")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use coffer_barrier::log::ChangeLog;
use coffer_barrier::store::Store;
use coffer_barrier::{
    Barrier, BarrierError, ChangeEntry, LogCursor, MountId, Position, Read, RecordKind, RowKey, Tail,
};
use coffer_core::shamir::Share;
use coffer_storage::faulty::{Faults, FaultyStore};
use coffer_storage::memory::MemoryStore;
use common::{over, sealed, unsealed};

fn row(name: &str) -> RowKey {
    RowKey::path(MountId::SYSTEM, RecordKind::Entry, name)
}

async fn write(barrier: &Barrier, name: &str) -> Result<u64, BarrierError> {
    let mut w = barrier.begin().await?;
    w.put_system(&row(name), b"x").await?;
    w.note(ChangeEntry::new("test/write", name));
    Ok(w.commit().await?.seq)
}

fn subjects(tail: &Tail) -> Vec<&str> {
    tail.items.iter().flat_map(|item| item.notes.iter().map(|note| note.subject.as_str())).collect()
}

async fn tail(barrier: &Barrier, after: &Position) -> Tail {
    ChangeLog::tail(&barrier.reader().await.unwrap(), after, 10).await.unwrap()
}

#[tokio::test]
async fn every_commit_is_in_the_log_and_reading_alone_is_not() {
    let (barrier, _) = unsealed().await;
    assert_eq!(write(&barrier, "a").await.unwrap(), 1);
    assert_eq!(write(&barrier, "b").await.unwrap(), 2);
    let mut w = barrier.begin().await.unwrap();
    w.guard(&row("a")).unwrap();
    assert_eq!(w.commit().await.unwrap().seq, 0);
    let found = tail(&barrier, &Position::default()).await;
    assert_eq!(subjects(&found), ["a", "b"]);
    assert_eq!(found.items[0].keys.len(), 1);
    assert_eq!(found.version, barrier.reader().await.unwrap().version());
    // W has not moved, so they come again; once it has, they do not.
    assert_eq!(subjects(&tail(&barrier, &found.next).await), ["a", "b"]);
    barrier.publish_log().await.unwrap();
    let again = tail(&barrier, &found.next).await;
    assert_eq!(subjects(&again), ["a", "b"]);
    assert!(subjects(&tail(&barrier, &again.next).await).is_empty());
    let text = again.next.to_string();
    assert_eq!(text.parse::<Position>().unwrap(), again.next);
    assert!("x".parse::<Position>().is_err() && "0.zz-1".parse::<Position>().is_err());
}

#[tokio::test]
async fn a_conflict_leaves_no_hole() {
    let (barrier, _) = unsealed().await;
    let mut loser = barrier.begin().await.unwrap();
    loser.put_system(&row("a"), b"loser").await.unwrap();
    write(&barrier, "a").await.unwrap();
    assert!(matches!(loser.commit().await, Err(BarrierError::Conflict)));
    write(&barrier, "b").await.unwrap();
    barrier.publish_log().await.unwrap();
    let start = ChangeLog::start(&barrier.reader().await.unwrap()).await.unwrap();
    assert!(subjects(&tail(&barrier, &start).await).is_empty(), "W is at the end");
}

#[tokio::test]
async fn a_cursor_hands_out_each_commit_once() {
    let (barrier, _) = unsealed().await;
    write(&barrier, "before").await.unwrap();
    let mut cursor = LogCursor::at_end(&barrier.reader().await.unwrap()).await.unwrap();
    let mut seen = Vec::new();
    for n in 0..30 {
        write(&barrier, &format!("n{n}")).await.unwrap();
        if n % 7 == 0 {
            barrier.publish_log().await.unwrap();
        }
        let tail = cursor.poll(&barrier.reader().await.unwrap(), 10).await.unwrap();
        seen.extend(subjects(&tail).into_iter().map(str::to_owned));
    }
    assert_eq!(seen, (0..30).map(|n| format!("n{n}")).collect::<Vec<_>>());
}

/// The trap: a commit whose outcome is unknown lands after others and after W was published. W must wait for it, or
/// a void row must keep it out.
#[tokio::test]
async fn a_late_commit_is_seen_or_never_lands() {
    for seed in 0..60 {
        let memory = MemoryStore::new();
        let (first, shares) = sealed(Arc::new(memory.clone()), 1, 1).await;
        drop(first);
        let faulty = FaultyStore::new(Arc::new(memory.clone()), seed, Faults::default());
        let barrier = Barrier::new(Arc::new(faulty.clone()));
        barrier.unseal(&shares).await.unwrap();
        write(&barrier, "opens the stream").await.unwrap();
        let mut cursor = LogCursor::new(Position::default());
        let mut seen = BTreeSet::new();
        faulty.set_faults(Faults {
            unknown_late: 0.3,
            unknown_applied: 0.1,
            unknown_lost: 0.1,
            ..Faults::default()
        });
        for n in 0..40 {
            let _ = write(&barrier, &format!("n{n}")).await;
            if n % 5 == 0 {
                // May itself end unknown.
                let _ = barrier.publish_log().await;
            }
            if n % 8 == 0 {
                faulty.land_late().await;
            }
            let tail = cursor.poll(&barrier.reader().await.unwrap(), 10).await.unwrap();
            seen.extend(subjects(&tail).into_iter().map(str::to_owned));
        }
        faulty.set_faults(Faults::default());
        barrier.publish_log().await.unwrap();
        faulty.land_late().await;
        let reader = barrier.reader().await.unwrap();
        let tail = cursor.poll(&reader, 10).await.unwrap();
        seen.extend(subjects(&tail).into_iter().map(str::to_owned));
        for n in 0..40 {
            let name = format!("n{n}");
            let there = reader.exists(&row(&name)).await.unwrap();
            assert_eq!(there, seen.contains(&name), "seed {seed}: {name}");
        }
        // W gets past every unknown number: the window does not clog.
        let start = ChangeLog::start(&reader).await.unwrap();
        assert!(subjects(&ChangeLog::tail(&reader, &start, 10).await.unwrap()).is_empty());
    }
}

#[tokio::test]
async fn a_dead_processes_stream_is_closed_against_its_late_commits() {
    let memory = MemoryStore::new();
    let (_, shares) = sealed(Arc::new(memory.clone()), 1, 1).await;
    let faulty = FaultyStore::new(Arc::new(memory.clone()), 1, Faults::default());
    let zombie = Barrier::new(Arc::new(faulty.clone()));
    zombie.unseal(&shares).await.unwrap();
    write(&zombie, "a").await.unwrap();
    faulty.set_faults(Faults { unknown_late: 1.0, ..Faults::default() });
    assert!(matches!(write(&zombie, "late").await, Err(BarrierError::OutcomeUnknown)));

    let successor = Barrier::new(Arc::new(memory.clone()));
    successor.unseal(&shares).await.unwrap();
    successor.close_other_streams().await.unwrap();
    let start = ChangeLog::start(&successor.reader().await.unwrap()).await.unwrap();
    assert_eq!(faulty.land_late().await, 0, "the void row keeps it out");
    faulty.set_faults(Faults::default());
    assert!(write(&zombie, "b").await.is_err(), "a closed stream takes nothing more");
    let reader = successor.reader().await.unwrap();
    assert!(!reader.exists(&row("late")).await.unwrap());
    assert!(!reader.exists(&row("b")).await.unwrap());
    assert!(subjects(&tail(&successor, &start).await).is_empty());
    successor.close_other_streams().await.unwrap();
}

#[tokio::test]
async fn a_writer_that_is_dropped_in_its_commit_leaves_nothing_open() {
    let memory = MemoryStore::new();
    let barrier =
        over(Arc::new(FaultyStore::new(Arc::new(memory), 3, Faults { delay: 1.0, ..Faults::default() })))
            .await;
    write(&barrier, "a").await.unwrap();
    for n in 0..20 {
        let mut commit = Box::pin(write(&barrier, "cancelled"));
        for _ in 0..n {
            if futures_poll(&mut commit).await {
                break;
            }
        }
        drop(commit);
    }
    write(&barrier, "b").await.unwrap();
    barrier.publish_log().await.unwrap();
    let start = ChangeLog::start(&barrier.reader().await.unwrap()).await.unwrap();
    assert!(subjects(&tail(&barrier, &start).await).is_empty());
}

/// Polls once; tells whether it is done.
async fn futures_poll<T>(future: &mut std::pin::Pin<Box<impl Future<Output = T>>>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[tokio::test]
async fn more_commits_than_the_window_go_through() {
    let (barrier, _) = unsealed().await;
    for n in 0..1500 {
        write(&barrier, &format!("n{}", n % 10)).await.unwrap();
    }
    let start = ChangeLog::start(&barrier.reader().await.unwrap()).await.unwrap();
    assert!(tail(&barrier, &start).await.items.len() <= 1024);
}

#[tokio::test]
async fn trimming_shows_as_a_gap() {
    let memory = MemoryStore::new();
    let (barrier, shares) = sealed(Arc::new(memory.clone()), 1, 1).await;
    let again: Vec<Share> = shares.iter().map(|s| Share::from_bytes(s.expose())).collect();
    barrier.unseal(&shares).await.unwrap();
    for n in 0..50 {
        write(&barrier, &format!("n{n}")).await.unwrap();
    }
    barrier.publish_log().await.unwrap();
    let old = Position::default();
    assert!(!tail(&barrier, &old).await.gap);
    assert_eq!(barrier.trim_log(10, 4).await.unwrap(), 40);
    let rest = tail(&barrier, &old).await;
    assert!(rest.gap);
    assert_eq!(rest.items.len(), 10);
    assert!(!tail(&barrier, &rest.next).await.gap);
    assert_eq!(barrier.trim_log(10, 4).await.unwrap(), 0);

    // A stream that is removed altogether shows too.
    let next = Barrier::new(Arc::new(memory.clone()));
    next.unseal(&again).await.unwrap();
    next.close_other_streams().await.unwrap();
    write(&next, "last").await.unwrap();
    let all = tail(&next, &rest.next).await;
    assert_eq!(subjects(&all), ["last"]);
    next.trim_log(10, 0).await.unwrap();
    let gone = tail(&next, &all.next).await;
    assert!(gone.gap);
    assert!(!tail(&next, &gone.next).await.gap);
    assert!(memory.snapshot().await.unwrap().version() > 0);
}
