//! `auth/token/accessors` and `auth/token/tidy`: all living tokens by their accessors, and the consistency of that list.

use std::sync::Arc;

use coffer_barrier::{MountId, Read, RowKey};
use coffer_core::token::{Accessor, TokenHash};
use serde_json::Value;

use super::TokenEntry;
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::rows;

/// How many rows one step looks at.
const PAGE: usize = 10_000;

/// LIST `auth/token/accessors`.
pub(super) async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let mut names = Vec::new();
    let mut last = None;
    loop {
        let page = page(&ctx.open, last.as_ref()).await?;
        let full = page.len() == PAGE;
        last = page.last().map(|(key, _)| key.clone());
        let texts = page.into_iter().map(|(_, accessor)| accessor.as_str().to_owned());
        names.extend(texts.filter(|name| after.is_none_or(|after| name.as_str() > after)));
        if !full {
            break;
        }
    }
    names.sort_unstable();
    names.truncate(limit);
    Ok(Outcome::list(names))
}

async fn page(open: &Open, after: Option<&RowKey>) -> Result<Vec<(RowKey, Accessor)>, Fail> {
    let reader = open.barrier.reader().await?;
    let rows = reader.range_ordered_after(MountId::SYSTEM, rows::ACCESSORS, after, u64::MAX, PAGE).await?;
    rows.into_iter().map(|(key, _, bytes)| Ok((key, codec::decode(&bytes)?))).collect()
}

/// `auth/token/tidy`: takes accessors whose token is gone out of the list. Every change of a token keeps the list right in
/// its own transaction, so there should be none; this is for whoever wants to be sure.
pub(super) fn tidy(ctx: &Ctx) -> Outcome {
    let open = Arc::clone(&ctx.open);
    let mut outcome = Outcome { status: 202, ..Outcome::data(Value::Null) };
    let Ok(turn) = Arc::clone(&open.tokens.tidying).try_lock_owned() else {
        outcome.warnings.push("Tidy operation already in progress.".into());
        return outcome;
    };
    tokio::spawn(async move {
        let _turn = turn;
        match tidy_all(&open).await {
            Ok(removed) => tracing::info!(removed, "token store tidied"),
            Err(error) => tracing::warn!(%error, "the token store could not be tidied; try again"),
        }
    });
    outcome.warnings.push(
        "Tidy operation successfully started. Any information from the operation will be printed to the server's logs."
            .into(),
    );
    outcome
}

async fn tidy_all(open: &Open) -> Result<usize, Fail> {
    let mut removed = 0;
    let mut last = None;
    loop {
        let page = page(open, last.as_ref()).await?;
        for (key, accessor) in &page {
            removed += usize::from(tidy_one(open, key, accessor).await?);
        }
        let full = page.len() == PAGE;
        last = page.last().map(|(key, _)| key.clone());
        if !full {
            return Ok(removed);
        }
    }
}

async fn tidy_one(open: &Open, listed: &RowKey, accessor: &Accessor) -> Result<bool, Fail> {
    let row = rows::accessor(accessor);
    transact!(open.barrier, |w| {
        let alive = match codec::get::<TokenHash>(&*w as &dyn Read, &row).await? {
            Some(hash) => {
                let token = rows::token(&hash);
                w.guard(&token)?;
                codec::get::<TokenEntry>(&*w as &dyn Read, &token)
                    .await?
                    .is_some_and(|entry| entry.revoked.is_none())
            }
            None => false,
        };
        if !alive {
            w.delete(listed).await?;
            w.delete(&row).await?;
        }
        !alive
    })
}
