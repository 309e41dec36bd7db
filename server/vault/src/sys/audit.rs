//! `sys/audit/tail`: the last records of the audit log, for administrators.

use std::sync::Arc;

use serde_json::json;

use crate::audit::Filter;
use crate::error::{Fail, bad};
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;

/// How many records when nothing is said.
const LIMIT_DEFAULT: usize = 100;

/// Handles `sys/audit/<rest>`.
pub(crate) async fn handle(ctx: &mut Ctx, rest: &str) -> Result<Outcome, Fail> {
    if rest != "tail" {
        return Err(Fail::NoRoute(ctx.request.path.clone()));
    }
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
    };
    let around = Arc::clone(&ctx.open.around);
    let records = tokio::task::spawn_blocking(move || around.audit.tail(limit, &filter)).await;
    let records = records.map_err(|_| Fail::Internal("audit tail"))?.map_err(|_| Fail::Audit)?;
    Ok(Outcome::data(json!({ "records": records })))
}
