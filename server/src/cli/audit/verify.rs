//! `audit verify`: nothing in the log was changed, dropped or moved.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Args;
use coffer_core::audit::{Chain, Finding, Report, Verifier};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Done;
use super::super::out::{Out, printable};
use super::log;

/// Findings of one kind that are shown.
const FINDINGS_MAX: usize = 20;

/// Options of `audit verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The log's directory with all its files, or one file.
    dir: PathBuf,
    /// What the server vouches for: the reply of `coffer read --format json sys/audit/chain` in a file, or a head
    /// alone, as {"seq": 12, "prev": "<hash>"}. Without it, records cut off the end do not show.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Whose log it is, where several servers' heads are in that file.
    #[arg(long, requires = "head")]
    node: Option<String>,
}

/// What the server vouches for of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Anchor {
    /// After the last record.
    pub(super) head: Chain,
    /// Where the log begins: retention removes the files before.
    #[serde(default)]
    pub(super) start: Chain,
}

impl Anchor {
    pub(super) fn read(path: &Path, node: Option<&str>) -> anyhow::Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("head {}", path.display()))?;
        let expected = "expected the reply of sys/audit/chain, or {\"seq\": n, \"prev\": \"<hash>\"}";
        let value: Value =
            serde_json::from_slice(&text).with_context(|| format!("head {}: {expected}", path.display()))?;
        Self::find(&value, node).with_context(|| format!("head {}: {expected}", path.display()))
    }

    pub(super) fn find(value: &Value, node: Option<&str>) -> anyhow::Result<Self> {
        let nodes = value.pointer("/data/nodes").or_else(|| value.get("nodes")).and_then(Value::as_object);
        let Some(nodes) = nodes else {
            return Ok(Self { head: Chain::deserialize(value)?, start: Chain::default() });
        };
        let one = match (node, nodes.len()) {
            (Some(name), _) => nodes.get(name).with_context(|| format!("there is no node {name:?}"))?,
            (None, 1) => nodes.values().next().context("there is no node")?,
            (None, _) => {
                let names: Vec<_> = nodes.keys().map(String::as_str).collect();
                bail!("say with --node whose log it is: {}", names.join(", "))
            }
        };
        Ok(Self::deserialize(one)?)
    }
}

/// Which lines of the whole are which file's.
#[derive(Default)]
pub(super) struct Parts(Vec<(u64, String)>);

impl Parts {
    pub(super) fn begin(&mut self, lines_before: u64, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.0.push((lines_before, name));
    }

    /// The file that a line is in, and its number there; both numbers count from 1.
    pub(super) fn place(&self, line: u64) -> (&str, u64) {
        let part = self.0.iter().rev().find(|(before, _)| *before < line);
        part.map_or(("", line), |(before, name)| (name, line - before))
    }
}

pub(super) fn verify(args: &VerifyArgs, out: &Out) -> Done {
    let anchor = args.head.as_deref().map(|path| Anchor::read(path, args.node.as_deref())).transpose()?;
    let (report, parts) = check(&log::files(&args.dir)?, anchor)?;
    if out.is_json() {
        out.json(&as_json(&report, &parts))?
    } else {
        explain(&args.dir, &report, &parts, anchor.is_some(), out)?
    }
    Ok(ExitCode::from(if report.is_intact() { 0 } else { 2 }))
}

fn check(files: &[PathBuf], anchor: Option<Anchor>) -> anyhow::Result<(Report, Parts)> {
    let start = anchor.map_or_else(Chain::default, |anchor| anchor.start);
    let mut verifier = Verifier::new(start, anchor.map(|anchor| anchor.head));
    let (mut parts, mut lines) = (Parts::default(), 0);
    for path in files {
        parts.begin(lines, path);
        log::each_line(path, |line| {
            lines += 1;
            verifier.line(line);
        })?;
    }
    Ok((verifier.finish(), parts))
}

