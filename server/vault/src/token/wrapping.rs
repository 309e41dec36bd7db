//! Response wrapping: a reply is put into the cubbyhole of a token that can be used once, and the token is the reply.
//!
//! Who unwraps kills the token in the transaction that reads the reply, so of many at the same time exactly one gets
//! it. Nothing here decides who may ask for what.

use std::time::Duration;

use coffer_barrier::{Read, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, Token, TokenHash};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::cubbyhole::{self, RESPONSE};
use super::{Dying, TokenEntry, Tokens};
use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::{Outcome, Undo};
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::{Operation, ReplyBody, Request, scrub};
use crate::revoke;

/// What a request to `sys/wrapping/...` wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Lookup,
    Rewrap,
    Unwrap,
    Wrap,
}

impl Verb {
    fn of(rest: &str) -> Option<Self> {
        Some(match rest {
            "wrapping/lookup" => Self::Lookup,
            "wrapping/rewrap" => Self::Rewrap,
            "wrapping/unwrap" => Self::Unwrap,
            "wrapping/wrap" => Self::Wrap,
            _ => return None,
        })
    }
}

/// Whether this request to `sys/<rest>` is answered on the strength of the wrapping token alone: looking it up, and
/// unwrapping with it as the one who asks.
pub(crate) fn by_wrapping_token(rest: &str, request: &Request) -> bool {
    match Verb::of(rest) {
        Some(Verb::Lookup) => matches!(request.operation, Operation::Read | Operation::Update),
        Some(Verb::Unwrap) => {
            let named = request.body.get("token").and_then(Value::as_str).filter(|text| !text.is_empty());
            let own = request.token.as_ref();
            request.operation == Operation::Update
                && own.is_some_and(|own| named.is_none_or(|named| named == own.expose()))
        }
        _ => false,
    }
}

/// Handles `sys/wrapping/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, rest: &str) -> Result<Outcome, Fail> {
    let verb = Verb::of(rest).ok_or(Fail::UnsupportedPath)?;
    match verb {
        Verb::Lookup => {
            only(&ctx.request, &[Operation::Read, Operation::Update])?;
            lookup(ctx).await
        }
        Verb::Unwrap => {
            only(&ctx.request, &[Operation::Update])?;
            unwrap(ctx).await
        }
        Verb::Rewrap => {
            only(&ctx.request, &[Operation::Update])?;
            rewrap(ctx, permitted.caller()?).await
        }
        Verb::Wrap => {
            only(&ctx.request, &[Operation::Update])?;
            if ctx.request.wrap_ttl.is_none() {
                return Err(bad("endpoint requires response wrapping to be used"));
            }
            if let Some(exact) = &ctx.request.exact {
                return Ok(Outcome::json(codec::exact(exact)?));
            }
            // Taken, not copied: the pipeline wraps it.
            Ok(Outcome::data(Value::Object(std::mem::take(&mut ctx.request.body))))
        }
    }
}

const UNFIT: Fail = Fail::Internal("a reply that cannot be wrapped");

fn not_valid() -> Fail {
    bad("wrapping token is not valid or does not exist")
}

/// The wrapping token of a request: named in the body, or the one who asks.
fn named(ctx: &Ctx) -> Result<TokenHash, Fail> {
    let tokens = &ctx.open.tokens;
    match ctx.text("token")? {
        Some("") => Err(Fail::Unwrapping),
        Some(text) => Token::parse(text).map(|token| tokens.hash(&token)).map_err(|_| not_valid()),
        None => ctx.request.token.as_ref().map(|token| tokens.hash(token)).ok_or_else(not_valid),
    }
}

