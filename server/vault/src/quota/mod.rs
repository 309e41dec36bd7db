//! Rate limits: how many requests who may make, decided before anything of a request is parsed or looked up.
//!
//! The rules are `sys/quotas/rate-limit/...`; of several that match, the most specific counts. Besides them the
//! configuration may limit every client address and every token. Some paths are never refused; some others are not
//! refused to root, so that nobody locks himself out. Never authenticates: whose request it is, is judged by the
//! address, or by the token as it was sent.

mod limiter;
mod ops;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer_barrier::{Barrier, MountId, Read};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use self::limiter::{Allowance, Caller, Limiter};
use crate::codec;
use crate::deps::RequestRate;
use crate::error::Fail;
use crate::rows;
use crate::swap::Swap;

pub(crate) use ops::handle;

/// The most rules.
const QUOTAS_MAX: usize = 1000;

/// Never refused, however many come: probes, and what an operator needs to open the vault. As in Vault, the list can
/// be changed; what is answered without the vault's rooms (health, seal status) is not subject to it.
const EXEMPT: [&str; 7] = [
    "sys/generate-recovery-token/attempt",
    "sys/generate-recovery-token/update",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
];

/// Not refused to a root token: what ends an overload or an incident.
const BREAK_GLASS: [&str; 12] = [
    "sys/seal",
    "sys/step-down",
    "sys/quotas",
    "sys/revoke",
    "sys/revoke-prefix",
    "sys/revoke-force",
    "sys/leases/revoke",
    "sys/leases/revoke-prefix",
    "sys/leases/revoke-force",
    "auth/token/revoke",
    "auth/token/revoke-accessor",
    "auth/token/revoke-orphan",
];

/// A rule, as stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quota {
    name: String,
    /// `""` for everything; a mount, with its slash; or a path, perhaps with a `*` at the end.
    path: String,
    /// Only logins of this role. Needs an auth mount as the path.
    role: String,
    rate: f64,
    interval: Duration,
    block_interval: Duration,
    inheritable: bool,
    /// Whose requests count together: `ip`, `token` or `none` (everybody's).
    group_by: String,
}

/// Settings of all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    enable_rate_limit_audit_logging: bool,
    enable_rate_limit_response_headers: bool,
    rate_limit_exempt_paths: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enable_rate_limit_audit_logging: false,
            enable_rate_limit_response_headers: false,
            rate_limit_exempt_paths: EXEMPT.map(str::to_owned).to_vec(),
        }
    }
}

/// A rule ready for use.
struct Rule {
    quota: Quota,
    /// Names its counts. A rule that was changed starts with new ones.
    number: u64,
    allowance: Allowance,
}

struct Table {
    rules: Vec<Rule>,
    settings: Settings,
}

/// What a client is told about its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateInfo {
    /// Requests in a window.
    pub limit: u64,
    /// Requests left in this one.
    pub remaining: u64,
    /// Seconds until it ends.
    pub reset: u64,
}

/// Whether a request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may; with what is to be said about the limit, if anything is.
    Pass(Option<RateInfo>),
    /// It may not.
    Over(TooMany),
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TooMany {
    /// In words.
    pub message: String,
    /// For the headers, if they are wanted.
    pub info: Option<RateInfo>,
    /// Whether it is to be in the audit log.
    pub audited: bool,
    /// Whether it does not hold for a root token.
    pub unless_root: bool,
}

/// All rate limits of an unsealed vault.
pub(crate) struct Quotas {
    barrier: Arc<Barrier>,
    table: Swap<Table>,
    limiter: Limiter,
    numbers: AtomicU64,
    per_client: Option<RequestRate>,
    per_token: Option<RequestRate>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

/// Counts of what the configuration limits, which has no rule.
const PER_CLIENT: u64 = 0;
const PER_TOKEN: u64 = 1;

impl Quotas {
    /// Reads the rules.
    pub(crate) async fn load(
        barrier: Arc<Barrier>,
        per_client: Option<RequestRate>,
        per_token: Option<RequestRate>,
    ) -> Result<Self, Fail> {
        let empty = Table { rules: Vec::new(), settings: Settings::default() };
        let quotas = Self {
            barrier,
            table: Swap::new(empty),
            limiter: Limiter::new(),
            numbers: AtomicU64::new(PER_TOKEN + 1),
            per_client,
            per_token,
            changing: tokio::sync::Mutex::default(),
        };
        quotas.reload().await?;
        Ok(quotas)
    }

    async fn reload(&self) -> Result<(), Fail> {
        let reader = self.barrier.reader().await?;
        let names = reader.list(MountId::SYSTEM, rows::QUOTA_DIR, None, QUOTAS_MAX).await?;
        let before = self.table.load();
        let mut rules = Vec::with_capacity(names.len());
        for name in names {
            let Some(quota) = codec::get::<Quota>(&reader, &rows::quota(&name)).await? else { continue };
            let same = before.rules.iter().find(|r| r.quota == quota).map(|r| r.number);
            rules.push(self.rule(quota, same));
        }
        let settings = codec::get(&reader, &rows::quota_settings()).await?.unwrap_or_default();
        self.table.store(Table { rules, settings });
        Ok(())
    }

