//! `audit`: check the log, and read its end.
//!
//! The check works on files alone, so that it needs no server and can be made on a copy. What the server
//! vouches for, the anchored head, is asked for only when wanted.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand};
use coffer_client::Call;
use coffer_client::wire::Envelope;
use coffer_core::audit::{AuditRecord, Chain, MAX_LINE_BYTES, RecordType, Report, Verifier};
use serde_json::{Value, json};

use super::Done;
use super::out::{Out, printable};
use super::session::Session;

const LOG: &str = "audit.log";
/// What `tail` reads at most, from the end.
const TAIL_BYTES_MAX: u64 = 16 << 20;
/// Findings of one kind that are shown.
const FINDINGS_MAX: usize = 20;

/// Verbs of `audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Check that nothing in the log was changed, dropped or moved (exit code 2 if something was)
    Verify(VerifyArgs),
    /// Show the last records
    Tail(TailArgs),
}

/// Options of `audit verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The log's directory, or the log itself.
    dir: PathBuf,
    /// Check the end against a head that the server gave out before: its number of records and last hash,
    /// as {"seq": 12, "prev": "<hash>"} in a file.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
}

/// Options of `audit tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Read the log of this directory instead of asking the server.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How many records.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    limit: u64,
    /// Only records of this lease.
    #[arg(long, value_name = "ID")]
    lease: Option<String>,
    /// Only records of the token with this accessor.
    #[arg(long, allow_hyphen_values = true)]
    accessor: Option<String>,
    /// Only records of paths that begin so.
    #[arg(long, value_name = "PREFIX")]
    path: Option<String>,
    /// Only records of this request.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
}

impl TailArgs {
    fn takes(&self, line: &str) -> bool {
        let all =
            self.lease.is_none() && self.accessor.is_none() && self.path.is_none() && self.request.is_none();
        let same =
            |wanted: &Option<String>, found: Option<&String>| wanted.is_none() || wanted.as_ref() == found;
        all || AuditRecord::from_line(line).is_some_and(|record| {
            same(&self.lease, record.lease_id.as_ref())
                && same(&self.accessor, record.accessor.as_ref())
                && same(&self.request, Some(&record.request_id))
                && self.path.as_ref().is_none_or(|prefix| record.path.starts_with(prefix.as_str()))
        })
    }
}

/// What needs no server; none if the command needs one.
pub(crate) fn offline(command: &Command, out: &Out) -> Option<Done> {
    match command {
        Command::Verify(args) => Some(verify(args, out)),
        Command::Tail(args) => args.dir.as_deref().map(|dir| tail_of_file(dir, args, out)),
    }
}

/// What asks the server.
pub(crate) async fn run(command: Command, session: &Session, out: &Out) -> Done {
    let Command::Tail(args) = command else { anyhow::bail!("this command works on files alone") };
    let limit = args.limit.to_string();
    let mut query = vec![("limit", limit.as_str())];
    let filters = [
        ("lease_id", &args.lease),
        ("accessor", &args.accessor),
        ("path", &args.path),
        ("request_id", &args.request),
    ];
    query.extend(filters.iter().filter_map(|(key, value)| value.as_deref().map(|value| (*key, value))));
    let call = Call { query: &query, ..Call::new("GET", "sys/audit/tail") };
    let reply: Envelope<Value> =
        session.client()?.exchange(call, None::<&()>).await.context("reading the audit log")?;
    let data = reply.data.unwrap_or_default();
    let records = ["records", "lines", "entries"].iter().find_map(|key| data.get(key)?.as_array());
    let records = records.context("the server's reply has no records")?;
    for record in records {
        // Records come as objects, or as the lines of the log.
        let line = record.as_str().map_or_else(|| record.to_string(), str::to_owned);
        show(&line, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn log_file(dir: &Path) -> anyhow::Result<(PathBuf, File)> {
    let path = if dir.is_dir() { dir.join(LOG) } else { dir.to_owned() };
    let file = File::open(&path).with_context(|| format!("audit log {}", path.display()))?;
    Ok((path, file))
}

fn verify(args: &VerifyArgs, out: &Out) -> Done {
    let head = match &args.head {
        None => None,
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("head {}", path.display()))?;
            let head: Chain = serde_json::from_slice(&text).with_context(|| {
                format!("head {}: expected {{\"seq\": n, \"prev\": \"<hash>\"}}", path.display())
            })?;
            Some(head)
        }
    };
    let (path, file) = log_file(&args.dir)?;
    let mut verifier = Verifier::new(Chain::default(), head);
    each_line(BufReader::new(file), |line| verifier.line(line))
        .with_context(|| path.display().to_string())?;
    let report = verifier.finish();
    if out.is_json() {
        out.json(&as_json(&report))?
    } else {
        explain(&path, &report, head.is_some(), out)?
    }
    Ok(ExitCode::from(if report.is_intact() { 0 } else { 2 }))
}

/// Gives out line by line. One that is longer than the log's limit is cut, which makes it a changed one.
fn each_line(mut log: impl BufRead, mut take: impl FnMut(&str)) -> std::io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        if (&mut log).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") && line.len() as u64 == limit {
            log.skip_until(b'\n')?;
        }
        take(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).as_ref());
    }
}

fn as_json(report: &Report) -> Value {
    let findings = |found: &[coffer_core::audit::Finding]| -> Vec<Value> {
        found.iter().map(|f| json!({"line": f.line, "seq": f.seq, "why": f.why})).collect()
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
    })
}

