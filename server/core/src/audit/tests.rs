use super::*;
use crate::time::Timestamp;
use proptest::prelude::*;

fn record(i: u64) -> AuditRecord {
    let kind = if i.is_multiple_of(2) { RecordType::Intent } else { RecordType::Completion };
    let time = Timestamp::from_millis(1_000 + i);
    let mut record = AuditRecord::new(time, kind, format!("req-{}", i / 2), "update", "sys/leases/renew");
    record.metadata.insert("note".into(), "has ,\"seq\":1 and \"quotes\" \n in it".into());
    record
}

fn log(n: u64) -> (Vec<String>, Chain) {
    let mut chain = Chain::default();
    let lines = (0..n).map(|i| chain.append(&record(i)).unwrap()).collect();
    (lines, chain)
}

fn check(lines: &[String], head: Option<&Chain>) -> Report {
    verify(lines.iter().map(String::as_str), head)
}

#[test]
fn an_untouched_log_is_intact() {
    let (lines, head) = log(7);
    let report = check(&lines, Some(&head));
    assert!(report.is_intact() && !report.torn_tail, "{report:?}");
    assert_eq!((report.lines, report.intact), (7, 7));
    assert_eq!(report.open_intents.len(), 1);
    assert_eq!(report.open_intents[0].request_id, "req-3");
    assert!(check(&[], Some(&Chain::default())).is_intact());
    let read = AuditRecord::from_line(&lines[3]).unwrap();
    assert_eq!(read, AuditRecord { seq: 3, ..record(3) });
}

#[test]
fn each_kind_of_tampering_is_named() {
    let (lines, head) = log(8);
    let mut edited = lines.clone();
    edited[3] = edited[3].replace("renew", "sleep");
    let report = check(&edited, Some(&head));
    assert_eq!(report.edits.len(), 1, "{report:?}");
    assert_eq!((report.edits[0].line, report.edits[0].seq), (4, Some(3)));
    assert!(report.drops.is_empty());

    let mut dropped = lines.clone();
    dropped.drain(2..4);
    let report = check(&dropped, Some(&head));
    assert_eq!((report.drops.as_slice(), report.edits.len()), ([2..=3].as_slice(), 0), "{report:?}");

    let mut moved = lines.clone();
    moved.swap(2, 5);
    let report = check(&moved, Some(&head));
    assert!(!report.reorders.is_empty() && report.drops.is_empty() && report.edits.is_empty(), "{report:?}");

    let report = check(&lines[..5], Some(&head));
    assert_eq!(report.missing_tail, Some(verify::LostTail { after: Some(4), count: 3 }));
    let report = check(&[], Some(&head));
    assert_eq!(report.missing_tail, Some(verify::LostTail { after: None, count: 8 }));

    let mut doubled = lines.clone();
    doubled.insert(4, lines[1].clone());
    assert_eq!(check(&doubled, Some(&head)).edits.len(), 1);

    let mut torn = lines;
    torn[7].truncate(20);
    let report = check(&torn, None);
    assert!(report.torn_tail && report.is_intact());
    assert!(check(&torn, Some(&head)).missing_tail.is_some());
}

#[test]
fn a_log_rewritten_as_a_whole_fails_against_its_anchor() {
    let (_, head) = log(5);
    let mut chain = Chain::default();
    let forged: Vec<String> = (0..5)
        .map(|i| chain.append(&AuditRecord { path: "innocent".into(), ..record(i) }).unwrap())
        .collect();
    assert!(check(&forged, None).is_intact());
    assert!(check(&forged, Some(&head)).anchor_mismatch);
}

#[test]
fn a_record_spliced_in_with_a_fresh_hash_breaks_the_next_link() {
    let (mut lines, head) = log(6);
    let before = Line::parse(&lines[1]).unwrap().hash;
    let mut chain = Chain { prev: before, seq: 2 };
    lines[2] = chain.append(&AuditRecord { path: "innocent".into(), ..record(2) }).unwrap();
    let report = check(&lines, Some(&head));
    assert_eq!(report.edits.len(), 1, "{report:?}");
    assert_eq!(report.edits[0].seq, Some(3));
}

