//! Checks a log against its chain and, if there is one, its anchored head.
//!
//! Reads line by line and keeps one hash per record, so that also a moved line is told from a missing one.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use super::record::{AuditRecord, RecordType};
use super::{Chain, ChainHash, Line};

/// A line that is not what the server wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1.
    pub line: u64,
    /// The record's number, if it can be read.
    pub seq: Option<u64>,
    /// What is wrong with it.
    pub why: &'static str,
}

/// An effect that was announced and never reported on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenIntent {
    /// Its record.
    pub seq: u64,
    /// Its request.
    pub request_id: String,
    /// Its operation.
    pub operation: String,
    /// Its path.
    pub path: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// How many lines there are.
    pub lines: u64,
    /// How many records are as the server wrote them.
    pub intact: u64,
    /// Lines that were changed, added or doubled.
    pub edits: Vec<Finding>,
    /// Numbers of records that are missing between others.
    pub drops: Vec<RangeInclusive<u64>>,
    /// Intact records that stand in the wrong place.
    pub reorders: Vec<Finding>,
    /// Records at the end are lost: by a crash, or cut off.
    pub missing_tail: Option<LostTail>,
    /// The last line is incomplete, as a crash in the middle of writing leaves it.
    pub torn_tail: bool,
    /// The record the anchored head speaks of has another hash: the log was rewritten as a whole.
    pub anchor_mismatch: bool,
    /// How many records follow the anchored head: written since it was anchored, and vouched for by their
    /// hashes only.
    pub unanchored: u64,
    /// Effects without a completion.
    pub open_intents: Vec<OpenIntent>,
}

/// What is missing at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostTail {
    /// The last record that is there; `None` if there is none at all.
    pub after: Option<u64>,
    /// How many are missing, by the anchored head.
    pub count: u64,
}

impl Report {
    /// Whether nothing was changed, dropped, moved or cut off. A torn last line and open intents are what a
    /// crash leaves, and do not count.
    pub fn is_intact(&self) -> bool {
        self.edits.is_empty()
            && self.drops.is_empty()
            && self.reorders.is_empty()
            && self.missing_tail.is_none()
            && !self.anchor_mismatch
    }
}

/// Checks a whole log against the head that was anchored in the barrier, if it is known.
pub fn verify<'a>(lines: impl IntoIterator<Item = &'a str>, anchored_head: Option<&Chain>) -> Report {
    verify_from(&Chain::default(), lines, anchored_head)
}

/// Checks a log that begins at `start`, the checkpoint that retention keeps.
pub fn verify_from<'a>(
    start: &Chain,
    lines: impl IntoIterator<Item = &'a str>,
    anchored_head: Option<&Chain>,
) -> Report {
    let mut verifier = Verifier::new(*start);
    lines.into_iter().for_each(|line| verifier.line(line));
    verifier.finish(anchored_head)
}

/// A check in progress, for logs that are read line by line.
#[derive(Debug)]
pub struct Verifier {
    start: Chain,
    report: Report,
    /// Readable records by number: the line, the hash before and the hash of each.
    records: BTreeMap<u64, (u64, ChainHash, ChainHash)>,
    highest: Option<u64>,
    open: HashMap<String, OpenIntent>,
    /// Set when the last line could not be read; it becomes an edit once another follows.
    unreadable: Option<u64>,
}

impl Verifier {
    /// A check of a log that begins at `start`.
    pub fn new(start: Chain) -> Self {
        Self {
            start,
            report: Report::default(),
            records: BTreeMap::new(),
            highest: None,
            open: HashMap::new(),
            unreadable: None,
        }
    }

    /// Takes the next line, without its line end.
    pub fn line(&mut self, text: &str) {
        self.report.lines += 1;
        let number = self.report.lines;
        if let Some(bad) = self.unreadable.take() {
            self.edit(bad, None, "not a line of this log");
        }
        let Some(line) = Line::parse(text) else {
            self.unreadable = Some(number);
            return;
        };
        if !line.is_intact() {
            self.edit(number, Some(line.seq), "content does not fit its hash");
            return;
        }
        if line.seq < self.start.seq || self.records.contains_key(&line.seq) {
            self.edit(number, Some(line.seq), "record number was used before");
            return;
        }
        if self.highest.is_some_and(|h| line.seq < h) {
            let why = "record stands after a later one";
            self.report.reorders.push(Finding { line: number, seq: Some(line.seq), why });
        }
        self.highest = self.highest.max(Some(line.seq));
        self.records.insert(line.seq, (number, line.prev, line.hash));
        self.track_intent(&line);
    }

