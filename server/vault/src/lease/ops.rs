//! `sys/leases/...`: leases looked at, prolonged and given back through the API.
//!
//! A token may touch its own leases only, unless it has `sudo` on the path.

use std::time::Duration;

use coffer_barrier::Writer;
use coffer_core::lease::{LeaseError, LeaseEvent, renewed_expiry};
use coffer_core::time::Timestamp;
use coffer_engines::ReadView;
use serde_json::{Map, Value, json};

use super::{LeaseEntry, Leases, waiting, well_formed};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::{revoke, sweep};

/// The most leases one revocation by prefix takes at a time.
const PREFIX_MAX: usize = 10_000;

/// Handles `sys/leases/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    if let Some(prefix) = rest.strip_prefix("lookup/").filter(|_| ctx.request.operation == Operation::List) {
        return list(ctx, prefix).await;
    }
    if rest.trim_end_matches('/') == "lookup" && ctx.request.operation == Operation::List {
        return list(ctx, "").await;
    }
    if rest == "count" {
        only(&ctx.request, &[Operation::Read])?;
        return waiting::count(ctx).await;
    }
    if rest.is_empty() {
        only(&ctx.request, &[Operation::Read])?;
        return waiting::list(ctx).await;
    }
    only(&ctx.request, &[Operation::Update])?;
    if rest == "tidy" {
        return tidy(ctx).await;
    }
    if let Some(prefix) = rest.strip_prefix("revoke-prefix/") {
        return revoke_prefix(ctx, prefix).await;
    }
    if let Some(prefix) = rest.strip_prefix("revoke-force/") {
        return revoke_force(ctx, prefix).await;
    }
    let (verb, in_path) = rest.split_once('/').map_or((rest, None), |(verb, id)| (verb, Some(id)));
    let id = match in_path {
        Some(id) => id.to_owned(),
        None => ctx.text("lease_id")?.ok_or_else(|| bad("lease_id must be specified"))?.to_owned(),
    };
    match verb {
        "lookup" => lookup(ctx, permitted, &id).await,
        "renew" => renew(ctx, permitted, &id).await,
        "revoke" => revoke_one(ctx, permitted, &id).await,
        _ => Err(Fail::NoRoute(ctx.request.path.clone())),
    }
}

/// What the background does every second, once more now.
async fn tidy(ctx: &Ctx) -> Result<Outcome, Fail> {
    sweep::sweep(&ctx.open).await?;
    let mut outcome = Outcome { status: 202, ..Outcome::data(Value::Null) };
    outcome.warnings.push(TIDY.to_owned());
    Ok(outcome)
}

const TIDY: &str = "Tidy operation successfully started. Any information from the operation will be printed to the server logs.";

async fn list(ctx: &Ctx, prefix: &str) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    Ok(Outcome::list(ctx.open.leases.list(prefix, after, limit).await?))
}

/// The lease, if it is the caller's or he is an administrator. One that is somebody else's is refused as such: lease
/// ids are no secrets, and "not found" would break a client's idea of a revocation.
async fn owned(ctx: &mut Ctx, permitted: &Permitted, id: &str) -> Result<Option<LeaseEntry>, Fail> {
    if well_formed(id) {
        ctx.about_lease(id);
    }
    let Some(mut lease) = ctx.open.leases.get(id).await? else { return Ok(None) };
    if lease.token != permitted.caller()?.hash && !permitted.sudo() {
        return Err(Fail::Denied);
    }
    lease.with_grace(ctx.open.outage.as_ref());
    Ok(Some(lease))
}

async fn lookup(ctx: &mut Ctx, permitted: &Permitted, id: &str) -> Result<Outcome, Fail> {
    let lease = owned(ctx, permitted, id).await?.ok_or_else(|| bad("invalid lease"))?;
    Ok(Outcome::data(json!({
        "id": lease.id,
        "issue_time": lease.issued.to_rfc3339(),
        "expire_time": lease.expires().map(Timestamp::to_rfc3339),
        "last_renewal": lease.renewed.map(Timestamp::to_rfc3339),
        "renewable": lease.renewable && lease.expires().is_some(),
        "ttl": lease.ttl_left(ctx.now),
        "state": lease.state.name(),
        "why": lease.why(),
        "path": lease.path,
        "accessor": lease.accessor,
        "metadata": lease.metadata,
    })))
}

