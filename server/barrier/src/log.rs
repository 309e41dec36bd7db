//! The change log as its readers see it.
//!
//! Every commit leaves an encrypted row in its process's own stream, in the same transaction. A stream's published
//! mark W says that every number up to it is resolved, so a reader may start behind it next time; rows above W are
//! delivered too, at once, and again until W has passed them (R4). [`LogCursor`] hands out each of them once.
//!
//! A position never means "applied up to here": that is what snapshot versions are for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::BarrierError;
use crate::key::{MountId, RecordKind, RowKey, number_after, range_after};
use crate::read::Read;
use crate::store::{KeyRange, SCAN_PAGE_MAX};
use crate::stream::{Incarnation, LOG_PATH, StreamRow, TrimRow, WINDOW, trim_key};

/// What one commit means to somebody: a cache entry to drop, an event to publish.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeEntry {
    /// What happened, e.g. `token/revoke` or `kv-v2/data-write`.
    pub topic: String,
    /// What it happened to.
    pub subject: String,
    /// More, as the topic defines it. Never a secret value.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

impl ChangeEntry {
    /// An entry without detail.
    pub fn new(topic: impl Into<String>, subject: impl Into<String>) -> Self {
        Self { topic: topic.into(), subject: subject.into(), detail: serde_json::Value::Null }
    }

    /// The same with detail.
    #[must_use]
    pub fn with(mut self, detail: serde_json::Value) -> Self {
        self.detail = detail;
        self
    }
}

impl fmt::Debug for ChangeEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeEntry({}, [subject redacted])", self.topic)
    }
}

/// A log row's content. Format 1; unknown fields are ignored, so that fields can be added.
#[derive(Serialize, Deserialize)]
pub(crate) struct LogRow {
    format: u8,
    /// Closes a number that no transaction will use any more.
    #[serde(default)]
    void: bool,
    /// The storage keys that the commit wrote, for whoever copies rows.
    #[serde(default)]
    keys: Vec<String>,
    #[serde(default)]
    notes: Vec<ChangeEntry>,
}

impl LogRow {
    pub(crate) fn new(written: Vec<Vec<u8>>, notes: Vec<ChangeEntry>) -> Self {
        Self { format: 1, void: false, keys: written.iter().map(hex::encode).collect(), notes }
    }

    pub(crate) const fn void() -> Self {
        Self { format: 1, void: true, keys: Vec::new(), notes: Vec::new() }
    }

    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>, BarrierError> {
        serde_json::to_vec(self).map_err(|_| BarrierError::Limit("change entry cannot be serialised"))
    }

    fn parse(bytes: &[u8]) -> Result<Self, BarrierError> {
        let row: Self =
            serde_json::from_slice(bytes).map_err(|_| BarrierError::Tampered { what: "change-log row" })?;
        if row.format == 1 { Ok(row) } else { Err(BarrierError::Tampered { what: "change-log row" }) }
    }
}

/// Where the next scan of each stream starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// How many streams had been removed altogether.
    removed: u64,
    /// Per stream the last number that need not be read again.
    seqs: BTreeMap<Incarnation, u64>,
}

/// Not a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed change-log position")]
pub struct PositionError;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.removed)?;
        for (stream, seq) in &self.seqs {
            write!(f, ".{}-{seq}", stream.to_hex())?;
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut parts = text.split('.');
        let removed = parts.next().and_then(|n| n.parse().ok()).ok_or(PositionError)?;
        let mut seqs = BTreeMap::new();
        for part in parts {
            let (stream, seq) = part.split_once('-').ok_or(PositionError)?;
            let stream = MountId::from_hex(stream).ok_or(PositionError)?;
            seqs.insert(stream, seq.parse().map_err(|_| PositionError)?);
        }
        Ok(Self { removed, seqs })
    }
}

/// One commit's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogItem {
    /// The stream it is in.
    pub stream: MountId,
    /// Its number there.
    pub seq: u64,
    /// What the commit noted.
    pub notes: Vec<ChangeEntry>,
    /// The storage keys it wrote, in hexadecimal.
    pub keys: Vec<String>,
}

/// What a read of the log found.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The commits, by stream and number. Void rows are left out.
    pub items: Vec<LogItem>,
    /// Where to start next.
    pub next: Position,
    /// The version of the snapshot that was read: with everything here applied, this is what a member may state.
    pub version: u64,
    /// Rows between the position and what is left have been trimmed: whoever keeps a cache must empty it.
    pub gap: bool,
    /// Some stream has more rows than were asked for.
    pub more: bool,
}

/// Reads of the change log.
pub struct ChangeLog;

impl ChangeLog {
    /// Where reading starts for somebody who needs only what is committed after this snapshot (R3).
    pub async fn start(reader: &dyn Read) -> Result<Position, BarrierError> {
        let streams = streams(reader).await?;
        let seqs = streams.into_iter().map(|(id, row)| (id, row.published)).collect();
        Ok(Position { removed: removed(reader).await?, seqs })
    }

