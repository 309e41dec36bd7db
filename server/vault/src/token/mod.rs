//! Tokens: who is asking, whether he is alive, and the end of him.
//!
//! Stores hashes only. What a token's end does to its leases is told in `crate::revoke`.

mod accessors;
pub(crate) mod batch;
mod cache;
mod create;
mod cubbyhole;
mod entry;
mod ops;
mod orphan;
mod roles;
mod watchers;
pub(crate) mod wrapping;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use coffer_barrier::{Barrier, MountId, Read, Writer};
use coffer_core::policy::{Acl, PolicyName};
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, HmacKey, Token, TokenHash};

pub(crate) use cubbyhole::{
    clear_in as clear_cubbyhole_in, handle as handle_cubbyhole, has as cubbyhole_has,
};
pub(crate) use entry::{ANCESTORS_MAX, Kind, TokenEntry};
pub(crate) use ops::handle;
pub(crate) use roles::exists as role_exists;

use self::cache::TokenCache;
pub(crate) use self::watchers::Watch;
use self::watchers::Watchers;
use crate::cache::{CacheMeter, CacheSettings, Validity};
use crate::codec::{self, transact};
use crate::error::Fail;
use crate::events::Bell;
use crate::identity::{self, Entity, Group};
use crate::outage::Outage;
use crate::policy::Policies;
use crate::rows;

/// A token that was alive when it was read, with everything that authorising needs.
pub(crate) struct LiveToken {
    pub(crate) entry: TokenEntry,
    pub(crate) acl: Acl,
    /// Who stands behind it, as he was then.
    pub(crate) entity: Option<Entity>,
    /// What he may do wherever he logs in: his own policies and those of his groups.
    identity_policies: Vec<PolicyName>,
    /// Rules that do not count because a value in their path could have reached for others. For the audit log.
    pub(crate) refused_rules: Vec<String>,
    /// The earliest end among itself and its ancestors.
    ends: Option<Timestamp>,
    /// When the first of its policies' rules ends: then it must be read anew.
    until: Option<Timestamp>,
}

impl LiveToken {
    /// Whether its policies are still what they were when it was read.
    fn is_current(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether it is still within its time.
    pub(crate) fn in_time(&self, now: Timestamp) -> bool {
        self.ends.is_none_or(|end| now < end)
    }

    /// About how many bytes its texts take, beside its compiled policies.
    fn text_bytes(&self) -> usize {
        fn texts(map: &BTreeMap<String, String>) -> usize {
            map.iter().map(|(key, value)| key.len() + value.len()).sum()
        }
        fn names(list: &[PolicyName]) -> usize {
            list.iter().map(|name| name.as_str().len() + size_of::<PolicyName>()).sum()
        }
        let entity = self.entity.as_ref().map_or(0, |entity| {
            let aliases = entity.aliases.iter().map(|alias| {
                let custom = alias.custom_metadata.as_ref().map_or(0, texts);
                size_of_val(alias) + alias.name.len() + texts(&alias.metadata) + custom
            });
            let ids = entity.groups.iter().chain(&entity.merged).map(String::len).sum::<usize>();
            texts(&entity.metadata) + names(&entity.policies) + aliases.sum::<usize>() + ids
        });
        texts(&self.entry.metadata) + names(&self.entry.policies) + names(&self.identity_policies) + entity
    }

    /// The policies that it has from its entity and that one's groups.
    pub(crate) fn identity_policies(&self) -> &[PolicyName] {
        &self.identity_policies
    }

    /// Whether `hash` is this token or one it descends from.
    fn descends_from(&self, hash: &TokenHash) -> bool {
        self.entry.hash == *hash || self.entry.ancestors.contains(hash)
    }
}

fn earlier(a: Option<Timestamp>, b: Option<Timestamp>) -> Option<Timestamp> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// What is known of a living token before its policies are looked at.
struct Alive {
    entry: TokenEntry,
    entity: Option<Entity>,
    groups: Vec<Group>,
    /// The earliest end in its line.
    ends: Option<Timestamp>,
}

impl Alive {
    /// With the entity, unless that is gone or disabled.
    async fn of(
        reader: &dyn Read,
        mut entry: TokenEntry,
        ends: Option<Timestamp>,
    ) -> Result<Option<Self>, Fail> {
        let alias = entry.origin.as_ref().and_then(|origin| origin.alias.as_deref());
        let entity = match (alias, &entry.entity) {
            // Nobody logged in: he may have become somebody, or another one, since.
            (Some(alias), _) => {
                let entity = Entity::of_alias(reader, alias).await?;
                entry.entity = entity.as_ref().map(|entity| entity.id.clone());
                entity
            }
            (None, Some(id)) => match identity::load_merged(reader, id).await? {
                None => return Ok(None),
                found => found,
            },
            (None, None) => None,
        };
        let groups = match &entity {
            Some(entity) if entity.disabled => return Ok(None),
            Some(entity) => identity::groups_of(reader, entity).await?,
            None => Vec::new(),
        };
        Ok(Some(Self { entry, entity, groups, ends }))
    }

