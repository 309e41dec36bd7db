//! Version 2 of the key-value engine as its documentation describes it, in the plainest way: one list of versions per
//! secret, nothing is ever forgotten, every rule is looked at where it applies. Shares no code with the engine.

use std::collections::BTreeMap;

use coffer_core::time::Timestamp;
use serde_json::{Map, Value, json};

/// Something to be done to a secret or the mount.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Write { path: &'static str, cas: Option<i64>, data: Map<String, Value> },
    Patch { path: &'static str, cas: Option<i64>, data: Map<String, Value> },
    DeleteNewest { path: &'static str },
    Versions { path: &'static str, verb: Verb, numbers: Vec<u64> },
    Settings { path: &'static str, cas: Option<u64>, max: u64, cas_required: bool, lives: u64, label: u64 },
    Label { path: &'static str, name: &'static str, value: Option<u64> },
    Remove { path: &'static str },
    Mount { max: u64, cas_required: bool, lives: u64 },
}

/// What is done to named versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Delete,
    Undelete,
    Destroy,
}

/// What an act is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A version was written.
    Version(u64),
    /// Done, or there was nothing to do.
    Empty,
    /// There is nothing to patch.
    Missing,
    /// The version that would have to be patched is gone.
    Gone(u64),
    Refused(&'static str),
}

#[derive(Clone, Debug)]
struct Version {
    data: Map<String, Value>,
    written: u64,
    dies: Option<u64>,
    destroyed: bool,
}

#[derive(Clone, Debug, Default)]
struct Secret {
    versions: Vec<Version>,
    /// Versions below this number are not shown any more; zero until that has been decided once.
    oldest: u64,
    max: u64,
    cas_required: bool,
    lives: u64,
    labels: BTreeMap<String, String>,
    changes: u64,
    created: u64,
    updated: u64,
}

/// A mount.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    secrets: BTreeMap<&'static str, Secret>,
    max: u64,
    cas_required: bool,
    lives: u64,
    /// Seconds.
    pub(crate) now: u64,
}

impl Secret {
    fn newest(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The version of that number, if it is still kept.
    fn version(&self, number: u64) -> Option<&Version> {
        if number < self.oldest.max(1) { None } else { self.versions.get(number as usize - 1) }
    }

    fn readable(&self, number: u64, now: u64) -> Option<&Version> {
        self.version(number).filter(|v| !v.destroyed && v.dies.is_none_or(|at| at > now))
    }

    fn kept(&self) -> Vec<u64> {
        (1..=self.newest()).filter(|number| self.version(*number).is_some()).collect()
    }
}

impl Model {
    fn check(&self, secret: Option<&Secret>, cas: Option<i64>) -> Result<(), Answer> {
        let newest = secret.map_or(0, Secret::newest);
        let readable = secret.is_some_and(|s| s.readable(newest, self.now).is_some());
        match cas {
            None if self.cas_required || secret.is_some_and(|s| s.cas_required) => {
                Err(Answer::Refused("check-and-set parameter required for this call"))
            }
            None => Ok(()),
            Some(0) if !readable => Ok(()),
            Some(cas) if cas == newest as i64 => Ok(()),
            Some(_) => Err(Answer::Refused("check-and-set parameter did not match the current version")),
        }
    }

    fn add(&mut self, path: &'static str, data: Map<String, Value>) -> Answer {
        let (now, most, lives) = (self.now, self.max, self.lives);
        let secret = self.secrets.entry(path).or_insert_with(|| Secret { created: now, ..Secret::default() });
        let life = [secret.lives, lives].into_iter().filter(|secs| *secs > 0).min();
        let dies = life.map(|secs| now + secs);
        secret.versions.push(Version { data, written: now, dies, destroyed: false });
        secret.updated = now;
        let room = if secret.max.max(most) == 0 { 10 } else { secret.max.max(most) };
        if secret.kept().len() as u64 >= room {
            secret.oldest = secret.newest() + 1 - room;
        }
        Answer::Version(secret.newest())
    }

    pub(crate) fn act(&mut self, act: Act) -> Answer {
        let now = self.now;
        match act {
            Act::Write { path, cas, data } => match self.check(self.secrets.get(path), cas) {
                Ok(()) => self.add(path, data),
                Err(refused) => refused,
            },
            Act::Patch { path, cas, data: change } => {
                let Some(secret) = self.secrets.get(path) else { return Answer::Missing };
                if let Err(refused) = self.check(Some(secret), cas) {
                    return refused;
                }
                let newest = secret.newest();
                if secret.version(newest).is_none() {
                    return Answer::Missing;
                }
                let Some(version) = secret.readable(newest, now) else { return Answer::Gone(newest) };
                let mut data = version.data.clone();
                for (key, value) in change {
                    if value.is_null() {
                        data.remove(&key)
                    } else {
                        data.insert(key, value)
                    };
                }
                self.add(path, data)
            }
            Act::DeleteNewest { path } => {
                let newest = self.secrets.get(path).map_or(0, Secret::newest);
                self.versions(path, Verb::Delete, &[newest])
            }
            Act::Versions { path, verb, numbers } => self.versions(path, verb, &numbers),
            Act::Settings { path, cas, max, cas_required, lives, label } => {
                let fresh = Secret { created: now, ..Secret::default() };
                let mut secret = self.secrets.get(path).cloned().unwrap_or(fresh);
                if cas.is_some_and(|cas| cas != 0) && !self.secrets.contains_key(path) {
                    return Answer::Refused("metadata_cas must be 0 when creating new metadata");
                }
                if cas.is_some_and(|cas| cas != secret.changes) {
                    return Answer::Refused(
                        "metadata check-and-set parameter does not match the current version",
                    );
                }
                (secret.max, secret.cas_required, secret.lives) = (max, cas_required, lives);
                secret.labels = BTreeMap::from([("all".to_owned(), label.to_string())]);
                secret.changes += 1;
                secret.updated = now;
                self.secrets.insert(path, secret);
                Answer::Empty
            }
            Act::Label { path, name, value } => {
                let Some(secret) = self.secrets.get_mut(path) else { return Answer::Missing };
                match value {
                    Some(value) => drop(secret.labels.insert(name.to_owned(), value.to_string())),
                    None => drop(secret.labels.remove(name)),
                }
                secret.changes += 1;
                secret.updated = now;
                Answer::Empty
            }
            Act::Remove { path } => {
                self.secrets.remove(path);
                Answer::Empty
            }
            Act::Mount { max, cas_required, lives } => {
                (self.max, self.cas_required, self.lives) = (max, cas_required, lives);
                Answer::Empty
            }
        }
    }

    fn versions(&mut self, path: &'static str, verb: Verb, numbers: &[u64]) -> Answer {
        let now = self.now;
        let Some(secret) = self.secrets.get_mut(path) else { return Answer::Empty };
        for number in numbers {
            if secret.version(*number).is_none_or(|version| version.destroyed) {
                continue;
            }
            let version = &mut secret.versions[*number as usize - 1];
            let alive = version.dies.is_none_or(|at| at > now);
            match verb {
                Verb::Delete if alive => version.dies = Some(now),
                Verb::Undelete if version.dies.is_some() => version.dies = None,
                Verb::Destroy => version.destroyed = true,
                _ => continue,
            }
            secret.updated = now;
        }
        Answer::Empty
    }

    /// Everything that can be seen of a secret: its metadata, each of its versions, and which rows are stored.
    pub(crate) fn seen(&self, path: &str) -> Value {
        let Some(secret) = self.secrets.get(path) else { return Value::Null };
        let time = |secs: u64| Timestamp::from_secs(secs).to_rfc3339();
        let labels = if secret.labels.is_empty() { Value::Null } else { json!(secret.labels) };
        let about = |version: &Version| {
            json!({
                "created_time": time(version.written), "deletion_time": version.dies.map(time).unwrap_or_default(),
                "destroyed": version.destroyed,
            })
        };
        let kept = secret.kept();
        let listed: Map<String, Value> =
            kept.iter().map(|n| (n.to_string(), about(secret.version(*n).unwrap()))).collect();
        let read = |number: u64| {
            let Some(version) = secret.version(number) else { return Value::Null };
            let mut metadata = about(version);
            metadata["version"] = json!(number);
            metadata["custom_metadata"] = labels.clone();
            let data = secret.readable(number, self.now).map(|version| &version.data);
            json!({ "data": data, "metadata": metadata })
        };
        let whole =
            |secs: u64| if secs < 60 { format!("{secs}s") } else { format!("{}m{}s", secs / 60, secs % 60) };
        let stored: Vec<u64> =
            kept.iter().copied().filter(|number| !secret.version(*number).unwrap().destroyed).collect();
        json!({
            "metadata": {
                "cas_required": secret.cas_required, "created_time": time(secret.created),
                "current_metadata_version": secret.changes, "current_version": secret.newest(),
                "custom_metadata": labels, "delete_version_after": whole(secret.lives),
                "max_versions": secret.max, "metadata_cas_required": false, "oldest_version": secret.oldest,
                "updated_time": time(secret.updated), "versions": listed,
            },
            "newest": read(secret.newest()),
            "reads": (1..=secret.newest() + 1).map(read).collect::<Vec<_>>(),
            "stored": stored,
        })
    }

    /// The mount's settings.
    pub(crate) fn config(&self) -> Value {
        json!({
            "cas_required": self.cas_required, "delete_version_after": whole(self.lives),
            "max_versions": self.max, "metadata_cas_required": false,
        })
    }

    /// The names of all secrets, as a list of the mount would have them in order.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.secrets.keys().copied().collect()
    }

    pub(crate) fn newest(&self, path: &str) -> u64 {
        self.secrets.get(path).map_or(0, Secret::newest)
    }

    pub(crate) fn changes(&self, path: &str) -> u64 {
        self.secrets.get(path).map_or(0, |secret| secret.changes)
    }
}

fn whole(secs: u64) -> String {
    if secs < 60 { format!("{secs}s") } else { format!("{}m{}s", secs / 60, secs % 60) }
}
