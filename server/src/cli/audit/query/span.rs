//! Which files a range of time can be in, and whether the chain is whole there.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use coffer_core::audit::{AuditRecord, Chain, ChainHash, Report, Verifier};
use coffer_core::time::Timestamp;
use serde::Deserialize;

use super::super::log;
use super::super::verify::{Anchor, Parts};

/// Records of requests at the same time stand in the order in which they were written, so a record may stand this long
/// before or after its time at most: as long as a request waits for the log.
const DISORDER: Duration = Duration::from_secs(60);

/// The part of a log that a range of time can be in.
pub(super) struct Part {
    pub(super) files: Vec<PathBuf>,
    /// The first line of the next file, which must continue the last one of these.
    pub(super) next: Option<(PathBuf, String)>,
    start: Option<Chain>,
    from_the_start: bool,
    to_the_end: bool,
}

/// The first record of a file, as far as it matters here.
#[derive(Clone, Copy, Deserialize)]
struct First {
    seq: u64,
    prev: ChainHash,
    #[serde(skip)]
    time: Timestamp,
}

fn first(line: &str) -> Option<First> {
    let found: First = serde_json::from_str(line).ok()?;
    Some(First { time: AuditRecord::from_line(line)?.time, ..found })
}

impl Part {
    /// Leaves out the files that end before the range, or begin after it.
    pub(super) fn of(
        files: Vec<PathBuf>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> anyhow::Result<Self> {
        let mut lines = Vec::with_capacity(files.len());
        for path in &files {
            lines.push(log::first_line(path)?);
        }
        let firsts: Vec<_> = lines.iter().map(|line| line.as_deref().and_then(first)).collect();
        let begins = |at: usize| firsts.get(at).copied().flatten().map(|first| first.time);
        let late = |at: usize| begins(at).zip(until).is_some_and(|(time, until)| time > until.plus(DISORDER));
        let early =
            |at: usize| begins(at + 1).zip(since).is_some_and(|(next, since)| next.plus(DISORDER) < since);
        let from = (0..files.len()).take_while(|at| early(*at)).count();
        let to = (from + 1..files.len()).find(|at| late(*at)).unwrap_or(files.len());
        let start = firsts.get(from..to).into_iter().flatten().flatten().next();
        Ok(Self {
            start: start.map(|first| Chain { seq: first.seq, prev: first.prev }),
            from_the_start: from == 0,
            to_the_end: to == files.len(),
            next: files.get(to).cloned().zip(lines.get(to).cloned().flatten()),
            files: files.into_iter().take(to).skip(from).collect(),
        })
    }

    /// A check of this part alone. Where the log begins is known only to the server.
    pub(super) fn verifier(&self, anchor: Option<Anchor>) -> Verifier {
        let known = anchor.filter(|_| self.from_the_start).map(|anchor| anchor.start);
        let head = anchor.filter(|_| self.to_the_end).map(|anchor| anchor.head);
        Verifier::new(known.or(self.start).unwrap_or_default(), head)
    }
}

/// Which lines and records lie in a range of time.
pub(super) struct Span {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    /// The last line and record surely before it, and the first surely after it.
    before: Option<(u64, u64)>,
    after: Option<(u64, u64)>,
}

impl Span {
    pub(super) fn new(since: Option<Timestamp>, until: Option<Timestamp>) -> Self {
        Self { since, until, before: None, after: None }
    }

    /// Takes note of where a record stands.
    pub(super) fn saw(&mut self, line: u64, record: &AuditRecord) {
        if self.since.is_some_and(|since| record.time.plus(DISORDER) < since) {
            self.before = Some((line, record.seq));
        }
        if self.after.is_none() && self.until.is_some_and(|until| record.time > until.plus(DISORDER)) {
            self.after = Some((line, record.seq));
        }
    }

    /// What is wrong with the chain in this range.
    pub(super) fn broken(&self, report: &Report, parts: &Parts) -> Vec<String> {
        let bound = |of: fn((u64, u64)) -> u64| -> RangeInclusive<u64> {
            self.before.map_or(0, of)..=self.after.map_or(u64::MAX, of)
        };
        let (lines, records) = (bound(|(line, _)| line), bound(|(_, seq)| seq));
        let mut broken = Vec::new();
        for (what, found) in [("changed", &report.edits), ("moved", &report.reorders)] {
            for finding in found.iter().filter(|finding| lines.contains(&finding.line)) {
                let (file, line) = parts.place(finding.line);
                broken.push(format!("{what}: {file}, line {line}: {}", finding.why));
            }
        }
        let touching =
            |drop: &&RangeInclusive<u64>| drop.start() <= records.end() && drop.end() >= records.start();
        broken.extend(
            report
                .drops
                .iter()
                .filter(touching)
                .map(|drop| format!("dropped: records {} to {}", drop.start(), drop.end())),
        );
        if self.after.is_none() {
            broken.extend(report.missing_tail.map(|tail| format!("lost at the end: {} records", tail.count)));
        }
        if report.anchor_mismatch {
            broken.push("rewritten: the record that the anchored head speaks of has another hash".to_owned());
        }
        if report.more_findings > 0 {
            broken.push(format!("{} places more than are listed", report.more_findings));
        }
        broken
    }
}
