//! `sys/remount`: a mount gets another path. What it holds stays where it is; what it issued is revoked, because
//! leases and tokens carry the old path.
//!
//! Done within the request. The status is kept in memory, for those who ask for it all the same.

use std::sync::Arc;

use coffer_barrier::Read;
use serde_json::json;

use super::{Class, Mount, MountTable, ops, removal};
use crate::codec::{self, transact};
use crate::dispatch::DELIVERY;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// How many moves are remembered.
const KEPT_MAX: usize = 256;

/// A move that was made.
pub(crate) struct Move {
    id: String,
    from: String,
    to: String,
    status: &'static str,
}

/// The class and the path of a mount by its full path.
fn named(full: &str) -> (Class, &str) {
    let path = full.trim_matches('/');
    path.strip_prefix("auth/").map_or((Class::Secret, path), |below| (Class::Auth, below))
}

/// Handles `sys/remount`.
pub(crate) async fn handle(ctx: &mut Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let missing = || bad("both 'from' and 'to' path must be specified as a string");
    let from_text = ctx.text("from")?.filter(|t| !t.is_empty()).ok_or_else(missing)?.to_owned();
    let to_text = ctx.text("to")?.filter(|t| !t.is_empty()).ok_or_else(missing)?.to_owned();
    let ((class, from), (to_class, to)) = (named(&from_text), named(&to_text));
    let shown = |class, path: &str| match class {
        Class::Auth => format!("auth/{path}/"),
        Class::Secret => format!("{path}/"),
    };
    let open = Arc::clone(&ctx.open);
    let _turn = open.mounts.changing.lock().await;
    if ops::is_reserved(class, from) {
        return Err(bad(format!("cannot remount {:?}", shown(class, from))));
    }
    if ops::is_reserved(to_class, to) || class != to_class || coffer_core::path::VaultPath::parse(to).is_err()
    {
        return Err(bad(format!("cannot remount to destination {}", shown(to_class, to))));
    }
    let found = open.mounts.at(class, from).filter(|m| !m.tainted);
    let mount = found.ok_or_else(|| bad(format!("no matching mount at {:?}", shown(class, from))))?;
    if mount.is_builtin() || mount.kind == DELIVERY {
        return Err(bad(format!("cannot remount {:?}", shown(class, from))));
    }
    if let Some(other) = open.mounts.in_the_way(class, to) {
        return Err(bad(format!("path already in use at {:?}", other.full_path())));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let result = move_to(&open, &mount, to).await;
    let status = if result.is_ok() { "success" } else { "failure" };
    let made = Move { id: id.clone(), from: shown(class, from), to: shown(class, to), status };
    open.mounts.remember(made, KEPT_MAX);
    result?;
    Ok(Outcome::doubled(serde_json::Map::from_iter([("migration_id".to_owned(), id.into())])))
}

/// The mount does not answer while what it issued is revoked: nothing new is issued under the old path.
async fn move_to(open: &Arc<crate::open::Open>, mount: &Mount, to: &str) -> Result<(), Fail> {
    let silent = Mount { moving: true, ..mount.clone() };
    put(open, &silent).await?;
    open.tokens.forget_all();
    let left = removal::take_back(open, mount, open.around.config.revoke_wait).await;
    let moved = Mount { moving: false, path: to.to_owned(), ..mount.clone() };
    match left {
        Ok(false) => put(open, &moved).await,
        other => {
            put(open, mount).await?;
            other?;
            Err(Fail::Unavailable("some leases of the mount cannot be revoked now: it was not moved".into()))
        }
    }
}

async fn put(open: &crate::open::Open, mount: &Mount) -> Result<(), Fail> {
    let stored: Result<(), Fail> = transact!(open.barrier, |w| {
        if codec::get::<Mount>(&*w as &dyn Read, &mount.key()).await?.is_none() {
            return Err(Fail::NoRoute(mount.full_path()));
        }
        MountTable::put_in(w, mount).await?;
    });
    stored?;
    open.mounts.reload().await
}

/// Handles `sys/remount/status/<id>`.
pub(crate) fn handle_status(ctx: &Ctx, id: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let found = ctx.open.mounts.moved(|m| {
        (m.id == id).then(|| {
            json!({ "migration_id": m.id,
                "migration_info": { "source_mount": m.from, "target_mount": m.to, "status": m.status } })
        })
    });
    found.map(Outcome::data).ok_or(Fail::NotFound)
}