    /// All rows behind `after` that `reader`'s snapshot shows, in every stream listed in that same snapshot. At most
    /// about `limit` per stream, but never fewer than a stream's window, or rows above W could starve others.
    pub async fn tail(reader: &dyn Read, after: &Position, limit: usize) -> Result<Tail, BarrierError> {
        let limit = limit.clamp(usize::try_from(WINDOW).unwrap_or(SCAN_PAGE_MAX), SCAN_PAGE_MAX);
        let view = reader.view();
        let removed = removed(reader).await?;
        let mut tail = Tail {
            items: Vec::new(),
            next: Position { removed, seqs: BTreeMap::new() },
            version: reader.version(),
            gap: removed != after.removed,
            more: false,
        };
        for (id, row) in streams(reader).await? {
            let from = after.seqs.get(&id).copied().unwrap_or(0);
            tail.gap |= from < row.trimmed;
            let prefix = log_prefix(reader, id)?;
            let start = [prefix.as_slice(), &from.to_be_bytes()].concat();
            let rows = view.snapshot.scan(&range_after(&prefix, &start), limit).await?;
            let full = rows.len() == limit;
            let mut last = from;
            for (at, stored) in rows {
                let seq = number_after(&at, &prefix).ok_or(BarrierError::Tampered { what: "row key" })?;
                last = seq;
                let row = LogRow::parse(view.open(&at, &stored).await?.expose())?;
                if !row.void {
                    tail.items.push(LogItem { stream: id, seq, notes: row.notes, keys: row.keys });
                }
            }
            tail.more |= full;
            let next = if full { row.published.min(last) } else { row.published };
            tail.next.seqs.insert(id, next.max(from));
        }
        Ok(tail)
    }
}

/// Follows the log and hands out every commit exactly once, however often it is read again above W.
#[derive(Clone, Debug, Default)]
pub struct LogCursor {
    position: Position,
    above: BTreeSet<(MountId, u64)>,
}

impl LogCursor {
    /// Starts behind `position`.
    #[must_use]
    pub const fn new(position: Position) -> Self {
        Self { position, above: BTreeSet::new() }
    }

    /// Starts with what is committed after `reader`'s snapshot.
    pub async fn at_end(reader: &dyn Read) -> Result<Self, BarrierError> {
        let mut cursor = Self::new(ChangeLog::start(reader).await?);
        // Rows above W in this very snapshot are not news either.
        while cursor.poll(reader, SCAN_PAGE_MAX).await?.more {}
        Ok(cursor)
    }

    /// What is new in `reader`'s snapshot.
    pub async fn poll(&mut self, reader: &dyn Read, limit: usize) -> Result<Tail, BarrierError> {
        let mut tail = ChangeLog::tail(reader, &self.position, limit).await?;
        tail.items.retain(|item| self.above.insert((item.stream, item.seq)));
        let next = &tail.next.seqs;
        self.above.retain(|(stream, seq)| next.get(stream).is_some_and(|passed| seq > passed));
        self.position = tail.next.clone();
        Ok(tail)
    }

    /// The position to start from after a restart; commits above W will come again.
    #[must_use]
    pub const fn position(&self) -> &Position {
        &self.position
    }
}

/// Every stream there is, in `reader`'s snapshot.
pub(crate) async fn streams(reader: &dyn Read) -> Result<Vec<(Incarnation, StreamRow)>, BarrierError> {
    let view = reader.view();
    let prefix = view.keys.layout.kind_prefix(MountId::SYSTEM, RecordKind::Stream, LOG_PATH)?;
    let mut streams = Vec::new();
    for (at, stored) in view.all(&prefix).await? {
        let id = at.get(prefix.len()..).and_then(|rest| rest.try_into().ok());
        let id = Incarnation::from_bytes(id.ok_or(BarrierError::Tampered { what: "row key" })?);
        streams.push((id, StreamRow::parse(view.open(&at, &stored).await?.expose())?));
    }
    Ok(streams)
}

/// What the log rows of a stream begin with.
pub(crate) fn log_prefix(reader: &dyn Read, id: Incarnation) -> Result<Vec<u8>, BarrierError> {
    let row = RowKey::with_suffix(MountId::SYSTEM, RecordKind::Log, LOG_PATH, id.as_bytes().to_vec());
    reader.view().keys.layout.encode(&row)
}

async fn removed(reader: &dyn Read) -> Result<u64, BarrierError> {
    match reader.get(&trim_key()).await? {
        Some(row) => Ok(TrimRow::parse(row.expose())?.removed),
        None => Ok(0),
    }
}

/// The range of a stream's log rows up to and including `upto`.
pub(crate) fn upto_range(prefix: &[u8], upto: u64) -> KeyRange {
    let mut range = KeyRange::prefix(prefix);
    if let Some(end) = upto.checked_add(1) {
        range.end = [prefix, &end.to_be_bytes()].concat();
    }
    range
}
