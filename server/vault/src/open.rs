//! The unsealed vault: everything there is while the keys are there, and nothing of it otherwise.
//!
//! Sealing drops this. Whoever still holds it finds a barrier without keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_barrier::Barrier;
use coffer_core::time::Timestamp;
use coffer_core::token::Token;
use coffer_engines::Engine;

use crate::audit::device::Devices;
use crate::audit::{self, AuditLog};
use crate::auth::lockout::Lockouts;
use crate::auth::{KeyCache, Passwords, direct};
use crate::cache::{SecretCache, Validity};
use crate::ceremony::Ceremonies;
use crate::codec;
use crate::deps::{Clock, VaultConfig};
use crate::error::Fail;
use crate::events::Events;
use crate::lease::Leases;
use crate::metrics::Metrics;
use crate::mounts::{Class, Mount, MountTable};
use crate::outage::{Heartbeat, Outage};
use crate::policy::Policies;
use crate::quota::Quotas;
use crate::reconcile::Reconciler;
use crate::rows;
use crate::token::{LiveToken, Tokens};

/// What stays the same whether the vault is sealed or not.
pub(crate) struct Surroundings {
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) store_is_exclusive: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: VaultConfig,
    pub(crate) engines: HashMap<&'static str, Arc<dyn Engine>>,
    pub(crate) keys: Arc<dyn crate::deps::FetchKeys>,
    pub(crate) audit: AuditLog,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    pub(crate) ca_bundle: Option<String>,
}

/// The unsealed vault.
pub(crate) struct Open {
    pub(crate) around: Arc<Surroundings>,
    pub(crate) barrier: Arc<Barrier>,
    pub(crate) mounts: MountTable,
    pub(crate) policies: Policies,
    pub(crate) quotas: Quotas,
    pub(crate) tokens: Tokens,
    pub(crate) leases: Leases,
    pub(crate) reconciler: Reconciler,
    pub(crate) keys: KeyCache,
    pub(crate) direct: direct::Believed,
    pub(crate) devices: Devices,
    pub(crate) lockouts: Lockouts,
    pub(crate) passwords: Passwords,
    pub(crate) ceremonies: Ceremonies,
    pub(crate) secrets: SecretCache,
    /// Whether anything may be answered from memory.
    pub(crate) validity: Arc<Validity>,
    pub(crate) outage: Option<Outage>,
    /// By how much the clock was behind the store when the vault was opened.
    behind: Duration,
}

