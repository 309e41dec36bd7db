//! `sys/config/...`: what of the server's own settings can be seen. Nothing is set here: the configuration is a file.

use serde_json::{Map, Value, json};

use crate::deps::VaultConfig;
use crate::error::Fail;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// Handles `sys/config/<below>`.
pub(crate) fn handle(ctx: &Ctx, below: &str) -> Result<Outcome, Fail> {
    match below {
        "cors" => {
            // No other origin is let in: nothing in a browser has a reason to talk to this server.
            only(&ctx.request, &[Operation::Read])?;
            Ok(Outcome::doubled(Map::from_iter([("enabled".to_owned(), false.into())])))
        }
        "state/sanitized" => {
            only(&ctx.request, &[Operation::Read])?;
            Ok(Outcome::data(sanitized(&ctx.open.around.config)))
        }
        _ => Err(Fail::UnsupportedPath),
    }
}

/// What the server was told, without anything secret: nothing secret can be told.
fn sanitized(config: &VaultConfig) -> Value {
    let mut all = config.sanitized.clone();
    all.insert("cluster_name".into(), config.cluster_name.as_str().into());
    all.insert("default_lease_ttl".into(), config.default_lease_ttl.as_secs().into());
    all.insert("max_lease_ttl".into(), config.max_lease_ttl.as_secs().into());
    all.insert("seals".into(), json!([{ "disabled": false, "type": "shamir" }]));
    all.insert("storage".into(), json!({ "type": config.storage_type }));
    Value::Object(all)
}
