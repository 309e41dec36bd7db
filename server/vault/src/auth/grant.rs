//! Granting a token at login: from what a role says and who came, to the entry of a token.
//!
//! All methods grant here and nowhere else. What a method itself must check in the same transaction (a secret id's
//! uses, a pod's tombstone) it checks beside [`guard_in`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::{Read, RowKey, Writer};
use coffer_core::policy::PolicyName;
use coffer_core::token::{Accessor, Token};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::token_params::{TokenParams, TokenType};
use crate::cidr::Cidrs;
use crate::codec;
use crate::error::{Fail, bad};
use crate::identity::{self, NewAlias};
use crate::mounts::{Mount, MountTable};
use crate::outcome::{Outcome, Undo};
use crate::pipeline::Ctx;
use crate::token::batch::{self, Origin, RowPrint};
use crate::token::{Kind, TokenEntry, Tokens};

/// Who logged in, and by which rules.
pub(super) struct Login<'a> {
    pub(super) mount: &'a Arc<Mount>,
    pub(super) params: &'a TokenParams,
    /// The part of the display name after the mount's; may be empty.
    pub(super) name: &'a str,
    pub(super) metadata: BTreeMap<String, String>,
    /// The pod that everything the token gets is tied to.
    pub(super) pod: Option<String>,
    /// Instead of the role's, if given.
    pub(super) bound_cidrs: Option<Cidrs>,
    /// Who he is at this mount.
    pub(super) alias: NewAlias,
}

/// A token to be: [`Grant::insert_in`] makes it one.
pub(super) struct Grant {
    entry: TokenEntry,
    token: Token,
    warnings: Vec<String>,
    mount: Arc<Mount>,
    alias: NewAlias,
    /// What the method calls the external groups that he is in.
    groups: Vec<String>,
    identity_policies: Vec<PolicyName>,
    /// The entity whose alias was renewed by this login: what is kept of its other tokens is not true any more.
    renewed: Option<String>,
}

impl Grant {
    /// Works out the token of a login that is believed, and announces it. Nothing is stored yet.
    pub(super) async fn new(ctx: &mut Ctx, login: Login<'_>) -> Result<Self, Fail> {
        let Login { mount, params, name, metadata, pod, bound_cidrs, alias } = login;
        let bound_cidrs = match bound_cidrs {
            _ if params.strictly_bind_ip => Cidrs::only(ctx.request.client_ip),
            Some(own) => own,
            None => params.bound_cidrs.clone(),
        };
        ctx.intend(None).await?;
        let open = &ctx.open;
        let token = Token::generate(&mut rand::rng());
        let (default, most) = open.life(Some(mount), Duration::ZERO, Duration::ZERO);
        let mut life = Life::of(params, default, most);
        let mut display_name = mount.path.replace('/', "-");
        if !name.is_empty() {
            display_name = format!("{display_name}-{name}");
        }
        let batch = token_type(mount.tuning.token_type.as_deref(), params.token_type) == TokenType::Batch;
        let mut uses_left = Some(params.num_uses).filter(|uses| *uses > 0);
        if batch {
            // Nothing is stored that could count or be prolonged. The role may be older than its mount's tuning.
            life.period = Duration::ZERO;
            if uses_left.take().is_some() {
                life.warnings.push(
                    "batch tokens have no limited number of uses: token_num_uses does not count".into(),
                );
            }
        }
        let ttl = if batch && pod.is_some() { life.ttl.min(batch::POD_LIFE_MAX) } else { life.ttl };
        let expires = Some(ctx.now.plus(ttl));
        let entry = TokenEntry {
            kind: if batch { Kind::Batch } else { Kind::Service },
            policies: policies(params),
            boundary: mount.boundary.clone(),
            metadata,
            display_name,
            path: ctx.request.path.clone(),
            mount: Some(mount.id),
            pod,
            ttl,
            expires,
            max_expires: if batch { expires } else { life.max.map(|max| ctx.now.plus(max)) },
            explicit_max_ttl: params.explicit_max_ttl,
            period: life.period,
            renewable: !batch,
            uses_left,
            bound_cidrs,
            ..TokenEntry::blank(open.tokens.hash(&token), Accessor::generate(&mut rand::rng()), ctx.now)
        };
        let identity_policies = Vec::new();
        let (mount, warnings) = (Arc::clone(mount), life.warnings);
        let groups = Vec::new();
        Ok(Self { entry, token, warnings, mount, alias, groups, identity_policies, renewed: None })
    }

