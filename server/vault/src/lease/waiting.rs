//! What waits to be taken back, and what of it is stuck: counted for metrics, listed, and told of each mount.
//!
//! Looks at the queues only, so it costs by what waits and not by what lives. Changes nothing.

use std::collections::BTreeMap;

use coffer_barrier::{MountId, Read};
use serde_json::{Map, Value, json};

use super::queue::Queued;
use super::target::{Health, Target, TargetKey};
use crate::codec;
use crate::error::{Fail, bad};
use crate::mounts::Mount;
use crate::open::Open;
use crate::outcome::Outcome;
use crate::pipeline::Ctx;
use crate::rows;

/// How many leases of a target are looked at. Beyond that, numbers are "at least".
const LOOK_MAX: usize = 100_000;
const PAGE: usize = 1000;
/// How many stuck leases are listed unless the caller says otherwise, as in Vault.
const LIST: usize = 10_000;

/// What waits for a target.
struct Waiting {
    target: TargetKey,
    health: Health,
    /// Leases whose time is over and whose credential may still be there.
    leases: usize,
    /// Those of them that have been tried many times, or all if the target has.
    stuck: usize,
}

impl Waiting {
    fn state(&self) -> &'static str {
        if self.health.stuck() {
            "stuck"
        } else if self.health.failing().is_some() {
            "failing"
        } else {
            "ok"
        }
    }

    fn show(&self) -> Value {
        let failing = self.health.failing();
        json!({
            "target": self.target.name,
            "state": self.state(),
            "since": failing.map(|(since, _)| since.to_rfc3339()),
            "error": failing.map(|(_, why)| why),
            "waiting_leases": self.leases,
            "stuck_leases": self.stuck,
        })
    }
}

/// Goes through a target's queue, in order, as long as `seen` says so.
async fn look(open: &Open, target: &Target, mut seen: impl FnMut(Queued) -> bool) -> Result<(), Fail> {
    let reader = open.barrier.reader().await?;
    let family = rows::lease_queue(&target.key);
    let mut after = None;
    for _ in 0..LOOK_MAX / PAGE {
        let page =
            reader.range_ordered_after(MountId::SYSTEM, &family, after.as_ref(), u64::MAX, PAGE).await?;
        let full = page.len() == PAGE;
        after = page.last().map(|(row, _, _)| row.clone());
        for (_, _, bytes) in page {
            if !seen(codec::decode(&bytes)?) {
                return Ok(());
            }
        }
        if !full {
            break;
        }
    }
    Ok(())
}

async fn survey(open: &Open, of: Option<MountId>) -> Result<Vec<Waiting>, Fail> {
    open.leases.queues.load(open).await?;
    let mut found = Vec::new();
    for target in open.leases.queues.all() {
        if of.is_some_and(|mount| mount != target.key.mount) {
            continue;
        }
        let health = target.health();
        let mut waiting = Waiting { target: target.key.clone(), health, leases: 0, stuck: 0 };
        look(open, &target, |queued| {
            waiting.leases += usize::from(!queued.confirmed);
            waiting.stuck += usize::from(!queued.confirmed && (queued.stuck || waiting.health.stuck()));
            true
        })
        .await?;
        found.push(waiting);
    }
    Ok(found)
}

/// Sets the metrics.
pub(crate) async fn measure(open: &Open) -> Result<(), Fail> {
    let found = survey(open, None).await?;
    let sum =
        |of: fn(&Waiting) -> usize| i64::try_from(found.iter().map(of).sum::<usize>()).unwrap_or(i64::MAX);
    let metrics = &open.around.metrics;
    metrics.leases_overdue.set(sum(|waiting| waiting.leases));
    metrics.leases_stuck.set(sum(|waiting| waiting.stuck));
    metrics.targets_failing.set(sum(|waiting| usize::from(waiting.health.failing().is_some())));
    Ok(())
}

/// `sys/leases/count?type=irrevocable`: how many leases are stuck, in all and by mount. As in Vault, only that kind is
/// counted, and it must be named.
pub(super) async fn count(ctx: &Ctx) -> Result<Outcome, Fail> {
    if !irrevocable(ctx) {
        return Ok(Outcome::not_found());
    }
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for waiting in survey(&ctx.open, None).await?.iter().filter(|waiting| waiting.stuck > 0) {
        let mount = ctx.open.mounts.by_id(waiting.target.mount).map(|mount| mount.accessor.clone());
        *counts.entry(mount.unwrap_or_default()).or_default() += waiting.stuck;
    }
    let all: usize = counts.values().sum();
    Ok(Outcome::data(json!({ "counts": counts, "lease_count": all })))
}

/// `sys/leases?type=irrevocable`: the leases that are stuck, each with what the last attempt failed with.
pub(super) async fn list(ctx: &Ctx) -> Result<Outcome, Fail> {
    if !irrevocable(ctx) {
        return Ok(Outcome::not_found());
    }
    let open = &ctx.open;
    let limit = limit(ctx)?;
    open.leases.queues.load(open).await?;
    let mut leases = Vec::new();
    let mut more = false;
    for target in open.leases.queues.all() {
        let health = target.health();
        let mut ids = Vec::new();
        look(open, &target, |queued| {
            if queued.confirmed || !(queued.stuck || health.stuck()) {
                return true;
            }
            more = leases.len() + ids.len() == limit;
            if !more {
                ids.push(queued.id);
            }
            !more
        })
        .await?;
        for id in ids {
            // One that is gone by now is not stuck.
            let Some(lease) = open.leases.get(&id).await? else { continue };
            let told = health.failing().map(|(_, why)| why).unwrap_or_default();
            leases.push(json!({ "lease_id": id, "error": lease.why().unwrap_or(told) }));
        }
        if more {
            break;
        }
    }
    let mut outcome = Outcome::data(json!({ "lease_count": leases.len(), "leases": leases }));
    if more {
        outcome.warnings.push(format!("there are more than these {limit} leases; see sys/leases/count"));
    }
    Ok(outcome)
}

fn irrevocable(ctx: &Ctx) -> bool {
    ctx.request.query.get("type").is_some_and(|kind| kind == "irrevocable")
}

/// How many to list: a number, or `none` for as many as there may be.
fn limit(ctx: &Ctx) -> Result<usize, Fail> {
    match ctx.request.query.get("limit").map(|text| text.to_ascii_lowercase()) {
        None => Ok(LIST),
        Some(text) if text.is_empty() => Ok(LIST),
        Some(text) if text == "none" => Ok(LOOK_MAX),
        Some(text) => match text.parse::<usize>() {
            Ok(limit) if limit > 0 => Ok(limit.min(LOOK_MAX)),
            _ => Err(bad("limit must be 'none' or a positive integer")),
        },
    }
}

/// How a mount's targets are, and what waits there.
pub(crate) async fn health(open: &Open, mount: &Mount) -> Result<Map<String, Value>, Fail> {
    let found = survey(open, Some(mount.id)).await?;
    let sum = |of: fn(&Waiting) -> usize| found.iter().map(of).sum::<usize>();
    let mut health = Map::new();
    health.insert("healthy".into(), found.iter().all(|w| w.stuck == 0 && w.state() == "ok").into());
    health.insert("waiting_leases".into(), sum(|waiting| waiting.leases).into());
    health.insert("stuck_leases".into(), sum(|waiting| waiting.stuck).into());
    health.insert("targets".into(), found.iter().map(Waiting::show).collect());
    Ok(health)
}
