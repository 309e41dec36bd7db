//! What is stored of a secret besides its data, and how it looks from outside. Holds no secret data.

use std::collections::BTreeMap;
use std::time::Duration;

use coffer_barrier::RecordKind;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::input::{Labels, go_duration, object};
use crate::{EngineError, ReadView, WriteView};

/// How many versions are kept when nobody says otherwise.
const VERSIONS_DEFAULT: u64 = 10;
/// The most versions anybody may ask to be kept: the metadata stays one record of bounded size.
pub(super) const VERSIONS_MAX: u64 = 1_000;
const FORMAT: u8 = 1;
const CONFIG: &str = "config";

/// Settings that exist both for the mount and for each secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) max_versions: u64,
    pub(super) cas_required: bool,
    /// In milliseconds; zero for never.
    pub(super) delete_after: u64,
}

/// One version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Version {
    pub(super) created: Timestamp,
    /// When it was or will be deleted.
    pub(super) deleted: Option<Timestamp>,
    pub(super) destroyed: bool,
}

impl Version {
    pub(super) fn readable(&self, now: Timestamp) -> bool {
        !self.destroyed && self.deleted.is_none_or(|at| at > now)
    }

    fn deletion_time(&self) -> String {
        self.deleted.map(Timestamp::to_rfc3339).unwrap_or_default()
    }
}

/// All that is known of one secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    format: u8,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
    /// The newest version's number; zero before the first.
    pub(super) current: u64,
    /// The oldest version kept; zero as long as none was dropped for its age.
    pub(super) oldest: u64,
    pub(super) settings: Settings,
    pub(super) labels: Option<Labels>,
    pub(super) versions: BTreeMap<u64, Version>,
}

impl Meta {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            format: FORMAT,
            created: now,
            updated: now,
            current: 0,
            oldest: 0,
            settings: Settings::default(),
            labels: None,
            versions: BTreeMap::new(),
        }
    }

    /// Adds the next version and returns its number and those that are now too old.
    pub(super) fn push(&mut self, config: &Settings, now: Timestamp) -> (u64, Vec<u64>) {
        self.current += 1;
        self.updated = now;
        let after = match (self.settings.delete_after, config.delete_after) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        };
        let deleted = (after != 0).then(|| now.plus(Duration::from_millis(after)));
        self.versions.insert(self.current, Version { created: now, deleted, destroyed: false });
        let keep = [self.settings.max_versions, config.max_versions, VERSIONS_DEFAULT]
            .into_iter()
            .find(|keep| *keep > 0)
            .unwrap_or(VERSIONS_DEFAULT);
        let first = (self.current + 1).saturating_sub(keep);
        let dropped: Vec<u64> = self.versions.range(..first).map(|(number, _)| *number).collect();
        for number in &dropped {
            self.versions.remove(number);
        }
        if !dropped.is_empty() {
            self.oldest = first;
        }
        (self.current, dropped)
    }

    /// `metadata` of a read, and the reply to a write.
    pub(super) fn version_json(&self, number: u64, version: &Version) -> Map<String, Value> {
        object(json!({
            "created_time": version.created.to_rfc3339(),
            "custom_metadata": self.labels,
            "deletion_time": version.deletion_time(),
            "destroyed": version.destroyed,
            "version": number,
        }))
    }

    /// `data` of a read of `metadata/`.
    pub(super) fn json(&self) -> Map<String, Value> {
        let versions: Map<String, Value> = self
            .versions
            .iter()
            .map(|(number, version)| {
                let entry = json!({
                    "created_time": version.created.to_rfc3339(),
                    "deletion_time": version.deletion_time(),
                    "destroyed": version.destroyed,
                });
                (number.to_string(), entry)
            })
            .collect();
        object(json!({
            "cas_required": self.settings.cas_required,
            "created_time": self.created.to_rfc3339(),
            "current_version": self.current,
            "custom_metadata": self.labels,
            "delete_version_after": go_duration(Duration::from_millis(self.settings.delete_after)),
            "max_versions": self.settings.max_versions,
            "oldest_version": self.oldest,
            "updated_time": self.updated.to_rfc3339(),
            "versions": versions,
        }))
    }
}

pub(super) async fn load(view: &ReadView<'_>, path: &str) -> Result<Option<Meta>, EngineError> {
    let meta: Option<Meta> = view.record(RecordKind::Meta, path, "kv metadata").await?;
    if meta.as_ref().is_some_and(|meta| meta.format != FORMAT) {
        return Err(EngineError::Corrupt("kv metadata of an unknown format"));
    }
    Ok(meta)
}

/// Stores the metadata; `new` ones are made visible to lists.
pub(super) async fn store(
    view: &mut WriteView<'_>,
    path: &str,
    meta: &Meta,
    new: bool,
) -> Result<(), EngineError> {
    if new {
        view.link(path).await?;
    }
    view.put_record(RecordKind::Meta, path, meta).await
}

pub(super) async fn load_config(view: &ReadView<'_>) -> Result<Settings, EngineError> {
    Ok(view.record(RecordKind::Entry, CONFIG, "kv configuration").await?.unwrap_or_default())
}

pub(super) async fn store_config(view: &mut WriteView<'_>, config: &Settings) -> Result<(), EngineError> {
    view.put_record(RecordKind::Entry, CONFIG, config).await
}
