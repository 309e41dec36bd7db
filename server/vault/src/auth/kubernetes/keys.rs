//! The signing keys of clusters, kept in memory.
//!
//! An unknown key id makes it look again, but not more often than every ten seconds: anybody can send a JWT
//! that names a key nobody has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use jsonwebtoken::jwk::{Jwk, JwkSet};

use super::config::Config;
use crate::deps::{FetchKeys, KeysQuery};
use crate::error::Fail;

/// Keys older than this are asked for again: a key that the cluster withdrew must not be believed for ever.
const LIFE: Duration = Duration::from_secs(600);
/// The shortest time between two questions.
const PAUSE: Duration = Duration::from_secs(10);
/// The most keys of a set.
const KEYS_MAX: usize = 64;

/// The keys by mount.
pub(crate) struct KeyCache {
    fetch: Arc<dyn FetchKeys>,
    slots: Mutex<HashMap<MountId, Arc<Place>>>,
}

/// A mount's keys. What is there is read under the inner lock, which is never held while waiting.
#[derive(Default)]
struct Place {
    /// Held while fetching, so that many logins ask once.
    fetching: tokio::sync::Mutex<()>,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    query: KeysQuery,
    set: Option<Arc<JwkSet>>,
    fetched: Option<Timestamp>,
    asked: Option<Timestamp>,
}

impl KeyCache {
    pub(crate) fn new(fetch: Arc<dyn FetchKeys>) -> Self {
        Self { fetch, slots: Mutex::default() }
    }

    fn slot(&self, mount: MountId) -> Arc<Place> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(mount).or_default())
    }

    /// Forgets the keys of a mount: its settings changed.
    pub(crate) fn forget(&self, mount: MountId) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(&mount);
    }

    /// The key of this id.
    pub(super) async fn find(
        &self,
        mount: MountId,
        config: &Config,
        kid: &str,
        now: Timestamp,
    ) -> Result<Jwk, Fail> {
        const UNKNOWN: Fail = Fail::Login("the JWT names an unknown key");
        if let Some(inline) = &config.jwks {
            let set: JwkSet = serde_json::from_str(inline)?;
            return set.find(kid).cloned().ok_or(UNKNOWN);
        }
        let query = config.keys_query();
        let place = self.slot(mount);
        // A login with a key that is known does not wait for one that names another.
        if let Some(key) = place.slot(&query).fresh(kid, now) {
            return Ok(key);
        }
        let _fetching = place.fetching.lock().await;
        {
            let mut slot = place.slot(&query);
            if let Some(key) = slot.fresh(kid, now) {
                return Ok(key);
            }
            if slot.asked.is_some_and(|at| now < at.plus(PAUSE)) {
                let unavailable = "the cluster's signing keys could not be fetched";
                return match slot.set {
                    None => Err(Fail::Unavailable(unavailable.into())),
                    Some(_) => slot.key(kid).ok_or(UNKNOWN),
                };
            }
            slot.asked = Some(now);
        }
        let text = self.fetch.fetch(&query).await;
        let mut slot = place.slot(&query);
        slot.take(text, now)?;
        slot.key(kid).ok_or(UNKNOWN)
    }
}

impl Place {
    /// What is kept for this question; what was kept for another is dropped.
    fn slot(&self, query: &KeysQuery) -> MutexGuard<'_, Slot> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.query != *query {
            *slot = Slot { query: query.clone(), ..Slot::default() };
        }
        slot
    }
}

impl Slot {
    /// The key, if the set is young enough to be believed unasked.
    fn fresh(&self, kid: &str, now: Timestamp) -> Option<Jwk> {
        if self.fetched.is_some_and(|at| now < at.plus(LIFE)) { self.key(kid) } else { None }
    }

    fn key(&self, kid: &str) -> Option<Jwk> {
        self.set.as_ref()?.find(kid).cloned()
    }