/// The entry of a wrapping token that was not used yet.
async fn unused(
    open: &Open,
    reader: &dyn Read,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<TokenEntry, Fail> {
    let found = open.tokens.read_alive(reader, hash, now, false).await?;
    found.map(|alive| alive.entry).filter(TokenEntry::is_wrapping).ok_or_else(not_valid)
}

async fn lookup(ctx: &mut Ctx) -> Result<Outcome, Fail> {
    let hash = named(ctx)?;
    let reader = ctx.open.barrier.reader().await?;
    let entry = unused(&ctx.open, &reader, &hash, ctx.now).await?;
    ctx.about("wrapping_accessor", entry.accessor.as_str());
    Ok(Outcome::data(json!({
        "creation_path": entry.path,
        "creation_time": entry.created.to_rfc3339(),
        "creation_ttl": entry.ttl.as_secs(),
    })))
}

async fn unwrap(ctx: &mut Ctx) -> Result<Outcome, Fail> {
    let hash = named(ctx)?;
    let open = std::sync::Arc::clone(&ctx.open);
    let now = ctx.now;
    // Everybody may try, so only a token that is there gets an intent.
    unused(&open, &open.barrier.reader().await?, &hash, now).await?;
    ctx.intend(None).await?;
    let taken: Result<(TokenEntry, Map<String, Value>), Fail> =
        transact!(open.barrier, |w| take_in(&open, w, &hash, now).await?);
    let (entry, data) = taken?;
    ctx.about("wrapping_accessor", entry.accessor.as_str());
    bury(&open, hash, now).await;
    let text = response_text(data)?;
    let Leased { lease_id } = serde_json::from_str(&text)?;
    let lease_id = lease_id.filter(|id| !id.is_empty());
    // As it was put away: nothing is read that need not be.
    let mut whole = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    whole.extend_from_slice(text.as_bytes());
    whole.push(b'\n');
    Ok(Outcome { lease_id, ..Outcome::whole(whole) })
}

/// What is looked at of a reply that was put away.
#[derive(Deserialize)]
struct Leased {
    lease_id: Option<String>,
}

/// Within a transaction: the wrapped reply, whose token is dead from the commit on. The row is written by this, so of
/// two at the same time one has to begin anew, and finds it dead.
async fn take_in(
    open: &Open,
    writer: &mut Writer,
    hash: &TokenHash,
    now: Timestamp,
) -> Result<(TokenEntry, Map<String, Value>), Fail> {
    let entry = unused(open, &*writer, hash, now).await?;
    let row = cubbyhole::row(&open.tokens, hash, RESPONSE);
    let data = codec::get::<Map<String, Value>>(&*writer as &dyn Read, &row).await?.ok_or_else(not_valid)?;
    if !Tokens::kill_in(writer, hash, now).await? {
        return Err(not_valid());
    }
    Ok((entry, data))
}

/// The rest of a used wrapping token goes. If not now, then with the next sweep.
async fn bury(open: &std::sync::Arc<Open>, hash: TokenHash, now: Timestamp) {
    open.tokens.forget(&[hash]);
    if let Err(error) = revoke::cascade(open, vec![Dying { hash, since: now }], Duration::ZERO).await {
        tracing::warn!(%error, "a used wrapping token is left to the sweeper");
    }
}

fn response_text(mut data: Map<String, Value>) -> Result<Zeroizing<String>, Fail> {
    let text = match data.remove(RESPONSE) {
        Some(Value::String(text)) => Zeroizing::new(text),
        _ => return Err(not_valid()),
    };
    data.values_mut().for_each(scrub);
    Ok(text)
}

async fn rewrap(ctx: &mut Ctx, caller: &TokenEntry) -> Result<Outcome, Fail> {
    let hash = named(ctx)?;
    let open = std::sync::Arc::clone(&ctx.open);
    let now = ctx.now;
    let token = Token::generate(&mut rand::rng());
    let moved: Result<TokenEntry, Fail> = transact!(open.barrier, |w| {
        // Nothing is put away for somebody who was cut off in the meantime.
        open.tokens.guard_caller(w, caller, now).await?;
        let (old, data) = take_in(&open, w, &hash, now).await?;
        let new = wrapping_entry(&open, &token, &old.path, old.ttl, Some(caller), now);
        insert_in(&open.tokens, w, &new, &data).await?;
        new
    });
    let entry = moved?;
    ctx.about("wrapping_accessor", entry.accessor.as_str());
    bury(&open, hash, now).await;
    let mut outcome = Outcome::wrapped(info(&entry, &token, None));
    outcome.undo = Some(Undo::Token(entry.hash));
    Ok(outcome)
}

/// Puts a reply away and gives back the token for it. What has nothing to hide stays as it is: refusals, and replies
/// without a body.
pub(crate) async fn wrap(
    ctx: &mut Ctx,
    ttl: Duration,
    caller: Option<&TokenEntry>,
    outcome: Outcome,
) -> Result<Outcome, Fail> {
    if !outcome.can_be_wrapped() {
        return Ok(outcome);
    }
    let mut outcome = outcome;
    let events = std::mem::take(&mut outcome.events);
    // A read becomes a write by this.
    ctx.intend(None).await?;
    let open = std::sync::Arc::clone(&ctx.open);
    let token = Token::generate(&mut rand::rng());
    let owner = caller.or(outcome.identity.as_ref());
    let entry = wrapping_entry(&open, &token, &asked_path(&ctx.request), ttl, owner, ctx.now);
    ctx.about("wrapping_accessor", entry.accessor.as_str());
    let owner = owner.cloned();
    let (lease_id, identity, seal) = (outcome.lease_id.take(), outcome.identity.take(), outcome.seal);
    let mut reply = outcome.into_reply(&ctx.request.id);
    let (text, wrapped_accessor) = match &mut reply.body {
        ReplyBody::Json(body) => {
            let wrapped_accessor = body.pointer("/auth/accessor").or_else(|| {
                body.pointer("/data/secret_id_accessor").filter(|_| ctx.request.path.starts_with("auth/"))
            });
            let wrapped_accessor = wrapped_accessor.and_then(Value::as_str).map(str::to_owned);
            (serde_json::to_string(body)?, wrapped_accessor)
        }
        // Such replies hold secrets, and no tokens.
        ReplyBody::Encoded(body) => {
            let text = body.take();
            (std::str::from_utf8(text.trim_ascii_end()).map_err(|_| UNFIT)?.to_owned(), None)
        }
        ReplyBody::Empty | ReplyBody::Text { .. } => return Err(UNFIT),
    };
    let mut data = Map::new();
    data.insert(RESPONSE.into(), Value::String(text));
    drop(reply);
    let stored: Result<(), Fail> = transact!(open.barrier, |w| {
        if let Some(owner) = &owner {
            // Nothing is put away for somebody who was cut off in the meantime.
            open.tokens.guard_caller(w, owner, ctx.now).await?;
        }
        insert_in(&open.tokens, w, &entry, &data).await?;
    });
    data.values_mut().for_each(scrub);
    stored?;
    let wrapped = Outcome::wrapped(info(&entry, &token, wrapped_accessor));
    Ok(Outcome { lease_id, identity, events, seal, undo: Some(Undo::Token(entry.hash)), ..wrapped })
}

/// The path that was asked; directories end in a slash.
fn asked_path(request: &Request) -> String {
    let listing = matches!(request.operation, Operation::List | Operation::Scan);
    if listing && !request.path.ends_with('/') { format!("{}/", request.path) } else { request.path.clone() }
}

async fn insert_in(
    tokens: &Tokens,
    writer: &mut Writer,
    entry: &TokenEntry,
    data: &Map<String, Value>,
) -> Result<(), Fail> {
    Tokens::insert_in(writer, entry).await?;
    cubbyhole::put_in(tokens, writer, &entry.hash, RESPONSE, &codec::encode(data)?).await
}

/// A token for one use. It belongs to nobody, but to the pod of whoever asked: what a pod has can be taken back at once.
fn wrapping_entry(
    open: &Open,
    token: &Token,
    path: &str,
    ttl: Duration,
    owner: Option<&TokenEntry>,
    now: Timestamp,
) -> TokenEntry {
    let end = Some(now.plus(ttl));
    TokenEntry {
        policies: vec![PolicyName::response_wrapping()],
        display_name: "token".into(),
        path: path.to_owned(),
        mount: owner.and_then(|owner| owner.mount),
        pod: owner.and_then(|owner| owner.pod.clone()),
        ttl,
        expires: end,
        max_expires: end,
        explicit_max_ttl: ttl,
        uses_left: Some(1),
        ..TokenEntry::blank(open.tokens.hash(token), Accessor::generate(&mut rand::rng()), now)
    }
}

fn info(entry: &TokenEntry, token: &Token, wrapped_accessor: Option<String>) -> Value {
    let mut info = json!({
        "token": token.expose(),
        "accessor": entry.accessor,
        "ttl": entry.ttl.as_secs(),
        "creation_time": entry.created.to_rfc3339(),
        "creation_path": entry.path,
    });
    if let (Some(accessor), Value::Object(map)) = (wrapped_accessor.filter(|a| !a.is_empty()), &mut info) {
        map.insert("wrapped_accessor".into(), accessor.into());
    }
    info
}

/// The policy of wrapping tokens is nobody else's.
pub(super) fn check_assignable(policies: &[PolicyName]) -> Result<(), Fail> {
    match policies.iter().find(|name| name.is_response_wrapping()) {
        Some(name) => Err(bad(format!("cannot assign policy {:?}", name.as_str()))),
        None => Ok(()),
    }
}
