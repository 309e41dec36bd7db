use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;

use coffer_core::audit::{RecordType, Report, verify};
use coffer_core::time::Timestamp;
use nix::errno::Errno;

use super::super::disk::faulty::{Fault, FaultyDisk};
use super::*;

fn record(name: &str) -> AuditRecord {
    AuditRecord::new(Timestamp::from_secs(1), RecordType::Read, name, "read", "secret/data/a")
}

struct Bed {
    log: AuditLog,
    disk: FaultyDisk,
    dir: tempfile::TempDir,
}

fn bed_with(settings: AuditSettings) -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let log = AuditLog::open_on(&disk, dir.path(), settings).unwrap();
    Bed { log, disk, dir }
}

fn bed() -> Bed {
    bed_with(AuditSettings::default())
}

fn durable() -> Bed {
    bed_with(AuditSettings { durability: Durability::Disk, ..AuditSettings::default() })
}

impl Bed {
    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join(file::FILE_NAME)).unwrap()
    }

    fn report(&self) -> Report {
        verify(self.text().lines(), Some(&self.log.head()))
    }

    #[track_caller]
    fn assert_holds(&self, names: &[&str]) {
        let report = self.report();
        assert!(report.is_intact() && !report.torn_tail, "{report:?}");
        let text = self.text();
        let found: Vec<_> = text.lines().map(|l| AuditRecord::from_line(l).unwrap().request_id).collect();
        assert_eq!(found, names);
    }

    fn append_behind_its_back(&self, bytes: &[u8]) {
        let path = self.dir.path().join(file::FILE_NAME);
        OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    /// Takes the pen away, so that records pile up until it is given back.
    fn hold(&self) -> Box<Pen> {
        match mem::replace(&mut self.log.shared.queue().pen, Place::Taken) {
            Place::Free(pen) => pen,
            Place::Handed(_) | Place::Taken => panic!("the pen is not free"),
        }
    }
}

/// Runs a future that does not finish yet up to where it waits.
async fn begun<F: Future + Unpin>(future: &mut F) {
    assert!(futures::poll!(future).is_pending());
}

#[tokio::test]
async fn the_chain_goes_on_over_reopening_and_torn_tails() {
    let mut bed = bed();
    for name in ["a", "b", "c"] {
        bed.log.write(&record(name)).await.unwrap();
    }
    bed.append_behind_its_back(b"{\"half\":");
    bed.log = AuditLog::open_on(&bed.disk, bed.dir.path(), AuditSettings::default()).unwrap();
    bed.log.write(&record("d")).await.unwrap();
    bed.assert_holds(&["a", "b", "c", "d"]);
}

