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
    /// Whether changes of the metadata need `metadata_cas`.
    #[serde(default)]
    pub(super) metadata_cas_required: bool,
    /// Of the mount only: versions end for no secret, whatever its own settings. Seconds, as they were sent with a
    /// minus; zero for no.
    #[serde(default)]
    pub(super) never_delete: u64,
}

impl Settings {
    /// `delete_version_after` as clients see it.
    pub(super) fn delete_after_text(&self) -> String {
        if self.never_delete == 0 {
            return go_duration(Duration::from_millis(self.delete_after));
        }
        format!("-{}", go_duration(Duration::from_secs(self.never_delete)))
    }
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
    /// The oldest version kept; zero as long as there was room for one more.
    pub(super) oldest: u64,
    pub(super) settings: Settings,
    pub(super) labels: Option<Labels>,
    pub(super) versions: BTreeMap<u64, Version>,
    /// How often the settings or labels were changed: what `metadata_cas` is compared with.
    #[serde(default)]
    pub(super) metadata_version: u64,
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
            metadata_version: 0,
        }
    }

    /// Of a secret that had no versions so far.
    pub(super) fn upgraded(now: Timestamp) -> Self {
        let mut meta = Self { current: 1, oldest: 1, ..Self::new(now) };
        meta.versions.insert(1, Version { created: now, deleted: None, destroyed: false });
        meta
    }

    /// Adds the next version and returns its number and those that are now too old.
    pub(super) fn push(&mut self, config: &Settings, now: Timestamp) -> (u64, Vec<u64>) {
        self.current += 1;
        self.updated = now;
        let deleted = self.delete_after(config).map(|after| now.plus(after));
        self.versions.insert(self.current, Version { created: now, deleted, destroyed: false });
        // As in Vault, the larger of the two: a mount's setting is a promise to all secrets in it.
        let keep = match self.settings.max_versions.max(config.max_versions) {
            0 => VERSIONS_DEFAULT,
            keep => keep,
        };
        let held = u64::try_from(self.versions.len()).unwrap_or(u64::MAX);
        if held < keep {
            return (self.current, Vec::new());
        }
        let first = (self.current + 1).saturating_sub(keep);
        let dropped: Vec<u64> = self.versions.range(..first).map(|(number, _)| *number).collect();
        for number in &dropped {
            self.versions.remove(number);
        }
        self.oldest = first;
        (self.current, dropped)
    }

    /// How long a version lives: the shorter of the two settings.
    fn delete_after(&self, config: &Settings) -> Option<Duration> {
        if config.never_delete != 0 {
            return None;
        }
        let after = match (self.settings.delete_after, config.delete_after) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        };
        (after != 0).then(|| Duration::from_millis(after))
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

    /// About how many bytes [`Meta::json`] takes.
    pub(super) fn json_bytes(&self) -> usize {
        const FIXED: usize = 512;
        const VERSION: usize = 128;
        let labels = self.labels.iter().flatten().map(|(key, value)| key.len() + value.len() + 8);
        FIXED + VERSION * self.versions.len() + labels.sum::<usize>()
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
            "current_metadata_version": self.metadata_version,
            "current_version": self.current,
            "custom_metadata": self.labels,
            "delete_version_after": self.settings.delete_after_text(),
            "max_versions": self.settings.max_versions,
            "metadata_cas_required": self.settings.metadata_cas_required,
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

/// Makes the commit fail if the mount's settings, which a write depends on, change in the meantime.
pub(super) fn guard_config(view: &mut WriteView<'_>) -> Result<(), EngineError> {
    view.guard(RecordKind::Entry, CONFIG)
}