impl Open {
    /// Whose credential this is, of whatever kind, if it and all it hangs from are alive.
    /// `from`: the address that a request came from with it, if it is one.
    pub(crate) async fn caller(
        &self,
        token: &Token,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveToken>>, Fail> {
        if !direct::looks_like_one(token) {
            return self.tokens.find(&self.policies, token, now).await;
        }
        let hash = self.tokens.hash(token);
        if let Some(entry) = self.direct.get(&hash, now) {
            if let Some(live) = self.tokens.live_batch(&self.policies, entry, now).await? {
                return Ok(Some(live));
            }
            // What it hangs from is not what it was when it was verified.
            self.direct.drop_one(&hash);
        }
        match direct::verified(self, token, from, now).await? {
            Some(entry) => self.tokens.live_batch(&self.policies, entry, now).await,
            None => Ok(None),
        }
    }

    /// Reads what is needed to serve. The barrier must be unsealed.
    pub(crate) async fn load(around: Arc<Surroundings>) -> Result<Arc<Self>, Fail> {
        let barrier = Arc::clone(&around.barrier);
        let reader = barrier.reader().await?;
        let last = codec::get::<Heartbeat>(&reader, &rows::heartbeat()).await?;
        let found = around.clock.now();
        // A clock that was set back must not give time back to what was about to end.
        if let Some(beat) = last {
            around.clock.not_before(beat.at);
        }
        let clock = around.clock.now();
        let behind = last.map_or(Duration::ZERO, |beat| beat.at.saturating_sub(clock));
        let was_behind = last.map_or(Duration::ZERO, |beat| beat.at.saturating_sub(found));
        if was_behind > Duration::from_secs(60) {
            tracing::warn!(
                secs = was_behind.as_secs(),
                "the clock is behind the time that the store has seen"
            );
        }
        let outage = Outage::between(last, clock.plus(behind));
        if around.audit.covered().any() {
            around.audit.cover_with(Some(audit::salt_of(&barrier).await?));
        }
        let config = &around.config;
        let devices = Devices::load(
            Arc::clone(&barrier),
            &config.audit_devices,
            config.audit_directories.clone(),
            around.audit.dir().to_owned(),
            around.metrics.audit.clone(),
            clock.plus(behind),
        )
        .await?;
        let (cache, meters) = (around.config.cache, &around.metrics.caches);
        // With others on the same store, whoever keeps this server's member row has to vouch for it first.
        let validity =
            Arc::new(if around.store_is_exclusive { Validity::always() } else { Validity::not_yet() });
        let open = Self {
            devices,
            ceremonies: Ceremonies::default(),
            mounts: MountTable::load(Arc::clone(&barrier)).await?,
            policies: Policies::new(
                Arc::clone(&barrier),
                Arc::clone(&around.clock),
                &cache,
                meters.policies.clone(),
                Arc::clone(&validity),
            ),
            quotas: Quotas::load(Arc::clone(&barrier), around.config.client_rate, around.config.token_rate)
                .await?,
            tokens: Tokens::new(
                Arc::clone(&barrier),
                barrier.hmac_key("token")?,
                outage,
                &cache,
                meters.tokens.clone(),
                Arc::clone(&validity),
            ),
            leases: Leases::new(Arc::clone(&barrier)),
            reconciler: Reconciler::default(),
            keys: KeyCache::new(Arc::clone(&around.keys)),
            direct: direct::Believed::default(),
            lockouts: Lockouts::default(),
            passwords: Passwords::new(around.metrics.passwords_hashed.clone()),
            secrets: SecretCache::new(cache.secrets(), cache.ttl, meters.secrets.clone()),
            validity,
            outage,
            behind,
            barrier,
            around,
        };
        Ok(Arc::new(open))
    }

    /// Now. Never earlier than the store says it already was.
    pub(crate) fn now(&self) -> Timestamp {
        self.around.clock.now().plus(self.behind)
    }

    /// Now, for times that others told, such as a JWT's: the later of this vault's time and the wall clock's, for a
    /// wall clock that was set right must count there at once, and one that was set back must not.
    pub(crate) fn civil(&self) -> Timestamp {
        self.around.clock.wall().max(self.now())
    }

    /// A time that others told, in this vault's time.
    pub(crate) fn in_own_time(&self, told: Timestamp) -> Timestamp {
        let ahead = self.civil().saturating_sub(self.now());
        Timestamp::from_millis(told.as_millis().saturating_sub(u64::try_from(ahead.as_millis()).unwrap_or(0)))
    }

    /// The engine of a mount.
    pub(crate) fn engine(&self, mount: &Mount) -> Result<&Arc<dyn Engine>, Fail> {
        self.around.engines.get(mount.engine_kind()).ok_or(Fail::Internal("no engine of that kind"))
    }

    /// The first and the longest life of what a mount issues, from what was asked for (zero: nothing).
    /// Without a mount it is about a token that `auth/token/` makes.
    pub(crate) fn life(&self, mount: Option<&Mount>, ttl: Duration, max: Duration) -> (Duration, Duration) {
        let config = &self.around.config;
        let own = if mount.is_none() { self.mounts.at(Class::Auth, "token") } else { None };
        let mount = mount.or(own.as_deref());
        let or = |wanted: Duration, other: Duration| if wanted.is_zero() { other } else { wanted };
        let mount_default = mount.map_or(Duration::ZERO, |m| m.default_ttl);
        let mount_max = or(mount.map_or(Duration::ZERO, |m| m.max_ttl), config.max_lease_ttl);
        let max = or(max, mount_max).min(mount_max);
        let ttl = or(ttl, or(mount_default, config.default_lease_ttl));
        (ttl.min(max), max)
    }
}