#[test]
fn a_link_in_its_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.path().join(file::FILE_NAME)).unwrap();
    assert!(AuditLog::open(dir.path(), AuditSettings::default()).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn records_of_many_writers_form_one_chain_and_each_writers_are_in_order() {
    for settings in
        [AuditSettings::default(), AuditSettings { durability: Durability::Disk, ..AuditSettings::default() }]
    {
        let bed = Arc::new(bed_with(settings));
        let writers: Vec<_> = (0..8)
            .map(|w| {
                let bed = Arc::clone(&bed);
                tokio::spawn(async move {
                    for n in 0..100 {
                        bed.log.write(&record(&format!("{w}-{n:03}"))).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let report = bed.report();
        assert!(report.is_intact() && report.lines == 800, "{report:?}");
        let text = bed.text();
        for w in 0..8 {
            let ids = text.lines().map(|l| AuditRecord::from_line(l).unwrap().request_id);
            let own: Vec<_> = ids.filter(|id| id.starts_with(&format!("{w}-"))).collect();
            assert!(own.len() == 100 && own.is_sorted(), "{own:?}");
        }
    }
}

#[tokio::test]
async fn what_came_while_the_pen_was_taken_goes_out_in_one_write() {
    let bed = bed();
    let pen = bed.hold();
    let (a, b, c) = (record("a"), record("b"), record("c"));
    let mut writes = [&a, &b, &c].map(|record| Box::pin(bed.log.write(record)));
    for write in &mut writes {
        begun(write).await;
    }
    assert_eq!(bed.text(), "");
    bed.log.shared.write_out(pen, 1);
    for write in writes {
        write.await.unwrap();
    }
    bed.assert_holds(&["a", "b", "c"]);
    assert_eq!(bed.disk.set(|disk| disk.appended), 1);
}

#[tokio::test]
async fn a_writer_who_has_done_his_share_leaves_the_rest_to_the_thread() {
    let bed = bed();
    let pen = bed.hold();
    let a = record("a");
    let mut write = Box::pin(bed.log.write(&a));
    begun(&mut write).await;
    bed.log.shared.write_out(pen, 0);
    write.await.unwrap();
    bed.assert_holds(&["a"]);
}

#[tokio::test]
async fn with_durability_disk_a_record_is_synced_before_its_writer_goes_on() {
    let bed = durable();
    bed.log.write(&record("a")).await.unwrap();
    assert_eq!(bed.disk.set(|disk| disk.synced), 1);
    bed.disk.set(|disk| disk.sync_fails = true);
    assert!(bed.log.write(&record("lost")).await.is_err());
    bed.disk.set(|disk| disk.sync_fails = false);
    bed.log.write(&record("b")).await.unwrap();
    bed.assert_holds(&["a", "b"]);
}

#[tokio::test]
async fn without_it_the_disk_gets_records_soon_after() {
    let bed = bed_with(AuditSettings { flush: Duration::from_millis(1), ..AuditSettings::default() });
    bed.log.write(&record("a")).await.unwrap();
    while bed.disk.set(|disk| disk.synced) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_disk_that_takes_records_in_pieces_gets_them_whole() {
    let bed = bed();
    bed.disk.set(|disk| disk.appends.extend([Fault::Short(5), Fault::Short(1), Fault::Short(100)]));
    bed.log.write(&record("a")).await.unwrap();
    bed.log.write(&record("b")).await.unwrap();
    bed.assert_holds(&["a", "b"]);
}

#[tokio::test]
async fn a_failed_write_fails_its_whole_batch_and_leaves_no_trace() {
    for errno in [Errno::ENOSPC, Errno::EIO, Errno::EDQUOT] {
        let bed = bed();
        bed.log.write(&record("a")).await.unwrap();
        let pen = bed.hold();
        let (x, y) = (record("x"), record("y"));
        let mut writes = [&x, &y].map(|record| Box::pin(bed.log.write(record)));
        for write in &mut writes {
            begun(write).await;
        }
        // More than the first record's line is on the disk before it fails.
        bed.disk.set(|disk| disk.appends.push_back(Fault::Fail(500, errno)));
        bed.log.shared.write_out(pen, 1);
        for write in writes {
            assert!(matches!(write.await, Err(NotWritten::Disk(_))));
        }
        bed.log.write(&record("b")).await.unwrap();
        bed.assert_holds(&["a", "b"]);
    }
}

#[tokio::test]
async fn nothing_is_glued_to_half_a_record_that_could_not_be_cut_off() {
    let bed = bed();
    bed.log.write(&record("a")).await.unwrap();
    bed.disk.set(|disk| {
        disk.appends.push_back(Fault::Fail(30, Errno::EIO));
        disk.cut_fails = true;
    });
    assert!(bed.log.write(&record("x")).await.is_err());
    assert!(bed.log.write(&record("y")).await.is_err());
    assert!(bed.report().torn_tail);
    bed.disk.set(|disk| disk.cut_fails = false);
    bed.log.write(&record("b")).await.unwrap();
    bed.assert_holds(&["a", "b"]);
}

#[tokio::test]
async fn a_record_longer_than_a_line_harms_nobody_else() {
    let bed = bed();
    let long = record(&"x".repeat(MAX_LINE_BYTES));
    assert!(matches!(bed.log.write(&long).await, Err(NotWritten::Limit(_))));
    bed.log.write(&record("a")).await.unwrap();
    bed.assert_holds(&["a"]);
}

#[tokio::test]
async fn the_queue_before_a_stuck_disk_has_an_end() {
    let bed = bed();
    let pen = bed.hold();
    bed.log.shared.queue().bytes = QUEUE_BYTES_MAX;
    assert!(matches!(bed.log.write(&record("a")).await, Err(NotWritten::Limit(_))));
    bed.log.shared.queue().bytes = 0;
    bed.log.shared.write_out(pen, 1);
}

#[tokio::test]
async fn what_was_asked_for_is_written_though_nobody_waits_any_more() {
    let mut bed = bed();
    let pen = bed.hold();
    let a = record("a");
    let mut write = Box::pin(bed.log.write(&a));
    begun(&mut write).await;
    drop(write);
    {
        let mut queue = bed.log.shared.queue();
        bed.log.shared.hand(&mut queue, pen);
    }
    // Closing waits for the thread, and the thread for the queue.
    bed.log = AuditLog::open(tempfile::tempdir().unwrap().path(), AuditSettings::default()).unwrap();
    let text = bed.text();
    assert_eq!(text.lines().count(), 1);
}

/// How many records a second one log takes: `cargo test --release -p coffer-vault throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn throughput() {
    const WRITERS: usize = 64;
    const EACH: usize = 5_000;
    for durability in [Durability::Process, Durability::Disk] {
        let dir = tempfile::tempdir().unwrap();
        let settings = AuditSettings { durability, ..AuditSettings::default() };
        let log = Arc::new(AuditLog::open(dir.path(), settings).unwrap());
        let begun = Instant::now();
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    for n in 0..EACH {
                        let mut record = record(&format!("d3b07384-d9a0-4c5b-8a1e-{w:06}{n:06}"));
                        record.accessor = Some("AbCdEfGhIjKlMnOpQrStUvWx".into());
                        record.display_name = Some("kubernetes-prod-shop-orders".into());
                        record.client_ip = Some("10.0.0.7".into());
                        record.status = Some(200);
                        log.write(&record).await.unwrap();
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let seconds = begun.elapsed().as_secs_f64();
        let records = (WRITERS * EACH) as f64;
        eprintln!("{durability:?}: {:.0} records/s", records / seconds);
    }
}
