//! Delivery documents: what the operator tells agents about secrets. Versioned by number, listed, published.
//!
//! A document names where a secret is read and never holds one.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Read, RecordKind, RowKey};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::events::Draft;
use crate::mounts::{Mount, MountTable};
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// The largest document, in bytes of JSON.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;

/// A document as stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    document: Value,
    custom_metadata: BTreeMap<String, String>,
    version: u64,
    updated: Timestamp,
}

/// Handles `delivery/...`.
pub(crate) async fn handle(
    ctx: &mut Ctx,
    _permitted: &Permitted,
    mount: &Arc<Mount>,
    rest: &str,
) -> Result<Outcome, Fail> {
    match ctx.request.operation {
        Operation::List => list(ctx, mount, rest).await,
        _ if rest.is_empty() || rest.ends_with('/') => Err(Fail::NoOperation),
        Operation::Read => read(ctx, mount, rest).await,
        Operation::Update | Operation::Create => write(ctx, mount, rest).await,
        Operation::Delete => delete(ctx, mount, rest).await,
        Operation::Patch | Operation::Scan => Err(Fail::NoOperation),
    }
}

fn key(mount: &Mount, rest: &str) -> RowKey {
    RowKey::path(mount.id, RecordKind::Entry, rest)
}

async fn list(ctx: &Ctx, mount: &Mount, rest: &str) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    Ok(Outcome::list(reader.list(mount.id, rest.trim_end_matches('/'), after, limit).await?))
}

async fn read(ctx: &Ctx, mount: &Mount, rest: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let Some(stored) = codec::get::<Stored>(&reader, &key(mount, rest)).await? else {
        return Err(Fail::NotFound);
    };
    Ok(Outcome::data(json!({
        "document": stored.document,
        "version": stored.version,
        "updated_time": stored.updated.to_rfc3339(),
        "custom_metadata": stored.custom_metadata,
    })))
}

async fn write(ctx: &Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    let document = match ctx.request.body.get("document") {
        Some(document @ Value::Object(_)) => document.clone(),
        Some(_) => return Err(bad("document must be an object")),
        None => return Err(bad("missing document")),
    };
    if document.to_string().len() > DOCUMENT_BYTES_MAX {
        return Err(Fail::TooLarge(format!("document is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    let labels = params::labels(&ctx.request.body, "custom_metadata")?;
    let row = key(mount, rest);
    let version: Result<u64, Fail> = transact!(ctx.open.barrier, |w| {
        MountTable::guard_in(w, mount).await?;
        let before = codec::get::<Stored>(&*w as &dyn Read, &row).await?;
        let version = before.as_ref().map_or(1, |b| b.version + 1);
        let custom_metadata =
            labels.clone().or_else(|| before.map(|b| b.custom_metadata)).unwrap_or_default();
        let stored = Stored { document: document.clone(), custom_metadata, version, updated: ctx.now };
        codec::put(w, &row, &stored).await?;
        w.link(mount.id, rest).await?;
        version
    });
    let data = json!({ "version": version?, "updated_time": ctx.now.to_rfc3339() });
    Ok(Outcome::data(data).publishing(event(mount, rest, "delivery/write", "write")))
}

async fn delete(ctx: &Ctx, mount: &Arc<Mount>, rest: &str) -> Result<Outcome, Fail> {
    let row = key(mount, rest);
    let existed: Result<bool, Fail> = transact!(ctx.open.barrier, |w| {
        let existed = w.exists(&row).await?;
        if existed {
            w.delete(&row).await?;
            w.unlink(mount.id, rest).await?;
        }
        existed
    });
    let outcome = Outcome::empty();
    Ok(if existed? { outcome.publishing(event(mount, rest, "delivery/delete", "delete")) } else { outcome })
}

fn event(mount: &Mount, rest: &str, event_type: &'static str, operation: &'static str) -> Draft {
    let mount_path = mount.full_path();
    Draft { event_type, path: format!("{mount_path}{rest}"), operation, mount_path }
}
