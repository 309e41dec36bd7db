//! Terms of office: each unseal begins one, with an epoch above all before it. Targets let only the latest act (R10).

use coffer_barrier::Read;
use coffer_core::time::Timestamp;

use crate::codec::{self, transact};
use crate::door::cluster_id;
use crate::error::Fail;
use crate::open::Open;
use crate::rows;

/// Epochs count seconds from here, 2020-01-01: targets have 31 bits for them.
const SINCE: Timestamp = Timestamp::from_secs(1_577_836_800);

/// Begins a term: its epoch is durable before any target hears of it.
pub(crate) async fn begin(open: &Open) -> Result<(), Fail> {
    // By the clock, so that a vault whose store was brought back from a backup is not taken for its own predecessor.
    let by_clock = open.civil().saturating_sub(SINCE).as_secs();
    let epoch: u64 = transact!(open.barrier, |w| {
        let last: Option<u64> = codec::get(&*w as &dyn Read, &rows::term()).await?;
        let next = last.map_or(by_clock, |last| by_clock.max(last + 1));
        codec::put(w, &rows::term(), &next).await?;
        next
    })?;
    let vault = cluster_id(&open.barrier)?.replace('-', "");
    for engine in open.around.engines.values() {
        engine.take_office(&vault, epoch);
    }
    tracing::info!(epoch, "a term of office begins");
    Ok(())
}
