//! Batch tokens: a token that carries its own entry, sealed, and of which nothing is kept.
//!
//! It cannot be revoked by itself. It ends with its short life, and before that with what it hangs from: its parent, the
//! pod it was given to, its auth mount and that mount's boundary, and the role it was made by. All of that is looked up at
//! every use; nothing of a batch token is cached.
//!
//! Only when it is issued a lease an entry of it is written down, so that the lease is found and ended by whatever ends the
//! token (the token's *shadow*).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coffer_barrier::{Barrier, MountId, Read, RecordKind, RowKey, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, MAX_TOKEN_BYTES, Token, TokenHash};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Alive, Kind, TokenEntry, Tokens};
use crate::auth::direct;
use crate::cidr::Cidrs;
use crate::codec;
use crate::error::{Fail, bad};
use crate::mounts::Mount;
use crate::rows;

/// What batch tokens begin with.
const PREFIX: &str = "b.";
/// What the barrier seals them for.
const PURPOSE: &str = "batch token v1";
/// The longest life of a batch token that was given to a pod: the tombstone of a revoked pod has to outlive it.
pub(crate) const POD_LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a batch token hangs from, besides its parent and its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// When the auth mount was made: with its id, the name of its row.
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    pub(crate) mount_created: Option<Timestamp>,
    /// The role it was made by.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<RowPrint>,
    /// The settings of its mount, where they still say who is believed.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub(crate) config: Option<RowPrint>,
    /// Whose it is, where that is looked up at each use: the key of his alias.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub(crate) alias: Option<String>,
}

impl Origin {
    fn prints(&self) -> impl Iterator<Item = &RowPrint> {
        self.role.iter().chain(&self.config)
    }
}

/// A role, or settings, as they were when a token was made by them: any change of them ends the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowPrint {
    #[serde(rename = "m")]
    mount: MountId,
    #[serde(rename = "p")]
    path: String,
    /// SHA-256 of what is stored.
    #[serde(rename = "h")]
    print: String,
}

impl RowPrint {
    /// The print of the entry at `path` of `mount`; none if there is no such entry.
    pub(crate) async fn take(reader: &dyn Read, mount: MountId, path: &str) -> Result<Option<Self>, Fail> {
        let row = RowKey::path(mount, RecordKind::Entry, path);
        let stored = reader.get(&row).await?;
        Ok(stored.map(|bytes| Self {
            mount,
            path: path.to_owned(),
            print: hex::encode(Sha256::digest(bytes.expose())),
        }))
    }

    fn row(&self) -> RowKey {
        RowKey::path(self.mount, RecordKind::Entry, &self.path)
    }

    /// Within a transaction: the role still is what it was, and the commit fails if that changes.
    pub(super) async fn guard_in(&self, writer: &mut Writer) -> Result<(), Fail> {
        if !self.holds(&*writer).await? {
            return Err(Fail::Unavailable("the role was changed in the meantime; try again".into()));
        }
        Ok(writer.guard(&self.row())?)
    }

    async fn holds(&self, reader: &dyn Read) -> Result<bool, Fail> {
        Ok(Self::take(reader, self.mount, &self.path).await?.as_ref() == Some(self))
    }
}

/// What a batch token says of itself. Short names: the whole of it travels with every request.
#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "p")]
    policies: Vec<PolicyName>,
    #[serde(rename = "c")]
    created: Timestamp,
    #[serde(rename = "t")]
    ttl: Duration,
    #[serde(rename = "d")]
    display_name: String,
    #[serde(rename = "w")]
    path: String,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    parent: Option<TokenHash>,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    boundary: Option<PolicyName>,
    #[serde(rename = "x", default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(rename = "y", default, skip_serializing_if = "BTreeSet::is_empty")]
    made_up: BTreeSet<String>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    mount: Option<MountId>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    entity: Option<String>,
    #[serde(rename = "i", default, skip_serializing_if = "Cidrs::is_empty")]
    bound_cidrs: Cidrs,
    #[serde(rename = "g", default)]
    origin: Origin,
    /// So that two of the same kind made at the same time are two.
    #[serde(rename = "n")]
    nonce: u64,
}

/// Seals an entry into a token. The entry's hash and accessor follow from the token, and are put into it.
pub(crate) fn seal(tokens: &Tokens, barrier: &Barrier, entry: &mut TokenEntry) -> Result<Token, Fail> {
    let claims = Claims {
        policies: entry.policies.clone(),
        created: entry.created,
        ttl: entry.ttl,
        display_name: entry.display_name.clone(),
        path: entry.path.clone(),
        parent: entry.ancestors.first().copied(),
        boundary: entry.boundary.clone(),
        metadata: entry.metadata.clone(),
        made_up: entry.made_up.clone(),
        role: entry.role.clone(),
        mount: entry.mount,
        pod: entry.pod.clone(),
        entity: entry.entity.clone(),
        bound_cidrs: entry.bound_cidrs.clone(),
        origin: entry.origin.clone().unwrap_or_default(),
        nonce: rand::random(),
    };
    let sealed = barrier.seal_for(PURPOSE, &codec::encode(&claims)?)?;
    let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(sealed));
    if text.len() > MAX_TOKEN_BYTES {
        return Err(bad(format!(
            "the batch token would be longer than {MAX_TOKEN_BYTES} bytes: fewer policies or less metadata"
        )));
    }
    let token = Token::parse(&text).map_err(|_| Fail::Internal("a batch token of ours is malformed"))?;
    entry.hash = tokens.hash(&token);
    entry.accessor = tokens.batch_accessor(&entry.hash);
    Ok(token)
}

