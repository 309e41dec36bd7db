//! `cubbyhole/...`: what a token keeps for itself. Nobody else sees it, not even root, and it ends with the token.
//!
//! The rows of each token's cubbyhole lie under a mount id of their own, so that its end is the end of one range.

use coffer_barrier::{Read, RecordKind, RowKey, Writer};
use coffer_core::token::TokenHash;

use super::{Kind, Tokens};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::Operation;

/// Where a wrapped reply lies in its token's cubbyhole.
pub(super) const RESPONSE: &str = "response";
/// The largest entry, in bytes of JSON: as for a secret.
const ENTRY_BYTES_MAX: usize = 512 * 1024;
/// How many rows one transaction removes.
const STEP: usize = 500;

/// Handles `cubbyhole/<path>`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, path: &str) -> Result<Outcome, Fail> {
    let caller = permitted.caller()?;
    if caller.kind == Kind::Batch {
        return Err(bad("cubbyhole operations are only supported by 'service' type tokens"));
    }
    let hash = caller.hash;
    match ctx.request.operation {
        Operation::Read => read(ctx, &hash, path).await,
        Operation::List => {
            let (after, limit) = params::page(&ctx.request.query)?;
            let reader = ctx.open.barrier.reader().await?;
            let mount = ctx.open.tokens.cubbyhole(&hash);
            Ok(Outcome::list(reader.list(mount, path.trim_end_matches('/'), after, limit).await?))
        }
        Operation::Create | Operation::Update => write(ctx, &hash, path).await,
        Operation::Delete => delete(ctx, &hash, path).await,
        Operation::Patch | Operation::Scan => Err(Fail::NoOperation),
    }
}

/// Whether the token with this hash has something at `path`.
pub(crate) async fn has(open: &Open, hash: &TokenHash, path: &str) -> Result<bool, Fail> {
    Ok(open.barrier.reader().await?.exists(&row(&open.tokens, hash, path)).await?)
}

/// The row of an entry.
pub(super) fn row(tokens: &Tokens, hash: &TokenHash, path: &str) -> RowKey {
    RowKey::path(tokens.cubbyhole(hash), RecordKind::Entry, path)
}

async fn read(ctx: &Ctx, hash: &TokenHash, path: &str) -> Result<Outcome, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let found = reader.get(&row(&ctx.open.tokens, hash, path)).await?.ok_or(Fail::NotFound)?;
    let mut outcome = Outcome::json(codec::json(&found)?);
    if path == RESPONSE {
        outcome.warnings.push(
            "Reading from 'cubbyhole/response' is deprecated. Please use sys/wrapping/unwrap to unwrap responses, \
             as it provides additional security checks and other benefits."
                .into(),
        );
    }
    Ok(outcome)
}

async fn write(ctx: &Ctx, hash: &TokenHash, path: &str) -> Result<Outcome, Fail> {
    if path.is_empty() {
        return Err(bad("missing path"));
    }
    let body = &ctx.request.body;
    if body.is_empty() {
        return Err(bad("missing data fields"));
    }
    let entry = match &ctx.request.exact {
        Some(exact) => codec::encode_exact(exact)?,
        None => codec::encode(body)?,
    };
    if entry.len() > ENTRY_BYTES_MAX {
        return Err(Fail::TooLarge(format!("the entry is larger than {ENTRY_BYTES_MAX} bytes")));
    }
    let open = &ctx.open;
    let written: Result<(), Fail> = transact!(open.barrier, |w| {
        open.tokens.guard_in_use(w, hash, ctx.now).await?;
        put_in(&open.tokens, w, hash, path, &entry).await?;
    });
    written?;
    Ok(Outcome::empty())
}

/// Within a transaction that guards or creates the token: writes an encoded entry.
pub(super) async fn put_in(
    tokens: &Tokens,
    writer: &mut Writer,
    hash: &TokenHash,
    path: &str,
    entry: &[u8],
) -> Result<(), Fail> {
    writer.put_system(&row(tokens, hash, path), entry).await?;
    writer.link(tokens.cubbyhole(hash), path).await?;
    Ok(())
}

async fn delete(ctx: &Ctx, hash: &TokenHash, path: &str) -> Result<Outcome, Fail> {
    let open = &ctx.open;
    let row = row(&open.tokens, hash, path);
    let deleted: Result<(), Fail> = transact!(open.barrier, |w| {
        open.tokens.guard_in_use(w, hash, ctx.now).await?;
        if w.exists(&row).await? {
            w.delete(&row).await?;
            w.unlink(open.tokens.cubbyhole(hash), path).await?;
        }
    });
    deleted?;
    Ok(Outcome::empty())
}

/// Within a transaction: removes part of a dead token's cubbyhole. True if nothing is left; nothing can come back,
/// because writing guards the token.
pub(crate) async fn clear_in(tokens: &Tokens, writer: &mut Writer, hash: &TokenHash) -> Result<bool, Fail> {
    Ok(writer.clear_mount(tokens.cubbyhole(hash), STEP).await? < STEP)
}
