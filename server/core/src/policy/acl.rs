//! The decision: which rule applies to a request, and whether it lets it pass.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::path::VaultPath;

use super::merge::{Merged, smaller};
use super::trie::Trie;
use super::{Capabilities, Capability, Operation, Params, PathPattern, Policy, PolicyName};

/// Why a decision came out as it did; for `policy explain` and the audit log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The root policy allows everything.
    Root,
    /// The operation is free for all.
    Free,
    /// The rule grants the capability.
    Granted,
    /// No rule matches.
    NoRule,
    /// The rule refuses.
    Denied,
    /// A rule refuses the path in another spelling of upper and lower case.
    DeniedCaseVariant,
    /// The rule does not grant the capability.
    NotGranted,
    /// The rule grants the capability, but not with these parameters.
    Parameters,
    /// The policies grant it, but the boundary does not.
    Boundary,
}

/// What was decided about one request.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Whether the request may pass.
    pub allowed: bool,
    /// Whether `sudo` is granted here. Paths that need it are for the caller to know: [`requires_sudo`].
    pub sudo: bool,
    /// The policies that grant what the operation needs. Empty when refused.
    pub granting_policies: Vec<PolicyName>,
    /// Everything granted here.
    pub capabilities: Capabilities,
    /// The pattern that decided.
    pub rule: Option<PathPattern>,
    /// Why.
    pub reason: Reason,
    /// The shortest time a reply may be wrapped for.
    pub min_wrapping_ttl: Option<Duration>,
    /// The longest time a reply may be wrapped for.
    pub max_wrapping_ttl: Option<Duration>,
    /// Event types that may be received; `None` is every type.
    pub event_types: Option<Vec<String>>,
    /// The most names that a listing may ask for at a time.
    pub pagination_limit: Option<u64>,
}

impl Decision {
    fn plain(allowed: bool, capabilities: Capabilities, reason: Reason) -> Self {
        Self {
            allowed,
            sudo: capabilities.has(Capability::Sudo),
            granting_policies: Vec::new(),
            capabilities,
            rule: None,
            reason,
            min_wrapping_ttl: None,
            max_wrapping_ttl: None,
            event_types: None,
            pagination_limit: None,
        }
    }

    /// What is left of this decision inside a boundary.
    fn within(mut self, outer: Self) -> Self {
        self.sudo &= outer.sudo;
        self.capabilities = self.capabilities.and(outer.capabilities);
        self.min_wrapping_ttl = self.min_wrapping_ttl.max(outer.min_wrapping_ttl);
        self.max_wrapping_ttl = smaller(self.max_wrapping_ttl, outer.max_wrapping_ttl);
        self.pagination_limit = smaller(self.pagination_limit, outer.pagination_limit);
        self.event_types = match (self.event_types, outer.event_types) {
            (Some(a), Some(b)) => Some(a.into_iter().filter(|t| b.contains(t)).collect()),
            (a, b) => a.or(b),
        };
        if self.allowed && !outer.allowed { self.refuse(Reason::Boundary) } else { self }
    }

    fn refuse(mut self, reason: Reason) -> Self {
        self.allowed = false;
        self.granting_policies.clear();
        self.reason = reason;
        if matches!(reason, Reason::Denied | Reason::DeniedCaseVariant) {
            self.capabilities = Capabilities::DENY;
            self.sudo = false;
        }
        self
    }
}

/// All of a token's policies, compiled.
#[derive(Debug, Default)]
pub struct Acl {
    root: bool,
    rules: Vec<Merged>,
    trie: Trie,
    /// The refusing rules, in lower case.
    denies: Trie,
    boundaries: Vec<Arc<Acl>>,
}

impl Acl {
    /// Compiles policies. With none, nothing is allowed.
    pub fn new(policies: &[Arc<Policy>]) -> Self {
        let mut acl = Self { root: policies.iter().any(|p| p.name().is_root()), ..Self::default() };
        let mut index: HashMap<&str, usize> = HashMap::new();
        for policy in policies {
            for rule in policy.rules() {
                match index.get(rule.pattern().as_str()) {
                    Some(at) => acl.rules[*at].add(policy.name(), rule),
                    None => {
                        index.insert(rule.pattern().as_str(), acl.rules.len());
                        acl.rules.push(Merged::new(policy.name(), rule));
                    }
                }
            }
        }
        for (at, rule) in acl.rules.iter().enumerate() {
            acl.trie.insert(&rule.pattern, at);
            if rule.capabilities.is_deny() {
                acl.denies.insert(&rule.pattern.folded(), at);
            }
        }
        acl
    }

    /// An ACL that allows what both `acl` and `boundary` allow. Boundaries add up.
    pub fn with_boundary(mut acl: Self, boundary: Arc<Acl>) -> Self {
        acl.boundaries.push(boundary);
        acl
    }

    /// How many rules there are, those of the boundaries included.
    pub fn rules(&self) -> usize {
        self.rules.len() + self.boundaries.iter().map(|boundary| boundary.rules()).sum::<usize>()
    }

    /// Whether the root policy is among them, without a boundary.
    pub fn is_root(&self) -> bool {
        self.root && self.boundaries.is_empty()
    }

