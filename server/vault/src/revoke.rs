//! The end of tokens and leases: kill first, known to be durable, then everything that hangs from it (R8, R9).
//!
//! What is still to be done is written down before it is begun, so a crash anywhere leaves work, never a
//! credential nobody knows of.

use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{MountId, Read, RowKey};
use coffer_core::failpoint::{self, Step};
use coffer_core::token::TokenHash;

use crate::codec::{self, transact};
use crate::error::Fail;
use crate::lease::{self, Begun};
use crate::open::Open;
use crate::rows;
use crate::token::{Dying, clear_cubbyhole_in};

/// How many rows one step looks at.
const PAGE: usize = 500;
/// About how many leases of one revocation are put in front of their queues.
const AWAITED_MAX: usize = 10_000;

/// Revokes a token, all its descendants and all their leases. When this returns, none of the tokens is served any
/// more, and their leases are gone or, after the configured wait, at least on their way. False if it
/// was dead already.
pub(crate) async fn token(open: &Arc<Open>, hash: &TokenHash) -> Result<bool, Fail> {
    Ok(tokens(open, std::slice::from_ref(hash)).await? > 0)
}

/// As [`token`], for many: all of them are dead before the first lease is touched. Gives back how many were alive.
pub(crate) async fn tokens(open: &Arc<Open>, hashes: &[TokenHash]) -> Result<usize, Fail> {
    let dying = open.tokens.kill(hashes, open.now()).await?;
    let killed = dying.len();
    failpoint::reach(Step::TokensKilled);
    cascade(open, dying, open.around.config.revoke_wait).await?;
    Ok(killed)
}

/// Revokes leases and waits for them as configured. True if all of them are gone.
pub(crate) async fn leases(open: &Arc<Open>, ids: &[String]) -> Result<bool, Fail> {
    let begun = lease::begin_revoke(open, ids, open.now()).await?;
    Ok(lease::execute_all(open, begun, open.around.config.revoke_wait).await)
}

/// Follows up on killed tokens: first all descendants die, then all leases are marked, then the targets are asked.
pub(crate) async fn cascade(open: &Arc<Open>, dying: Vec<Dying>, wait: Duration) -> Result<(), Fail> {
    let mut line = dying;
    let mut at = 0;
    while let Some(dead) = line.get(at).copied() {
        at += 1;
        line.extend(kill_children(open, &dead.hash).await?);
    }
    let mut begun: Vec<Begun> = Vec::new();
    for dead in &line {
        mark_leases(open, &dead.hash, &mut begun).await?;
        bury(open, dead).await?;
    }
    lease::execute_all(open, begun, wait).await;
    Ok(())
}

/// The last of a dead token: what it kept for itself goes, then the note that something is left to be done.
async fn bury(open: &Open, dead: &Dying) -> Result<(), Fail> {
    loop {
        let done: Result<bool, Fail> = transact!(open.barrier, |w| {
            let empty = clear_cubbyhole_in(&open.tokens, w, &dead.hash).await?;
            if empty {
                w.delete(&rows::dying(dead.since, &dead.hash)).await?;
            }
            empty
        });
        if done? {
            return Ok(());
        }
    }
}

/// Kills the children of a dead token; no new ones can come, because creation guards the parent.
async fn kill_children(open: &Arc<Open>, parent: &TokenHash) -> Result<Vec<Dying>, Fail> {
    let mut killed = Vec::new();
    loop {
        let page: Vec<(RowKey, TokenHash)> = page(open, &rows::children(parent)).await?;
        if page.is_empty() {
            return Ok(killed);
        }
        let (keys, hashes): (Vec<_>, Vec<_>) = page.into_iter().unzip();
        let dying = open.tokens.kill(&hashes, open.now()).await?;
        if dying.is_empty() {
            // Rows that outlived their tokens.
            delete_all(open, &keys).await?;
        }
        killed.extend(dying);
    }
}

/// Marks the leases of a dead token, whether issued or about to be: the snapshot is later than the kill.
async fn mark_leases(open: &Arc<Open>, hash: &TokenHash, begun: &mut Vec<Begun>) -> Result<(), Fail> {
    loop {
        let page: Vec<(RowKey, String)> = page(open, &rows::token_leases(hash)).await?;
        if page.is_empty() {
            return Ok(());
        }
        let (keys, ids): (Vec<_>, Vec<_>) = page.into_iter().unzip();
        let marked = lease::begin_revoke(open, &ids, open.now()).await?;
        // The others wait in their queues as well, only not in front.
        if begun.len() < AWAITED_MAX {
            begun.extend(marked);
        }
        delete_all(open, &keys).await?;
    }
}

async fn delete_all(open: &Open, keys: &[RowKey]) -> Result<(), Fail> {
    transact!(open.barrier, |w| {
        for key in keys {
            w.delete(key).await?;
        }
    })
}

async fn page<T: serde::de::DeserializeOwned>(open: &Open, family: &str) -> Result<Vec<(RowKey, T)>, Fail> {
    let reader = open.barrier.reader().await?;
    let rows = reader.range_ordered(MountId::SYSTEM, family, u64::MAX, PAGE).await?;
    rows.into_iter().map(|(key, _, bytes)| Ok((key, codec::decode(&bytes)?))).collect()
}
