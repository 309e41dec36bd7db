use nix::errno::Errno;

use super::*;
use crate::audit::disk::faulty::{Fault, FaultyDisk};

struct Bed {
    sink: Sink,
    disk: FaultyDisk,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn bed() -> Bed {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let disk = FaultyDisk::default();
    let meters = AuditMeters::new(&prometheus::Registry::new()).unwrap();
    let sink = Sink::start(&path, Box::new(disk.clone()), Box::new(|_| Ok(())), meters).unwrap();
    Bed { sink, disk, path, _dir: dir }
}

#[tokio::test]
async fn a_required_line_is_in_the_file_before_its_request_goes_on() {
    let bed = bed();
    bed.sink.leave(b"a\n".to_vec());
    assert!(bed.sink.deliver(b"b\n".to_vec()).await);
    assert_eq!(std::fs::read_to_string(&bed.path).unwrap(), "a\nb\n");
}

#[tokio::test]
async fn a_required_line_that_cannot_be_written_fails_its_request() {
    let bed = bed();
    bed.disk.set(|disk| disk.appends.extend([Fault::Short(3), Fault::Fail(0, Errno::ENOSPC)]));
    assert!(!bed.sink.deliver(b"lost\n".to_vec()).await);
    assert!(bed.sink.deliver(b"b\n".to_vec()).await);
    // What was written of the lost one stands on a line of its own.
    assert_eq!(std::fs::read_to_string(&bed.path).unwrap(), "los\nb\n");
}

#[tokio::test]
async fn lines_wait_for_a_failing_file_and_are_dropped_beyond_the_limit() {
    let bed = bed();
    bed.disk.set(|disk| disk.broken = true);
    assert!(!bed.sink.deliver(b"tried\n".to_vec()).await);
    bed.sink.leave(b"a\n".to_vec());
    let long = vec![b'x'; WAITING_MAX];
    bed.sink.leave(long);
    assert_eq!(bed.sink.shared.meters.device_dropped.get(), 1);
    bed.disk.set(|disk| disk.broken = false);
    assert!(bed.sink.deliver(b"b\n".to_vec()).await);
    assert_eq!(std::fs::read_to_string(&bed.path).unwrap(), "a\nb\n");
}

#[tokio::test]
async fn a_file_that_was_renamed_is_made_anew() {
    let bed = bed();
    assert!(bed.sink.deliver(b"a\n".to_vec()).await);
    let old = bed.path.with_extension("1");
    std::fs::rename(&bed.path, &old).unwrap();
    assert!(bed.sink.deliver(b"b\n".to_vec()).await);
    bed.sink.reopen();
    assert!(bed.sink.deliver(b"c\n".to_vec()).await);
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "a\nb\n");
    assert_eq!(std::fs::read_to_string(&bed.path).unwrap(), "c\n");
}

#[tokio::test]
async fn lines_that_come_while_a_write_fails_count_beside_those_that_wait_already() {
    let bed = bed();
    bed.disk.set(|disk| disk.broken = true);
    // Each of these is tried, fails, and is not kept, while what was left before it is.
    for _ in 0..3 {
        bed.sink.leave(vec![b'x'; WAITING_MAX / 2]);
        assert!(!bed.sink.deliver(b"tried\n".to_vec()).await);
    }
    let (waiting, counted) = {
        let queue = bed.sink.shared.queue();
        (queue.lines.iter().map(|line| line.bytes.len()).sum::<usize>(), queue.bytes)
    };
    assert!(waiting <= WAITING_MAX && counted <= WAITING_MAX, "{waiting} {counted}");
    assert!(bed.sink.shared.meters.device_dropped.get() >= 1);
    bed.disk.set(|disk| disk.broken = false);
    let mut tries = 0;
    while !bed.sink.deliver(b"b\n".to_vec()).await {
        // There is no room before the next attempt at what waits.
        tries += 1;
        assert!(tries < 1000, "the file is not tried again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(bed.sink.shared.queue().bytes, 0);
}