    /// The beginnings of all paths at which a capability can be granted, boundaries aside: a path that begins with none
    /// of them is refused. Sorted; none is the beginning of another.
    pub fn beginnings(&self, capability: Capability) -> Vec<String> {
        if self.root {
            return vec![String::new()];
        }
        let granting = self.rules.iter().filter(|rule| rule.capabilities.has(capability));
        let mut all: Vec<String> = granting.map(|rule| rule.pattern.beginning().to_owned()).collect();
        all.sort();
        all.dedup_by(|later, earlier| later.starts_with(earlier.as_str()));
        all
    }

    /// Decides about one request. Listings are matched with their trailing slash, whether it was sent or not.
    pub fn decide(&self, operation: Operation, path: &VaultPath, params: Option<&Params>) -> Decision {
        let own = self.decide_own(operation, path, params);
        self.boundaries.iter().fold(own, |decision, b| decision.within(b.decide(operation, path, params)))
    }

    fn decide_own(&self, operation: Operation, path: &VaultPath, params: Option<&Params>) -> Decision {
        let Some(needed) = operation.needs() else {
            return Decision::plain(true, Capabilities::NONE, Reason::Free);
        };
        if self.root {
            let mut all = Decision::plain(true, Capabilities::ALL, Reason::Root);
            all.granting_policies.push(PolicyName::root());
            return all;
        }
        let listed = operation.is_listing().then(|| path.to_dir());
        let path = listed.as_ref().unwrap_or(path).as_str();
        let forms = if operation.is_listing() { Forms::listing(path) } else { Forms::plain(path) };
        let Some(rule) = self.select(forms) else {
            return Decision::plain(false, Capabilities::NONE, Reason::NoRule);
        };
        let found = Decision {
            rule: Some(rule.pattern.clone()),
            granting_policies: rule.granting(needed),
            min_wrapping_ttl: rule.min_wrapping_ttl,
            max_wrapping_ttl: rule.max_wrapping_ttl,
            event_types: rule.event_types.clone(),
            pagination_limit: rule.pagination_limit,
            ..Decision::plain(true, rule.capabilities, Reason::Granted)
        };
        if rule.capabilities.is_deny() {
            return found.refuse(Reason::Denied);
        }
        if let Some(deny) = self.case_variant_deny(forms, rule) {
            let mut refused = found.refuse(Reason::DeniedCaseVariant);
            refused.rule = Some(deny.pattern.clone());
            return refused;
        }
        if !rule.capabilities.has(needed) {
            return found.refuse(Reason::NotGranted);
        }
        if operation.has_parameters() && rule.params.fault(params).is_some() {
            return found.refuse(Reason::Parameters);
        }
        found
    }

    /// The one rule that applies. The order for listings is: exact as given, exact without the slash, other
    /// as given, other without the slash.
    fn select(&self, forms: Forms<'_>) -> Option<&Merged> {
        let first = self.best(forms.given);
        if first.is_some_and(|r| r.pattern.is_exact()) {
            return first;
        }
        let second = forms.bare.and_then(|bare| self.best(bare));
        if second.is_some_and(|r| r.pattern.is_exact()) { second } else { first.or(second) }
    }

    /// Every rule that matches, the most specific first.
    pub(super) fn matching(&self, forms: Forms<'_>) -> Vec<&Merged> {
        let mut found: Vec<&Merged> = Vec::new();
        for form in [Some(forms.given), forms.bare].into_iter().flatten() {
            self.trie.walk(form, &mut |at| found.push(&self.rules[at]));
        }
        found.sort_by(|a, b| b.pattern.priority(&a.pattern));
        found.dedup_by(|a, b| a.pattern == b.pattern);
        found
    }

    /// The rule of a pattern.
    pub(super) fn rule(&self, pattern: &PathPattern) -> Option<&Merged> {
        self.rules.iter().find(|rule| rule.pattern == *pattern)
    }

    pub(super) fn boundaries(&self) -> impl Iterator<Item = &Acl> {
        self.boundaries.iter().map(|boundary| &**boundary)
    }

    fn best(&self, path: &str) -> Option<&Merged> {
        let mut best: Option<&Merged> = None;
        self.trie.walk(path, &mut |at| {
            let rule = &self.rules[at];
            if best.is_none_or(|b| rule.pattern.priority(&b.pattern).is_gt()) {
                best = Some(rule);
            }
        });
        best
    }

    /// A refusing rule that matches only when case is ignored, and that `allow` is not more specific than.
    /// On a tie the refusal stands, except between exact paths: nothing more specific could be written.
    fn case_variant_deny(&self, forms: Forms<'_>, allow: &Merged) -> Option<&Merged> {
        let mut worst: Option<&Merged> = None;
        for form in [Some(forms.given), forms.bare].into_iter().flatten() {
            let folded = form.to_ascii_lowercase();
            self.denies.walk(&folded, &mut |at| {
                let deny = &self.rules[at];
                // One that matches as written took part in the ordinary selection, and lost.
                let variant = !deny.pattern.matches(form);
                if variant && worst.is_none_or(|w| deny.pattern.rank() > w.pattern.rank()) {
                    worst = Some(deny);
                }
            });
        }
        let (deny_rank, allow_rank) = (worst?.pattern.rank(), allow.pattern.rank());
        let stands = deny_rank > allow_rank || (deny_rank == allow_rank && !deny_rank.exact);
        worst.filter(|_| stands)
    }

