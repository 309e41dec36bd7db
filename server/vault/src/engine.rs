//! Between a request and a secrets engine: the view of its mount, the transaction, what to publish.
//!
//! Never looks into what an engine reads or writes.

use std::sync::Arc;
use std::time::Duration;

use coffer_core::failpoint::{self, Step};
use coffer_core::path::VaultPath;
use coffer_core::policy::{Acl, Capabilities};
use coffer_engines::{Effect, Encoded, EngineReply, EngineRequest, Op, ReadView, Sees, WriteView};

use crate::codec::transact;
use crate::error::Fail;
use crate::events::Draft;
use crate::lease;
use crate::mounts::{Mount, MountTable};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::{Operation, Request};
use crate::rotation;

/// Handles a request to an engine's mount.
pub(crate) async fn handle(
    ctx: &mut Ctx,
    permitted: &Permitted,
    mount: &Arc<Mount>,
    rest: &str,
) -> Result<Outcome, Fail> {
    mount.check_ready()?;
    let display_name = permitted.caller()?.display_name.clone();
    let acl = permitted.acl()?;
    let prefix = mount.full_path();
    let sees = |paths: &[String]| may_know(acl, &prefix, paths);
    if ctx.request.operation.writes() {
        let request = engine_request(ctx, rest, &display_name, &sees);
        return write(&ctx.open, mount, &request).await;
    }
    let reply = {
        let request = engine_request(ctx, rest, &display_name, &sees);
        match read(&ctx.open, mount, &request).await? {
            Answer::Kept(kept) => return Ok(Outcome::encoded(kept)),
            Answer::Engine(reply) => rotation::noted(ctx, permitted, mount, &request, reply).await?,
        }
    };
    let mut warnings = Vec::new();
    let mut reply = reply;
    while let EngineReply::Warn(inner, texts) = reply {
        warnings.extend(texts);
        reply = *inner;
    }
    let outcome = match reply {
        EngineReply::Issue(issue) => lease::issue(ctx, permitted, mount, issue).await?,
        EngineReply::Lasting { json, seconds } => {
            let default = || ctx.open.life(Some(mount), Duration::ZERO, Duration::ZERO).0.as_secs();
            let seconds = Some(seconds.unwrap_or_else(default));
            Outcome::from_engine(EngineReply::Lasting { json, seconds })
                .ok_or(Fail::Internal("an engine's answer was not understood"))?
        }
        other => {
            Outcome::from_engine(other).ok_or(Fail::Internal("an engine's answer was not understood"))?
        }
    };
    Ok(outcome.warning(warnings))
}

/// What a read gave.
enum Answer {
    /// From memory, or such that it is there now.
    Kept(Arc<Encoded>),
    Engine(EngineReply),
}

/// Reads from memory if the engine lets an answer be kept, else from the store.
async fn read(open: &Open, mount: &Mount, request: &EngineRequest<'_>) -> Result<Answer, Fail> {
    let engine = open.engine(mount)?;
    let kept_as = engine.kept_as(request).filter(|_| open.validity.holds(request.now));
    let Some((subject, number)) = kept_as else {
        let reader = open.barrier.reader().await?;
        return Ok(Answer::Engine(engine.read(&ReadView::new(mount.id, &reader), request).await?));
    };
    if let Some(kept) = open.secrets.get(mount.id, subject, number, request.now) {
        return Ok(Answer::Kept(kept));
    }
    let began = open.secrets.began(mount.id, subject);
    let reader = open.barrier.reader().await?;
    match engine.read(&ReadView::new(mount.id, &reader), request).await? {
        EngineReply::Encoded(encoded) => {
            let kept = Arc::new(encoded);
            open.secrets.fill(began, mount.id, subject, number, request.now, &kept);
            Ok(Answer::Kept(kept))
        }
        other => Ok(Answer::Engine(other)),
    }
}

/// Whether a caller may know of a thing that can be reached at these paths of a mount: he may do something at one of
/// them, and is not denied the first.
fn may_know(acl: &Acl, mount: &str, paths: &[String]) -> bool {
    if acl.is_root() {
        return true;
    }
    let granted = |path: &String| match VaultPath::parse(&format!("{mount}{path}")) {
        Ok(path) => acl.capability_set(&path),
        Err(_) => Capabilities::DENY,
    };
    let denied = paths.first().is_none_or(|first| granted(first).is_deny());
    !denied && paths.iter().any(|path| granted(path).grants_any())
}

fn engine_request<'a>(
    ctx: &'a Ctx,
    rest: &'a str,
    display_name: &'a str,
    sees: &'a Sees<'a>,
) -> EngineRequest<'a> {
    let Request { operation, body, exact, query, .. } = &ctx.request;
    let op = match operation {
        Operation::Read => Op::Read,
        Operation::List => Op::List,
        Operation::Scan => Op::Scan,
        Operation::Create | Operation::Update => Op::Write,
        Operation::Patch => Op::Patch,
        Operation::Delete => Op::Delete,
    };
    EngineRequest { op, path: rest, body, exact: exact.as_ref(), query, now: ctx.now, display_name, sees }
}

async fn write(open: &Open, mount: &Arc<Mount>, request: &EngineRequest<'_>) -> Result<Outcome, Fail> {
    let engine = open.engine(mount)?;
    // Until the outcome is known, and before anybody is told of it, nothing kept is served of what this may change.
    let _writing = open.secrets.writing(mount.id, engine.touches(request.path));
    let (reply, effects) = match engine.acts(request.op, request.path) {
        true => engine.act(&open.barrier, mount.id, request).await?,
        false => {
            {
                let reader = open.barrier.reader().await?;
                engine.verify(&ReadView::new(mount.id, &reader), request).await?;
            }
            let written: Result<_, Fail> = transact!(open.barrier, |w| {
                MountTable::guard_in(w, mount).await?;
                engine.write(&mut WriteView::new(mount.id, w), request).await?
            });
            written?
        }
    };
    failpoint::reach(Step::EngineCommitted);
    let mut outcome =
        Outcome::from_engine(reply).ok_or(Fail::Internal("an engine cannot issue from a write"))?;
    outcome.events = effects.into_iter().map(|effect| published(mount, effect)).collect();
    Ok(outcome)
}

pub(crate) fn published(mount: &Mount, effect: Effect) -> Draft {
    let mount_path = mount.full_path();
    Draft {
        event_type: effect.event_type,
        path: format!("{mount_path}{}", effect.path),
        operation: effect.operation,
        mount_path,
    }
}