    fn edit(&mut self, line: u64, seq: Option<u64>, why: &'static str) {
        self.report.edits.push(Finding { line, seq, why });
    }

    fn track_intent(&mut self, line: &Line) {
        let Some(record) = AuditRecord::from_line(&line.record) else { return };
        match record.kind {
            RecordType::Intent => {
                let intent = OpenIntent {
                    seq: line.seq,
                    request_id: record.request_id.clone(),
                    operation: record.operation,
                    path: record.path,
                };
                self.open.insert(record.request_id, intent);
            }
            RecordType::Completion => {
                self.open.remove(&record.request_id);
            }
            RecordType::Read => {}
        }
    }

    /// The result, once all lines are in.
    pub fn finish(mut self, anchored_head: Option<&Chain>) -> Report {
        self.report.torn_tail = self.unreadable.is_some();
        self.check_links();
        self.check_anchor(anchored_head);
        let mut open: Vec<OpenIntent> = self.open.into_values().collect();
        open.sort_by_key(|i| i.seq);
        self.report.open_intents = open;
        self.report.edits.sort_by_key(|f| f.line);
        self.report
    }

    /// Follows the chain by number, whatever the order of the lines.
    fn check_links(&mut self) {
        // Numbers whose line is there but was changed are edits, not drops.
        let changed: Vec<u64> = self.report.edits.iter().filter_map(|f| f.seq).collect();
        let mut expected = self.start.seq;
        let mut prev = Some(self.start.prev);
        let mut forged = Vec::new();
        for (seq, (line, linked_to, hash)) in &self.records {
            if *seq > expected {
                self.report.drops.extend(gaps(expected, seq - 1, &changed));
                prev = None;
            }
            // After a gap the predecessor is unknown, so only the next link can be checked.
            if prev.is_some_and(|p| p != *linked_to) {
                forged.push(Finding {
                    line: *line,
                    seq: Some(*seq),
                    why: "does not continue the record before it",
                });
            } else {
                self.report.intact += 1;
            }
            prev = Some(*hash);
            expected = seq + 1;
        }
        self.report.edits.extend(forged);
    }

    fn check_anchor(&mut self, anchored_head: Option<&Chain>) {
        let Some(anchor) = anchored_head else { return };
        let next = self.highest.map_or(self.start.seq, |h| h + 1);
        if anchor.seq > next {
            let after = next.checked_sub(1).filter(|_| next > self.start.seq || self.start.seq > 0);
            self.report.missing_tail = Some(LostTail { after, count: anchor.seq - next });
            return;
        }
        self.report.unanchored = next - anchor.seq;
        let anchored = match anchor.seq.checked_sub(1) {
            Some(last) if anchor.seq > self.start.seq => self.records.get(&last).map(|(_, _, hash)| *hash),
            _ if anchor.seq == self.start.seq => Some(self.start.prev),
            // The anchor is older than this log begins, and says nothing about it.
            _ => return,
        };
        // A missing or changed record is reported as such already.
        self.report.anchor_mismatch = anchored.is_some_and(|hash| hash != anchor.prev);
    }
}

/// The runs of numbers from `first` to `last` that are not in `changed`.
fn gaps(first: u64, last: u64, changed: &[u64]) -> Vec<RangeInclusive<u64>> {
    let mut inside: Vec<u64> = changed.iter().copied().filter(|c| (first..=last).contains(c)).collect();
    inside.sort_unstable();
    inside.dedup();
    let mut runs = Vec::new();
    let mut from = first;
    for c in inside {
        if c > from {
            runs.push(from..=c - 1);
        }
        from = c + 1;
    }
    if from <= last {
        runs.push(from..=last);
    }
    runs
}