    fn rule(&self, quota: Quota, number: Option<u64>) -> Rule {
        let number = number.unwrap_or_else(|| self.numbers.fetch_add(1, Ordering::Relaxed));
        let allowance = Allowance {
            requests: requests(quota.rate),
            interval: quota.interval,
            block: quota.block_interval,
        };
        Rule { quota, number, allowance }
    }

    /// Counts a request and says whether it may go on. `token` is what was sent as one.
    pub(crate) fn admit(&self, path: &str, ip: IpAddr, token: Option<&str>, now: Timestamp) -> Admission {
        let table = self.table.load();
        let path = path.trim_end_matches('/');
        if table.rules.is_empty() && self.per_client.is_none() && self.per_token.is_none() {
            return Admission::Pass(None);
        }
        if table.settings.rate_limit_exempt_paths.iter().any(|exempt| covers(exempt, path)) {
            return Admission::Pass(None);
        }
        let built_in = |rate: RequestRate, number, caller| {
            let allowance =
                Allowance { requests: rate.requests, interval: rate.interval, block: Duration::ZERO };
            (number, caller, allowance)
        };
        let mut counted = Vec::with_capacity(3);
        counted.extend(self.per_client.map(|rate| built_in(rate, PER_CLIENT, Caller::address(ip))));
        let bearer = self.per_token.zip(token);
        counted.extend(bearer.map(|(rate, t)| built_in(rate, PER_TOKEN, self.limiter.bearer(t))));
        counted.extend(
            most_specific(&table.rules, path)
                .map(|rule| (rule.number, self.caller(&rule.quota, ip, token), rule.allowance)),
        );
        let mut info = None;
        for (number, caller, allowance) in counted {
            let taken = self.limiter.take(number, caller, allowance, now);
            let wait = taken.wait.as_millis().div_ceil(1000);
            let told = RateInfo {
                limit: allowance.requests,
                remaining: taken.left,
                reset: u64::try_from(wait).unwrap_or(u64::MAX),
            };
            info = Some(told).filter(|_| table.settings.enable_rate_limit_response_headers);
            if !taken.admitted {
                return Admission::Over(TooMany {
                    message: format!("request path {path:?}: rate limit quota exceeded"),
                    info,
                    audited: table.settings.enable_rate_limit_audit_logging,
                    unless_root: BREAK_GLASS.iter().any(|place| below(place, path)),
                });
            }
        }
        Admission::Pass(info)
    }

    /// The same for a login, or for what is used in its place, once its role is known.
    pub(crate) fn admit_role(&self, mount: &str, role: &str, ip: IpAddr, now: Timestamp) -> Result<(), Fail> {
        let table = self.table.load();
        // A role's name is one in any case.
        let is_its = |quota: &Quota| quota.path == mount && quota.role.eq_ignore_ascii_case(role);
        let rule = table.rules.iter().find(|r| is_its(&r.quota));
        let Some(rule) = rule.filter(|_| !role.is_empty()) else { return Ok(()) };
        let taken = self.limiter.take(rule.number, self.caller(&rule.quota, ip, None), rule.allowance, now);
        if taken.admitted { Ok(()) } else { Err(over(&format!("{mount}login"))) }
    }

    fn caller(&self, quota: &Quota, ip: IpAddr, token: Option<&str>) -> Caller {
        match (quota.group_by.as_str(), token) {
            ("none", _) => Caller::All,
            ("token", Some(token)) => self.limiter.bearer(token),
            _ => Caller::address(ip),
        }
    }
}

/// The refusal, where it comes from inside the vault.
pub(crate) fn over(path: &str) -> Fail {
    Fail::TooManyRequests(format!("request path {path:?}: rate limit quota exceeded"))
}

/// As in Vault, a rate is rounded to whole requests, but never to none.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
fn requests(rate: f64) -> u64 {
    rate.round().clamp(1.0, 1e15) as u64
}

/// Whether `path` is that place or below it.
fn below(place: &str, path: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a pattern with perhaps a `*` at its end covers a path.
fn covers(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern.trim_end_matches('/') == path,
    }
}

/// A path comes before a pattern, a pattern before a mount, a mount before everything; the longer one first.
fn most_specific<'r>(rules: &'r [Rule], path: &str) -> Option<&'r Rule> {
    let rank = |quota: &Quota| -> Option<(u8, usize)> {
        let place = quota.path.as_str();
        if !quota.role.is_empty() {
            return None;
        }
        let kind = match place {
            "" => 0,
            _ if place.ends_with('*') && covers(place, path) => 2,
            _ if place.ends_with('/') && below(place.trim_end_matches('/'), path) => 1,
            _ if place == path => 3,
            _ => return None,
        };
        Some((kind, place.len()))
    };
    rules
        .iter()
        .filter_map(|r| rank(&r.quota).map(|rank| (rank, r)))
        .max_by_key(|(rank, _)| *rank)
        .map(|(_, r)| r)
}