#[test]
fn a_log_may_begin_at_a_checkpoint() {
    let (lines, head) = log(6);
    let mut start = Chain::default();
    for i in 0..3 {
        start.append(&record(i)).unwrap();
    }
    let rest = lines[3..].iter().map(String::as_str);
    assert!(verify_from(&start, rest.clone(), Some(&head)).is_intact());
    let elsewhere = Chain { prev: ChainHash::GENESIS, ..start };
    assert!(!verify_from(&elsewhere, rest, Some(&head)).is_intact());
    let json = serde_json::to_string(&head).unwrap();
    assert_eq!(serde_json::from_str::<Chain>(&json).unwrap(), head);
}

#[test]
fn what_is_not_one_object_on_one_line_is_refused() {
    let mut chain = Chain::default();
    for bad in [
        "",
        "{}",
        "[]",
        "null",
        "{\"a\":1\n}",
        "{\"a\":1} ",
        "{\"seq\":1}",
        "{\"a\":1,\"hash\":\"\"}",
        "{\"a\"",
    ] {
        assert_eq!(chain.append_json(bad), Err(AuditError::Malformed), "{bad}");
    }
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_LINE_BYTES));
    assert_eq!(chain.append_json(&long), Err(AuditError::TooLong));
    assert_eq!(chain, Chain::default());
}

#[derive(Debug, Clone)]
enum Tamper {
    Flip { line: usize, at: usize },
    Drop { line: usize },
    Swap { a: usize, b: usize },
    Cut { keep: usize },
    Double { line: usize, to: usize },
}

fn tamper() -> impl Strategy<Value = Tamper> {
    prop_oneof![
        (0usize..20, any::<usize>()).prop_map(|(line, at)| Tamper::Flip { line, at }),
        (0usize..20).prop_map(|line| Tamper::Drop { line }),
        (0usize..20, 0usize..20).prop_map(|(a, b)| Tamper::Swap { a, b }),
        (0usize..20).prop_map(|keep| Tamper::Cut { keep }),
        (0usize..20, 0usize..20).prop_map(|(line, to)| Tamper::Double { line, to }),
    ]
}

proptest! {
    #[test]
    fn tampering_is_always_found(tampering in proptest::collection::vec(tamper(), 1..4)) {
        let (original, head) = log(20);
        let mut lines = original.clone();
        for t in tampering {
            let n = lines.len();
            if n == 0 { break }
            match t {
                Tamper::Flip { line, at } => {
                    let mut bytes = lines[line % n].clone().into_bytes();
                    let at = at % bytes.len();
                    bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
                    lines[line % n] = String::from_utf8(bytes).unwrap();
                }
                Tamper::Drop { line } => { lines.remove(line % n); }
                Tamper::Swap { a, b } => lines.swap(a % n, b % n),
                Tamper::Cut { keep } => lines.truncate(keep),
                Tamper::Double { line, to } => {
                    let copy = lines[line % n].clone();
                    lines.insert(to % n, copy);
                }
            }
        }
        let report = check(&lines, Some(&head));
        prop_assert_eq!(report.is_intact() && !report.torn_tail, lines == original, "{:?}", report);
    }
}

#[test]
fn a_forged_line_with_the_highest_number_is_no_record() {
    let record = r#"{"a":1}"#;
    let hash = ChainHash::of(ChainHash::GENESIS, u64::MAX, record.as_bytes());
    let genesis = ChainHash::GENESIS.to_hex();
    let line = format!(r#"{{"a":1,"seq":{},"prev":"{genesis}","hash":"{}"}}"#, u64::MAX, hash.to_hex());
    let report = verify([line.as_str(), line.as_str()], None);
    assert!(!report.is_intact() && report.intact == 0, "{report:?}");
}

#[test]
fn after_the_last_number_there_is_no_record() {
    let mut end = Chain { seq: u64::MAX, ..Chain::default() };
    let mut out = Vec::new();
    assert_eq!(end.append_line(r#"{"a":1}"#, &mut out), Err(AuditError::Malformed));
    assert!(out.is_empty());
}
