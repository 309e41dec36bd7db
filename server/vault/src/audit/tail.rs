//! Reading the end of the audit log back, for `sys/audit/tail`. Never changes it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};

use coffer_core::audit::AuditRecord;

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
}

impl Filter {
    fn takes(&self, record: &AuditRecord) -> bool {
        let same = |wanted: &Option<String>, found: Option<&String>| {
            wanted.as_ref().is_none_or(|w| Some(w) == found)
        };
        same(&self.lease_id, record.lease_id.as_ref())
            && same(&self.accessor, record.accessor.as_ref())
            && same(&self.request_id, Some(&record.request_id))
            && self.path_prefix.as_ref().is_none_or(|p| record.path.starts_with(p.as_str()))
    }
}

impl AuditLog {
    /// The last `limit` records that the filter takes, oldest first, as they stand in the file. Blocks.
    pub(crate) fn tail(&self, limit: usize, filter: &Filter) -> io::Result<Vec<serde_json::Value>> {
        let (path, len) = self.extent();
        let mut file = File::open(path)?;
        let from = len.saturating_sub(WINDOW_BYTES);
        file.seek(SeekFrom::Start(from))?;
        let mut lines = BufReader::new(file.take(len - from)).lines();
        if from > 0 {
            // Most likely the rest of a line.
            lines.next().transpose()?;
        }
        let limit = limit.min(RECORDS_MAX);
        let mut found = std::collections::VecDeque::new();
        for line in lines {
            let line = line?;
            if !AuditRecord::from_line(&line).is_some_and(|record| filter.takes(&record)) {
                continue;
            }
            if found.len() == limit {
                found.pop_front();
            }
            found.extend(serde_json::from_str::<serde_json::Value>(&line));
        }
        Ok(found.into())
    }
}
