//! The signing keys of issuers that are asked for them, kept in memory.
//!
//! An unknown key id, or a signature that none of the keys made, makes it look again, but not more often than every ten
//! seconds: anybody can send a JWT that nobody signed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::time::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::Refused;
use super::key_set::KeySet;
use super::token::{Claims, Jwt};
use crate::deps::{FetchKeys, KeysQuery};
use crate::error::Fail;

/// Keys older than this are asked for again: a key that its issuer withdrew must not be believed for ever.
const LIFE: Duration = Duration::from_secs(600);
/// The shortest time between two questions.
const PAUSE: Duration = Duration::from_secs(10);

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// At this URL.
    At(KeysQuery),
    /// Where the issuer's discovery document says, which is found below the issuer's own URL (OpenID Connect Discovery
    /// 1.0, 4). Its `issuer` must be that URL.
    Discovered(KeysQuery),
}

impl Source {
    /// Asks for the keys. The error has no secrets in it.
    async fn fetch(&self, fetch: &dyn FetchKeys) -> Result<KeySet, String> {
        let query = match self {
            Self::At(query) => query.clone(),
            Self::Discovered(query) => discover(fetch, query).await?,
        };
        let text = fetch.fetch(&query).await?;
        KeySet::from_jwks(&text).map_err(|refused| refused.to_string())
    }
}

/// Finds the key set's place out.
async fn discover(fetch: &dyn FetchKeys, issuer: &KeysQuery) -> Result<KeysQuery, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/'));
    let text = fetch.fetch(&KeysQuery { url, ..issuer.clone() }).await?;
    let document: Value = serde_json::from_str(&text).map_err(|_| "the discovery document is not JSON")?;
    let said = |name: &str| document.get(name).and_then(Value::as_str);
    if said("issuer") != Some(&issuer.url) {
        return Err("the discovery document is of another issuer".into());
    }
    let url = said("jwks_uri").ok_or("the discovery document names no jwks_uri")?;
    if !url.starts_with("https://") {
        return Err("the discovery document's jwks_uri is not an https:// URL".into());
    }
    Ok(KeysQuery { url: url.to_owned(), ..issuer.clone() })
}

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
    source: Option<Source>,
    set: Option<Arc<KeySet>>,
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

    /// Whether there are keys at this place, asked now; nothing is kept. The error is for whoever configures it.
    pub(crate) async fn probe(&self, source: &Source) -> Result<(), String> {
        source.fetch(&*self.fetch).await.map(|_| ())
    }

    /// The claims of a token that a key of the mount's issuer signed. A token may name no key, and a new key may have an
    /// old one's id: before it is refused the issuer is asked, if that may be.
    pub(crate) async fn claims(
        &self,
        mount: MountId,
        source: &Source,
        jwt: &Jwt<'_>,
        algorithms: Option<&[Algorithm]>,
        now: Timestamp,
    ) -> Result<Result<Claims, Refused>, Fail> {
        let set = self.find(mount, source, jwt.key_id(), now).await?;
        let found = jwt.verify(jwt.candidates(set.keys()), algorithms);
        if found.is_ok() {
            return Ok(found);
        }
        Ok(match self.newer(mount, source, &set, now).await {
            Some(set) => jwt.verify(jwt.candidates(set.keys()), algorithms),
            None => found,
        })
    }

    /// Keys that were fetched after these, now if that may be.
    async fn newer(
        &self,
        mount: MountId,
        source: &Source,
        than: &Arc<KeySet>,
        now: Timestamp,
    ) -> Option<Arc<KeySet>> {
        let place = self.slot(mount);
        let _fetching = place.fetching.lock().await;
        let is_newer = |set: &Arc<KeySet>| !Arc::ptr_eq(set, than);
        {
            let mut slot = place.slot(source);
            if let Some(set) = slot.set.clone().filter(is_newer) {
                return Some(set);
            }
            if !slot.may_ask(now) {
                return None;
            }
        }
        let fetched = source.fetch(&*self.fetch).await;
        place.slot(source).take(fetched, now).ok().filter(is_newer)
    }

    /// The keys of a mount, among them the one of this id if the issuer has it.
    async fn find(
        &self,
        mount: MountId,
        source: &Source,
        kid: Option<&str>,
        now: Timestamp,
    ) -> Result<Arc<KeySet>, Fail> {
        let place = self.slot(mount);
        // A login with a key that is known does not wait for one that names another.
        if let Some(set) = place.slot(source).fresh(kid, now) {
            return Ok(set);
        }
        let _fetching = place.fetching.lock().await;
        {
            let mut slot = place.slot(source);
            if let Some(set) = slot.fresh(kid, now) {
                return Ok(set);
            }
            if !slot.may_ask(now) {
                return slot.set.clone().ok_or_else(unavailable);
            }
        }
        let fetched = source.fetch(&*self.fetch).await;
        place.slot(source).take(fetched, now)
    }
}

