//! `audit query`: the records that fit, out of all files of a log.
//!
//! Works on files alone and keeps only what it shows, however large they are. Says whether the chain of what was looked
//! through is whole: a record that is not there cannot be found.

mod filter;
mod span;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_vault::Clock as _;

use super::super::Done;
use super::super::out::{Out, complain, printable};
use super::log;
use super::verify::{Anchor, Parts};
use filter::{Filter, FilterArgs};
use span::{Part, Span};

/// How many records a table has when nothing is said.
const ROWS_DEFAULT: usize = 1000;
/// The most characters of an error in a table.
const ERROR_CHARS_MAX: usize = 200;
/// Places in which the chain is broken that are named.
const PLACES_MAX: usize = 5;

/// Options of `audit query`.
#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The log's directory with all its files, or one file.
    dir: PathBuf,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only so many, the latest. A table has 1000 unless told otherwise; JSON lines have all.
    #[arg(long, short = 'n', value_parser = clap::value_parser!(u64).range(1..=100_000))]
    limit: Option<u64>,
    /// What the server vouches for: the reply of `coffer read --format json sys/audit/chain` in a file.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Whose log it is, where several servers' heads are in that file.
    #[arg(long, requires = "head")]
    node: Option<String>,
}

/// What was found.
#[derive(Debug, Default)]
struct Found {
    records: u64,
    /// Lines that are no records, and so cannot be asked for.
    unreadable: u64,
    looked_through: u64,
    /// Where the chain is broken.
    broken: Vec<String>,
}

pub(super) fn query(args: &QueryArgs, out: &Out) -> Done {
    let filter = args.filter.read(crate::clock::SystemClock::default().now())?;
    let anchor = args.head.as_deref().map(|path| Anchor::read(path, args.node.as_deref())).transpose()?;
    let mut shown = Shown::new(args.limit, out)?;
    let found = search(log::files(&args.dir)?, &filter, anchor, |line, record, genuine| {
        shown.take(line, record, genuine, out)
    })?;
    shown.finish(&found, out)?;
    tell(&found, out);
    Ok(ExitCode::from(if found.broken.is_empty() { 0 } else { 2 }))
}

/// Gives out every record that fits, and whether its line is as some server wrote it.
fn search(
    files: Vec<PathBuf>,
    filter: &Filter,
    anchor: Option<Anchor>,
    mut take: impl FnMut(&str, &AuditRecord, bool) -> anyhow::Result<()>,
) -> anyhow::Result<Found> {
    let part = Part::of(files, filter.since, filter.until)?;
    let mut verifier = part.verifier(anchor);
    let mut span = Span::new(filter.since, filter.until);
    let (mut found, mut parts) = (Found::default(), Parts::default());
    for path in &part.files {
        parts.begin(found.looked_through, path);
        let mut failed = None;
        log::each_line(path, |line| {
            found.looked_through += 1;
            let genuine = verifier.line(line);
            let Some(record) = AuditRecord::from_line(line) else {
                found.unreadable += 1;
                return;
            };
            span.saw(found.looked_through, &record);
            if failed.is_none() && filter.takes(&record) {
                found.records += 1;
                failed = take(line, &record, genuine).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
    }
    if let Some((path, line)) = &part.next {
        parts.begin(found.looked_through, path);
        verifier.line(line);
        if let Some(record) = AuditRecord::from_line(line) {
            span.saw(found.looked_through + 1, &record);
        }
    }
    found.broken = span.broken(&verifier.finish(), &parts);
    Ok(found)
}

/// Says how far what was shown can be relied on.
fn tell(found: &Found, out: &Out) {
    if found.broken.is_empty() {
        if !out.is_json() {
            let Found { records, looked_through, .. } = found;
            complain(&format!("{records} of {looked_through} records; their chain is whole"));
        }
        return;
    }
    complain("Warning: the chain is NOT whole in this range; see coffer audit verify");
    found.broken.iter().take(PLACES_MAX).for_each(|place| complain(&format!("  {}", printable(place))));
    if found.broken.len() > PLACES_MAX {
        complain(&format!("  and {} more", found.broken.len() - PLACES_MAX));
    }
    if found.unreadable > 0 {
        complain(&format!("  {} lines are no records", found.unreadable));
    }
}

/// What is shown: lines at once, or the last rows of a table at the end.
struct Shown {
    limit: usize,
    /// None if everything is shown at once.
    kept: Option<VecDeque<Row>>,
}

enum Row {
    Line(String),
    Cells(Vec<String>),
}

const HEADER: &[&str] = &["Time", "Record", "Type", "Status", "Operation", "Path", "Who", "From", "More"];

impl Shown {
    fn new(limit: Option<u64>, out: &Out) -> anyhow::Result<Self> {
        let limit = limit.map(usize::try_from).transpose()?;
        let at_once = out.is_json() && limit.is_none();
        Ok(Self { limit: limit.unwrap_or(ROWS_DEFAULT), kept: (!at_once).then(VecDeque::new) })
    }

    fn take(&mut self, line: &str, record: &AuditRecord, genuine: bool, out: &Out) -> anyhow::Result<()> {
        let Some(kept) = &mut self.kept else { return out.line(line) };
        if kept.len() == self.limit {
            kept.pop_front();
        }
        kept.push_back(if out.is_json() {
            Row::Line(line.to_owned())
        } else {
            Row::Cells(cells(record, genuine))
        });
        Ok(())
    }

    fn finish(self, found: &Found, out: &Out) -> anyhow::Result<()> {
        let kept = self.kept.unwrap_or_default();
        let (rows, cut) = (kept.len() as u64, found.records - kept.len() as u64);
        let mut table = Vec::new();
        for row in kept {
            match row {
                Row::Line(line) => out.line(&line)?,
                Row::Cells(cells) => table.push(cells),
            }
        }
        if !table.is_empty() {
            out.table(HEADER, &table)?;
        }
        if rows > 0 && cut > 0 {
            complain(&format!("Note: {cut} earlier records fit too; see --limit"));
        }
        Ok(())
    }
}

/// One row of the table.
fn cells(record: &AuditRecord, genuine: bool) -> Vec<String> {
    let kind = match record.kind {
        RecordType::Intent => "intent",
        RecordType::Completion => "done",
        RecordType::Read => "read",
    };
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").replace('\n', " ");
    let mut more = Vec::new();
    if !genuine {
        more.push("CHANGED".to_owned());
    }
    more.extend(record.lease_id.as_ref().map(|id| format!("lease {id}")));
    if let Some(error) = &record.error {
        let folded: Vec<&str> = error.split_whitespace().collect();
        more.push(folded.join(" ").chars().take(ERROR_CHARS_MAX).collect());
    }
    vec![
        record.time.to_rfc3339(),
        record.seq.to_string(),
        kind.to_owned(),
        record.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
        text(Some(&record.operation)),
        text(Some(&record.path)),
        text(record.display_name.as_deref().or(record.accessor.as_deref())),
        text(record.client_ip.as_deref()),
        text(Some(&more.join("; "))),
    ]
}

#[cfg(test)]
mod tests;
