//! Lockout: who failed to log in too often is refused for a while, whether he exists or not.
//!
//! Kept in memory and bounded. Names that nobody has count like any other, so that being locked out says nothing.
//! Defaults and messages are Vault's: five failures, fifteen minutes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::{Timestamp, duration_from_json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::error::{Fail, bad};
use crate::mounts::Mount;

/// The most bytes that names of one mount may take. A flood of invented names can push out what it filled in itself,
/// names that are locked last, but never another mount's.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an entry takes beside its name: counted generously.
const ENTRY_BYTES: usize = 192;
/// Names are cut to this: nobody's real one is longer.
const NAME_BYTES_MAX: usize = 512;

/// What a mount's tuning says, as stored; what is not set is as Vault has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LockoutConfig {
    threshold: Option<u64>,
    duration: Option<Duration>,
    counter_reset: Option<Duration>,
    disable: bool,
}

impl LockoutConfig {
    const THRESHOLD: u64 = 5;
    const WHILE: Duration = Duration::from_secs(15 * 60);

    fn threshold(&self) -> u64 {
        self.threshold.filter(|n| *n > 0).unwrap_or(Self::THRESHOLD)
    }

    fn duration(&self) -> Duration {
        self.duration.filter(|d| !d.is_zero()).unwrap_or(Self::WHILE)
    }

    fn counter_reset(&self) -> Duration {
        self.counter_reset.filter(|d| !d.is_zero()).unwrap_or(Self::WHILE)
    }

    /// Takes over `user_lockout_config` of a mount's tuning, if a body has it.
    pub(crate) fn merge(before: Option<&Self>, body: &Map<String, Value>) -> Result<Option<Self>, Fail> {
        let map = match body.get("user_lockout_config") {
            None | Some(Value::Null) => return Ok(before.cloned()),
            Some(Value::Object(map)) => map,
            Some(_) => return Err(bad("user_lockout_config must be an object")),
        };
        let mut config = before.cloned().unwrap_or_default();
        let get =
            |name: &str| map.get(name).or_else(|| map.get(&format!("user_{name}"))).filter(|v| !v.is_null());
        if let Some(value) = get("lockout_threshold") {
            let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            config.threshold = Some(number.ok_or_else(|| bad("unable to parse user lockout threshold"))?);
        }
        for (name, place) in [
            ("lockout_duration", &mut config.duration),
            ("lockout_counter_reset_duration", &mut config.counter_reset),
        ] {
            if let Some(value) = get(name) {
                let parsed =
                    duration_from_json(value).map_err(|_| bad(format!("unable to parse user {name}")))?;
                *place = Some(parsed);
            }
        }
        if let Some(value) = get("lockout_disable") {
            config.disable = match value {
                Value::Bool(flag) => *flag,
                Value::String(text) if text == "true" => true,
                Value::String(text) if text == "false" => false,
                _ => return Err(bad("unable to parse user lockout_disable")),
            };
        }
        Ok(Some(config))
    }

    /// As a mount's tuning shows it.
    pub(crate) fn show(&self) -> Map<String, Value> {
        let secs = |d: Duration| json!(d.as_secs());
        Map::from_iter([
            ("user_lockout_counter_reset_duration".to_owned(), secs(self.counter_reset())),
            ("user_lockout_disable".to_owned(), json!(self.disable)),
            ("user_lockout_duration".to_owned(), secs(self.duration())),
            ("user_lockout_threshold".to_owned(), json!(self.threshold())),
        ])
    }
}

/// The one form of a name: what differs in case, or in spaces around it, is one name.
pub(crate) fn normal(name: &str) -> String {
    let cut = (0..=NAME_BYTES_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at)).unwrap_or(0);
    name[..cut].trim().to_lowercase()
}

/// Who failed lately, by mount.
#[derive(Default)]
pub(crate) struct Lockouts {
    mounts: Mutex<HashMap<MountId, Names>>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<Arc<str>, Failures>,
    /// Oldest failure first; those that are locked apart, because they go last.
    open: BTreeMap<u64, Arc<str>>,
    locked: BTreeMap<u64, Arc<str>>,
    next: u64,
    bytes: usize,
}

