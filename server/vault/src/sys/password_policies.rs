//! `sys/policies/password/...`: how generated passwords look. Never keeps a password, and never records one.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coffer_barrier::{MountId, Read, RecordKind, Writer};
use coffer_core::password_policy::{MAX_PASSWORD_POLICY_BYTES, PasswordPolicy, PasswordPolicyError};
use coffer_engines::{PASSWORD_POLICY_DIR, ReadView, WriteView, password_policy_row};
use serde_json::json;

use crate::codec::transact;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::Ctx;
use crate::request::Operation;

const NAME_BYTES_MAX: usize = 128;

/// Handles a password policy, or all of them.
pub(crate) async fn handle(ctx: &Ctx, rest: &str) -> Result<Outcome, Fail> {
    let reads = ctx.request.operation == Operation::Read;
    if rest.is_empty() {
        return if ctx.request.operation == Operation::List {
            list(ctx).await
        } else {
            Err(Fail::NoOperation)
        };
    }
    if let Some(name) = rest.strip_suffix("/generate") {
        return if reads { generate(ctx, checked(name)?).await } else { Err(Fail::NoOperation) };
    }
    let name = checked(rest)?;
    match ctx.request.operation {
        Operation::Read => {
            let text = stored(ctx, name).await?;
            Ok(Outcome::data(json!({ "policy": text })))
        }
        Operation::Create | Operation::Update => write(ctx, name).await,
        Operation::Delete => {
            let removed: Result<(), Fail> = transact!(ctx.open.barrier, |w| remove_in(w, name).await?);
            removed.map(|()| Outcome::empty())
        }
        _ => Err(Fail::NoOperation),
    }
}

/// In the words in which OpenBao answers these paths.
fn counted(error: &str) -> String {
    format!("1 error occurred:\n\t* {error}\n\n")
}

fn checked(name: &str) -> Result<&str, Fail> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(allowed) {
        return Err(bad(format!(
            "a password policy's name may have letters, digits, '_', '-' and '.', at most {NAME_BYTES_MAX} of them"
        )));
    }
    Ok(name)
}

async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    let (after, limit) = params::page(&ctx.request.query)?;
    let reader = ctx.open.barrier.reader().await?;
    let names = reader.list(MountId::SYSTEM, PASSWORD_POLICY_DIR, after, limit).await?;
    if names.is_empty() { Err(Fail::NotFound) } else { Ok(Outcome::data(json!({ "keys": names }))) }
}

async fn stored(ctx: &Ctx, name: &str) -> Result<String, Fail> {
    let reader = ctx.open.barrier.reader().await?;
    let text = ReadView::new(MountId::SYSTEM, &reader).password_policy(name).await?;
    text.ok_or_else(|| Fail::Absent(counted("policy does not exist")))
}

async fn generate(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let text = stored(ctx, name).await?;
    let policy = PasswordPolicy::parse(&text).map_err(|_| Fail::Internal("a stored password policy"))?;
    Ok(Outcome::data(json!({ "password": policy.generate(&mut rand::rng()).expose() })))
}

async fn write(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let text =
        ctx.text("policy")?.filter(|text| !text.is_empty()).ok_or_else(|| bad(counted("missing policy")))?;
    // Before decoding, which only makes it smaller.
    if text.len() > MAX_PASSWORD_POLICY_BYTES {
        return Err(Fail::TooLarge(format!(
            "password policy is larger than {MAX_PASSWORD_POLICY_BYTES} bytes"
        )));
    }
    // A policy may come as base64: none in plain text is valid base64, for it has an equals sign before its end.
    let decoded = STANDARD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let text = decoded.unwrap_or_else(|| text.to_owned());
    PasswordPolicy::parse(&text).map_err(|why| {
        // What is wrong with a rule is an error within the error there.
        let why = match why {
            PasswordPolicyError::Hcl(_) => why.to_string(),
            why => counted(&why.to_string()),
        };
        bad(counted(&format!("invalid password policy: {why}")))
    })?;
    let written: Result<(), Fail> = transact!(ctx.open.barrier, |w| put_in(w, name, &text).await?);
    written.map(|()| Outcome::empty())
}

async fn put_in(writer: &mut Writer, name: &str, text: &String) -> Result<(), Fail> {
    let path = format!("{PASSWORD_POLICY_DIR}/{name}");
    // In the form that the engines read.
    let mut view = WriteView::new(MountId::SYSTEM, writer);
    view.put_record(RecordKind::Entry, &path, text).await?;
    Ok(view.link(&path).await?)
}

async fn remove_in(writer: &mut Writer, name: &str) -> Result<(), Fail> {
    let row = password_policy_row(name);
    if writer.exists(&row).await? {
        writer.delete(&row).await?;
        writer.unlink(MountId::SYSTEM, &format!("{PASSWORD_POLICY_DIR}/{name}")).await?;
    }
    Ok(())
}
