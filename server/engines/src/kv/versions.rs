//! Deleting, undeleting and destroying versions. Never touches a version's data except to remove it.

use super::fields::Fields;
use super::record::{self, Meta};
use super::{Written, effect};
use coffer_core::time::Timestamp;

use crate::engine::{EngineReply, EngineRequest};
use crate::{EngineError, WriteView};

/// The most version numbers in one request.
const NUMBERS_MAX: usize = 1_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Delete,
    Undelete,
    Destroy,
}

/// Event type, operation, and the path's first segment.
type Event = (&'static str, &'static str, &'static str);

pub(super) async fn delete_latest(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let Some(meta) = record::load(&view.reading(), path).await? else {
        return Ok((EngineReply::Empty, Vec::new()));
    };
    let current = meta.current;
    change(view, req, path, meta, &[current], Change::Delete, ("kv-v2/data-delete", "data-delete", "data"))
        .await
}

/// Deletes a version that nobody needs any more, by the engine itself. Whether there was something to delete.
pub(super) async fn retire(
    view: &mut WriteView<'_>,
    path: &str,
    number: u64,
    now: Timestamp,
) -> Result<bool, EngineError> {
    let Some(mut meta) = record::load(&view.reading(), path).await? else { return Ok(false) };
    match meta.versions.get_mut(&number) {
        Some(version) if version.readable(now) => version.deleted = Some(now),
        _ => return Ok(false),
    }
    record::store(view, path, &meta, false).await?;
    Ok(true)
}

pub(super) async fn delete(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let numbers = numbers(req, "No version number provided")?;
    change_named(view, req, path, &numbers, Change::Delete, ("kv-v2/delete", "delete", "delete")).await
}

pub(super) async fn undelete(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let numbers = numbers(req, "No version number provided")?;
    let event = ("kv-v2/undelete", "undelete", "undelete");
    change_named(view, req, path, &numbers, Change::Undelete, event).await
}

pub(super) async fn destroy(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    // In Vault this one begins with a small letter.
    let numbers = numbers(req, "no version number provided")?;
    change_named(view, req, path, &numbers, Change::Destroy, ("kv-v2/destroy", "destroy", "destroy")).await
}

/// The version numbers of the body. Those that cannot be a version are left out, as unknown ones are.
fn numbers(req: &EngineRequest<'_>, none: &str) -> Result<Vec<u64>, EngineError> {
    let numbers = Fields::of(req.body).ints("versions", NUMBERS_MAX)?;
    if numbers.is_empty() {
        return Err(EngineError::bad(none));
    }
    Ok(numbers.into_iter().filter_map(|number| u64::try_from(number).ok()).collect())
}

async fn change_named(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    numbers: &[u64],
    what: Change,
    event: Event,
) -> Written {
    match record::load(&view.reading(), path).await? {
        Some(meta) => change(view, req, path, meta, numbers, what, event).await,
        None => Ok((EngineReply::Empty, Vec::new())),
    }
}

async fn change(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    mut meta: Meta,
    numbers: &[u64],
    what: Change,
    (event_type, operation, area): Event,
) -> Written {
    let mut changed = false;
    for number in numbers {
        let Some(version) = meta.versions.get_mut(number).filter(|version| !version.destroyed) else {
            continue;
        };
        match what {
            Change::Delete if version.readable(req.now) => version.deleted = Some(req.now),
            Change::Undelete if version.deleted.is_some() => version.deleted = None,
            Change::Destroy => {
                version.destroyed = true;
                view.delete_version(path, *number).await?;
            }
            _ => continue,
        }
        changed = true;
    }
    if !changed {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    meta.updated = req.now;
    record::store(view, path, &meta, false).await?;
    Ok((EngineReply::Empty, effect(event_type, operation, area, path)))
}
