//! Searches through files that were made, cut and changed on purpose.

use std::path::Path;

use coffer_core::audit::{Chain, files};
use coffer_core::time::Timestamp;

use super::*;

const START: u64 = 1_800_000_000;

/// Three files of ten records each, one record every ten minutes.
fn rotated(dir: &Path) -> [Chain; 4] {
    let (mut chain, mut heads) = (Chain::default(), [Chain::default(); 4]);
    for file in 0..3 {
        let lines: Vec<String> = (0..10)
            .map(|i| {
                let n = file * 10 + i;
                let time = Timestamp::from_secs(START + n * 600);
                chain
                    .append(&AuditRecord::new(time, RecordType::Read, format!("r{n}"), "read", "secret/a"))
                    .unwrap()
            })
            .collect();
        let name = if file == 2 { files::PRESENT.to_owned() } else { files::aside_name(file * 10) };
        std::fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
        heads[usize::try_from(file).unwrap() + 1] = chain;
    }
    heads
}

fn range(since: Option<u64>, until: Option<u64>) -> Filter {
    let time = |n: u64| Timestamp::from_secs(START + n * 600);
    let mut filter = Filter::default();
    (filter.since, filter.until) = (since.map(time), until.map(time));
    filter
}

fn searched(dir: &Path, filter: &Filter, anchor: Option<Anchor>) -> (Found, Vec<u64>) {
    let mut seqs = Vec::new();
    let found = search(log::files(dir).unwrap(), filter, anchor, |_, record, _| {
        seqs.push(record.seq);
        Ok(())
    });
    (found.unwrap(), seqs)
}

#[test]
fn a_range_of_time_is_looked_for_only_in_the_files_that_it_can_be_in() {
    let dir = tempfile::tempdir().unwrap();
    let heads = rotated(dir.path());
    let anchor = Some(Anchor { head: heads[3], start: heads[0] });
    for (since, until, files, seqs) in [
        (None, None, 30, 0..30),
        (Some(12), Some(15), 10, 12..15),
        (Some(10), None, 30, 10..30),
        (Some(11), None, 20, 11..30),
        (None, Some(9), 10, 0..9),
        (Some(28), Some(99), 10, 28..30),
        (Some(40), None, 10, 0..0),
    ] {
        for anchor in [None, anchor] {
            let (found, got) = searched(dir.path(), &range(since, until), anchor);
            assert_eq!(got, seqs.clone().collect::<Vec<_>>(), "{since:?} {until:?}");
            assert_eq!(
                (found.looked_through, found.records),
                (files, got.len() as u64),
                "{since:?} {until:?}"
            );
            assert!(found.broken.is_empty(), "{since:?} {until:?}: {found:?}");
        }
    }
}

#[test]
fn a_broken_chain_is_told_where_it_concerns_the_range() {
    let dir = tempfile::tempdir().unwrap();
    rotated(dir.path());
    let middle = dir.path().join(files::aside_name(10));
    let whole = std::fs::read_to_string(&middle).unwrap();
    let broken = |since, until| searched(dir.path(), &range(since, until), None).0.broken;
    std::fs::write(&middle, whole.replacen("\"r15\"", "\"x15\"", 1)).unwrap();
    assert_eq!(broken(None, None).len(), 1);
    assert!(broken(Some(14), Some(17))[0].contains("changed: audit-00000000000000000010.log, line 6"));
    assert!(broken(Some(20), None).is_empty() && broken(None, Some(9)).is_empty());
    assert!(broken(Some(10), Some(13)).is_empty());

    // A record is gone: whether it was in the range, nobody knows at its edges.
    let lines: Vec<&str> = whole.lines().filter(|line| !line.contains("\"r15\"")).collect();
    std::fs::write(&middle, lines.join("\n") + "\n").unwrap();
    assert_eq!(broken(None, None), ["dropped: records 15 to 15"]);
    assert_eq!(broken(Some(15), Some(16)).len(), 1);
    assert!(broken(Some(17), Some(19)).is_empty());

    // All of the range is gone.
    std::fs::remove_file(&middle).unwrap();
    assert_eq!(broken(Some(12), Some(15)), ["dropped: records 10 to 19"]);
}

#[test]
fn what_the_server_vouches_for_shows_a_cut_off_end_and_a_missing_start() {
    let dir = tempfile::tempdir().unwrap();
    let heads = rotated(dir.path());
    std::fs::write(dir.path().join(files::PRESENT), "").unwrap();
    let anchor = Some(Anchor { head: heads[3], start: heads[0] });
    let broken = |filter: &Filter, anchor| searched(dir.path(), filter, anchor).0.broken;
    assert_eq!(broken(&range(None, None), anchor), ["lost at the end: 10 records"]);
    assert!(broken(&range(None, None), None).is_empty());
    // What lies before the end of the range is there.
    assert!(broken(&range(None, Some(9)), anchor).is_empty());
    std::fs::remove_file(dir.path().join(files::aside_name(0))).unwrap();
    assert!(broken(&range(None, None), anchor).contains(&"dropped: records 0 to 9".to_owned()));
}

#[test]
fn a_file_of_rubbish_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("audit.log");
    std::fs::write(&file, "x\n".repeat(50_000)).unwrap();
    let (found, seqs) = searched(&file, &Filter::default(), None);
    assert_eq!((found.unreadable, seqs.len()), (50_000, 0));
    // What is listed is bounded; that there is more is said.
    assert!(found.broken.len() <= 10_001 && found.broken.last().unwrap().contains("places more"));
}
