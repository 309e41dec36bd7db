//! Reading the end of the audit log back, for `sys/audit/tail`. Never changes it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use coffer_core::audit::{AuditRecord, Chain};

use super::AuditLog;

/// How far back a search goes.
const WINDOW_BYTES: u64 = 64 * 1024 * 1024;
/// The most records given back.
pub(crate) const RECORDS_MAX: usize = 10_000;

/// Which records are wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) lease_id: Option<String>,
    pub(crate) accessor: Option<String>,
    pub(crate) path_prefix: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) seq: Option<u64>,
}

impl Filter {
    fn takes(&self, record: &AuditRecord) -> bool {
        let same = |wanted: &Option<String>, found: Option<&String>| {
            wanted.as_ref().is_none_or(|w| Some(w) == found)
        };
        same(&self.lease_id, record.lease_id.as_ref())
            && same(&self.accessor, record.accessor.as_ref())
            && same(&self.request_id, Some(&record.request_id))
            && self.seq.is_none_or(|seq| seq == record.seq)
            && self.path_prefix.as_ref().is_none_or(|p| record.path.starts_with(p.as_str()))
    }
}

impl AuditLog {
    /// The last `limit` records that the filter takes, oldest first, as they stand in the files. Blocks.
    pub(crate) fn tail(&self, limit: usize, filter: &Filter) -> io::Result<Vec<serde_json::Value>> {
        let limit = limit.min(RECORDS_MAX);
        let covered = self.covered_filter(filter);
        let takes = |record: &AuditRecord| {
            filter.takes(record) || covered.as_ref().is_some_and(|covered| covered.takes(record))
        };
        let mut left = WINDOW_BYTES;
        let mut found = VecDeque::new();
        for path in self.files()?.iter().rev() {
            if left == 0 || found.len() >= limit {
                break;
            }
            let older = last_of(path, limit - found.len(), &takes, &mut left)?;
            older.into_iter().rev().for_each(|record| found.push_front(record));
        }
        Ok(found.into())
    }
}

impl AuditLog {
    /// The point of the chain before the record `seq`, if it lies in the last part of the log. Blocks.
    pub(crate) fn chain_at(&self, seq: u64) -> io::Result<Option<Chain>> {
        let head = self.head();
        if head.seq == seq {
            return Ok(Some(head));
        }
        let filter = Filter { seq: Some(seq), ..Filter::default() };
        let found = self.tail(1, &filter)?;
        let prev = found.first().and_then(|record| record.get("prev")).cloned();
        Ok(prev.and_then(|prev| serde_json::from_value(prev).ok()).map(|prev| Chain { prev, seq }))
    }
}

/// The last records of one file. `left` is how many bytes may still be read.
fn last_of(
    path: &Path,
    limit: usize,
    takes: &dyn Fn(&AuditRecord) -> bool,
    left: &mut u64,
) -> io::Result<VecDeque<serde_json::Value>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let from = len.saturating_sub(*left);
    *left = left.saturating_sub(len);
    file.seek(SeekFrom::Start(from))?;
    let mut reader = BufReader::new(file.take(len - from));
    let mut line = Vec::new();
    let mut found = VecDeque::new();
    // After a jump into the middle, the first line is most likely half of one.
    let mut half = from > 0;
    while limit > 0 && reader.read_until(b'\n', &mut line)? > 0 {
        // A line without its end is being written right now, or was torn by a crash.
        if !std::mem::take(&mut half) && line.ends_with(b"\n") {
            let text = std::str::from_utf8(&line).unwrap_or_default();
            if AuditRecord::from_line(text).is_some_and(|record| takes(&record)) {
                if found.len() == limit {
                    found.pop_front();
                }
                found.extend(serde_json::from_str::<serde_json::Value>(text));
            }
        }
        line.clear();
    }
    Ok(found)
}
