//! `auth/token/revoke-orphan`: a token ends, and those below it live on without it.
//!
//! Its descendants are cut loose one by one from the top, each in a transaction of its own; the token dies in the one
//! that sees that nobody is left. A crash in between leaves it alive, with some of its children orphans already.

use std::sync::Arc;

use coffer_barrier::{MountId, Read, RowKey};
use coffer_core::token::TokenHash;

use super::{Dying, Kind, TokenEntry, Tokens};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::revoke;
use crate::rows;

/// How many children one step looks at.
const PAGE: usize = 500;

/// Ends the token and nothing below it.
pub(super) async fn revoke(ctx: &Ctx, hash: &TokenHash) -> Result<Outcome, Fail> {
    let open = &ctx.open;
    loop {
        release_children(open, hash).await?;
        let killed: Result<Option<bool>, Fail> = transact!(open.barrier, |w| {
            if children(&*w as &dyn Read, hash, None, 1).await?.is_empty() {
                Some(Tokens::kill_in(w, hash, ctx.now).await?)
            } else {
                // One was made in the meantime. None can be made between this look and the commit: that guards the row
                // which this writes.
                None
            }
        });
        match killed? {
            None => {}
            Some(false) => return Err(bad("token to revoke not found")),
            Some(true) => break,
        }
    }
    open.tokens.forget(std::slice::from_ref(hash));
    let dying = vec![Dying { hash: *hash, since: ctx.now }];
    revoke::cascade(open, dying, open.around.config.revoke_wait).await?;
    Ok(Outcome::empty())
}

type Child = (RowKey, TokenHash);

async fn children(
    reader: &dyn Read,
    parent: &TokenHash,
    after: Option<&RowKey>,
    limit: usize,
) -> Result<Vec<Child>, Fail> {
    let family = rows::children(parent);
    let page = reader.range_ordered_after(MountId::SYSTEM, &family, after, u64::MAX, limit).await?;
    page.into_iter().map(|(key, _, bytes)| Ok((key, codec::decode(&bytes)?))).collect()
}

/// Cuts everything below `top` loose from it.
async fn release_children(open: &Arc<Open>, top: &TokenHash) -> Result<(), Fail> {
    loop {
        let page = children(&open.barrier.reader().await?, top, None, PAGE).await?;
        if page.is_empty() {
            return Ok(());
        }
        for (link, child) in page {
            if is_batch(open, &child).await? {
                // It cannot do without its parent.
                revoke::token(open, &child).await?;
                continue;
            }
            release(open, top, &child, Some(&link)).await?;
            release_below(open, top, child).await?;
        }
    }
}

async fn is_batch(open: &Open, hash: &TokenHash) -> Result<bool, Fail> {
    let reader = open.barrier.reader().await?;
    let entry = codec::get::<TokenEntry>(&reader, &rows::token(hash)).await?;
    Ok(entry.is_some_and(|entry| entry.kind == Kind::Batch && entry.revoked.is_none()))
}

/// Cuts everything below a child that is loose already: what is made below it from now on does not know of `top` any
/// more, and what was made before shows in its list of children.
async fn release_below(open: &Open, top: &TokenHash, child: TokenHash) -> Result<(), Fail> {
    let mut line = vec![child];
    while let Some(parent) = line.pop() {
        let mut last = None;
        loop {
            let page = children(&open.barrier.reader().await?, &parent, last.as_ref(), PAGE).await?;
            for (_, hash) in &page {
                release(open, top, hash, None).await?;
                line.push(*hash);
            }
            if page.len() < PAGE {
                break;
            }
            last = page.into_iter().next_back().map(|(key, _)| key);
        }
    }
    Ok(())
}

async fn release(open: &Open, top: &TokenHash, hash: &TokenHash, link: Option<&RowKey>) -> Result<(), Fail> {
    transact!(open.barrier, |w| {
        if let Some(link) = link {
            w.delete(link).await?;
        }
        let row = rows::token(hash);
        if let Some(mut entry) = codec::get::<TokenEntry>(&*w as &dyn Read, &row).await?
            && let Some(at) = entry.ancestors.iter().position(|above| above == top)
        {
            entry.ancestors.truncate(at);
            codec::put(w, &row, &entry).await?;
        }
    })
}