    /// Says which groups the method knows him to be in, by the names of their aliases.
    pub(super) fn with_groups(mut self, groups: Vec<String>) -> Self {
        self.groups = groups;
        self
    }

    /// Ties a batch token to the role it is granted by, as it is stored at `key` now; to be called before the
    /// transaction that checks that the role still is what the token was made from. Others are tied to nothing.
    pub(super) async fn tie(&mut self, ctx: &Ctx, mount: &Mount, key: &RowKey) -> Result<(), Fail> {
        if self.entry.kind == Kind::Service {
            return Ok(());
        }
        let open = &ctx.open;
        let path = key.as_path().ok_or(Fail::Internal("a role without a path"))?;
        let role = RowPrint::take(&open.barrier.reader().await?, mount.id, path).await?;
        let role = role.ok_or_else(|| bad("the role was removed"))?;
        self.entry.origin =
            Some(Origin { mount_created: Some(mount.created), role: Some(role), ..Origin::default() });
        Ok(())
    }

    /// Within the login's transaction: finds or makes the entity, and stores the token, if it is of a kind that is
    /// stored; one that is not is sealed.
    pub(super) async fn insert_in(&mut self, ctx: &Ctx, writer: &mut Writer) -> Result<(), Fail> {
        let open = &ctx.open;
        let (entity, renewed) =
            identity::ensure_in(&open.barrier, writer, &self.mount, &self.alias, ctx.now).await?;
        let (entity, moved) =
            identity::join_in(&open.barrier, writer, &self.mount, entity, &self.groups).await?;
        self.renewed = (renewed || moved).then(|| entity.id.clone());
        let groups = identity::groups_of(&*writer, &entity).await?;
        self.identity_policies = identity::policies(&entity, &groups);
        self.entry.entity = Some(entity.id);
        match (self.entry.kind, &self.entry.origin) {
            (Kind::Service, _) => Tokens::insert_in(writer, &self.entry).await,
            (Kind::Batch, Some(_)) => {
                self.token = batch::seal(&open.tokens, &open.barrier, &mut self.entry)?;
                Ok(())
            }
            (Kind::Batch, None) => Err(bad("batch tokens are not available here")),
        }
    }

    /// The pod it is for.
    pub(super) fn pod(&self) -> Option<&str> {
        self.entry.pod.as_deref()
    }

    /// The reply, once the transaction is through.
    pub(super) fn outcome(self, ctx: &Ctx) -> Outcome {
        if let Some(entity) = &self.renewed {
            ctx.open.tokens.forget_entity(entity);
        }
        let seconds = self.entry.ttl_left(ctx.now);
        let mut outcome = Outcome::auth(&self.entry, Some(&self.token), seconds)
            .with_identity_policies(&self.identity_policies);
        if self.entry.kind == Kind::Service {
            outcome.undo = Some(Undo::Token(self.entry.hash));
        }
        outcome.warnings = self.warnings;
        outcome
    }
}

/// The type of a token: what the mount's tuning insists on, else what the role says, else the mount's default.
fn token_type(mount: Option<&str>, role: TokenType) -> TokenType {
    match (mount, role) {
        (Some("service"), _) => TokenType::Service,
        (Some("batch"), _) | (Some("default-batch"), TokenType::Default) => TokenType::Batch,
        (_, TokenType::Default) => TokenType::Service,
        (_, said) => said,
    }
}

/// The policies of a token, sorted as clients see them. `root` is never among them: no role may name it.
pub(super) fn policies(params: &TokenParams) -> Vec<PolicyName> {
    let mut policies = params.policies.clone();
    if !params.no_default_policy {
        policies.push(PolicyName::default_policy());
    }
    policies.retain(|name| !name.is_root());
    policies.sort();
    policies.dedup();
    policies
}

