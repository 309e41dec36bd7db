//! Readers of rotating credentials: who has which version, and who acknowledges the next one.
//!
//! `?consumer=1` on a read says that the reader will; `PUT sys/rotations/ack` does. A reader can speed up nobody but
//! himself, and delay to the end of the grace period only. Never looks into a credential.

use std::sync::Arc;

use coffer_barrier::{MountId, Read};
use coffer_core::path::VaultPath;
use coffer_core::policy::Capability;
use coffer_core::token::TokenHash;
use coffer_engines::{EngineError, EngineReply, EngineRequest, Op, ReadView, Reader, WriteView};
use serde_json::Value;

use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::mounts::{Class, Mount};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::rows;
use crate::token::TokenEntry;

/// How often a read is begun again because the version changed under it.
const ATTEMPTS_MAX: u32 = 4;

/// Writes the reader down before he is given a version of a credential that rotates with a grace period.
pub(crate) async fn noted(
    ctx: &Ctx,
    permitted: &Permitted,
    mount: &Mount,
    request: &EngineRequest<'_>,
    first: EngineReply,
) -> Result<EngineReply, Fail> {
    let engine = ctx.open.engine(mount)?;
    let Some(name) = engine.rotating(request.path).filter(|_| request.op == Op::Read) else {
        return Ok(first);
    };
    let declared = request.query.get("consumer").is_some_and(|value| value == "1" || value == "true");
    let reader = if declared { Some(known(permitted.caller()?)) } else { None };
    let holder = reader.as_ref().map(|_| permitted.caller().map(|caller| caller.hash)).transpose()?;
    let mut reply = first;
    for _ in 0..ATTEMPTS_MAX {
        let EngineReply::Data(data) = &reply else { return Ok(reply) };
        let Some(version) = data.get("version").and_then(Value::as_u64) else { return Ok(reply) };
        if note(&ctx.open, mount, name, version, reader.as_ref(), holder.as_ref()).await? {
            return Ok(reply);
        }
        let snapshot = ctx.open.barrier.reader().await?;
        reply = engine.read(&ReadView::new(mount.id, &snapshot), request).await?;
    }
    Err(Fail::Unavailable("the credential is being rotated".into()))
}

async fn note(
    open: &Open,
    mount: &Mount,
    name: &str,
    version: u64,
    reader: Option<&Reader>,
    holder: Option<&TokenHash>,
) -> Result<bool, Fail> {
    let engine = open.engine(mount)?;
    {
        let snapshot = open.barrier.reader().await?;
        if engine.is_noted(&ReadView::new(mount.id, &snapshot), name, version, reader).await? {
            return Ok(true);
        }
    }
    transact!(open.barrier, |w| {
        if let Some(hash) = holder {
            // Whoever is revoked at this moment is either seen here, or sees what is written here.
            let row = rows::token(hash);
            let alive = codec::get::<TokenEntry>(&*w as &dyn Read, &row).await?;
            if alive.is_some_and(|entry| entry.revoked.is_some()) {
                return Err(Fail::Denied);
            }
            w.guard(&row)?;
        }
        engine.note(&mut WriteView::new(mount.id, w), name, version, reader).await?
    })
}

fn known(holder: &TokenEntry) -> Reader {
    Reader {
        id: holder.hash.to_hex(),
        accessor: holder.accessor.as_str().to_owned(),
        metadata: holder.metadata.clone(),
        pod: holder.mount.zip(holder.pod.as_deref()).map(|(mount, uid)| pod(mount, uid)),
    }
}

/// How engines know a pod.
fn pod(mount: MountId, uid: &str) -> String {
    format!("{}/{uid}", mount.to_hex())
}

/// A pod was revoked, and its tokens are dead: no rotation waits for it any more.
pub(crate) async fn pod_gone(open: &Open, auth_mount: MountId, uid: &str) -> Result<(), Fail> {
    let pod = pod(auth_mount, uid);
    for mount in open.mounts.all(Class::Secret) {
        let Ok(engine) = open.engine(&mount) else { continue };
        if mount.check_ready().is_err() {
            continue;
        }
        loop {
            let done: Result<bool, Fail> = transact!(open.barrier, |w| {
                engine.pod_gone(&mut WriteView::new(mount.id, w), &pod, open.now()).await?
            });
            if done? {
                break;
            }
        }
    }
    Ok(())
}

/// `sys/rotations/ack`, and `sys/rotations/<path>` for what is known of a rotation.
pub(crate) async fn handle(ctx: &Ctx, permitted: &Permitted, below: &str) -> Result<Outcome, Fail> {
    if below == "ack" {
        only(&ctx.request, &[Operation::Update])?;
        return acknowledge(ctx, permitted).await;
    }
    only(&ctx.request, &[Operation::Read])?;
    let (mount, name) = find(&ctx.open, below)?;
    let snapshot = ctx.open.barrier.reader().await?;
    let engine = ctx.open.engine(&mount)?;
    let found = engine.rotation(&ReadView::new(mount.id, &snapshot), &name).await?;
    found.map(Outcome::data).ok_or(Fail::NotFound)
}

async fn acknowledge(ctx: &Ctx, permitted: &Permitted) -> Result<Outcome, Fail> {
    let path = ctx.filled("path")?;
    let version = ctx.request.body.get("version").and_then(|version| match version {
        Value::String(text) => text.parse().ok(),
        number => number.as_u64(),
    });
    let version =
        version.ok_or_else(|| bad("missing version: the number of the version that you have now"))?;
    let canonical = VaultPath::parse(path).map_err(|_| bad("path is no path"))?;
    let acl = permitted.acl()?;
    if !acl.is_root() && !acl.capability_set(&canonical).has(Capability::Read) {
        return Err(Fail::Denied);
    }
    let (mount, name) = find(&ctx.open, path)?;
    let engine = ctx.open.engine(&mount)?;
    let id = permitted.caller()?.hash.to_hex();
    let done: Result<(), Fail> = transact!(ctx.open.barrier, |w| {
        let mut view = WriteView::new(mount.id, w);
        engine.acknowledge(&mut view, &name, version, &id, ctx.now).await.map_err(|error| match error {
            EngineError::NotFound => nothing_rotates(),
            other => other.into(),
        })?
    });
    done.map(|()| Outcome::empty())
}

/// The mount and the name of a credential that rotates.
fn find(open: &Open, path: &str) -> Result<(Arc<Mount>, String), Fail> {
    let (mount, rest) = open.mounts.route(Class::Secret, path).ok_or_else(nothing_rotates)?;
    mount.check_ready()?;
    let engine = open.engine(&mount).map_err(|_| nothing_rotates())?;
    let name = engine.rotating(rest).ok_or_else(nothing_rotates)?.to_owned();
    Ok((mount, name))
}

fn nothing_rotates() -> Fail {
    Fail::Absent("no credential that rotates is read there".to_owned())
}
