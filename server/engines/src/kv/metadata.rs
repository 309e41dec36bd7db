//! `config` and `metadata/`: settings, labels, removal of whole secrets. Never reads a secret's data.

use std::time::Duration;

use coffer_barrier::RecordKind;
use serde_json::{Map, Value, json};

use super::fields::{Fields, Span, unconvertible};
use super::record::{self, Meta, Settings, VERSIONS_MAX};
use super::{Written, effect};
use crate::engine::{Effect, EngineReply, EngineRequest};
use crate::input::{LABEL_KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, Labels, object};
use crate::{EngineError, ReadView, WriteView};

/// The most refusals that one answer names.
const WRONG_MAX: usize = 16;

pub(super) async fn read_config(view: &ReadView<'_>) -> Result<EngineReply, EngineError> {
    let config = record::load_config(view).await?;
    Ok(EngineReply::Data(object(json!({
        "cas_required": config.cas_required,
        "delete_version_after": config.delete_after_text(),
        "max_versions": config.max_versions,
        "metadata_cas_required": config.metadata_cas_required,
    }))))
}

pub(super) async fn write_config(view: &mut WriteView<'_>, req: &EngineRequest<'_>) -> Written {
    let fields = Fields::of(req.body);
    let mut config = record::load_config(&view.reading()).await?;
    let Flags { any: mut given, warning } = flags(&fields, &mut config)?;
    if let Some(span) = fields.seconds("delete_version_after")? {
        given = true;
        (config.delete_after, config.never_delete) = match span {
            Span::Positive(span) => (millis(span), 0),
            Span::Negative(secs) => (0, secs),
        };
    }
    if !given {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    record::store_config(view, &config).await?;
    let effect =
        Effect { event_type: "kv-v2/config-write", path: "config".into(), operation: "config-write" };
    Ok((warned_empty(warning.into_iter().collect()), vec![effect]))
}

fn warned_empty(warnings: Vec<String>) -> EngineReply {
    match warnings.is_empty() {
        true => EngineReply::Empty,
        false => EngineReply::Warn(Box::new(EngineReply::Empty), warnings),
    }
}

/// What [`flags`] found.
struct Flags {
    /// Whether there was anything.
    any: bool,
    warning: Option<String>,
}

/// Takes over what a mount and a secret can both have set.
fn flags(fields: &Fields<'_>, settings: &mut Settings) -> Result<Flags, EngineError> {
    let max = fields.int("max_versions")?;
    let mut warning = None;
    if let Some(max) = max {
        // Vault takes a number below zero for a very large one.
        let wanted = u64::try_from(max).unwrap_or(u64::MAX);
        settings.max_versions = wanted.min(VERSIONS_MAX);
        if wanted > VERSIONS_MAX {
            warning =
                Some(format!("\"max_versions\" is set to {VERSIONS_MAX}, which is the most there can be."));
        }
    }
    let cas = fields.boolean("cas_required")?;
    settings.cas_required = cas.unwrap_or(settings.cas_required);
    let metadata_cas = fields.boolean("metadata_cas_required")?;
    settings.metadata_cas_required = metadata_cas.unwrap_or(settings.metadata_cas_required);
    Ok(Flags { any: max.is_some() || cas.is_some() || metadata_cas.is_some(), warning })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

pub(super) async fn read(view: &ReadView<'_>, path: &str) -> Result<EngineReply, EngineError> {
    Ok(match record::load(view, path).await? {
        Some(meta) => EngineReply::Data(meta.json()),
        None => EngineReply::NotFound,
    })
}

/// What a `POST` or `PATCH` of `metadata/` asks for.
struct Asked<'a> {
    fields: Fields<'a>,
    settings: Settings,
    labels: Option<Option<&'a Map<String, Value>>>,
    metadata_cas: Option<i64>,
    any: bool,
    warning: Option<String>,
}

fn asked<'a>(fields: Fields<'a>, before: Settings) -> Result<Asked<'a>, EngineError> {
    let mut settings = before;
    let Flags { mut any, warning } = flags(&fields, &mut settings)?;
    if let Some(span) = fields.positive_seconds("delete_version_after")? {
        settings.delete_after = millis(span);
        any = true;
    }
    let labels = fields.map("custom_metadata")?;
    any |= labels.is_some();
    let metadata_cas = fields.int("metadata_cas")?;
    Ok(Asked { fields, settings, labels, metadata_cas, any, warning })
}