/// The mount, its boundary and the role (or user) still are what the token was made from, and the commit fails if that
/// changes: a login that began before a restriction must not end after it.
pub(super) async fn guard_in<R>(
    writer: &mut Writer,
    mount: &Mount,
    key: &RowKey,
    role: &R,
) -> Result<(), Fail>
where
    R: PartialEq + Serialize + DeserializeOwned,
{
    MountTable::guard_in(writer, mount).await?;
    let stored = codec::get::<Mount>(&*writer as &dyn Read, &mount.key()).await?;
    let present = codec::get::<R>(&*writer as &dyn Read, key).await?;
    let present = present.ok_or_else(|| bad("the role was removed"))?;
    if stored.is_none_or(|m| m.boundary != mount.boundary) || present != *role {
        return Err(Fail::Unavailable(
            "the role or its mount was changed during the login; log in again".into(),
        ));
    }
    writer.guard(key)?;
    Ok(())
}

/// The settings still are what the login was believed by, and the commit fails if they change.
pub(super) async fn guard_row_in<R>(writer: &mut Writer, key: &RowKey, row: &R) -> Result<(), Fail>
where
    R: PartialEq + Serialize + DeserializeOwned,
{
    if codec::get::<R>(&*writer as &dyn Read, key).await?.as_ref() != Some(row) {
        return Err(Fail::Unavailable("the settings were changed during the login; log in again".into()));
    }
    Ok(writer.guard(key)?)
}

/// How long a token lives, by the rules of OpenBao's `CalculateTTL`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) ttl: Duration,
    /// None: renewed without end.
    pub(crate) max: Option<Duration>,
    pub(crate) period: Duration,
    pub(crate) warnings: Vec<String>,
}

impl Life {
    /// `default` and `most` are the mount's, or else the system's.
    pub(crate) fn of(params: &TokenParams, default: Duration, most: Duration) -> Self {
        let tighter = |most: Duration, limit: Duration| if limit.is_zero() { most } else { most.min(limit) };
        let most = tighter(tighter(most, params.max_ttl), params.explicit_max_ttl);
        let mut warnings = Vec::new();
        if !params.period.is_zero() {
            if params.period > most {
                warnings.push(format!(
                    "Period of {:?} exceeded the effective max_ttl of {:?}; Period value is capped accordingly",
                    go_duration(params.period),
                    go_duration(most),
                ));
            }
            let period = params.period.min(most);
            let max = Some(params.explicit_max_ttl).filter(|max| !max.is_zero());
            return Self { ttl: period, max, period, warnings };
        }
        let wanted = if params.ttl.is_zero() { default } else { params.ttl };
        if wanted > most {
            warnings.push(format!(
                "TTL of {:?} exceeded the effective max_ttl of {:?}; TTL value is capped accordingly",
                go_duration(wanted),
                go_duration(most),
            ));
        }
        Self { ttl: wanted.min(most), max: Some(most), period: Duration::ZERO, warnings }
    }
}

/// `1h30m` as Vault's messages have it: units that are zero at the end are left out.
pub(crate) fn go_duration(duration: Duration) -> String {
    let secs = duration.as_secs();
    let (h, m, s) = (secs / 3600, secs / 60 % 60, secs % 60);
    let mut text = String::new();
    if h > 0 {
        text.push_str(&format!("{h}h"));
    }
    if m > 0 {
        text.push_str(&format!("{m}m"));
    }
    if s > 0 || text.is_empty() {
        text.push_str(&format!("{s}s"));
    }
    text
}

#[cfg(test)]
mod tests {
    use coffer_barrier::{Barrier, RecordKind};
    use coffer_core::shamir::Threshold;
    use coffer_core::time::Timestamp;
    use coffer_storage::memory::MemoryStore;

    use super::*;
    use crate::codec::transact;
    use crate::mounts::{Class, blank};

    const H: Duration = Duration::from_secs(3600);