fn as_json(report: &Report, parts: &Parts) -> Value {
    let findings = |found: &[Finding]| -> Vec<Value> {
        let one = |f: &Finding| {
            let (file, line) = parts.place(f.line);
            json!({"file": file, "line": line, "seq": f.seq, "why": f.why})
        };
        found.iter().map(one).collect()
    };
    let drops: Vec<Value> = report.drops.iter().map(|d| json!([d.start(), d.end()])).collect();
    let open: Vec<Value> = report
        .open_intents
        .iter()
        .map(|i| json!({"seq": i.seq, "request_id": i.request_id, "operation": i.operation, "path": i.path}))
        .collect();
    json!({
        "intact": report.is_intact(),
        "lines": report.lines,
        "records": report.intact,
        "edits": findings(&report.edits),
        "drops": drops,
        "reorders": findings(&report.reorders),
        "missing_tail": report.missing_tail.map(|t| json!({"after": t.after, "count": t.count})),
        "torn_tail": report.torn_tail,
        "anchor_mismatch": report.anchor_mismatch,
        "unanchored": report.unanchored,
        "open_intents": open,
        "more_findings": report.more_findings,
    })
}

fn explain(place: &Path, report: &Report, parts: &Parts, anchored: bool, out: &Out) -> anyhow::Result<()> {
    let verdict = if report.is_intact() { "intact" } else { "NOT INTACT" };
    out.line(&format!(
        "{}: {verdict}, {} of {} lines as written",
        place.display(),
        report.intact,
        report.lines
    ))?;
    let mut shown = Vec::new();
    for (what, found) in [("changed", &report.edits), ("moved", &report.reorders)] {
        for finding in found.iter().take(FINDINGS_MAX) {
            let record = finding.seq.map_or_else(String::new, |seq| format!(" (record {seq})"));
            let (file, line) = parts.place(finding.line);
            shown.push(format!("{what}: {file}, line {line}{record}: {}", finding.why));
        }
        if found.len() > FINDINGS_MAX {
            shown.push(format!("{what}: {} more", found.len() - FINDINGS_MAX));
        }
    }
    shown.extend(report.drops.iter().take(FINDINGS_MAX).map(|run| match (run.start(), run.end()) {
        (first, last) if first == last => format!("dropped: record {first}"),
        (first, last) => format!("dropped: records {first} to {last}"),
    }));
    if report.more_findings > 0 {
        shown.push(format!("and {} places more than are kept", report.more_findings));
    }
    shown.extend(report.missing_tail.map(|tail| match tail.after {
        Some(n) => format!("lost after {n} (crash or truncation): {} records", tail.count),
        None => format!("lost from the start (crash or truncation): {} records", tail.count),
    }));
    if report.anchor_mismatch {
        shown.push("rewritten: the record that the anchored head speaks of has another hash".to_owned());
    }
    if report.torn_tail {
        shown.push("note: the last line is incomplete, as a crash leaves it".to_owned());
    }
    if !anchored {
        shown.push(
            "note: checked without an anchored head: records cut off the end would not show".to_owned(),
        );
    }
    for intent in report.open_intents.iter().take(FINDINGS_MAX) {
        shown.push(format!(
            "note: record {} announces {} {}, and no completion follows",
            intent.seq,
            intent.operation,
            printable(&intent.path)
        ));
    }
    for line in shown {
        out.line(&format!("  {line}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use coffer_core::audit::{AuditRecord, MAX_LINE_BYTES, RecordType, files};
    use coffer_core::time::Timestamp;

    use super::*;

    /// Files of ten records each but the last, which has three; and the chain's heads after each of them.
    fn rotated(dir: &Path) -> Vec<Chain> {
        let (mut chain, mut heads) = (Chain::default(), vec![Chain::default()]);
        for (first, count) in [(0, 10), (10, 10), (20, 3)] {
            let lines: Vec<String> = (first..first + count)
                .map(|i| {
                    let time = Timestamp::from_secs(1_800_000_000 + i);
                    let record =
                        AuditRecord::new(time, RecordType::Read, format!("r{i}"), "read", "secret/a");
                    chain.append(&record).unwrap()
                })
                .collect();
            let name = if first == 20 { files::PRESENT.to_owned() } else { files::aside_name(first) };
            std::fs::write(dir.join(name), lines.join("\n") + "\n").unwrap();
            heads.push(chain);
        }
        heads
    }

    fn report(dir: &Path, anchor: Option<Anchor>) -> (Report, Parts) {
        check(&log::files(dir).unwrap(), anchor).unwrap()
    }

    #[test]
    fn a_log_of_several_files_is_intact_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let heads = rotated(dir.path());
        let anchor = Anchor { head: heads[3], start: heads[0] };
        let (found, parts) = report(dir.path(), Some(anchor));
        assert!(found.is_intact(), "{found:?}");
        assert_eq!((found.lines, found.intact, found.unanchored), (23, 23, 0));
        assert_eq!(as_json(&found, &parts)["intact"], true);
        // The present file alone is not the whole log, and it is not said that it were.
        let alone = check(&[dir.path().join(files::PRESENT)], None).unwrap().0;
        assert_eq!(alone.drops, [0..=19]);
    }

    #[test]
    fn a_file_that_is_gone_from_the_middle_is_found() {
        let dir = tempfile::tempdir().unwrap();
        rotated(dir.path());
        std::fs::remove_file(dir.path().join(files::aside_name(10))).unwrap();
        assert_eq!(report(dir.path(), None).0.drops, [10..=19]);
    }

    #[test]
    fn what_retention_removed_is_missed_only_without_the_start_that_the_server_vouches_for() {
        let dir = tempfile::tempdir().unwrap();
        let heads = rotated(dir.path());
        std::fs::remove_file(dir.path().join(files::aside_name(0))).unwrap();
        assert_eq!(report(dir.path(), None).0.drops, [0..=9]);
        let kept = Anchor { head: heads[3], start: heads[1] };
        assert!(report(dir.path(), Some(kept)).0.is_intact());
        // A start that the server did not give out does not fit.
        let elsewhere = Anchor { head: heads[3], start: Chain { seq: 10, ..Chain::default() } };
        assert!(!report(dir.path(), Some(elsewhere)).0.is_intact());
    }

    #[test]
    fn a_cut_off_end_and_an_edit_are_named_with_their_file() {
        let dir = tempfile::tempdir().unwrap();
        let heads = rotated(dir.path());
        std::fs::write(dir.path().join(files::PRESENT), "").unwrap();
        let aside = dir.path().join(files::aside_name(10));
        let text = std::fs::read_to_string(&aside).unwrap().replacen("r12", "x12", 1);
        std::fs::write(&aside, text).unwrap();
        let (found, parts) = report(dir.path(), Some(Anchor { head: heads[3], start: heads[0] }));
        assert_eq!(found.missing_tail.map(|tail| tail.count), Some(3));
        let places: Vec<_> = found.edits.iter().map(|edit| parts.place(edit.line)).collect();
        assert_eq!(places[0], (files::aside_name(10).as_str(), 3));
    }

    #[test]
    fn an_endless_line_and_the_highest_number_there_is_are_no_records() {
        let dir = tempfile::tempdir().unwrap();
        rotated(dir.path());
        let present = dir.path().join(files::PRESENT);
        let mut last = Chain { seq: u64::MAX - 1, ..Chain::default() };
        let time = Timestamp::from_secs(1_800_000_000);
        let record = AuditRecord::new(time, RecordType::Read, "r", "read", "secret/a");
        let line = last.append(&record).unwrap();
        let text = std::fs::read_to_string(&present).unwrap();
        let endless = "x".repeat(3 * MAX_LINE_BYTES);
        let forged = line.replace(&format!("\"seq\":{}", u64::MAX - 1), &format!("\"seq\":{}", u64::MAX));
        std::fs::write(&present, format!("{text}{endless}\n{forged}\n{line}\n")).unwrap();
        assert!(!report(dir.path(), None).0.is_intact());
    }

    #[test]
    fn heads_come_from_the_servers_reply_or_alone() {
        let head = Chain { seq: 7, ..Chain::default() };
        assert_eq!(Anchor::find(&json!(head), None).unwrap().head, head);
        let node = json!({"head": head, "start": Chain::default(), "lost": [], "anchored_at": "x"});
        let reply = json!({"data": {"node": "a", "nodes": {"a": node}}});
        assert_eq!(Anchor::find(&reply, None).unwrap(), Anchor { head, start: Chain::default() });
        let two = json!({"nodes": {"a": node, "b": node}});
        assert!(Anchor::find(&two, None).unwrap_err().to_string().contains("a, b"));
        assert_eq!(Anchor::find(&two, Some("b")).unwrap().head, head);
        assert!(Anchor::find(&two, Some("c")).is_err());
        assert!(Anchor::find(&json!({}), None).is_err());
    }
}
