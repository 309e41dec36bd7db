use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;

use coffer_core::audit::{RecordType, Report, files, verify, verify_from};
use coffer_core::time::Timestamp;
use nix::errno::Errno;

use super::super::OnFailure;
use super::super::disk::Space;
use super::super::disk::faulty::{Fault, FaultyDisk};
use super::super::meters::Alarm;
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
    let log = open(&disk, dir.path(), settings);
    Bed { log, disk, dir }
}

fn open(disk: &FaultyDisk, dir: &Path, settings: AuditSettings) -> AuditLog {
    AuditLog::open_on(Box::new(disk.clone()), dir, settings, meters()).unwrap()
}

fn meters() -> AuditMeters {
    AuditMeters::new(&prometheus::Registry::new()).unwrap()
}

fn bed() -> Bed {
    bed_with(AuditSettings::default())
}

fn durable() -> Bed {
    bed_with(AuditSettings { durability: Durability::Disk, ..AuditSettings::default() })
}

impl Bed {
    /// All files, one after the other.
    fn text(&self) -> String {
        file::all(self.dir.path())
            .unwrap()
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect()
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

    /// Closes the log, which waits for its thread, and opens it again.
    fn reopen(&mut self, settings: AuditSettings) {
        self.log = open(&self.disk, tempfile::tempdir().unwrap().path(), AuditSettings::default());
        self.log = open(&self.disk, self.dir.path(), settings);
    }

    fn append_behind_its_back(&self, bytes: &[u8]) {
        let path = self.dir.path().join(files::PRESENT);
        OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
    }

    /// Takes the pen away, so that records pile up until it is given back.
    fn hold(&self) -> Box<Pen> {
        match mem::replace(&mut self.log.shared.queue().pen, Place::Taken) {
            Place::Free(pen) => pen,
            Place::Handed(_) | Place::Kept(_) | Place::Taken => panic!("the pen is not free"),
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
    bed.reopen(AuditSettings::default());
    bed.log.write(&record("d")).await.unwrap();
    bed.assert_holds(&["a", "b", "c", "d"]);
}

#[test]
fn a_link_in_its_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/null", dir.path().join(files::PRESENT)).unwrap();
    assert!(AuditLog::open(dir.path(), AuditSettings::default(), meters()).is_err());
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
async fn what_is_ready_at_the_same_time_goes_out_in_one_write() {
    let bed = bed();
    let (a, b, c) = (record("a"), record("b"), record("c"));
    let writes = tokio::join!(bed.log.write(&a), bed.log.write(&b), bed.log.write(&c));
    assert!(writes.0.is_ok() && writes.1.is_ok() && writes.2.is_ok());
    bed.assert_holds(&["a", "b", "c"]);
    assert_eq!(bed.disk.set(|disk| disk.appended), 1);
}

#[tokio::test]
async fn a_turn_that_is_given_up_is_the_threads() {
    let bed = bed();
    let (a, b) = (record("a"), record("b"));
    let mut first = Box::pin(bed.log.write(&a));
    begun(&mut first).await;
    let mut second = Box::pin(bed.log.write(&b));
    begun(&mut second).await;
    drop(first);
    second.await.unwrap();
    bed.assert_holds(&["a", "b"]);
    bed.log.write(&record("c")).await.unwrap();
    bed.assert_holds(&["a", "b", "c"]);
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
    bed.reopen(AuditSettings::default());
    bed.assert_holds(&["a"]);
}

#[tokio::test]
async fn a_full_file_is_set_aside_and_the_chain_goes_on_in_the_next() {
    let settings = AuditSettings { rotate_bytes: 1000, ..AuditSettings::default() };
    let mut bed = bed_with(settings.clone());
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for name in &names[..6] {
        bed.log.write(&record(name)).await.unwrap();
    }
    // The thread sets aside.
    bed.reopen(settings);
    assert!(bed.log.files().unwrap().len() > 1);
    for name in &names[6..] {
        bed.log.write(&record(name)).await.unwrap();
    }
    bed.assert_holds(&names);
}

#[tokio::test]
async fn a_crash_while_a_file_was_set_aside_loses_nothing() {
    let mut bed = bed();
    bed.log.write(&record("a")).await.unwrap();
    bed.log.write(&record("b")).await.unwrap();
    // Set aside, and the new file not yet there; then there, and empty.
    let present = bed.dir.path().join(files::PRESENT);
    std::fs::rename(&present, bed.dir.path().join(files::aside_name(0))).unwrap();
    for _ in 0..2 {
        bed.reopen(AuditSettings::default());
        assert_eq!(bed.log.head().seq, 2);
    }
    bed.log.write(&record("c")).await.unwrap();
    bed.assert_holds(&["a", "b", "c"]);
}

#[tokio::test]
async fn requests_stop_at_the_quota_and_completions_do_not() {
    let quota_bytes = Some(16 * 1024);
    let bed = bed_with(AuditSettings { quota_bytes, ..AuditSettings::default() });
    let mut written = 0;
    while bed.log.write(&record("a")).await.is_ok() {
        written += 1;
    }
    assert!((20..60).contains(&written), "{written}");
    bed.log.complete(&record("last")).await.unwrap();
    let report = bed.report();
    assert!(report.is_intact() && report.lines == written + 1, "{report:?}");
    while bed.log.complete(&record("a")).await.is_ok() {}
    assert!(bed.text().len() <= 16 * 1024);
}

#[tokio::test]
async fn requests_leave_the_reserve_of_the_volume_free() {
    let bed = bed_with(AuditSettings { reserve_bytes: Some(1000), ..AuditSettings::default() });
    bed.disk.set(|disk| disk.space = Some(Space { free: 1500, total: 10_000 }));
    assert!(bed.log.write(&record("a")).await.is_ok());
    assert!(matches!(bed.log.write(&record("b")).await, Err(NotWritten::Limit(_))));
    bed.log.complete(&record("c")).await.unwrap();
    assert!(bed.log.shared.meters.is_raised(Alarm::Space));
}

fn patient(buffer_bytes: usize) -> Bed {
    let on_failure = OnFailure::Degraded { buffer_bytes };
    bed_with(AuditSettings { on_failure, flush: Duration::from_millis(5), ..AuditSettings::default() })
}

#[tokio::test]
async fn in_degraded_mode_records_wait_and_are_written_in_order() {
    let bed = patient(1 << 20);
    bed.log.write(&record("a")).await.unwrap();
    bed.disk.set(|disk| disk.broken = true);
    for name in ["b", "c", "d"] {
        bed.log.write(&record(name)).await.unwrap();
    }
    assert_eq!(bed.report().lines, 1);
    assert!(bed.log.shared.meters.is_raised(Alarm::Degraded));
    bed.disk.set(|disk| disk.broken = false);
    bed.log.write(&record("e")).await.unwrap();
    // The thread tries by itself.
    while bed.log.shared.meters.is_raised(Alarm::Degraded) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bed.assert_holds(&["a", "b", "c", "d", "e"]);
    assert!(!bed.log.shared.meters.is_raised(Alarm::Failing));
}

#[tokio::test]
async fn in_degraded_mode_a_full_buffer_fails_requests() {
    let bed = patient(500);
    bed.disk.set(|disk| disk.broken = true);
    let mut taken = 0;
    while bed.log.write(&record("a")).await.is_ok() {
        taken += 1;
    }
    assert!((1..5).contains(&taken), "{taken}");
    bed.disk.set(|disk| disk.broken = false);
}

#[tokio::test]
async fn what_waits_is_written_when_the_log_is_closed() {
    let mut bed = patient(1 << 20);
    bed.disk.set(|disk| disk.broken = true);
    bed.log.write(&record("a")).await.unwrap();
    bed.disk.set(|disk| disk.broken = false);
    bed.reopen(AuditSettings::default());
    bed.assert_holds(&["a"]);
}

#[tokio::test]
async fn files_past_their_time_are_given_up_and_the_chain_begins_after_them() {
    let retain = Some(Duration::from_secs(3600));
    let settings = AuditSettings { rotate_bytes: 1000, retain, ..AuditSettings::default() };
    let mut bed = bed_with(settings.clone());
    for n in 0..9 {
        bed.log.write(&record(&n.to_string())).await.unwrap();
    }
    bed.reopen(settings);
    assert_eq!(bed.log.expired(SystemTime::now()).unwrap(), None);
    let later = SystemTime::now() + Duration::from_secs(7200);
    let (start, expired) = bed.log.expired(later).unwrap().unwrap();
    assert!(!expired.is_empty() && start.seq > 0);
    bed.log.delete(&expired).unwrap();
    bed.log.write(&record("last")).await.unwrap();
    let text = bed.text();
    let report = verify_from(&start, text.lines(), Some(&bed.log.head()));
    assert!(report.is_intact() && report.lines == 10 - start.seq, "{report:?}");
}
