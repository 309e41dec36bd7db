//! Policies: where they are kept, and what a token's policies amount to.
//!
//! Deciding is `coffer_core::policy`'s; here is only the way from names to a compiled ACL.

mod cache;

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer_barrier::{Barrier, Read, Writer};
use coffer_core::policy::{Acl, DEFAULT_POLICY, Policy, PolicyName};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use self::cache::PolicyCache;
use crate::cache::{CacheMeter, CacheSettings, Validity};
use crate::codec;
use crate::deps::Clock;
use crate::error::{Fail, bad};
use crate::rows;

/// What is added to the `default` policy: a token may give back what it holds (whose a lease is, is checked
/// besides), and an agent that ends does; and it may have its own rights explained.
const GIVE_BACK: &str = r#"
# It may give back its own leases.
path "sys/leases/revoke" {
    capabilities = ["update"]
}
path "sys/revoke" {
    capabilities = ["update"]
}
# It may ask why it may do something or not.
path "sys/policy-explain-self" {
    capabilities = ["update"]
}
"#;

/// What a wrapping token may do: give its reply away, once.
const RESPONSE_WRAPPING: &str = r#"
path "cubbyhole/response" {
    capabilities = ["create", "read"]
}

path "sys/wrapping/unwrap" {
    capabilities = ["update"]
}

path "auth/token/revoke-self" {
    capabilities = ["update"]
}
"#;

/// The most policies a token may have.
pub(crate) const POLICIES_PER_TOKEN_MAX: usize = 256;

/// The `default` policy as it is at initialisation, and the part of every boundary that lets a token take
/// care of itself. The latter does not follow later edits of the former: an edit of `default` crosses no boundary.
pub(crate) fn default_policy() -> String {
    format!("{DEFAULT_POLICY}{GIVE_BACK}")
}

/// A policy as stored.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct PolicyEntry {
    pub(crate) text: String,
    pub(crate) custom_metadata: BTreeMap<String, String>,
    /// How often it was written. Zero: before this was counted.
    #[serde(default)]
    pub(crate) version: u64,
    /// When it was written last.
    #[serde(default)]
    pub(crate) modified: Option<Timestamp>,
    /// Writes must name the version they replace.
    #[serde(default)]
    pub(crate) cas_required: bool,
}

/// What policies amount to, and until when: then the first of their rules ends.
pub(crate) struct Compiled {
    pub(crate) acl: Acl,
    pub(crate) until: Option<Timestamp>,
}

/// The policies, cached until they are written.
pub(crate) struct Policies {
    barrier: Arc<Barrier>,
    clock: Arc<dyn Clock>,
    cache: PolicyCache,
    validity: Arc<Validity>,
}

impl Policies {
    pub(crate) fn new(
        barrier: Arc<Barrier>,
        clock: Arc<dyn Clock>,
        settings: &CacheSettings,
        meter: CacheMeter,
        validity: Arc<Validity>,
    ) -> Self {
        let cache = PolicyCache::new(settings.policies(), settings.ttl, meter);
        Self { barrier, clock, cache, validity }
    }

    /// A policy, or none.
    pub(crate) async fn get(&self, name: &PolicyName) -> Result<Option<Arc<PolicyEntry>>, Fail> {
        if name.is_response_wrapping() {
            let text = RESPONSE_WRAPPING.to_owned();
            return Ok(Some(Arc::new(PolicyEntry { text, ..PolicyEntry::default() })));
        }
        let now = self.clock.now();
        let generation = match self.cache.get(name, now) {
            Ok(found) if self.validity.holds(now) => return Ok(found),
            // Nothing is kept that was found while nobody vouched for what is in memory.
            Ok(_) => None,
            Err(generation) => Some(generation),
        };
        let reader = self.barrier.reader().await?;
        let entry = codec::get::<PolicyEntry>(&reader, &rows::policy(name)).await?.map(Arc::new);
        if let Some(generation) = generation {
            self.cache.fill(generation, name, now, &entry);
        }
        Ok(entry)
    }

    /// Forgets what is cached of a policy. To be called once a write's commit is known.
    pub(crate) fn forget(&self, name: &PolicyName) {
        self.cache.forget(name);
    }

