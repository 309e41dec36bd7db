//! Which versions of this server have opened the vault, and since when: `sys/version-history`.

use coffer_barrier::Read;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::codec::{self, transact};
use crate::error::Fail;
use crate::open::Open;
use crate::rows;

/// The most that are kept; older ones are forgotten.
const KEPT_MAX: usize = 1000;

/// A version that opened this vault.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Installed {
    version: String,
    /// When it did so for the first time.
    at: Timestamp,
}

/// Writes down this server's version if another one opened the vault last.
pub(crate) async fn note(open: &Open) -> Result<(), Fail> {
    let version = open.around.config.version.as_str();
    let reader = open.barrier.reader().await?;
    if known(&reader).await?.last().is_some_and(|last| last.version == version) {
        return Ok(());
    }
    drop(reader);
    let now = open.now();
    transact!(open.barrier, |w| {
        let mut all = known(&*w as &dyn Read).await?;
        if all.last().is_none_or(|last| last.version != version) {
            all.push(Installed { version: version.to_owned(), at: now });
            let excess = all.len().saturating_sub(KEPT_MAX);
            all.drain(..excess);
            codec::put(w, &rows::versions(), &all).await?;
        }
    })
}

async fn known(reader: &dyn Read) -> Result<Vec<Installed>, Fail> {
    Ok(codec::get(reader, &rows::versions()).await?.unwrap_or_default())
}

/// As `sys/version-history` tells it: names in their order, and what is known of each.
pub(crate) async fn told(open: &Open) -> Result<Value, Fail> {
    let reader = open.barrier.reader().await?;
    let all = known(&reader).await?;
    let (mut names, mut info) = (Vec::new(), Map::new());
    let mut previous = Value::Null;
    for Installed { version, at } in all {
        let entry =
            json!({ "build_date": "", "previous_version": previous, "timestamp_installed": at.to_rfc3339() });
        previous = version.as_str().into();
        // What came back after another one is told where it is now.
        names.retain(|name| *name != version);
        info.insert(version.clone(), entry);
        names.push(version);
    }
    Ok(json!({ "keys": names, "key_info": info }))
}
