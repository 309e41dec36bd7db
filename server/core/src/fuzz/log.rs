//! The audit log, as somebody who can edit the file may have left it.

use coffer_fuzz::{Target, text};

use crate::audit::{AuditRecord, Chain, verify, verify_from};

/// The corpus holds records, one a line; they are chained here, then the log is edited as the input's last line says: pairs
/// of bytes, a line's number and what is done to it.
#[test]
fn a_log_that_verifies_against_its_anchor_is_the_log_that_was_written() {
    Target::new("audit-edits").words(&["\u{1}", "\u{2}", "\u{3}", "\u{4}", "\u{5}"]).runs(3_000).run(
        |input| {
            let (log, head) = written();
            let mut edited = log.clone();
            for pair in input.chunks_exact(2).take(16) {
                let at = usize::from(pair[0]) % edited.len().max(1);
                edit(&mut edited, at, pair[1]);
            }
            let report = verify(edited.iter().map(String::as_str), Some(&head));
            let same = edited == log;
            assert_eq!(report.is_intact() && !report.torn_tail, same, "{report:?}");
            assert_eq!(report.lines, edited.len() as u64);
            assert!(report.intact <= log.len() as u64);
            format!(
                "{} {} {} {} {}",
                report.edits.len(),
                report.drops.len(),
                report.reorders.len(),
                report.missing_tail.is_some(),
                report.torn_tail
            )
        },
    );
}

fn written() -> (Vec<String>, Chain) {
    let mut chain = Chain::default();
    let lines = (0..6).map(|n| {
        let record = format!(r#"{{"time":"2026-11-24T10:00:0{n}Z","type":"read","request_id":"r{n}","operation":"read","path":"secret/data/{n}"}}"#);
        chain.append_json(&record).unwrap()
    });
    let lines = lines.collect();
    (lines, chain)
}

fn edit(lines: &mut Vec<String>, at: usize, what: u8) {
    if lines.is_empty() {
        return;
    }
    match what % 8 {
        0 => drop(lines.remove(at)),
        1 => lines.swap(at, 0),
        2 => lines.insert(at, lines[at].clone()),
        3 => lines[at] = lines[at].replacen("secret", "public", 1),
        4 => lines[at] = lines[at].replacen("\"seq\":", "\"seq\":1", 1),
        5 => lines[at].truncate(usize::from(what)),
        6 => {
            let line = &mut lines[at];
            line.insert(usize::from(what).min(line.len()), ' ');
        }
        _ => lines.truncate(at),
    }
}

/// Any text as a log, with no head, and behind a checkpoint.
#[test]
fn lines_of_any_kind_are_counted_and_never_taken_for_records_that_were_not_written() {
    let words = [
        ",\"seq\":",
        ",\"prev\":\"",
        "\",\"hash\":\"",
        "\"}",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "18446744073709551615",
        "\n",
        "\r",
    ];
    Target::new("audit-log").words(&words).runs(3_000).run(|input| {
        let given = text(input);
        let report = verify(given.lines(), None);
        assert_eq!(report.lines, given.lines().count() as u64);
        let bad = report.edits.len() as u64 + u64::from(report.torn_tail);
        assert!(report.intact + bad <= report.lines, "{report:?}");
        for line in given.lines() {
            if let Some(record) = AuditRecord::from_line(line) {
                let again = serde_json::to_string(&record).unwrap();
                let read = AuditRecord::from_line(&again).unwrap();
                assert_eq!(AuditRecord { seq: record.seq, ..read }, record);
            }
            let mut chain = Chain::default();
            if let Ok(linked) = chain.append_json(line) {
                let report = verify([linked.as_str()], Some(&chain));
                assert!(report.is_intact() && !report.torn_tail, "{report:?}");
            }
        }
        let late = Chain { seq: u64::MAX - 1, ..Chain::default() };
        let report_late = verify_from(&late, given.lines(), Some(&late));
        format!(
            "{} {} {} {}",
            report.intact.min(9),
            bad.min(9),
            report.drops.len().min(9),
            report_late.lines.min(9)
        )
    });
}
