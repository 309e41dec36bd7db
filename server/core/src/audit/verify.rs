//! Checks a log against its chain and, if there is one, its anchored head.
//!
//! Reads line by line. Records that come too early are kept until those before them are there, so that a moved
//! line is told from a missing one; of a log in order nothing is kept.

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
    /// Effects without a completion; of very many, some.
    pub open_intents: Vec<OpenIntent>,
    /// Edits, drops and reorders beyond those that are listed: lists are bounded, whatever a file holds.
    pub more_findings: u64,
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
    let mut verifier = Verifier::new(*start, anchored_head.copied());
    for line in lines {
        verifier.line(line);
    }
    verifier.finish()
}

/// How many records may be kept waiting before those missing are given up as dropped.
const MAX_AHEAD: usize = 100_000;
/// The most findings of one kind that are listed.
const MAX_FINDINGS: usize = 10_000;
/// The most announced effects that are waited for at once; a server has far fewer under way.
const MAX_OPEN: usize = 100_000;

/// A check in progress, for logs that are read line by line.
#[derive(Debug)]
pub struct Verifier {
    report: Report,
    anchor: Option<Chain>,
    /// The number that continues the chain, and the hash it must link to; unknown after a gap.
    next: u64,
    prev: Option<ChainHash>,
    /// What came before its turn.
    ahead: BTreeMap<u64, Slot>,
    highest_seen: Option<u64>,
    open: HashMap<String, OpenIntent>,
    /// Set when the last line could not be read; it becomes an edit once another follows.
    unreadable: Option<u64>,
}

#[derive(Debug)]
enum Slot {
    Intact {
        line: u64,
        prev: ChainHash,
        hash: ChainHash,
    },
    /// There is a line with this number, but it was changed.
    Changed,
}

/// Adds to a list that is bounded, or counts.
fn add<T>(list: &mut Vec<T>, one: T, more: &mut u64) {
    if list.len() < MAX_FINDINGS { list.push(one) } else { *more += 1 }
}

impl Verifier {
    /// A check of a log that begins at `start`, against the head that was anchored, if it is known.
    pub fn new(start: Chain, anchored_head: Option<Chain>) -> Self {
        let mut report = Report::default();
        if let Some(anchor) = anchored_head.filter(|a| a.seq == start.seq) {
            report.anchor_mismatch = anchor.prev != start.prev;
        }
        Self {
            report,
            anchor: anchored_head,
            next: start.seq,
            prev: Some(start.prev),
            ahead: BTreeMap::new(),
            highest_seen: None,
            open: HashMap::new(),
            unreadable: None,
        }
    }

    /// Takes the next line, without its line end. Says whether it is as some server wrote it: its content fits its own
    /// hash. Whether it belongs here is in the report.
    pub fn line(&mut self, text: &str) -> bool {
        self.report.lines += 1;
        let number = self.report.lines;
        if let Some(bad) = self.unreadable.take() {
            self.edit(bad, None, "not a line of this log");
        }
        let Some(line) = Line::parse(text) else {
            self.unreadable = Some(number);
            return false;
        };
        let intact = line.is_intact();
        if !intact {
            self.edit(number, Some(line.seq), "content does not fit its hash");
            if line.seq >= self.next {
                self.ahead.entry(line.seq).or_insert(Slot::Changed);
            }
        } else if line.seq < self.next || matches!(self.ahead.get(&line.seq), Some(Slot::Intact { .. })) {
            self.edit(number, Some(line.seq), "record number was used before");
        } else {
            if self.highest_seen.is_some_and(|h| line.seq < h) {
                let why = "record stands after a later one";
                let finding = Finding { line: number, seq: Some(line.seq), why };
                add(&mut self.report.reorders, finding, &mut self.report.more_findings);
            }
            self.highest_seen = self.highest_seen.max(Some(line.seq));
            self.ahead.insert(line.seq, Slot::Intact { line: number, prev: line.prev, hash: line.hash });
            self.track_intent(&line);
        }
        while let Some(slot) = self.ahead.remove(&self.next) {
            self.follow(&slot);
        }
        if self.ahead.len() > MAX_AHEAD {
            self.skip_gap();
        }
        intact
    }

    fn edit(&mut self, line: u64, seq: Option<u64>, why: &'static str) {
        add(&mut self.report.edits, Finding { line, seq, why }, &mut self.report.more_findings);
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
                if self.open.len() < MAX_OPEN {
                    self.open.insert(record.request_id, intent);
                }
            }
            RecordType::Completion => {
                self.open.remove(&record.request_id);
            }
            RecordType::Read => {}
        }
    }

    /// Takes the record whose turn it is.
    fn follow(&mut self, slot: &Slot) {
        let seq = self.next;
        self.next += 1;
        let Slot::Intact { line, prev, hash } = slot else {
            self.prev = None;
            return;
        };
        if self.prev.is_some_and(|p| p != *prev) {
            self.edit(*line, Some(seq), "does not continue the record before it");
        } else {
            self.report.intact += 1;
        }
        self.prev = Some(*hash);
        if let Some(anchor) = self.anchor.filter(|a| a.seq == self.next) {
            self.report.anchor_mismatch = anchor.prev != *hash;
        }
    }

    /// Gives up what is missing before the next record that is there.
    fn skip_gap(&mut self) {
        let Some(seq) = self.ahead.first_key_value().map(|(seq, _)| *seq) else { return };
        if seq > self.next {
            add(&mut self.report.drops, self.next..=seq - 1, &mut self.report.more_findings);
            self.next = seq;
            self.prev = None;
        }
        while let Some(slot) = self.ahead.remove(&self.next) {
            self.follow(&slot);
        }
    }

    /// The result, once all lines are in.
    pub fn finish(mut self) -> Report {
        self.report.torn_tail = self.unreadable.is_some();
        // A changed line's number may itself be false, so only an intact one proves that others are missing.
        let intact = |(seq, slot): (&u64, &Slot)| matches!(slot, Slot::Intact { .. }).then_some(*seq);
        if let Some(last) = self.ahead.iter().rev().find_map(intact) {
            while self.next <= last {
                self.skip_gap();
            }
        }
        if let Some(anchor) = self.anchor {
            self.report.unanchored = self.next.saturating_sub(anchor.seq);
            if anchor.seq > self.next {
                let lost = LostTail { after: self.next.checked_sub(1), count: anchor.seq - self.next };
                self.report.missing_tail = Some(lost);
            }
        }
        self.report.open_intents = self.open.into_values().collect();
        self.report.open_intents.sort_by_key(|i| i.seq);
        self.report.edits.sort_by_key(|f| f.line);
        self.report
    }
}