struct Failures {
    count: u64,
    last: Timestamp,
    at: u64,
    locked: bool,
}

impl Lockouts {
    fn mounts(&self) -> MutexGuard<'_, HashMap<MountId, Names>> {
        self.mounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a name that is locked. `name` in its [`normal`] form.
    pub(crate) fn check(&self, mount: &Mount, name: &str, now: Timestamp) -> Result<(), Fail> {
        let config = mount.lockout.clone().unwrap_or_default();
        if config.disable {
            return Ok(());
        }
        let mut mounts = self.mounts();
        let Some(names) = mounts.get_mut(&mount.id) else { return Ok(()) };
        let Some(failures) = names.by_name.get(name) else { return Ok(()) };
        if failures.count < config.threshold() {
            return Ok(());
        }
        if now < failures.last.plus(config.duration()) {
            return Err(Fail::Login("locked out after too many failures"));
        }
        names.remove(name);
        Ok(())
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, mount: &Mount, name: &str, now: Timestamp) {
        let config = mount.lockout.clone().unwrap_or_default();
        if config.disable {
            return;
        }
        let mut mounts = self.mounts();
        let names = mounts.entry(mount.id).or_default();
        let before = names.remove(name).filter(|f| now < f.last.plus(config.counter_reset()));
        let count = before.map_or(0, |f| f.count).saturating_add(1);
        names.insert(name, count, now, count >= config.threshold());
    }

    /// Forgets the failures of a name: it logged in, or an administrator says so.
    pub(crate) fn clear(&self, mount: MountId, name: &str) {
        if let Some(names) = self.mounts().get_mut(&mount) {
            names.remove(name);
        }
    }

    /// The names of a mount that are locked now, in order.
    fn locked(&self, mount: &Mount, now: Timestamp) -> Vec<String> {
        let config = mount.lockout.clone().unwrap_or_default();
        let mounts = self.mounts();
        let Some(names) = mounts.get(&mount.id).filter(|_| !config.disable) else { return Vec::new() };
        let is_locked = |f: &Failures| f.count >= config.threshold() && now < f.last.plus(config.duration());
        let found = names.by_name.iter().filter(|(_, failures)| is_locked(failures));
        let mut found: Vec<String> = found.map(|(name, _)| (**name).to_owned()).collect();
        found.sort();
        found
    }

    /// `sys/locked-users`, for these mounts.
    pub(crate) fn report(&self, mounts: &[Arc<Mount>], now: Timestamp) -> Value {
        let mut total = 0;
        let mut accessors = Vec::new();
        for mount in mounts {
            let names = self.locked(mount, now);
            if !names.is_empty() {
                total += names.len();
                accessors.push(json!({
                    "mount_accessor": mount.accessor, "counts": names.len(), "alias_identifiers": names,
                }));
            }
        }
        let root = json!({
            "namespace_id": "root", "namespace_path": "", "counts": total, "mount_accessors": accessors,
        });
        json!({ "by_namespace": [root], "total": total })
    }
}

impl Names {
    fn remove(&mut self, name: &str) -> Option<Failures> {
        let failures = self.by_name.remove(name)?;
        self.bytes -= name.len() + ENTRY_BYTES;
        let order = if failures.locked { &mut self.locked } else { &mut self.open };
        order.remove(&failures.at);
        Some(failures)
    }

