//! `sys/rotate...`, `sys/key-status`: the keys below the master key, and how far old rows are brought under new ones.

use std::time::Duration;

use coffer_barrier::Read;
use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::codec::{self, transact};
use crate::error::{Fail, bad};
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::{Ctx, only};
use crate::request::Operation;
use crate::{params, rows};

/// Vault's bounds for when keys rotate by themselves.
const OPERATIONS: std::ops::RangeInclusive<u64> = 1_000_000..=3_865_470_566;
const INTERVAL_MIN: Duration = Duration::from_secs(24 * 3600);

/// When keys rotate by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RotateConfig {
    enabled: bool,
    /// Zero: never for their age.
    interval_secs: u64,
    /// After so many rows sealed by one process.
    max_operations: u64,
}

impl Default for RotateConfig {
    fn default() -> Self {
        Self { enabled: true, interval_secs: 0, max_operations: *OPERATIONS.end() }
    }
}

impl RotateConfig {
    /// As Vault shows it: a number for never, else hours, minutes and seconds. There is no interval below a day.
    fn shown_interval(&self) -> Value {
        let secs = self.interval_secs;
        if secs == 0 {
            return 0.into();
        }
        format!("{}h{}m{}s", secs / 3600, secs / 60 % 60, secs % 60).into()
    }
}

/// `sys/rotate` and `sys/rotate/keyring`.
pub(crate) async fn rotate(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Update])?;
    ctx.open.barrier.rotate(ctx.open.now()).await?;
    Ok(Outcome::empty())
}

/// `sys/rotate/status`: how far old rows have come.
pub(crate) async fn status(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let status = ctx.open.barrier.rewrap_status().await?;
    Ok(Outcome::data(json!({
        "term": status.term, "pass": status.pass, "rows_seen": status.seen, "rows_found": status.found,
        "rows_rewrapped": status.rewrapped, "rows_unreadable": status.unreadable, "complete": status.done,
        "old_keys_retired": status.retired,
    })))
}

/// `sys/key-status`.
pub(crate) async fn key_status(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read])?;
    let status = ctx.open.barrier.key_status().await?;
    let installed = status.installed.unwrap_or(Timestamp::from_secs(0));
    let body = [
        ("term", Value::from(status.term)),
        ("install_time", installed.to_rfc3339().into()),
        ("encryptions", status.encryptions.into()),
    ];
    Ok(Outcome::doubled(body.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<Map<_, _>>()))
}

/// `sys/rotate/config` and `sys/rotate/keyring/config`.
pub(crate) async fn config(ctx: &Ctx) -> Result<Outcome, Fail> {
    only(&ctx.request, &[Operation::Read, Operation::Update])?;
    let open = &ctx.open;
    if ctx.request.operation == Operation::Read {
        let config = load(open).await?;
        return Ok(Outcome::data(json!({
            "enabled": config.enabled, "interval": config.shown_interval(), "max_operations": config.max_operations,
        })));
    }
    let body = &ctx.request.body;
    let most = params::number(body, "max_operations")?;
    if most.is_some_and(|most| !OPERATIONS.contains(&most)) {
        let (from, to) = (OPERATIONS.start(), OPERATIONS.end());
        return Err(bad(format!("max_operations must be in the range [{from},{to}]")));
    }
    let interval = params::duration(body, "interval")?;
    if interval.is_some_and(|interval| !interval.is_zero() && interval < INTERVAL_MIN) {
        return Err(bad("interval must be greater or equal to 24h0m0s"));
    }
    let enabled = params::flag(body, "enabled")?;
    let changed: Result<(), Fail> = transact!(open.barrier, |w| {
        let row = rows::rotate_config();
        let mut config = codec::get::<RotateConfig>(&*w as &dyn Read, &row).await?.unwrap_or_default();
        config.max_operations = most.unwrap_or(config.max_operations);
        config.interval_secs = interval.map_or(config.interval_secs, |interval| interval.as_secs());
        config.enabled = enabled.unwrap_or(config.enabled);
        codec::put(w, &row, &config).await?;
    });
    changed?;
    Ok(Outcome::empty())
}

async fn load(open: &Open) -> Result<RotateConfig, Fail> {
    let reader = open.barrier.reader().await?;
    Ok(codec::get(&reader, &rows::rotate_config()).await?.unwrap_or_default())
}

/// Rotates if the keys are old enough, or have sealed enough. Recorded as the system's own doing.
pub(crate) async fn rotate_if_due(open: &Open) -> Result<(), Fail> {
    let config = load(open).await?;
    let status = open.barrier.key_status().await?;
    let now = open.now();
    let age = now.saturating_sub(status.installed.unwrap_or(now));
    let old = config.interval_secs > 0 && age >= Duration::from_secs(config.interval_secs);
    if !config.enabled || !(old || status.encryptions >= config.max_operations) {
        return Ok(());
    }
    let id = uuid::Uuid::new_v4().to_string();
    let record = |kind| AuditRecord {
        display_name: Some("system".into()),
        ..AuditRecord::new(now, kind, id.as_str(), "update", "sys/rotate")
    };
    open.around.audit.write(&record(RecordType::Intent)).await.map_err(|_| Fail::Audit)?;
    let done = open.barrier.rotate(now).await;
    let status = Some(if done.is_ok() { 204 } else { 500 });
    let error = done.as_ref().err().map(ToString::to_string);
    let last = AuditRecord { status, error, ..record(RecordType::Completion) };
    open.around.audit.complete(&last).await.map_err(|_| Fail::Audit)?;
    Ok(done.map(drop)?)
}
