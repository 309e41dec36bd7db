//! From version 1 of the key-value engine to version 2, at the place: `options.version` in a mount's tune.
//!
//! Done when the call is answered. Meanwhile the mount answers nothing, which is stored, so that a server that stops
//! half way goes on refusing until the call is repeated. Never changes or moves a value: version 1 keeps it where
//! version 2 looks for its first version.

use std::sync::Arc;

use coffer_engines::kv::{secrets, upgrade};
use coffer_engines::{ReadView, WriteView};
use serde_json::{Map, Value};

use super::{Mount, MountTable};
use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::params;

/// How many secrets one transaction takes.
const STEP: usize = 1000;
/// How many options a mount may have.
const OPTIONS_MAX: usize = 32;

/// What a mount answers while it is being upgraded.
pub(crate) fn refusal() -> Fail {
    bad(
        "Upgrading from non-versioned to versioned data. This backend will be unavailable for a brief period and will \
         resume service shortly.",
    )
}

/// Takes over the `options` of a tune, except for a version that is to be upgraded to. Whether there is one.
pub(crate) fn tune_options(mount: &mut Mount, body: &Map<String, Value>) -> Result<bool, Fail> {
    let Some(mut options) = params::labels(body, "options")? else { return Ok(false) };
    let mut wanted = false;
    if let Some(version) = options.remove("version") {
        let before = if mount.versioned() { 2 } else { 1 };
        match version.parse::<u64>() {
            Err(_) => return Err(bad("unable to parse options: the version is no number")),
            Ok(0..2) if before == 2 => return Err(bad("cannot downgrade mount from version 2")),
            Ok(2) if before == 1 && mount.kind == "kv" => wanted = true,
            Ok(version) if version == before => {}
            Ok(_) => return Err(bad("this mount has no such version to be upgraded to")),
        }
    }
    mount.options.extend(options);
    if mount.options.len() > OPTIONS_MAX {
        return Err(bad(format!("a mount has at most {OPTIONS_MAX} options")));
    }
    Ok(wanted)
}

/// Upgrades a mount. The caller holds the lock on changes of the table.
pub(crate) async fn run(open: &Arc<Open>, mut mount: Mount) -> Result<(), Fail> {
    mount.upgrading = true;
    store(open, &mount).await?;
    let mut last: Option<String> = None;
    loop {
        let reader = open.barrier.reader().await?;
        let paths = secrets(&ReadView::new(mount.id, &reader), last.as_deref(), STEP).await?;
        drop(reader);
        let now = open.now();
        let done: Result<(), Fail> = transact!(open.barrier, |w| {
            upgrade(&mut WriteView::new(mount.id, w), &paths, now).await?;
        });
        done?;
        match paths.into_iter().next_back() {
            Some(path) => last = Some(path),
            None => break,
        }
    }
    mount.options.insert("version".into(), "2".into());
    mount.upgrading = false;
    store(open, &mount).await
}

async fn store(open: &Open, mount: &Mount) -> Result<(), Fail> {
    let stored: Result<(), Fail> = transact!(open.barrier, |w| MountTable::put_in(w, mount).await?);
    stored?;
    open.mounts.reload().await
}