    /// What is granted on a path, as `sys/capabilities` tells it: names in order, `["root"]`, or `["deny"]`.
    pub fn capabilities(&self, path: &VaultPath) -> Vec<&'static str> {
        if self.is_root() {
            return vec!["root"];
        }
        let granted = self.capability_set(path);
        if granted.grants_any() { granted.iter().map(Capability::as_str).collect() } else { vec!["deny"] }
    }

    /// What is granted on a path, as a set.
    pub fn capability_set(&self, path: &VaultPath) -> Capabilities {
        let forms = Forms::listing(path.as_str());
        let own = if self.root {
            Capabilities::ALL
        } else {
            match self.select(forms) {
                None => Capabilities::NONE,
                Some(rule) if self.case_variant_deny(forms, rule).is_some() => Capabilities::DENY,
                Some(rule) => rule.capabilities,
            }
        };
        self.boundaries.iter().fold(own, |set, b| set.and(b.capability_set(path)))
    }

    /// Every rule, merged over the policies that have it, and what it grants inside the boundaries where that can be
    /// said of one path.
    pub fn merged_rules(&self) -> impl Iterator<Item = (&PathPattern, Capabilities, Params)> {
        self.rules.iter().map(|rule| {
            let path = VaultPath::parse(rule.pattern.as_str()).ok().filter(|_| rule.pattern.is_exact());
            let bounded = path.filter(|_| !self.boundaries.is_empty()).map(|p| self.capability_set(&p));
            (&rule.pattern, bounded.unwrap_or(rule.capabilities), rule.limits())
        })
    }

    /// Whether anything at or below a mount (given with its slash) may be granted: what the preflight of `kv`
    /// commands asks. It decides about seeing that a mount exists, nothing else.
    pub fn sees_mount(&self, mount: &str) -> bool {
        self.sees_own(mount) && self.boundaries.iter().all(|b| b.sees_mount(mount))
    }

    fn sees_own(&self, mount: &str) -> bool {
        if self.root {
            return true;
        }
        // At the mount itself, as it is decided for any path.
        if self.select(Forms::listing(mount)).is_some_and(|r| r.capabilities.grants_any()) {
            return true;
        }
        // Below it, by a rule that begins with it, or by one with a `+` that can reach it.
        let bare = mount.strip_suffix('/').unwrap_or(mount);
        self.rules.iter().filter(|r| r.capabilities.grants_any()).any(|r| {
            let text = r.pattern.as_str();
            let below = text.strip_prefix(bare).is_some_and(|rest| rest.starts_with('/'));
            below || (r.pattern.wildcards() > 0 && r.pattern.touches(mount))
        })
    }
}

/// A path as the rules see it: as given and, for listings, without the slash.
#[derive(Clone, Copy)]
pub(super) struct Forms<'a> {
    given: &'a str,
    bare: Option<&'a str>,
}

impl<'a> Forms<'a> {
    pub(super) fn plain(path: &'a str) -> Self {
        Self { given: path, bare: None }
    }

    pub(super) fn listing(path: &'a str) -> Self {
        Self { given: path, bare: path.strip_suffix('/') }
    }
}

static SUDO_PATHS: LazyLock<Vec<PathPattern>> = LazyLock::new(|| {
    const TEXTS: [&str; 25] = [
        "sys/seal",
        "sys/step-down",
        "sys/auth/*",
        "sys/remount",
        "sys/audit",
        "sys/audit/*",
        "sys/raw",
        "sys/raw/*",
        "sys/rotate",
        "sys/rotate/*",
        "sys/rekey/*",
        "sys/generate-root/*",
        "sys/generate-root-token/*",
        "sys/config/cors",
        "sys/config/auditing/*",
        "sys/plugins/catalog/*",
        "sys/leases",
        "sys/leases/lookup/*",
        "sys/leases/revoke-prefix/*",
        "sys/leases/revoke-force/*",
        "sys/revoke-prefix/*",
        "sys/revoke-force/*",
        "sys/internal/inspect/*",
        "auth/token/accessors/*",
        "auth/token/revoke-orphan",
    ];
    TEXTS.iter().map(|t| PathPattern::parse(t).expect("the patterns above are well-formed")).collect()
});

/// Whether a path is one of those for which a token needs `sudo` besides the operation's capability.
pub fn requires_sudo(operation: Operation, path: &VaultPath) -> bool {
    // None of them is anywhere else, and every read of a secret asks.
    if !path.as_str().starts_with("sys/") && !path.as_str().starts_with("auth/") {
        return false;
    }
    let listed = operation.is_listing().then(|| path.to_dir());
    let path = listed.as_ref().unwrap_or(path);
    SUDO_PATHS.iter().any(|p| p.matches(path.as_str()) || p.matches(path.trimmed()))
}
