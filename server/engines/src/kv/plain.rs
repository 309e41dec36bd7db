//! Version 1 of the key-value engine: one value per path, replaced as a whole. Keeps no history.
//!
//! A value is stored as version 1 of its path, so that [`upgrade`] to version 2 has only the metadata to add.

use std::time::Duration;

use async_trait::async_trait;
use coffer_barrier::RecordKind;
use coffer_core::time::{Timestamp, duration_from_json};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::data::scrub;
use super::record::{self, Meta};
use super::{PAYLOAD, PAYLOAD_BYTES_MAX, Written, listing};
use crate::codec;
use crate::engine::{Effect, Engine, EngineReply, EngineRequest, Op};
use crate::{EngineError, ReadView, WriteView};

/// What the vault calls this engine; mounts of it have the type `kv` (or `generic`, its name of old).
pub const PLAIN_KIND: &str = "kv-v1";

/// Under which number a value is stored.
const VERSION: u64 = 1;

/// Version 1 of the key-value engine.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlainKvEngine;

impl PlainKvEngine {
    /// The engine.
    pub const fn new() -> Self {
        Self
    }
}

async fn read(view: &ReadView<'_>, path: &str) -> Result<EngineReply, EngineError> {
    if path.is_empty() {
        return Ok(EngineReply::NotFound);
    }
    let Some(bytes) = view.get_version(path, VERSION).await? else { return Ok(EngineReply::NotFound) };
    // The value goes out as it was stored: only what it says of its life is looked at.
    let hints: Hints = codec::decode(&bytes, "kv value")?;
    Ok(EngineReply::Lasting { seconds: hints.life(), json: bytes })
}

/// What is looked at of a value; null counts as there.
#[derive(Deserialize)]
struct Hints {
    #[serde(default, deserialize_with = "there")]
    ttl: Option<Value>,
    #[serde(default, deserialize_with = "there")]
    lease: Option<Value>,
}

fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl Hints {
    /// How long the value says that it lasts, in seconds. A hint from its writer to its readers, nothing more.
    fn life(&self) -> Option<u64> {
        match self.ttl.as_ref().or(self.lease.as_ref())? {
            Value::String(text) if text.is_empty() => Some(0),
            Value::Number(number) => number.as_u64(),
            other => duration_from_json(other).ok().as_ref().map(Duration::as_secs),
        }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        [&mut self.ttl, &mut self.lease].into_iter().flatten().for_each(scrub);
    }
}

async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    if path.is_empty() {
        return Err(EngineError::bad("missing path"));
    }
    if req.body.is_empty() {
        return Err(EngineError::bad("missing data fields"));
    }
    let payload = match req.exact {
        Some(exact) => codec::encode_exact(exact, PAYLOAD, PAYLOAD_BYTES_MAX)?,
        None => codec::encode(req.body, PAYLOAD, PAYLOAD_BYTES_MAX)?,
    };
    if !view.reading().has_version(path, VERSION).await? {
        view.link(path).await?;
    }
    view.put_version(path, VERSION, &payload).await?;
    Ok((EngineReply::Empty, effect("kv-v1/write", "write", path)))
}

async fn delete(view: &mut WriteView<'_>, path: &str) -> Written {
    if path.is_empty() || !view.reading().has_version(path, VERSION).await? {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    view.delete_version(path, VERSION).await?;
    view.unlink(path).await?;
    Ok((EngineReply::Empty, effect("kv-v1/delete", "delete", path)))
}

fn effect(event_type: &'static str, operation: &'static str, path: &str) -> Vec<Effect> {
    vec![Effect { event_type, path: path.to_owned(), operation }]
}

/// Up to `limit` paths of a mount's secrets behind `after`, in the order of a SCAN.
pub async fn secrets(
    view: &ReadView<'_>,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, EngineError> {
    listing::Walk::new(view, &|_| true, "", &[]).without_bound().take(after, limit).await
}

/// Gives the secrets below a mount the metadata of version 2, as part of a transaction: those of `paths` that have
/// none yet. Values stay where they are. To be called while nobody else writes to the mount.
pub async fn upgrade(view: &mut WriteView<'_>, paths: &[String], now: Timestamp) -> Result<(), EngineError> {
    for path in paths {
        if !view.reading().has(RecordKind::Meta, path).await? {
            record::store(view, path, &Meta::upgraded(now), false).await?;
        }
    }
    Ok(())
}

#[async_trait]
impl Engine for PlainKvEngine {
    fn kind(&self) -> &'static str {
        PLAIN_KIND
    }

    async fn exists(&self, view: &ReadView<'_>, path: &str) -> Result<bool, EngineError> {
        if path.is_empty() { Ok(false) } else { view.has_version(path, VERSION).await }
    }

    async fn read(&self, view: &ReadView<'_>, req: &EngineRequest<'_>) -> Result<EngineReply, EngineError> {
        let path = req.path.trim_end_matches('/');
        match req.op {
            Op::Read => read(view, path).await,
            Op::List => listing::list(view, req, path).await,
            Op::Scan => listing::scan(view, req, path, &[""]).await,
            _ => Err(EngineError::Unsupported),
        }
    }

    async fn write(&self, view: &mut WriteView<'_>, req: &EngineRequest<'_>) -> Written {
        let path = req.path.trim_end_matches('/');
        match req.op {
            Op::Write => write(view, req, path).await,
            Op::Delete => delete(view, path).await,
            _ => Err(EngineError::Unsupported),
        }
    }
}