/// Whether a text can be a batch token at all, or what is treated as one.
pub(crate) fn looks_like_one(token: &Token) -> bool {
    token.expose().starts_with(PREFIX) || direct::looks_like_one(token)
}

/// The entry that a batch token carries; none if it is not one of ours. Says nothing about whether it is alive.
pub(super) async fn open(
    tokens: &Tokens,
    barrier: &Barrier,
    token: &Token,
) -> Result<Option<TokenEntry>, Fail> {
    let Some(text) = token.expose().strip_prefix(PREFIX) else { return Ok(None) };
    let Ok(sealed) = URL_SAFE_NO_PAD.decode(text) else { return Ok(None) };
    let Some(plain) = barrier.open_from(PURPOSE, &sealed).await? else { return Ok(None) };
    // One of another version is as good as none.
    let Ok(claims) = codec::decode::<Claims>(&plain) else { return Ok(None) };
    if claims.policies.iter().any(PolicyName::is_root) {
        // None is ever made.
        return Ok(None);
    }
    let hash = tokens.hash(token);
    let expires = Some(claims.created.plus(claims.ttl));
    Ok(Some(TokenEntry {
        kind: Kind::Batch,
        ancestors: claims.parent.into_iter().collect(),
        policies: claims.policies,
        boundary: claims.boundary,
        metadata: claims.metadata,
        made_up: claims.made_up,
        display_name: claims.display_name,
        path: claims.path,
        role: claims.role,
        mount: claims.mount,
        pod: claims.pod,
        entity: claims.entity,
        ttl: claims.ttl,
        expires,
        max_expires: expires,
        bound_cidrs: claims.bound_cidrs,
        origin: Some(claims.origin),
        ..TokenEntry::blank(hash, tokens.batch_accessor(&hash), claims.created)
    }))
}