    /// Takes over what was fetched. If that failed the old keys stay good for a while: the API server may be
    /// restarting.
    fn take(&mut self, text: Result<String, String>, now: Timestamp) -> Result<(), Fail> {
        let unavailable = |why: &str| {
            tracing::warn!(why, "the signing keys of a cluster could not be fetched");
            Fail::Unavailable("the cluster's signing keys could not be fetched".into())
        };
        let kept = self.fetched.is_some_and(|at| now < at.plus(LIFE * 6));
        match text.and_then(|t| serde_json::from_str::<JwkSet>(&t).map_err(|_| "not a key set".into())) {
            Ok(set) if set.keys.len() <= KEYS_MAX => {
                self.set = Some(Arc::new(set));
                self.fetched = Some(now);
                Ok(())
            }
            Ok(_) => Err(unavailable("too many keys")),
            Err(why) if kept => {
                tracing::warn!(why, "the signing keys of a cluster could not be fetched; the old ones stay");
                Ok(())
            }
            Err(why) => {
                self.set = None;
                Err(unavailable(&why))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use async_trait::async_trait;

    use super::*;

    /// Gives a set with the key `k<n>`, n being how often it was asked; or fails.
    #[derive(Default)]
    struct Rotating {
        asked: AtomicU32,
        down: AtomicBool,
    }

    #[async_trait]
    impl FetchKeys for Rotating {
        async fn fetch(&self, _query: &KeysQuery) -> Result<String, String> {
            let n = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if self.down.load(Ordering::SeqCst) {
                return Err("down".into());
            }
            let key = serde_json::json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": format!("k{n}")});
            Ok(serde_json::json!({ "keys": [key] }).to_string())
        }
    }

    fn config() -> Config {
        let host = "https://k8s".into();
        Config { issuer: "i".into(), host, ca_pem: None, jwks_url: None, jwks: None }
    }

    #[tokio::test]
    async fn unknown_keys_are_looked_for_but_not_too_often() {
        let source = Arc::new(Rotating::default());
        let cache = KeyCache::new(Arc::clone(&source) as Arc<dyn FetchKeys>);
        let (mount, config, at) = (MountId::random(), config(), Timestamp::from_secs);
        assert!(cache.find(mount, &config, "k1", at(1000)).await.is_ok());
        for _ in 0..5 {
            assert!(cache.find(mount, &config, "k2", at(1005)).await.is_err());
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        assert!(cache.find(mount, &config, "k2", at(1010)).await.is_ok());
        assert!(cache.find(mount, &config, "k1", at(1011)).await.is_err(), "withdrawn");
        // Known keys are asked for again after a while, and survive a short outage of the cluster.
        source.down.store(true, Ordering::SeqCst);
        assert!(cache.find(mount, &config, "k2", at(1700)).await.is_ok());
        assert!(cache.find(mount, &config, "k2", at(1010 + 3600)).await.is_err());
    }

    /// Answers the first question; every later one says that it came and is never answered.
    #[derive(Default)]
    struct Hanging {
        first: Rotating,
        came: tokio::sync::Notify,
    }

    #[async_trait]
    impl FetchKeys for Hanging {
        async fn fetch(&self, query: &KeysQuery) -> Result<String, String> {
            if self.first.asked.load(Ordering::SeqCst) == 0 {
                return self.first.fetch(query).await;
            }
            self.came.notify_one();
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn known_keys_do_not_wait_for_a_question_under_way() {
        let source = Arc::new(Hanging::default());
        let cache = KeyCache::new(Arc::clone(&source) as Arc<dyn FetchKeys>);
        let (mount, config, at) = (MountId::random(), config(), Timestamp::from_secs);
        assert!(cache.find(mount, &config, "k1", at(1000)).await.is_ok());
        let asks = cache.find(mount, &config, "k2", at(1010));
        let known = async {
            source.came.notified().await;
            cache.find(mount, &config, "k1", at(1010)).await
        };
        tokio::select! {
            biased;
            found = known => assert!(found.is_ok()),
            _ = asks => panic!("it was answered"),
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the known key waits"),
        }
    }
}