    fn insert(&mut self, name: &str, count: u64, last: Timestamp, locked: bool) {
        let bytes = name.len() + ENTRY_BYTES;
        while self.bytes + bytes > BYTES_MAX {
            let oldest = self.open.first_key_value().or_else(|| self.locked.first_key_value());
            let Some((_, oldest)) = oldest.map(|(at, name)| (*at, Arc::clone(name))) else { break };
            self.remove(&oldest);
        }
        let name: Arc<str> = name.into();
        let at = self.next;
        self.next += 1;
        self.bytes += bytes;
        let order = if locked { &mut self.locked } else { &mut self.open };
        order.insert(at, Arc::clone(&name));
        self.by_name.insert(name, Failures { count, last, at, locked });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{Class, blank};

    fn mount(config: Value) -> Mount {
        let mut mount = blank(Class::Auth, "userpass", "userpass", Timestamp::from_secs(1));
        mount.lockout = LockoutConfig::merge(None, config.as_object().unwrap()).unwrap();
        mount
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn five_failures_lock_for_fifteen_minutes() {
        let (locks, mount) = (Lockouts::default(), mount(json!({})));
        for second in 0..5 {
            locks.check(&mount, "eve", at(1000 + second)).unwrap();
            locks.failed(&mount, "eve", at(1000 + second));
        }
        assert_eq!(locks.check(&mount, "eve", at(1005)).unwrap_err().status(), 403);
        assert!(locks.check(&mount, "bob", at(1005)).is_ok());
        assert_eq!(locks.report(&[Arc::new(mount.clone())], at(1005))["total"], 1);
        assert!(locks.check(&mount, "eve", at(1004 + 899)).is_err());
        locks.check(&mount, "eve", at(1004 + 900)).unwrap();
        // The count begins anew.
        locks.failed(&mount, "eve", at(2000));
        locks.check(&mount, "eve", at(2000)).unwrap();
    }

    #[test]
    fn old_failures_and_successes_start_the_count_again() {
        let (locks, mount) = (Lockouts::default(), mount(json!({})));
        for second in 0..4 {
            locks.failed(&mount, "eve", at(second));
        }
        locks.failed(&mount, "eve", at(3 + 900));
        locks.check(&mount, "eve", at(3 + 900)).unwrap();
        for second in 0..3 {
            locks.failed(&mount, "eve", at(910 + second));
        }
        locks.clear(mount.id, "eve");
        locks.failed(&mount, "eve", at(920));
        locks.check(&mount, "eve", at(920)).unwrap();
    }

    #[test]
    fn mounts_can_be_tuned() {
        let set = json!({"user_lockout_config":
            {"lockout_threshold": "2", "lockout_duration": "1m", "lockout_counter_reset_duration": 30}});
        let (locks, strict) = (Lockouts::default(), mount(set));
        let shown = strict.lockout.as_ref().unwrap().show();
        assert_eq!(shown["user_lockout_threshold"], 2);
        assert_eq!(shown["user_lockout_duration"], 60);
        locks.failed(&strict, "eve", at(0));
        locks.failed(&strict, "eve", at(29));
        assert!(locks.check(&strict, "eve", at(88)).is_err());
        locks.check(&strict, "eve", at(89)).unwrap();
        let off = mount(json!({"user_lockout_config": {"lockout_disable": true}}));
        for _ in 0..9 {
            locks.failed(&off, "eve", at(1));
        }
        locks.check(&off, "eve", at(1)).unwrap();
        for wrong in [
            json!({"user_lockout_config": {"lockout_threshold": "3x"}}),
            json!({"user_lockout_config": {"lockout_duration": "soon"}}),
            json!({"user_lockout_config": {"lockout_disable": "maybe"}}),
            json!({"user_lockout_config": 3}),
        ] {
            assert!(LockoutConfig::merge(None, wrong.as_object().unwrap()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_flood_of_names_takes_no_more_than_its_bytes_and_pushes_out_what_is_locked_last() {
        let (locks, mount) = (Lockouts::default(), mount(json!({})));
        for _ in 0..5 {
            locks.failed(&mount, "eve", at(1));
        }
        for n in 0..40_000 {
            locks.failed(&mount, &format!("invented-{n}"), at(2));
        }
        let mounts = locks.mounts();
        let names = &mounts[&mount.id];
        assert!(names.bytes <= BYTES_MAX && names.by_name.len() < 40_000);
        let kept: usize = names.by_name.keys().map(|name| name.len() + ENTRY_BYTES).sum();
        assert_eq!(kept, names.bytes);
        assert_eq!(names.open.len() + names.locked.len(), names.by_name.len());
        drop(mounts);
        assert!(locks.check(&mount, "eve", at(3)).is_err());
    }

    #[test]
    fn names_that_differ_in_case_or_spaces_are_one() {
        for text in ["Eve", " eve", "eve ", "EVE", "\teve\u{a0}"] {
            assert_eq!(normal(text), "eve");
        }
        assert_eq!(normal("ÄÖ"), "äö");
        assert!(normal(&"ä".repeat(600)).len() <= NAME_BYTES_MAX);
    }
}
