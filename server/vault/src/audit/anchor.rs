//! What the barrier knows of the audit log: kept where whoever can edit the files cannot reach.
//!
//! Per node the log's head and where it begins, renewed every second. What turned out to be missing is remembered
//! here too, since the next anchor would otherwise cover it up.

use std::time::SystemTime;

use coffer_barrier::{MountId, Read as _};
use coffer_core::audit::{AuditRecord, Chain, RecordType};
use coffer_core::failpoint::{self, Step};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::codec::{self, transact};
use crate::error::Fail;
use crate::open::Open;
use crate::outage::Heartbeat;
use crate::rows;

/// How many losses are remembered.
const LOST_MAX: usize = 64;
/// How many nodes are listed.
const NODES_MAX: usize = 1000;

/// A node's anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    /// The log's head.
    #[serde(flatten)]
    pub(crate) head: Chain,
    /// Where the log begins: what was before is past its time and deleted.
    #[serde(default)]
    pub(crate) start: Chain,
    /// What was found missing or rewritten when the vault was opened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lost: Vec<Lost>,
    /// When this was written.
    #[serde(default)]
    pub(crate) at: Timestamp,
}

/// Records that were anchored and are not in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lost {
    /// When that was noticed.
    pub(crate) at: Timestamp,
    /// The number of the first that is missing or another.
    pub(crate) from: u64,
    /// How many are missing; 0 if they are there and others than they were.
    pub(crate) count: u64,
}

async fn of_node(open: &Open, node: &str) -> Result<Option<Anchor>, Fail> {
    let reader = open.barrier.reader().await?;
    codec::get(&reader, &rows::audit_head(node)).await
}

/// All nodes that ever anchored a log here, with what is known of it.
pub(crate) async fn nodes(open: &Open) -> Result<Vec<(String, Anchor)>, Fail> {
    let reader = open.barrier.reader().await?;
    let rows = reader.range_ordered(MountId::SYSTEM, rows::AUDIT_NODES, u64::MAX, NODES_MAX).await?;
    let mut nodes = Vec::with_capacity(rows.len());
    for (_, _, bytes) in &rows {
        let node: String = codec::decode(bytes)?;
        if let Some(anchor) = codec::get(&reader, &rows::audit_head(&node)).await? {
            nodes.push((node, anchor));
        }
    }
    Ok(nodes)
}

/// Leaves a sign of life, and anchors the head of the audit log.
pub(crate) async fn anchor(open: &Open) -> Result<(), Fail> {
    write(open, |_| {}).await?;
    failpoint::reach(Step::Anchored);
    Ok(())
}

async fn write(open: &Open, change: impl Fn(&mut Anchor)) -> Result<(), Fail> {
    let head = open.around.audit.head();
    let now = open.now();
    let node = &open.around.config.node_name;
    let key = rows::audit_head(node);
    transact!(open.barrier, |w| {
        let known: Option<Anchor> = codec::get(&*w as &dyn coffer_barrier::Read, &key).await?;
        let listed = rows::audit_node(node);
        if !(&*w as &dyn coffer_barrier::Read).exists(&listed).await? {
            codec::put(w, &listed, node).await?;
        }
        let mut anchor = Anchor { head, at: now, ..known.unwrap_or_default() };
        change(&mut anchor);
        // Another server may have got further: the sign of life never moves back.
        let last: Option<Heartbeat> =
            codec::get(&*w as &dyn coffer_barrier::Read, &rows::heartbeat()).await?;
        let at = last.map_or(now, |last| last.at.max(now));
        codec::put(w, &rows::heartbeat(), &Heartbeat { at, outage: open.outage }).await?;
        codec::put(w, &key, &anchor).await?;
    })
}

/// Deletes files whose time is over, once it is anchored where the log begins without them.
pub(crate) async fn retire(open: &Open) -> Result<(), Fail> {
    let around = std::sync::Arc::clone(&open.around);
    let expired = blocking(move || around.audit.expired(SystemTime::now())).await?;
    let Some((start, files)) = expired else { return Ok(()) };
    write(open, |anchor| anchor.start = start).await?;
    tracing::info!(files = files.len(), begins = start.seq, "audit log: files past their time are deleted");
    let around = std::sync::Arc::clone(&open.around);
    blocking(move || around.audit.delete(&files)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Fail> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|_| Fail::Internal("audit log"))?;
    done.map_err(|error| {
        tracing::error!(%error, "audit log: its files cannot be looked after");
        Fail::Audit
    })
}

/// At unseal: says so, in the log itself and in the barrier, when the log is not what it was at the last anchor.
pub(crate) async fn check(open: &Open) {
    if let Err(error) = compare(open).await {
        tracing::warn!(%error, "the anchor of the audit log cannot be checked");
    }
}

async fn compare(open: &Open) -> Result<(), Fail> {
    let Some(anchored) = of_node(open, &open.around.config.node_name).await? else { return Ok(()) };
    let head = open.around.audit.head();
    let (error, lost) = if anchored.head.seq > head.seq {
        let count = anchored.head.seq - head.seq;
        tracing::error!(count, "audit log: records are missing at the end (crash or truncation)");
        let text = format!("{count} records lost after {} (crash or truncation)", head.seq);
        (text, Lost { at: open.now(), from: head.seq, count })
    } else {
        let around = std::sync::Arc::clone(&open.around);
        let at = anchored.head.seq;
        // The head was anchored at most a second before the end, so it is looked for there only.
        match blocking(move || around.audit.chain_at(at)).await? {
            Some(found) if found != anchored.head => {
                tracing::error!(record = at, "audit log: it was rewritten while this vault was closed");
                let text = format!("the records up to {at} are not those that were anchored (rewritten)");
                (text, Lost { at: open.now(), from: at.saturating_sub(1), count: 0 })
            }
            _ => return Ok(()),
        }
    };
    let record = AuditRecord {
        display_name: Some("system".into()),
        error: Some(error),
        status: Some(500),
        ..AuditRecord::new(
            open.now(),
            RecordType::Completion,
            uuid::Uuid::new_v4().to_string(),
            "verify",
            "sys/audit",
        )
    };
    open.around.audit.write(&record).await?;
    write(open, |anchor| {
        anchor.lost.push(lost.clone());
        let surplus = anchor.lost.len().saturating_sub(LOST_MAX);
        anchor.lost.drain(..surplus);
    })
    .await
}