async fn renew(ctx: &mut Ctx, permitted: &Permitted, id: &str) -> Result<Outcome, Fail> {
    let increment = params::duration(&ctx.request.body, "increment")?;
    let lease = owned(ctx, permitted, id).await?.ok_or_else(|| bad("lease not found"))?;
    let open = &ctx.open;
    let expires = next_end(&lease, increment, ctx.now)?;
    prolong(open, &lease, expires).await?;
    let stored: Result<LeaseEntry, Fail> =
        transact!(open.barrier, |w| renew_in(open, w, id, increment, ctx.now).await?);
    let lease = stored?;
    let seconds = lease.ttl_left(ctx.now);
    let mut outcome = Outcome::leased(Value::Null, id, seconds, lease.renewable);
    let wanted = increment.filter(|i| !i.is_zero()).unwrap_or(lease.ttl);
    if seconds < wanted.as_secs() {
        outcome.warnings.push("the lease reached its maximum TTL, or its token's".into());
    }
    Ok(outcome)
}

fn next_end(lease: &LeaseEntry, increment: Option<Duration>, now: Timestamp) -> Result<Timestamp, Fail> {
    let refused = |error: LeaseError| bad(error.to_string());
    if !lease.renewable {
        return Err(bad("lease is not renewable"));
    }
    let current = lease.expires().ok_or_else(|| bad("lease not found"))?;
    let next = renewed_expiry(now, lease.issued, current, increment, &lease.limits()).map_err(refused)?;
    // A short increment never takes time away that was there already.
    Ok(next.max(current))
}

/// The target first: a lease must not promise what the target does not know of.
async fn prolong(open: &Open, lease: &LeaseEntry, expires: Timestamp) -> Result<(), Fail> {
    let mount = open.mounts.by_id(lease.mount).ok_or_else(|| bad("lease not found"))?;
    let reader = open.barrier.reader().await?;
    let view = ReadView::new(mount.id, &reader);
    Ok(open.engine(&mount)?.renew(&view, &lease.payload.0, expires).await?)
}

async fn renew_in(
    open: &Open,
    writer: &mut Writer,
    id: &str,
    increment: Option<Duration>,
    now: Timestamp,
) -> Result<LeaseEntry, Fail> {
    let Some(mut lease) = Leases::get_in(writer, id).await? else { return Err(bad("lease not found")) };
    // A lease that outlived its holder is about to go, and is not kept alive.
    open.tokens.guard_alive(writer, &lease.token.clone(), now).await?;
    let was = lease.due_row();
    lease.with_grace(open.outage.as_ref());
    let expires = next_end(&lease, increment, now)?;
    lease.step(LeaseEvent::Renewed { expires }, now).map_err(|error| bad(error.to_string()))?;
    lease.renewed = Some(now);
    Leases::update_in(writer, was, &lease).await?;
    Ok(lease)
}

async fn revoke_one(ctx: &mut Ctx, permitted: &Permitted, id: &str) -> Result<Outcome, Fail> {
    // Revoking what is not there is what was asked for.
    if owned(ctx, permitted, id).await?.is_some() {
        revoke::leases(&ctx.open, &[id.to_owned()]).await?;
    }
    Ok(Outcome::empty())
}

/// As by prefix; but what a target does not confirm is forgotten, and left to whoever administers the target. Each
/// such lease is named in the process log.
async fn revoke_force(ctx: &mut Ctx, prefix: &str) -> Result<Outcome, Fail> {
    let ids = ctx.open.leases.below(prefix, PREFIX_MAX).await?;
    let more = ids.len() == PREFIX_MAX;
    revoke::leases(&ctx.open, &ids).await?;
    let forgotten = super::revoke::forget(&ctx.open, &ids).await?;
    if forgotten > 0 {
        ctx.about("forgotten_leases", &forgotten.to_string());
    }
    let mut outcome = Outcome::empty();
    if more {
        outcome = Outcome::data(Value::Null);
        outcome.warnings.push(format!("only the first {PREFIX_MAX} leases were taken; repeat the call"));
    }
    Ok(outcome)
}

async fn revoke_prefix(ctx: &mut Ctx, prefix: &str) -> Result<Outcome, Fail> {
    let mut pending = 0;
    let ids = ctx.open.leases.below(prefix, PREFIX_MAX).await?;
    let more = ids.len() == PREFIX_MAX;
    if !revoke::leases(&ctx.open, &ids).await? {
        pending = ctx.open.leases.below(prefix, PREFIX_MAX).await?.len();
    }
    let mut outcome = Outcome::empty();
    if pending > 0 || more {
        let mut data = Map::new();
        data.insert("pending".into(), pending.into());
        outcome = Outcome::data(Value::Object(data));
        outcome.warnings.push("some leases are still being revoked in the background".into());
        if more {
            outcome.warnings.push(format!("only the first {PREFIX_MAX} leases were taken; repeat the call"));
        }
    }
    Ok(outcome)
}