    #[tokio::test]
    async fn a_restriction_during_the_login_wins() {
        let barrier = Barrier::new(Arc::new(MemoryStore::new()));
        let mut rng = crate::door::os_rng();
        let shares = barrier.initialize(Threshold::new(1, 1).unwrap(), &mut rng).await.unwrap();
        barrier.unseal(&shares).await.unwrap();
        let mount = blank(Class::Auth, "kubernetes/prod", "kubernetes", Timestamp::from_secs(1));
        let key = RowKey::path(mount.id, RecordKind::Entry, "role/r");
        let role = TokenParams { policies: vec![PolicyName::parse("much").unwrap()], ..Default::default() };
        let less = TokenParams::default();
        let bounded = Mount { boundary: Some(PolicyName::parse("edge").unwrap()), ..mount.clone() };
        for (stored_mount, stored_role, fine) in
            [(&mount, &role, true), (&mount, &less, false), (&bounded, &role, false)]
        {
            let checked: Result<(), Fail> = transact!(barrier, |w| {
                barrier.create_kek(w, mount.id).await?;
                MountTable::put_in(w, stored_mount).await?;
                codec::put(w, &key, stored_role).await?;
            });
            checked.unwrap();
            let checked: Result<(), Fail> = transact!(barrier, |w| guard_in(w, &mount, &key, &role).await?);
            assert_eq!(checked.is_ok(), fine);
        }
    }

    #[test]
    fn lives_are_counted_as_openbao_counts_them() {
        let params = |ttl, max_ttl, explicit_max_ttl, period| TokenParams {
            ttl: H * ttl,
            max_ttl: H * max_ttl,
            explicit_max_ttl: H * explicit_max_ttl,
            period: H * period,
            ..Default::default()
        };
        // ttl, max, explicit max, period; then ttl, max, period, number of warnings. Mount: 10 h, at most 20 h.
        for (set, ttl, max, period, warnings) in [
            ((0, 0, 0, 0), 10, Some(20), 0, 0),
            ((5, 0, 0, 0), 5, Some(20), 0, 0),
            ((30, 0, 0, 0), 20, Some(20), 0, 1),
            ((5, 8, 0, 0), 5, Some(8), 0, 0),
            ((0, 8, 0, 0), 8, Some(8), 0, 1),
            ((5, 30, 0, 0), 5, Some(20), 0, 0),
            ((5, 8, 6, 0), 5, Some(6), 0, 0),
            ((0, 0, 6, 0), 6, Some(6), 0, 1),
            ((5, 0, 0, 7), 7, None, 7, 0),
            ((5, 0, 0, 30), 20, None, 20, 1),
            ((0, 0, 6, 3), 3, Some(6), 3, 0),
        ] {
            let (a, b, c, d) = set;
            let life = Life::of(&params(a, b, c, d), H * 10, H * 20);
            let found = (life.ttl, life.max, life.period, life.warnings.len());
            assert_eq!(found, (H * ttl, max.map(|m: u32| H * m), H * period, warnings), "{set:?}");
        }
    }

    #[test]
    fn a_mount_insists_on_a_type_or_only_has_a_default() {
        use TokenType::{Batch, Default, Service};
        // As OpenBao 2.7.2 answers; by role: default, service, batch.
        for (mount, types) in [
            (None, [Service, Service, Batch]),
            (Some("default-service"), [Service, Service, Batch]),
            (Some("default-batch"), [Batch, Service, Batch]),
            (Some("service"), [Service; 3]),
            (Some("batch"), [Batch; 3]),
        ] {
            assert_eq!([Default, Service, Batch].map(|role| token_type(mount, role)), types, "{mount:?}");
        }
    }

    #[test]
    fn warnings_write_durations_as_go_does() {
        for (secs, text) in [(0, "0s"), (59, "59s"), (5400, "1h30m"), (3_600_000, "1000h"), (3601, "1h1s")] {
            assert_eq!(go_duration(Duration::from_secs(secs)), text);
        }
        let params = TokenParams { ttl: H * 100_000, ..Default::default() };
        assert_eq!(
            Life::of(&params, H * 768, H * 768).warnings,
            [
                "TTL of \"100000h\" exceeded the effective max_ttl of \"768h\"; TTL value is capped accordingly"
            ]
        );
    }
}
