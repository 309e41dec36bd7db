//! `sys/internal/...`: what command lines and user interfaces ask about mounts and rights.

use serde_json::{Map, Value, json};

use crate::error::Fail;
use crate::mounts;
use crate::outcome::Outcome;
use crate::permit::Permitted;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `sys/internal/<below>`.
pub(crate) fn handle(ctx: &Ctx, permitted: &Permitted, below: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    match below {
        "ui/mounts" if permitted.is_anonymous() => Ok(mounts::listed_for_all(&ctx.open)),
        "ui/mounts" => mounts::visible(ctx, permitted),
        "ui/resultant-acl" => resultant_acl(permitted),
        "ui/namespaces" => Ok(Outcome::data(json!({}))),
        "inspect/router/root" => Ok(mounts::inspect(&ctx.open)),
        _ => match below.strip_prefix("ui/mounts/") {
            Some(path) => mounts::preflight(ctx, permitted, path),
            None => Err(Fail::UnsupportedPath),
        },
    }
}

/// All that the caller's policies come to. Patterns with `+` are in neither list, as in Vault.
fn resultant_acl(permitted: &Permitted) -> Result<Outcome, Fail> {
    let acl = permitted.acl()?;
    if acl.is_root() {
        return Ok(Outcome::data(json!({ "root": true })));
    }
    let (mut exact, mut globs) = (Map::new(), Map::new());
    for (pattern, capabilities, mut entry) in acl.merged_rules() {
        let names: Vec<&str> = capabilities.iter().map(|c| c.as_str()).collect();
        entry.insert("capabilities".into(), json!(names));
        let entry = Value::Object(entry);
        if pattern.is_exact() {
            exact.insert(pattern.as_str().to_owned(), entry);
        } else if let (0, Some(prefix)) = (pattern.wildcards(), pattern.as_str().strip_suffix('*')) {
            globs.insert(prefix.to_owned(), entry);
        }
    }
    Ok(Outcome::data(json!({ "exact_paths": Value::Object(exact), "glob_paths": globs, "root": false })))
}