    /// Writes a policy within a transaction.
    pub(crate) async fn put_in(
        writer: &mut Writer,
        name: &PolicyName,
        entry: &PolicyEntry,
    ) -> Result<(), Fail> {
        codec::put(writer, &rows::policy(name), entry).await?;
        writer.link(coffer_barrier::MountId::SYSTEM, &rows::policy_path(name)).await?;
        Ok(())
    }

    /// Removes a policy within a transaction; false if there was none.
    pub(crate) async fn delete_in(writer: &mut Writer, name: &PolicyName) -> Result<bool, Fail> {
        let key = rows::policy(name);
        if writer.get(&key).await?.is_none() {
            return Ok(false);
        }
        writer.delete(&key).await?;
        writer.unlink(coffer_barrier::MountId::SYSTEM, &rows::policy_path(name)).await?;
        Ok(true)
    }

    /// Names of policies directly below a directory (`""` for the top); directories end in a slash.
    pub(crate) async fn list(
        &self,
        dir: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Fail> {
        let reader = self.barrier.reader().await?;
        let dir = dir.trim_end_matches('/');
        let path =
            if dir.is_empty() { rows::POLICY_DIR.into() } else { format!("{}/{dir}", rows::POLICY_DIR) };
        Ok(reader.list(coffer_barrier::MountId::SYSTEM, &path, after, limit).await?)
    }

    /// What policies of these names amount to, with `values` in the place of their placeholders. Rules that a value
    /// could have turned into others are added to `refused`, for the audit log. Names without a policy grant
    /// nothing; a boundary without a policy lets nothing pass but what a token does to itself.
    pub(crate) async fn acl(
        &self,
        names: &[PolicyName],
        boundary: Option<&PolicyName>,
        values: &BTreeMap<String, String>,
        refused: &mut Vec<String>,
    ) -> Result<Compiled, Fail> {
        let now = self.clock.now();
        let mut until = None;
        let own = self.load(names, values, now, &mut until).await?;
        refused.extend(own.iter().flat_map(|policy| hostile(policy)));
        let acl = Acl::new(&own);
        let Some(boundary) = boundary else { return Ok(Compiled { acl, until }) };
        let mut bounds = self.load(std::slice::from_ref(boundary), values, now, &mut until).await?;
        bounds.push(Arc::new(self_service(values)?));
        Ok(Compiled { acl: Acl::with_boundary(acl, Arc::new(Acl::new(&bounds))), until })
    }

    async fn load(
        &self,
        names: &[PolicyName],
        values: &BTreeMap<String, String>,
        now: Timestamp,
        until: &mut Option<Timestamp>,
    ) -> Result<Vec<Arc<Policy>>, Fail> {
        let mut policies = Vec::with_capacity(names.len());
        for name in names {
            if name.is_root() {
                policies.push(Arc::new(Policy::root()));
            } else if let Some(entry) = self.get(name).await? {
                match Policy::parse_templated(name, &entry.text, values) {
                    Ok(policy) => {
                        let policy = policy.at(now);
                        *until = (*until).into_iter().chain(policy.next_end()).min();
                        policies.push(Arc::new(policy));
                    }
                    // Written through `check`, so this is a format older than this version. It grants nothing.
                    Err(error) => tracing::error!(policy = %name, %error, "stored policy cannot be read"),
                }
            }
        }
        Ok(policies)
    }
}

fn self_service(values: &BTreeMap<String, String>) -> Result<Policy, Fail> {
    Policy::parse_templated(&PolicyName::default_policy(), &default_policy(), values)
        .map_err(|_| Fail::Internal("the built-in policy cannot be read"))
}

/// Checks a policy's text before it is stored.
pub(crate) fn check(name: &PolicyName, text: &str) -> Result<(), Fail> {
    Policy::parse(name, text).map(|_| ()).map_err(|error| bad(error.to_string()))
}

/// The rules of a policy whose placeholders had values that could have reached for other paths.
fn hostile(policy: &Policy) -> impl Iterator<Item = String> {
    let dropped = policy.dropped().iter().filter(|rule| rule.hostile);
    dropped.map(|rule| format!("{} line {}: {}", policy.name(), rule.line, rule.why))
}