    async fn with_acl(self, policies: &Policies) -> Result<LiveToken, Fail> {
        let Self { entry, entity, groups, ends } = self;
        let mut names = entry.policies.clone();
        let identity_policies =
            entity.as_ref().map(|entity| identity::policies(entity, &groups)).unwrap_or_default();
        names.extend(identity_policies.iter().cloned());
        let told = entry.metadata.iter().filter(|(key, _)| !entry.made_up.contains(*key));
        let values = identity::template_values(told, entity.as_ref(), &groups);
        let mut refused_rules = Vec::new();
        let compiled = policies.acl(&names, entry.boundary.as_ref(), &values, &mut refused_rules).await?;
        let (acl, until) = (compiled.acl, compiled.until);
        Ok(LiveToken { entry, acl, entity, identity_policies, refused_rules, ends, until })
    }
}

/// The tokens.
pub(crate) struct Tokens {
    barrier: Arc<Barrier>,
    key: HmacKey,
    cache: TokenCache,
    validity: Arc<Validity>,
    outage: Option<Outage>,
    /// Told whenever something that was allowed may no longer be: they decide anew.
    watchers: Watchers,
    /// Held while the list of accessors is looked through: once at a time.
    tidying: Arc<tokio::sync::Mutex<()>>,
}

impl Tokens {
    pub(crate) fn new(
        barrier: Arc<Barrier>,
        key: HmacKey,
        outage: Option<Outage>,
        settings: &CacheSettings,
        meter: CacheMeter,
        validity: Arc<Validity>,
    ) -> Self {
        let cache = TokenCache::new(settings.tokens(), settings.ttl, meter);
        Self { barrier, key, cache, validity, outage, watchers: Watchers::default(), tidying: Arc::default() }
    }

    /// What the store knows a token by.
    pub(crate) fn hash(&self, token: &Token) -> TokenHash {
        token.hash(&self.key)
    }

    /// Where the rows of a token's cubbyhole are: apart from everybody else's.
    pub(crate) fn cubbyhole(&self, hash: &TokenHash) -> MountId {
        let mac = self.key.mac(&[b"cubbyhole", hash.as_bytes()]);
        let mut id = [0; 16];
        id.copy_from_slice(&mac[..16]);
        MountId::from_bytes(id)
    }

    /// Rises with everything that can take a permission away.
    pub(crate) fn generation(&self) -> u64 {
        self.cache.generation()
    }

    /// Rings when something is cut off that this token may hang from, and when the vault is sealed.
    pub(crate) fn watch(&self, token: &Arc<LiveToken>, bell: &Arc<Bell>) -> Watch {
        self.watchers.watch(token, bell)
    }

    /// Tells all who watch: the vault is sealed.
    pub(crate) fn end_watches(&self) {
        self.watchers.tell_where(|_| true);
    }

