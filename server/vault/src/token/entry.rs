//! What is stored of a token, and the arithmetic of its life. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coffer_barrier::MountId;
use coffer_core::policy::PolicyName;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, TokenHash};
use serde::{Deserialize, Serialize};

use super::batch::Origin;
use crate::cidr::Cidrs;

/// The deepest a tree of tokens may grow: every use looks at all ancestors.
pub(crate) const ANCESTORS_MAX: usize = 16;
/// How long the tombstone of a token without expiry is kept.
const TOMBSTONE_DEFAULT: Duration = Duration::from_secs(32 * 24 * 3600);

/// A token as stored. Knows only the hash of the secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenEntry {
    pub(crate) hash: TokenHash,
    pub(crate) accessor: Accessor,
    #[serde(default)]
    pub(crate) kind: Kind,
    /// Parent, its parent and so on. Any of them dead means dead.
    pub(crate) ancestors: Vec<TokenHash>,
    pub(crate) policies: Vec<PolicyName>,
    /// The policy that limits what the token's own policies give; inherited by all descendants.
    pub(crate) boundary: Option<PolicyName>,
    pub(crate) metadata: BTreeMap<String, String>,
    /// The keys of `metadata` that a maker made up: shown, but no policy's template refers to them.
    #[serde(default)]
    pub(crate) made_up: BTreeSet<String>,
    pub(crate) display_name: String,
    /// The path it was created through.
    pub(crate) path: String,
    /// The token role it was created by.
    #[serde(default)]
    pub(crate) role: Option<String>,
    /// The auth mount that issued it, and the pod that logged in there.
    pub(crate) mount: Option<MountId>,
    pub(crate) pod: Option<String>,
    /// Who stands behind it.
    #[serde(default)]
    pub(crate) entity: Option<String>,
    pub(crate) created: Timestamp,
    /// The life given at creation.
    pub(crate) ttl: Duration,
    /// When it was renewed last, and the life that was given then.
    #[serde(default)]
    pub(crate) renewed: Option<(Timestamp, Duration)>,
    /// None: lives until revoked.
    pub(crate) expires: Option<Timestamp>,
    /// The latest `expires` may ever become.
    pub(crate) max_expires: Option<Timestamp>,
    /// What the creator asked for as a limit; only shown.
    pub(crate) explicit_max_ttl: Duration,
    /// Not zero: each renewal gives this again, without a maximum.
    pub(crate) period: Duration,
    pub(crate) renewable: bool,
    /// Uses left, if they are counted.
    pub(crate) uses_left: Option<u64>,
    /// Where it may be used from.
    #[serde(default)]
    pub(crate) bound_cidrs: Cidrs,
    /// What a batch token hangs from.
    #[serde(default)]
    pub(crate) origin: Option<Origin>,
    pub(crate) revoked: Option<Timestamp>,
}

/// What a token is: kept, or only known by what it says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Kept in the store.
    #[default]
    Service,
    /// Carries its own entry, sealed (see [`super::batch`]).
    Batch,
}

impl Kind {
    /// Its name in replies.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
        }
    }
}

impl TokenEntry {
    /// An orphan that may do nothing, lives until it is revoked and cannot be renewed: to be filled in.
    pub(crate) fn blank(hash: TokenHash, accessor: Accessor, now: Timestamp) -> Self {
        Self {
            hash,
            accessor,
            kind: Kind::Service,
            ancestors: Vec::new(),
            policies: Vec::new(),
            boundary: None,
            metadata: BTreeMap::new(),
            made_up: BTreeSet::new(),
            display_name: String::new(),
            path: String::new(),
            role: None,
            mount: None,
            pod: None,
            entity: None,
            created: now,
            ttl: Duration::ZERO,
            renewed: None,
            expires: None,
            max_expires: None,
            explicit_max_ttl: Duration::ZERO,
            period: Duration::ZERO,
            renewable: false,
            uses_left: None,
            bound_cidrs: Cidrs::default(),
            origin: None,
            revoked: None,
        }
    }

    /// Whether it may be used now, its ancestors aside.
    pub(crate) fn alive(&self, now: Timestamp) -> bool {
        self.revoked.is_none()
            && self.expires.is_none_or(|end| now < end)
            && self.uses_left.is_none_or(|left| left > 0)
    }

    /// The accessor as clients see it: batch tokens have none for them.
    pub(crate) fn shown_accessor(&self) -> &str {
        match self.kind {
            Kind::Service => self.accessor.as_str(),
            Kind::Batch => "",
        }
    }

    /// Whether it has the root policy.
    pub(crate) fn is_root(&self) -> bool {
        self.policies.iter().any(PolicyName::is_root)
    }

    /// Whether it stands for a reply that was put away.
    pub(crate) fn is_wrapping(&self) -> bool {
        let only_that = matches!(self.policies.as_slice(), [only] if only.is_response_wrapping());
        only_that && self.uses_left == Some(1)
    }

    /// Seconds left; zero for a token without end.
    pub(crate) fn ttl_left(&self, now: Timestamp) -> u64 {
        self.expires.map_or(0, |end| end.saturating_sub(now).as_secs())
    }

    /// When the sweeper has to look at it.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        match self.revoked {
            None => self.expires,
            Some(at) => Some(self.tombstone_until(at)),
        }
    }

    /// Until when a revoked token stays as a tombstone: no copy of it can be alive after that.
    fn tombstone_until(&self, revoked: Timestamp) -> Timestamp {
        let end = self.max_expires.or(self.expires);
        end.unwrap_or_else(|| revoked.plus(TOMBSTONE_DEFAULT)).max(revoked)
    }

    /// The end that a renewal at `now` gives: what is asked for (or as much as last time), never beyond the maximum. A
    /// short increment shortens the life, as in Vault.
    pub(crate) fn renewed_until(&self, increment: Option<Duration>, now: Timestamp) -> Option<Timestamp> {
        self.expires?;
        let last = self.renewed.map_or(self.ttl, |(_, life)| life);
        let life = if self.period.is_zero() {
            increment.filter(|i| !i.is_zero()).unwrap_or(last)
        } else {
            self.period
        };
        let end = now.plus(life);
        Some(self.max_expires.map_or(end, |max| end.min(max)))
    }
}
