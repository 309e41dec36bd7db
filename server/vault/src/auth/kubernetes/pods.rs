//! Pods: which ones hold tokens, and the end of one.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{MountId, Read, Writer};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::auth::jose::JWT_LIFE_MAX;
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::events::Draft;
use crate::mounts::{Mount, revoke_issued};
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::rotation;
use crate::rows;
use crate::token::IssuedToken;

/// The most tokens of one shard that a listing takes.
const PAGE: usize = 10_000;

/// Says that a pod was revoked, until none of its JWTs can live any more.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Tombstone {
    until: Timestamp,
}

/// When a tombstone may go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TombstoneEnd {
    pub(crate) mount: MountId,
    pub(crate) uid: String,
}

/// `GET auth/<mount>/pods`.
pub(super) async fn list(ctx: &Ctx, mount: &Mount) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let mut pods: BTreeMap<String, (IssuedToken, u64)> = BTreeMap::new();
    for shard in 0..rows::ISSUED_SHARDS {
        let family = rows::issued_tokens(mount.id, shard);
        let rows = reader.range_ordered(MountId::SYSTEM, &family, u64::MAX, PAGE).await?;
        if rows.len() == PAGE {
            // A short list would have its reader believe that the rest is gone.
            return Err(Fail::Unavailable("too many tokens to list".into()));
        }
        for (_, _, bytes) in rows {
            let token: IssuedToken = codec::decode(&bytes)?;
            if let Some(uid) = token.pod_uid.clone() {
                pods.entry(uid).or_insert((token, 0)).1 += 1;
            }
        }
    }
    let pods: Vec<Value> = pods
        .into_iter()
        .map(|(uid, (token, count))| {
            json!({ "uid": uid, "name": token.pod_name, "namespace": token.namespace, "tokens": count })
        })
        .collect();
    Ok(Outcome::data(json!({ "pods": pods })))
}

/// `POST auth/<mount>/revoke-pod`: the tombstone first, so that the pod cannot come back in; then its tokens.
pub(super) async fn revoke(ctx: &mut Ctx, mount: &Arc<Mount>) -> Result<Outcome, Fail> {
    let uid = ctx.required("uid")?.to_owned();
    let uid = uid.as_str();
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    if uid.is_empty() || uid.len() > 128 || !uid.bytes().all(plain) {
        return Err(bad("uid is not a pod's UID"));
    }
    ctx.about("revoked_pod_uid", uid);
    let open = &ctx.open;
    let marked: Result<(), Fail> = transact!(open.barrier, |w| bury_in(w, mount.id, uid, ctx.now).await?);
    marked?;
    revoke_issued(open, mount.id, Some(uid)).await?;
    rotation::pod_gone(open, mount.id, uid).await?;
    let mount_path = mount.full_path();
    Ok(Outcome::empty().publishing(Draft {
        event_type: "auth/revoke-pod",
        path: format!("{mount_path}revoke-pod"),
        operation: "revoke-pod",
        mount_path,
    }))
}

async fn bury_in(writer: &mut Writer, mount: MountId, uid: &str, now: Timestamp) -> Result<(), Fail> {
    let row = rows::pod_tombstone(mount, uid);
    if let Some(old) = codec::get::<Tombstone>(&*writer as &dyn Read, &row).await? {
        writer.delete(&rows::pod_tombstone_end(mount, uid, old.until)).await?;
    }
    // Twice the life of a JWT: the clocks may differ, and so may what counts as its beginning.
    let until = now.plus(JWT_LIFE_MAX * 2);
    codec::put(writer, &row, &Tombstone { until }).await?;
    let end = TombstoneEnd { mount, uid: uid.to_owned() };
    codec::put(writer, &rows::pod_tombstone_end(mount, uid, until), &end).await
}
