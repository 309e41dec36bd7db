//! `sys/audit...`, for administrators: further devices, the last records of the log, and what is anchored of it.

use std::sync::Arc;

use serde_json::{Map, json};

use crate::audit::{DeclaredDevice, Filter, anchor};
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::params;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// How the built-in log is named where devices are.
const BUILT_IN: &str = "builtin";
/// How many records when nothing is said.
const LIMIT_DEFAULT: usize = 100;

/// Handles `sys/audit` and `sys/audit/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, rest: &str) -> Result<Outcome, Fail> {
    match rest.trim_end_matches('/') {
        "" => list(ctx),
        "tail" => tail(ctx).await,
        "chain" => chain(ctx).await,
        name => match ctx.request.operation {
            Operation::Create | Operation::Update => enable(ctx, name).await,
            Operation::Delete => {
                ctx.open.devices.disable(name).await?;
                Ok(Outcome::empty())
            }
            _ => Err(Fail::NoOperation),
        },
    }
}

/// Further devices; the built-in log is not one of them, since it cannot be disabled.
fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    match ctx.request.operation {
        Operation::Read => {}
        Operation::List | Operation::Scan => return Err(Fail::NoRoute(ctx.request.path.clone())),
        _ => return Err(Fail::NoOperation),
    }
    let devices = ctx.open.devices.list().into_iter().map(|device| {
        let path = format!("{}/", device.name);
        let shown = json!({
            "description": device.description,
            "local": device.local,
            "options": device.options,
            "path": path,
            "type": "file",
        });
        (path, shown)
    });
    Ok(Outcome::doubled(devices.collect()))
}

async fn enable(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    let body = &ctx.request.body;
    match ctx.text("type")? {
        Some("file") => {}
        None | Some("") => return Err(bad("missing type")),
        Some(_) => return Err(bad("unknown backend type: only \"file\" is supported")),
    }
    let device = DeclaredDevice {
        name: name.to_owned(),
        description: ctx.text("description")?.unwrap_or_default().to_owned(),
        options: params::labels(body, "options")?.unwrap_or_default(),
    };
    let local = params::flag(body, "local")?.unwrap_or(false);
    ctx.open.devices.enable(device, local, ctx.now).await?;
    Ok(Outcome::empty())
}

/// Handles `sys/audit-hash/<name>`: how a text looks in a device's lines, or in the built-in log.
pub(crate) fn hash(ctx: &Ctx, name: &str) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    let input = ctx.text("input")?.filter(|input| !input.is_empty());
    let input = input.ok_or_else(|| bad("the \"input\" parameter is empty"))?;
    let hash = match name.trim_end_matches('/') {
        BUILT_IN => {
            let hash = ctx.open.around.audit.identify(input);
            hash.ok_or_else(|| {
                bad("the built-in audit log covers nothing: \"hmac\" in its configuration says what it is to")
            })?
        }
        name => ctx.open.devices.identify(name, input)?,
    };
    Ok(Outcome::doubled(Map::from_iter([("hash".to_owned(), hash.into())])))
}

/// `sys/audit/chain`: what is anchored of each node's log, to check copies of the files against.
async fn chain(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let mut nodes = Map::new();
    for (node, anchor) in anchor::nodes(&ctx.open).await? {
        let lost: Vec<_> = anchor
            .lost
            .iter()
            .map(|lost| json!({ "at": lost.at.to_rfc3339(), "from": lost.from, "count": lost.count }))
            .collect();
        let anchored_at = anchor.at.to_rfc3339();
        let known =
            json!({ "head": anchor.head, "start": anchor.start, "lost": lost, "anchored_at": anchored_at });
        nodes.insert(node, known);
    }
    Ok(Outcome::data(json!({ "node": ctx.open.around.config.node_name, "nodes": nodes })))
}

async fn tail(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let query = |name: &str| ctx.request.query.get(name).filter(|v| !v.is_empty()).cloned();
    let limit = match query("limit") {
        None => LIMIT_DEFAULT,
        Some(text) => text.parse().map_err(|_| bad("limit must be a whole number"))?,
    };
    let filter = Filter {
        lease_id: query("lease_id"),
        accessor: query("accessor"),
        path_prefix: query("path"),
        request_id: query("request_id"),
        seq: None,
    };
    let around = Arc::clone(&ctx.open.around);
    let records = tokio::task::spawn_blocking(move || around.audit.tail(limit, &filter)).await;
    let records = records.map_err(|_| Fail::Internal("audit tail"))?.map_err(|_| Fail::Audit)?;
    Ok(Outcome::data(json!({ "records": records })))
}
