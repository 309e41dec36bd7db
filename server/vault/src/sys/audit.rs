//! `sys/audit/...`, for administrators: the last records of the log, and what is anchored of it.

use std::sync::Arc;

use serde_json::{Map, json};

use crate::audit::{Filter, anchor};
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// How many records when nothing is said.
const LIMIT_DEFAULT: usize = 100;

/// Handles `sys/audit/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, rest: &str) -> Result<Outcome, Fail> {
    match rest {
        "tail" => tail(ctx).await,
        "chain" => chain(ctx).await,
        _ => Err(Fail::NoRoute(ctx.request.path.clone())),
    }
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
