//! `sys/capabilities...`: what a token may do on given paths.

use coffer_core::path::VaultPath;
use coffer_core::token::Token;
use serde_json::{Map, Value, json};

use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// The most paths of one question.
const PATHS_MAX: usize = 256;

/// Answers for the caller, for a token he has, or for one he knows the accessor of.
pub(crate) async fn handle(ctx: &mut Ctx, permitted: &Permitted, which: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let open = &ctx.open;
    let token = match which {
        "capabilities" => {
            let token = Token::parse(ctx.required("token")?).map_err(|_| bad("invalid token"))?;
            open.caller(&token, Some(ctx.request.client_ip), ctx.now)
                .await?
                .ok_or_else(|| bad("invalid token"))?
        }
        "capabilities-accessor" => {
            let found = open.tokens.by_accessor(ctx.required("accessor")?).await?;
            let hash = found.ok_or_else(|| bad("invalid accessor"))?;
            open.tokens.live(&open.policies, &hash, ctx.now).await?.ok_or_else(|| bad("invalid accessor"))?
        }
        _ => permitted.token()?.clone(),
    };
    let body = &ctx.request.body;
    let name = if body.contains_key("paths") { "paths" } else { "path" };
    let paths = params::list(body, name)?.ok_or_else(|| bad("paths must be supplied"))?;
    if paths.len() > PATHS_MAX {
        return Err(Fail::TooLarge(format!("more than {PATHS_MAX} paths")));
    }
    let mut data = Map::new();
    for text in &paths {
        let capabilities = match VaultPath::parse(text) {
            Ok(path) => json!(token.acl.capabilities(&path)),
            Err(_) => json!(["deny"]),
        };
        data.insert(text.clone(), capabilities);
    }
    if let [only] = paths.as_slice() {
        let capabilities = data.get(only).cloned().unwrap_or(Value::Null);
        data.insert("capabilities".into(), capabilities);
    }
    Ok(Outcome::doubled(data))
}