    /// The token, if it and all its ancestors are alive. May be answered from memory.
    pub(crate) async fn live(
        &self,
        policies: &Policies,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveToken>>, Fail> {
        if self.validity.holds(now)
            && let Some(token) = self.cache.get(hash, now)
            && token.is_current(now)
        {
            return Ok(token.in_time(now).then_some(token));
        }
        let generation = self.cache.generation();
        let reader = self.barrier.reader().await?;
        let Some(alive) = self.read_alive(&reader, hash, now, false).await? else { return Ok(None) };
        let counted = alive.entry.uses_left.is_some();
        let token = Arc::new(alive.with_acl(policies).await?);
        if !counted {
            self.cache.fill(generation, now, &token);
        }
        Ok(Some(token))
    }

    /// The token that a client sent, of whatever kind, if it and all it hangs from are alive.
    pub(crate) async fn find(
        &self,
        policies: &Policies,
        token: &Token,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveToken>>, Fail> {
        if !batch::looks_like_one(token) {
            return self.live(policies, &self.hash(token), now).await;
        }
        match batch::open(self, &self.barrier, token).await? {
            Some(entry) => self.live_batch(policies, entry, now).await,
            None => Ok(None),
        }
    }

    /// A token that is nowhere but in what it says of itself, if all it hangs from is alive.
    pub(crate) async fn live_batch(
        &self,
        policies: &Policies,
        entry: TokenEntry,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveToken>>, Fail> {
        let reader = self.barrier.reader().await?;
        let Some(alive) = self.batch_alive(&reader, entry, now).await? else { return Ok(None) };
        Ok(Some(Arc::new(alive.with_acl(policies).await?)))
    }

    /// The same for a request whose use of the token is counted already: that may have been its last. Never
    /// from memory if its uses are counted.
    pub(crate) async fn live_in_use(
        &self,
        policies: &Policies,
        token: &LiveToken,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveToken>>, Fail> {
        if token.entry.kind == Kind::Batch {
            return self.live_batch(policies, token.entry.clone(), now).await;
        }
        if token.entry.uses_left.is_none() {
            return self.live(policies, &token.entry.hash, now).await;
        }
        let reader = self.barrier.reader().await?;
        let found = self.read_alive(&reader, &token.entry.hash, now, true).await?;
        let Some(alive) = found else { return Ok(None) };
        Ok(Some(Arc::new(alive.with_acl(policies).await?)))
    }

    /// A token whose whole line is alive in this reader's snapshot, and whose entity is there and not disabled.
    /// `counted`: the request spent its use, so none need be left.
    async fn read_alive(
        &self,
        reader: &dyn Read,
        hash: &TokenHash,
        now: Timestamp,
        counted: bool,
    ) -> Result<Option<Alive>, Fail> {
        let Some(mut entry) = codec::get::<TokenEntry>(reader, &rows::token(hash)).await? else {
            return Ok(None);
        };
        self.with_grace(&mut entry);
        if counted {
            entry.uses_left = entry.uses_left.map(|left| left.max(1));
        }
        if !entry.alive(now) || (entry.kind == Kind::Batch && !batch::holds(reader, &entry).await?) {
            return Ok(None);
        }
        let mut ends = entry.expires;
        for ancestor in &entry.ancestors {
            let Some(mut above) = codec::get::<TokenEntry>(reader, &rows::token(ancestor)).await? else {
                return Ok(None);
            };
            self.with_grace(&mut above);
            if !above.alive(now) {
                return Ok(None);
            }
            ends = earlier(ends, above.expires);
        }
        Alive::of(reader, entry, ends).await
    }

    /// Nothing expires while no server is unsealed: what was alive when the outage began gets time to renew.
    pub(crate) fn with_grace(&self, entry: &mut TokenEntry) {
        if let (Some(outage), Some(expires)) = (&self.outage, entry.expires) {
            let told = entry.renewed.map_or(entry.created, |(at, _)| at);
            entry.expires = Some(outage.extend(told, expires, entry.ttl, entry.max_expires));
        }
    }

    /// Within a transaction: the token and its ancestors are alive, and the commit fails if that changes (R9).
    pub(crate) async fn guard_alive(
        &self,
        writer: &mut Writer,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<TokenEntry, Fail> {
        self.guard(writer, hash, now, false).await
    }

    /// The same for the token of a request whose use of it is counted already: that may have been its last.
    pub(crate) async fn guard_in_use(
        &self,
        writer: &mut Writer,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<TokenEntry, Fail> {
        self.guard(writer, hash, now, true).await
    }

    async fn guard(
        &self,
        writer: &mut Writer,
        hash: &TokenHash,
        now: Timestamp,
        counted: bool,
    ) -> Result<TokenEntry, Fail> {
        let alive = self.read_alive(&*writer, hash, now, counted).await?;
        let Alive { entry, entity, .. } = alive.ok_or(Fail::BadToken)?;
        if let Some(entity) = &entity {
            writer.guard(&rows::entity(&entity.id))?;
        }
        writer.guard(&rows::token(hash))?;
        if entry.kind == Kind::Batch {
            batch::guard(writer, &entry)?;
        }
        for ancestor in &entry.ancestors {
            writer.guard(&rows::token(ancestor))?;
        }
        Ok(entry)
    }

    /// Within a transaction: whether a token with this hash is there, dead or alive.
    pub(crate) async fn known_in(writer: &Writer, hash: &TokenHash) -> Result<bool, Fail> {
        Ok(writer.exists(&rows::token(hash)).await?)
    }

    /// Within a transaction: writes a new token and everything it is found by.
    pub(crate) async fn insert_in(writer: &mut Writer, entry: &TokenEntry) -> Result<(), Fail> {
        codec::put(writer, &rows::token(&entry.hash), entry).await?;
        if entry.kind == Kind::Service {
            codec::put(writer, &rows::accessor(&entry.accessor), &entry.hash).await?;
            codec::put(writer, &rows::accessor_listed(entry.created, &entry.hash), &entry.accessor).await?;
        }
        if let Some(due) = entry.due() {
            codec::put(writer, &rows::token_due(due, &entry.hash), &entry.hash).await?;
        }
        if let Some(parent) = entry.ancestors.first() {
            codec::put(writer, &rows::child(parent, entry.created, &entry.hash), &entry.hash).await?;
        }
        if let Some(mount) = entry.mount {
            let issued = IssuedToken::of(entry);
            let key = rows::issued_token(mount, entry.created, &entry.hash);
            codec::put(writer, &key, &issued).await?;
            if let Some(uid) = &entry.pod {
                let key = rows::pod_token(mount, uid, entry.created, &entry.hash);
                codec::put(writer, &key, &issued).await?;
            }
        }
        Ok(())
    }

    /// Within a transaction: replaces a living entry, moving it in the order of expiry.
    pub(crate) async fn update_in(
        writer: &mut Writer,
        old: &TokenEntry,
        new: &TokenEntry,
    ) -> Result<(), Fail> {
        codec::put(writer, &rows::token(&new.hash), new).await?;
        if old.due() != new.due() {
            if let Some(due) = old.due() {
                writer.delete(&rows::token_due(due, &old.hash)).await?;
            }
            if let Some(due) = new.due() {
                codec::put(writer, &rows::token_due(due, &new.hash), &new.hash).await?;
            }
        }
        Ok(())
    }

    /// Kills tokens: when this returns, the end of each is durable, nothing in memory vouches for any of them or
    /// their descendants, and a `dying` row each keeps what is still to be done. Gives back those that were alive
    /// till now; that the others were dead is known from snapshots as fresh as the commits would have been.
    pub(crate) async fn kill(&self, hashes: &[TokenHash], now: Timestamp) -> Result<Vec<Dying>, Fail> {
        let mut dying = Vec::new();
        let mut failure = None;
        for hash in hashes {
            match transact!(self.barrier, |w| Self::kill_in(w, hash, now).await?) {
                Ok(true) => dying.push(Dying { hash: *hash, since: now }),
                Ok(false) => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        // Also those that were dead: whoever killed them may not have come this far yet (trap 5 of `revocation.md`);
        // and those whose commit failed: it may have been applied.
        self.forget(hashes);
        failure.map_or(Ok(dying), Err)
    }

    /// Within a transaction: the token is dead from its commit on. False if it was already. Whoever calls this himself
    /// also has to [`Self::forget`] it once the commit is known, and to see to its cascade.
    pub(crate) async fn kill_in(writer: &mut Writer, hash: &TokenHash, now: Timestamp) -> Result<bool, Fail> {
        let Some(old) = codec::get::<TokenEntry>(&*writer, &rows::token(hash)).await? else {
            return Ok(false);
        };
        if old.revoked.is_some() {
            return Ok(false);
        }
        let dead = TokenEntry { revoked: Some(now), ..old.clone() };
        Self::update_in(writer, &old, &dead).await?;
        writer.delete(&rows::accessor(&old.accessor)).await?;
        writer.delete(&rows::accessor_listed(old.created, hash)).await?;
        if let Some(parent) = old.ancestors.first() {
            writer.delete(&rows::child(parent, old.created, hash)).await?;
        }
        if let Some(mount) = old.mount {
            writer.delete(&rows::issued_token(mount, old.created, hash)).await?;
            if let Some(uid) = &old.pod {
                writer.delete(&rows::pod_token(mount, uid, old.created, hash)).await?;
            }
        }
        codec::put(writer, &rows::dying(now, hash), &Dying { hash: *hash, since: now }).await?;
        Ok(true)
    }

    /// Nothing in memory vouches for these tokens or their descendants any more.
    pub(crate) fn forget(&self, hashes: &[TokenHash]) {
        match hashes {
            [] => {}
            [one] => self.drop_where(|token| token.descends_from(one)),
            many => {
                let gone: HashSet<&TokenHash> = many.iter().collect();
                self.drop_where(|token| {
                    let entry = &token.entry;
                    gone.contains(&entry.hash) || entry.ancestors.iter().any(|above| gone.contains(above))
                });
            }
        }
    }

    /// Nothing in memory vouches for what this auth mount issued, or for what this pod got there.
    pub(crate) fn forget_issued(&self, mount: MountId, pod: Option<&str>) {
        self.drop_where(|token| {
            let entry = &token.entry;
            entry.mount == Some(mount) && pod.is_none_or(|uid| entry.pod.as_deref() == Some(uid))
        });
    }

    /// Nothing in memory vouches for the tokens of this entity: it changed.
    pub(crate) fn forget_entity(&self, id: &str) {
        // One that was merged is found under its old id, too.
        self.drop_where(|token| {
            token.entry.entity.as_deref() == Some(id) || token.entity.as_ref().is_some_and(|e| e.id == id)
        });
    }

    /// Nothing in memory vouches for anybody any more: a policy or a mount changed.
    pub(crate) fn forget_all(&self) {
        self.drop_where(|_| true);
    }

    fn drop_where(&self, dead: impl Fn(&LiveToken) -> bool) {
        self.cache.drop_where(&dead);
        // Batch tokens hang from more than is told here, and are in no cache.
        self.watchers.tell_where(|token| token.entry.kind == Kind::Batch || dead(token));
    }

    /// The token an accessor names.
    pub(crate) async fn by_accessor(&self, text: &str) -> Result<Option<TokenHash>, Fail> {
        let Ok(accessor) = Accessor::parse(text) else { return Ok(None) };
        let reader = self.barrier.reader().await?;
        codec::get(&reader, &rows::accessor(&accessor)).await
    }

    /// Takes one use from a token whose uses are counted. Fails if none is left.
    pub(crate) async fn spend_use(&self, hash: &TokenHash, now: Timestamp) -> Result<(), Fail> {
        transact!(self.barrier, |w| {
            self.guard_alive(w, hash, now).await?;
            let Some(mut entry) = codec::get::<TokenEntry>(&*w, &rows::token(hash)).await? else {
                return Err(Fail::BadToken);
            };
            let Some(left) = entry.uses_left else { return Ok(()) };
            entry.uses_left = Some(left.saturating_sub(1));
            codec::put(w, &rows::token(hash), &entry).await?;
        })
    }
}

/// A revoked token whose children and leases are still to be dealt with.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Dying {
    pub(crate) hash: TokenHash,
    pub(crate) since: Timestamp,
}

/// What the list of an auth mount's tokens says of each.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct IssuedToken {
    pub(crate) hash: TokenHash,
    pub(crate) pod_uid: Option<String>,
    pub(crate) pod_name: String,
    pub(crate) namespace: String,
}

impl IssuedToken {
    fn of(entry: &TokenEntry) -> Self {
        let named = |key: &str| entry.metadata.get(key).cloned().unwrap_or_default();
        Self {
            hash: entry.hash,
            pod_uid: entry.pod.clone(),
            pod_name: named("pod_name"),
            namespace: named("service_account_namespace"),
        }
    }
}