pub(super) async fn write(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let stored = record::load(&view.reading(), path).await?;
    let new = stored.is_none();
    let mut meta = stored.unwrap_or_else(|| Meta::new(req.now));
    let asked = asked(Fields::after_lookup(req.body), meta.settings.clone())?;
    if !asked.any {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    if let Some(given) = asked.labels {
        let labels = texts(given)?;
        check_labels(&labels)?;
        meta.labels = (!labels.is_empty()).then_some(labels);
    }
    finish(view, req, path, meta, new, &asked, ("kv-v2/metadata-write", "metadata-write")).await
}

/// A merge patch of settings and labels; null takes a value away.
pub(super) async fn patch(view: &mut WriteView<'_>, req: &EngineRequest<'_>, path: &str) -> Written {
    let fields = Fields::of(req.body);
    let stored = record::load(&view.reading(), path).await?;
    let before = stored.as_ref().map(|meta| meta.settings.clone()).unwrap_or_default();
    let asked = asked(fields, before)?;
    if !asked.any {
        return Ok((EngineReply::Empty, Vec::new()));
    }
    let Some(mut meta) = stored else { return Ok((EngineReply::Missing, Vec::new())) };
    match asked.labels {
        None => {}
        Some(None) => meta.labels = None,
        Some(Some(given)) => {
            let (removed, kept): (Vec<_>, Vec<_>) = given.iter().partition(|(_, value)| value.is_null());
            let kept: Map<String, Value> =
                kept.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
            let mut labels = meta.labels.take().unwrap_or_default();
            labels.extend(texts(Some(&kept))?);
            for (key, _) in removed {
                labels.remove(key);
            }
            check_labels(&labels)?;
            meta.labels = (!labels.is_empty()).then_some(labels);
        }
    }
    finish(view, req, path, meta, false, &asked, ("kv-v2/metadata-patch", "metadata-patch")).await
}

/// Checks `metadata_cas`, stores, warns.
async fn finish(
    view: &mut WriteView<'_>,
    req: &EngineRequest<'_>,
    path: &str,
    mut meta: Meta,
    new: bool,
    asked: &Asked<'_>,
    (event_type, operation): (&'static str, &'static str),
) -> Written {
    let config = record::load_config(&view.reading()).await?;
    record::guard_config(view)?;
    match asked.metadata_cas {
        None if config.metadata_cas_required || meta.settings.metadata_cas_required => {
            return Err(EngineError::bad("metadata check-and-set parameter required for this call"));
        }
        Some(cas) if new && cas != 0 => {
            return Err(EngineError::bad("metadata_cas must be 0 when creating new metadata"));
        }
        Some(cas) if u64::try_from(cas) != Ok(meta.metadata_version) => {
            return Err(EngineError::bad(
                "metadata check-and-set parameter does not match the current version",
            ));
        }
        _ => {}
    }
    meta.settings = asked.settings.clone();
    meta.metadata_version += 1;
    meta.updated = req.now;
    record::store(view, path, &meta, new).await?;
    let mut warnings: Vec<String> = asked.warning.clone().into_iter().collect();
    for (name, mandated) in
        [("cas_required", config.cas_required), ("metadata_cas_required", config.metadata_cas_required)]
    {
        if mandated && asked.fields.boolean(name)? == Some(false) {
            warnings.push(format!(
                "\"{name}\" set to false, but is mandated by backend config. This value will be ignored."
            ));
        }
    }
    Ok((warned_empty(warnings), effect(event_type, operation, "metadata", path)))
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
    // Else it would come back by itself.
    super::rotation::forget(view, path).await?;
    Ok((EngineReply::Empty, effect("kv-v2/metadata-delete", "metadata-delete", "metadata", path)))
}

/// Labels as texts; numbers and truth values are spelled out, as Vault does it.
fn texts(given: Option<&Map<String, Value>>) -> Result<Labels, EngineError> {
    let mut labels = Labels::new();
    for (key, value) in given.into_iter().flatten() {
        let text = match value {
            Value::Null => String::new(),
            Value::Bool(value) => u8::from(*value).to_string(),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            other => {
                let why = unconvertible("", "string", other);
                return Err(EngineError::bad(format!("custom_metadata validation failed: {why}")));
            }
        };
        labels.insert(key.clone(), text);
    }
    Ok(labels)
}

/// Vault's limits, and all that is wrong at once.
fn check_labels(labels: &Labels) -> Result<(), EngineError> {
    let mut wrong = Vec::new();
    if labels.len() > LABELS_MAX {
        wrong.push(format!("payload must contain at most {LABELS_MAX} keys, provided {}", labels.len()));
        return refuse(&wrong);
    }
    for (name, value) in labels {
        if wrong.len() >= WRONG_MAX {
            break;
        }
        // Enough of it to know which one: it may be as long as a body.
        let key: String = name.chars().take(LABEL_KEY_BYTES_MAX).collect();
        if name.is_empty() || name.len() > LABEL_KEY_BYTES_MAX {
            wrong.push(format!(
                "length of key {key:?} is {} but must be 0 < len(key) <= {LABEL_KEY_BYTES_MAX}",
                name.len()
            ));
        }
        if value.is_empty() || value.len() > LABEL_VALUE_BYTES_MAX {
            wrong.push(format!(
                "length of value for key {key:?} is {} but must be 0 < len(value) <= {LABEL_VALUE_BYTES_MAX}",
                value.len()
            ));
        }
        if name.chars().any(char::is_control) {
            wrong.push(format!("key {key:?} contains unprintable characters"));
        }
        if value.chars().any(char::is_control) {
            wrong.push(format!("value for key {key:?} contains unprintable characters"));
        }
    }
    refuse(&wrong)
}

fn refuse(wrong: &[String]) -> Result<(), EngineError> {
    if wrong.is_empty() {
        return Ok(());
    }
    let heading = match wrong.len() {
        1 => "1 error occurred:".to_owned(),
        many => format!("{many} errors occurred:"),
    };
    let lines: String =
        wrong.iter().map(|why| format!("\t* custom_metadata validation failed: {why}\n")).collect();
    Err(EngineError::bad(format!("{heading}\n{lines}\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(value: Value) -> Result<(), String> {
        let map = object(value);
        let labels = texts(Some(&map)).map_err(|e| e.to_string())?;
        check_labels(&labels).map_err(|e| e.to_string())
    }

    #[test]
    fn labels_have_vaults_limits_and_words() {
        checked(json!({ "a": "b", "n": 1, "t": true })).unwrap();
        let long = checked(json!({ "a": "x".repeat(513), "": "y" })).unwrap_err();
        assert_eq!(
            long,
            "2 errors occurred:\n\t* custom_metadata validation failed: length of key \"\" is 0 but must be 0 < \
             len(key) <= 128\n\t* custom_metadata validation failed: length of value for key \"a\" is 513 but must \
             be 0 < len(value) <= 512\n\n"
        );
        let many: Map<_, _> = (0..65).map(|n| (n.to_string(), json!("x"))).collect();
        assert!(checked(Value::Object(many)).unwrap_err().contains("at most 64 keys, provided 65"));
        for bad in [json!({ "a": "" }), json!({ "a": "\n" }), json!({ "a\u{7}": "x" }), json!({ "a": {} })] {
            assert!(checked(bad).is_err());
        }
        checked(json!({ "k".repeat(128): "x".repeat(512) })).unwrap();
    }
}