fn explain(path: &Path, report: &Report, anchored: bool, out: &Out) -> anyhow::Result<()> {
    let verdict = if report.is_intact() { "intact" } else { "NOT INTACT" };
    out.line(&format!(
        "{}: {verdict}, {} of {} lines as written",
        path.display(),
        report.intact,
        report.lines
    ))?;
    let mut shown = Vec::new();
    for (what, found) in [("changed", &report.edits), ("moved", &report.reorders)] {
        for finding in found.iter().take(FINDINGS_MAX) {
            let record = finding.seq.map_or_else(String::new, |seq| format!(" (record {seq})"));
            shown.push(format!("{what}: line {}{record}: {}", finding.line, finding.why));
        }
        if found.len() > FINDINGS_MAX {
            shown.push(format!("{what}: {} more", found.len() - FINDINGS_MAX));
        }
    }
    shown.extend(report.drops.iter().take(FINDINGS_MAX).map(|run| match (run.start(), run.end()) {
        (first, last) if first == last => format!("dropped: record {first}"),
        (first, last) => format!("dropped: records {first} to {last}"),
    }));
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

fn tail_of_file(dir: &Path, args: &TailArgs, out: &Out) -> Done {
    let (path, mut file) = log_file(dir)?;
    let size = file.metadata()?.len();
    let start = size.saturating_sub(TAIL_BYTES_MAX);
    file.seek(SeekFrom::Start(start))?;
    let mut lines = std::collections::VecDeque::new();
    let mut first = start > 0;
    each_line(BufReader::new(file), |line| {
        // After a jump into the middle, the first line is most likely half of one.
        if !std::mem::take(&mut first) && args.takes(line) {
            lines.push_back(line.to_owned());
        }
        if lines.len() as u64 > args.limit {
            lines.pop_front();
        }
    })
    .with_context(|| path.display().to_string())?;
    for line in lines {
        show(&line, out)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(line: &str, out: &Out) -> anyhow::Result<()> {
    if out.is_json() {
        return out.line(line);
    }
    match AuditRecord::from_line(line) {
        Some(record) => out.line(&printable(&for_people(&record)).replace('\n', "\\n")),
        None => out.line(&format!("(no record: {} bytes)", line.len())),
    }
}

/// One line: when, what, how it went, who, from where.
fn for_people(record: &AuditRecord) -> String {
    let kind = match record.kind {
        RecordType::Intent => "intent",
        RecordType::Completion => "done",
        RecordType::Read => "read",
    };
    let status = record.status.map_or_else(|| "...".to_owned(), |status| status.to_string());
    let mut text = format!(
        "{:<24} #{:<5} {kind:<6} {status:<3} {:<7} {}",
        record.time.to_rfc3339(),
        record.seq,
        record.operation,
        record.path
    );
    let mut add = |label: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            text.push_str(&format!("  {label}{value}"));
        }
    };
    add("by ", record.display_name.as_deref().or(record.accessor.as_deref()));
    let meta = |key: &str| record.metadata.get(key).map(String::as_str);
    if let Some(pod) = meta("pod_name") {
        let namespace = meta("service_account_namespace").unwrap_or("?");
        add("pod ", Some(&format!("{namespace}/{pod}")));
    }
    add("from ", record.client_ip.as_deref());
    add("lease ", record.lease_id.as_deref());
    add(
        "",
        record
            .response_time_us
            .filter(|us| *us > 0)
            .map(|us| format!("{}.{:03} ms", us / 1000, us % 1000))
            .as_deref(),
    );
    add("error: ", record.error.as_deref());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_core::time::Timestamp;

    fn log(records: usize) -> Vec<String> {
        let mut chain = Chain::default();
        (0..records)
            .map(|i| {
                let time = Timestamp::from_secs(1_800_000_000 + i as u64);
                let mut record =
                    AuditRecord::new(time, RecordType::Read, format!("r{i}"), "read", "secret/a");
                record.status = Some(200);
                record.display_name = Some("root".into());
                chain.append(&record).unwrap()
            })
            .collect()
    }

    fn check(text: &str) -> Report {
        let mut verifier = Verifier::new(Chain::default(), None);
        each_line(text.as_bytes(), |line| verifier.line(line)).unwrap();
        verifier.finish()
    }

    #[test]
    fn a_log_as_written_is_intact() {
        let text = log(3).join("\n") + "\n";
        let report = check(&text);
        assert!(report.is_intact());
        assert_eq!((report.lines, report.intact), (3, 3));
        assert_eq!(as_json(&report)["intact"], true);
    }

    #[test]
    fn an_edit_and_an_endless_line_are_found() {
        let lines = log(3);
        let edited = lines[1].replace("secret/a", "secret/b");
        let report = check(&[&lines[0], &edited, &lines[2]].map(String::as_str).join("\n"));
        assert_eq!(report.edits.len(), 1);
        let endless = format!("{}\n{}\n{}\n", lines[0], "x".repeat(3 * MAX_LINE_BYTES), lines[1]);
        let report = check(&endless);
        assert_eq!((report.lines, report.edits.len()), (3, 1));
    }

    #[test]
    fn a_line_for_people() {
        let record = AuditRecord::from_line(&log(1)[0]).unwrap();
        assert_eq!(
            for_people(&record),
            "2027-01-15T08:00:00Z     #0     read   200 read    secret/a  by root"
        );
    }
}