impl Place {
    /// What is kept for this source; what was kept for another is dropped.
    fn slot(&self, source: &Source) -> MutexGuard<'_, Slot> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.source.as_ref() != Some(source) {
            *slot = Slot { source: Some(source.clone()), ..Slot::default() };
        }
        slot
    }
}

fn unavailable() -> Fail {
    Fail::Unavailable("the issuer's signing keys could not be fetched".into())
}

impl Slot {
    /// Whether the issuer may be asked now; then that is what happens next.
    fn may_ask(&mut self, now: Timestamp) -> bool {
        let may = self.asked.is_none_or(|at| now >= at.plus(PAUSE));
        if may {
            self.asked = Some(now);
        }
        may
    }

    /// The set, if it is young enough to be believed unasked and has this key.
    fn fresh(&self, kid: Option<&str>, now: Timestamp) -> Option<Arc<KeySet>> {
        let set = self.set.as_ref().filter(|_| self.fetched.is_some_and(|at| now < at.plus(LIFE)))?;
        kid.is_none_or(|kid| set.has(kid)).then(|| Arc::clone(set))
    }

    /// Takes over what was fetched. If that failed the old keys stay good for a while: the issuer may be restarting.
    fn take(&mut self, fetched: Result<KeySet, String>, now: Timestamp) -> Result<Arc<KeySet>, Fail> {
        let kept = self.fetched.is_some_and(|at| now < at.plus(LIFE * 6));
        match fetched {
            Ok(set) => {
                self.fetched = Some(now);
                Ok(Arc::clone(self.set.insert(Arc::new(set))))
            }
            Err(why) => {
                tracing::warn!(why, kept, "an issuer's signing keys could not be fetched");
                if !kept {
                    self.set = None;
                }
                self.set.clone().ok_or_else(unavailable)
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

    fn source() -> Source {
        Source::At(KeysQuery { url: "https://k8s/jwks".into(), ..KeysQuery::default() })
    }

    /// Whether the key is among those that are found.
    async fn finds(cache: &KeyCache, mount: MountId, kid: &str, now: Timestamp) -> bool {
        cache.find(mount, &source(), Some(kid), now).await.is_ok_and(|set| set.has(kid))
    }

    #[tokio::test]
    async fn unknown_keys_are_looked_for_but_not_too_often() {
        let source = Arc::new(Rotating::default());
        let cache = KeyCache::new(Arc::clone(&source) as Arc<dyn FetchKeys>);
        let (mount, at) = (MountId::random(), Timestamp::from_secs);
        assert!(finds(&cache, mount, "k1", at(1000)).await);
        for _ in 0..5 {
            assert!(!finds(&cache, mount, "k2", at(1005)).await);
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
        assert!(finds(&cache, mount, "k2", at(1010)).await);
        assert!(!finds(&cache, mount, "k1", at(1011)).await, "withdrawn");
        // Known keys are asked for again after a while, and survive a short outage of the cluster.
        source.down.store(true, Ordering::SeqCst);
        assert!(finds(&cache, mount, "k2", at(1700)).await);
        assert!(!finds(&cache, mount, "k2", at(1010 + 3600)).await);
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
        let (mount, at) = (MountId::random(), Timestamp::from_secs);
        assert!(finds(&cache, mount, "k1", at(1000)).await);
        let asks = finds(&cache, mount, "k2", at(1010));
        let known = async {
            source.came.notified().await;
            finds(&cache, mount, "k1", at(1010)).await
        };
        tokio::select! {
            biased;
            found = known => assert!(found),
            _ = asks => panic!("it was answered"),
            () = tokio::time::sleep(Duration::from_secs(30)) => panic!("the known key waits"),
        }
    }
}