/// Whether everything a batch token hangs from still holds, its parent aside.
pub(super) async fn holds(reader: &dyn Read, entry: &TokenEntry) -> Result<bool, Fail> {
    let origin = entry.origin.clone().unwrap_or_default();
    if let (Some(id), Some(created)) = (entry.mount, origin.mount_created) {
        let mount = codec::get::<Mount>(reader, &rows::mount(created, id)).await?;
        if mount.is_none_or(|mount| mount.tainted || mount.boundary != entry.boundary) {
            return Ok(false);
        }
    }
    if let (Some(id), Some(uid)) = (entry.mount, &entry.pod)
        && reader.exists(&rows::pod_tombstone(id, uid)).await?
    {
        return Ok(false);
    }
    for print in origin.prints() {
        if !print.holds(reader).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Within a transaction that saw them hold: the commit fails if any of them changes.
pub(super) fn guard(writer: &mut Writer, entry: &TokenEntry) -> Result<(), Fail> {
    let origin = entry.origin.clone().unwrap_or_default();
    if let (Some(id), Some(created)) = (entry.mount, origin.mount_created) {
        writer.guard(&rows::mount(created, id))?;
    }
    if let (Some(id), Some(uid)) = (entry.mount, &entry.pod) {
        writer.guard(&rows::pod_tombstone(id, uid))?;
    }
    for print in origin.prints() {
        writer.guard(&print.row())?;
    }
    if let Some(alias) = &origin.alias {
        writer.guard(&rows::alias_name(alias))?;
    }
    Ok(())
}

impl Tokens {
    /// What names a batch token in the audit log. It is in no list, and clients do not see it.
    pub(crate) fn batch_accessor(&self, hash: &TokenHash) -> Accessor {
        let mac = self.key.mac(&[b"batch accessor", hash.as_bytes()]);
        let mut bytes = [0; 18];
        bytes.copy_from_slice(&mac[..18]);
        Accessor::from_bytes(bytes)
    }

    /// Within a transaction: the caller is alive, whatever kind of token he has, and the commit fails if that changes.
    pub(crate) async fn guard_caller(
        &self,
        writer: &mut Writer,
        caller: &TokenEntry,
        now: Timestamp,
    ) -> Result<TokenEntry, Fail> {
        if caller.kind == Kind::Service {
            return self.guard_in_use(writer, &caller.hash, now).await;
        }
        let alive = self.batch_alive(&*writer, caller.clone(), now).await?;
        let Alive { entry, entity, .. } = alive.ok_or(Fail::BadToken)?;
        guard(writer, &entry)?;
        if let Some(entity) = &entity {
            // The one that it is now: the token may name one that was merged into it.
            writer.guard(&rows::entity(&entity.id))?;
        }
        writer.guard(&rows::token(&entry.hash))?;
        for ancestor in &entry.ancestors {
            writer.guard(&rows::token(ancestor))?;
        }
        Ok(entry)
    }

    /// The same for a caller from whom something is about to hang: a batch token is written down.
    pub(crate) async fn guard_holder(
        &self,
        writer: &mut Writer,
        holder: &TokenEntry,
        now: Timestamp,
    ) -> Result<TokenEntry, Fail> {
        let entry = self.guard_caller(writer, holder, now).await?;
        if entry.kind == Kind::Batch {
            match codec::get::<TokenEntry>(&*writer as &dyn Read, &rows::token(&entry.hash)).await? {
                None => Self::insert_in(writer, &entry).await?,
                // What is used as it is may have been believed anew since, under another role or other settings.
                Some(shadow) if shadow.origin != entry.origin => {
                    Self::update_in(writer, &shadow, &entry).await?;
                }
                Some(_) => {}
            }
        }
        Ok(entry)
    }

    /// A batch token with its line of ancestors, if it and all it hangs from are alive in this reader's snapshot.
    pub(super) async fn batch_alive(
        &self,
        reader: &dyn Read,
        mut entry: TokenEntry,
        now: Timestamp,
    ) -> Result<Option<Alive>, Fail> {
        if !entry.alive(now) || !holds(reader, &entry).await? {
            return Ok(None);
        }
        // Its shadow, if it has one, may have been ended by itself.
        let shadow = codec::get::<TokenEntry>(reader, &rows::token(&entry.hash)).await?;
        if shadow.is_some_and(|shadow| shadow.revoked.is_some()) {
            return Ok(None);
        }
        let mut ends = entry.expires;
        if let Some(parent) = entry.ancestors.first().copied() {
            let Some(above) = self.read_alive(reader, &parent, now, false).await? else {
                return Ok(None);
            };
            ends = super::earlier(ends, above.ends);
            entry.ancestors = std::iter::once(parent).chain(above.entry.ancestors).collect();
        }
        Alive::of(reader, entry, ends).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use coffer_core::shamir::Threshold;
    use coffer_storage::memory::MemoryStore;
    use serde_json::{Value, json};

    use super::*;
    use crate::cache::{CacheMeters, CacheSettings, Validity};
    use crate::codec::transact;

    const NOW: Timestamp = Timestamp::from_secs(1000);

    #[tokio::test]
    async fn who_acts_for_an_entity_that_was_merged_acts_no_more_once_the_present_one_is_disabled() {
        let barrier = Arc::new(Barrier::new(Arc::new(MemoryStore::new())));
        let shares =
            barrier.initialize(Threshold::new(1, 1).unwrap(), &mut crate::door::os_rng()).await.unwrap();
        barrier.unseal(&shares).await.unwrap();
        let meters = CacheMeters::new(&prometheus::Registry::new()).unwrap();
        let tokens = Tokens::new(
            Arc::clone(&barrier),
            barrier.hmac_key("token").unwrap(),
            None,
            &CacheSettings::default(),
            meters.tokens,
            Arc::new(Validity::always()),
        );
        let (old, present) =
            ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"].into();
        let entity = |disabled: bool| -> Value {
            json!({
                "id": present, "name": "n", "policies": [], "metadata": {}, "disabled": disabled, "created": NOW,
                "updated": NOW, "aliases": [], "merged": [old],
            })
        };
        let made: Result<(), Fail> = transact!(barrier, |w| {
            codec::put(w, &rows::entity(present), &entity(false)).await?;
            codec::put(w, &rows::entity_merged(old), &present).await?;
        });
        made.unwrap();
        let hash = tokens.hash(&Token::generate(&mut rand::rng()));
        let caller = TokenEntry {
            kind: Kind::Batch,
            entity: Some(old.to_owned()),
            ..TokenEntry::blank(hash, tokens.batch_accessor(&hash), NOW)
        };
        let mut times = 0;
        let acted: Result<(), Fail> = transact!(barrier, |w| {
            tokens.guard_caller(w, &caller, NOW).await?;
            codec::put(w, &rows::entity_name("effect"), &"done").await?;
            times += 1;
            if times == 1 {
                let disabled: Result<(), Fail> =
                    transact!(barrier, |w| codec::put(w, &rows::entity(present), &entity(true)).await?);
                disabled?;
            }
        });
        assert!(matches!(acted, Err(Fail::BadToken)), "{acted:?}");
        assert_eq!(times, 1);
    }
}
