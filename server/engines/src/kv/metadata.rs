//! `config` and `metadata/`: settings, labels, lists, removal of whole secrets. Never reads a secret's data.

use std::time::Duration;

use coffer_barrier::RecordKind;
use serde_json::json;

use super::effect;
use super::record::{self, Meta, Settings, VERSIONS_MAX};
use crate::engine::{Effect, EngineReply, EngineRequest};
use crate::input::{self, go_duration, object};
use crate::{EngineError, ReadView, WriteView};

type Written = Result<(EngineReply, Vec<Effect>), EngineError>;

pub(super) async fn read_config(view: &ReadView<'_>) -> Result<EngineReply, EngineError> {
    let config = record::load_config(view).await?;
    Ok(EngineReply::Data(object(json!({
        "cas_required": config.cas_required,
        "delete_version_after": go_duration(Duration::from_millis(config.delete_after)),
        "max_versions": config.max_versions,
    }))))
}

pub(super) async fn write_config(view: &mut WriteView<'_>, req: &EngineRequest<'_>) -> Written {
    let mut config = record::load_config(&view.reading()).await?;
    update(&mut config, req)?;
    record::store_config(view, &config).await?;
    let effect =
        Effect { event_type: "kv-v2/config-write", path: "config".into(), operation: "config-write" };
    Ok((EngineReply::Empty, vec![effect]))
}

/// Takes over the settings that the body has.
fn update(settings: &mut Settings, req: &EngineRequest<'_>) -> Result<(), EngineError> {
    if let Some(max) = input::number(req.body, "max_versions")? {
        if max > VERSIONS_MAX {
            return Err(EngineError::bad(format!("max_versions is larger than {VERSIONS_MAX}")));
        }
        settings.max_versions = max;
    }
    if let Some(required) = input::boolean(req.body, "cas_required")? {
        settings.cas_required = required;
    }
    if let Some(after) = input::duration(req.body, "delete_version_after")? {
        settings.delete_after = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
    }
    Ok(())
}

pub(super) async fn read(view: &ReadView<'_>, path: &str) -> Result<EngineReply, EngineError> {
    Ok(match record::load(view, path).await? {
        Some(meta) => EngineReply::Data(meta.json()),
        None => EngineReply::NotFound,
    })
}

pub(super) async fn list(
    view: &ReadView<'_>,
    req: &EngineRequest<'_>,
    dir: &str,
) -> Result<EngineReply, EngineError> {
    let (after, limit) = input::page(req.query)?;
    let mut names = view.list(dir, after, limit + 1).await?;
    if names.is_empty() {
        return Ok(EngineReply::NotFound);
    }
    if names.len() <= limit {
        return Ok(EngineReply::List(names));
    }
    names.truncate(limit);
    let asked = req.query.contains_key("limit");
    let page = EngineReply::List(names);
    let warning = format!("there are more than {limit} keys: ask for the rest with the parameter after");
    Ok(if asked { page } else { EngineReply::Warn(Box::new(page), vec![warning]) })
}

pub(super) async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let stored = record::load(&view.reading(), path).await?;
    let new = stored.is_none();
    let mut meta = stored.unwrap_or_else(|| Meta::new(req.now));
    update(&mut meta.settings, req)?;
    if let Some(labels) = input::labels(req.body)? {
        meta.labels = (!labels.is_empty()).then_some(labels);
    }
    meta.updated = req.now;
    record::store(view, path, &meta, new).await?;
    Ok((EngineReply::Empty, effect("kv-v2/metadata-write", "metadata-write", "metadata", path)))
}

pub(super) async fn delete(view: &mut WriteView<'_>, path: &str) -> Written {
    let Some(meta) = record::load(&view.reading(), path).await? else {
        return Ok((EngineReply::Empty, Vec::new()));
    };
    for number in meta.versions.keys() {
        view.delete_version(path, *number).await?;
    }
    view.delete(RecordKind::Meta, path).await?;
    view.unlink(path).await?;
    Ok((EngineReply::Empty, effect("kv-v2/metadata-delete", "metadata-delete", "metadata", path)))
}
