//! A second opinion about policies: slow, and written from the description of the rules alone, without a look at
//! the evaluator it judges. Can be made wrong on purpose, one rule at a time.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What a rule of a policy says: a pattern and the names of capabilities.
pub type Rules = Vec<(String, Vec<&'static str>)>;

/// A way to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    CaseDenyAlways,
    CaseDenyNever,
    DenyDoesNotErase,
    EmptyListIsNoDeny,
    EarlierWildcardWins,
    LexicographicallySmallerWins,
    ListIgnoresBarePath,
    ListTakesGlobsBeforeBareExact,
    ListTakesBareGlobsFirst,
    MorePlusWins,
    PlusIsIgnoredBesidePrefix,
    PlusSpansSegments,
    PoliciesOverwrite,
    RenewIsFree,
    ShorterWins,
    StarNeedsASlash,
    StarWins,
    UnionOfAllMatches,
}

pub const FAULTS: [Fault; 18] = [
    Fault::CaseDenyAlways,
    Fault::CaseDenyNever,
    Fault::DenyDoesNotErase,
    Fault::EmptyListIsNoDeny,
    Fault::EarlierWildcardWins,
    Fault::LexicographicallySmallerWins,
    Fault::ListIgnoresBarePath,
    Fault::ListTakesGlobsBeforeBareExact,
    Fault::ListTakesBareGlobsFirst,
    Fault::MorePlusWins,
    Fault::PlusIsIgnoredBesidePrefix,
    Fault::PlusSpansSegments,
    Fault::PoliciesOverwrite,
    Fault::RenewIsFree,
    Fault::ShorterWins,
    Fault::StarNeedsASlash,
    Fault::StarWins,
    Fault::UnionOfAllMatches,
];

/// The rules that can decide, each with how often it did.
#[derive(Debug, Default)]
pub struct Hits(pub RefCell<BTreeMap<&'static str, u64>>);

pub const RULES: [&str; 13] = [
    "exact path",
    "exact path without the slash of a listing",
    "non-exact match of the path as given",
    "non-exact match without the slash of a listing",
    "later wildcard",
    "no star at the end",
    "fewer plus segments",
    "longer",
    "lexicographically greater",
    "capabilities of several policies added",
    "deny erases",
    "deny in another case",
    "deny in another case, but a more specific allow",
];

impl Hits {
    fn hit(&self, rule: &'static str) {
        *self.0.borrow_mut().entry(rule).or_default() += 1;
    }
}

/// What was decided: whether, by which pattern, and all that it grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub allowed: bool,
    pub rule: Option<String>,
    pub refused: bool,
}

/// All policies of a token, put together.
pub struct Reference<'h> {
    merged: BTreeMap<String, BTreeSet<&'static str>>,
    fault: Option<Fault>,
    hits: Option<&'h Hits>,
}

fn is_prefix(pattern: &str) -> bool {
    pattern.ends_with('*')
}

fn has_plus(pattern: &str) -> bool {
    pattern.split('/').any(|s| s == "+")
}

fn is_exact(pattern: &str) -> bool {
    !is_prefix(pattern) && !has_plus(pattern)
}

fn first_wildcard(pattern: &str) -> usize {
    let mut at = 0;
    for segment in pattern.split('/') {
        if segment == "+" {
            return at;
        }
        at += segment.len() + 1;
    }
    pattern.find('*').unwrap_or(pattern.len())
}

fn plus_segments(pattern: &str) -> usize {
    pattern.split('/').filter(|s| *s == "+").count()
}

fn bare(pattern: &str) -> &str {
    pattern.strip_suffix('*').unwrap_or(pattern)
}

impl<'h> Reference<'h> {
    pub fn new(policies: &[Rules], fault: Option<Fault>, hits: Option<&'h Hits>) -> Self {
        let mut merged: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
        for (pattern, capabilities) in policies.iter().flatten() {
            let mut set: BTreeSet<_> = capabilities.iter().copied().collect();
            if set.is_empty() && fault != Some(Fault::EmptyListIsNoDeny) {
                set.insert("deny");
            }
            let entry = merged.entry(pattern.clone()).or_default();
            if fault == Some(Fault::PoliciesOverwrite) {
                entry.clear();
            }
            if let Some(hits) = hits
                && !entry.is_empty()
                && *entry != set
            {
                let denied = entry.contains("deny") || set.contains("deny");
                hits.hit(if denied { "deny erases" } else { "capabilities of several policies added" });
            }
            entry.extend(set);
        }
        for set in merged.values_mut() {
            if set.contains("deny") {
                if fault == Some(Fault::DenyDoesNotErase) && set.len() > 1 {
                    set.remove("deny");
                } else {
                    *set = BTreeSet::from(["deny"]);
                }
            }
        }
        Self { merged, fault, hits }
    }

    fn hit(&self, rule: &'static str) {
        if let Some(hits) = self.hits {
            hits.hit(rule);
        }
    }

    fn matches(&self, pattern: &str, path: &str) -> bool {
        if is_exact(pattern) {
            return pattern == path;
        }
        if !has_plus(pattern) {
            let prefix = bare(pattern);
            let fits = path.starts_with(prefix);
            let on_a_slash = prefix.ends_with('/') || path.len() == prefix.len();
            return fits && (self.fault != Some(Fault::StarNeedsASlash) || on_a_slash);
        }
        let patterns: Vec<&str> = bare(pattern).split('/').collect();
        let paths: Vec<&str> = path.split('/').collect();
        self.segments_match(&patterns, &paths, is_prefix(pattern))
    }

    fn segments_match(&self, patterns: &[&str], paths: &[&str], open: bool) -> bool {
        match (patterns, paths) {
            ([], []) => true,
            ([], _) | (_, []) => false,
            // The last segment of a pattern with a star: what is left of the path begins with it.
            ([last], rest) if open => rest.join("/").starts_with(last),
            (["+", more @ ..], [_, rest @ ..]) => {
                self.segments_match(more, rest, open)
                    || (self.fault == Some(Fault::PlusSpansSegments)
                        && rest.len() > 1
                        && self.segments_match(patterns, rest, open))
            }
            ([first, more @ ..], [segment, rest @ ..]) => {
                first == segment && self.segments_match(more, rest, open)
            }
        }
    }

    /// Which of two non-exact patterns that match one path decides: the greater. Also by which rule.
    fn compare(&self, a: &str, b: &str) -> (Ordering, &'static str) {
        let flip = |fault, order: Ordering| if self.fault == Some(fault) { order.reverse() } else { order };
        // "Lower priority: first + or * occurs earlier".
        let order = flip(Fault::EarlierWildcardWins, first_wildcard(a).cmp(&first_wildcard(b)));
        if order.is_ne() {
            return (order, "later wildcard");
        }
        // "ends in *"
        let order = flip(Fault::StarWins, is_prefix(b).cmp(&is_prefix(a)));
        if order.is_ne() {
            return (order, "no star at the end");
        }
        // "more + segments"
        let order = flip(Fault::MorePlusWins, plus_segments(b).cmp(&plus_segments(a)));
        if order.is_ne() {
            return (order, "fewer plus segments");
        }
        // "shorter"
        let order = flip(Fault::ShorterWins, bare(a).len().cmp(&bare(b).len()));
        if order.is_ne() {
            return (order, "longer");
        }
        // "lexicographically smaller"
        (flip(Fault::LexicographicallySmallerWins, bare(a).cmp(bare(b))), "lexicographically greater")
    }

    fn exact(&self, path: &str) -> Option<&str> {
        self.merged.keys().map(String::as_str).find(|p| is_exact(p) && *p == path)
    }

    fn best(&self, path: &str) -> Option<&str> {
        let matching = || {
            let patterns = self.merged.keys().map(String::as_str);
            patterns.filter(|p| !is_exact(p) && self.matches(p, path))
        };
        // "Candidates: the longest prefix rule, and every + rule that matches."
        let longest = matching().filter(|p| !has_plus(p)).max_by_key(|p| p.len());
        let mut candidates: Vec<&str> = longest.into_iter().collect();
        if self.fault != Some(Fault::PlusIsIgnoredBesidePrefix) || candidates.is_empty() {
            candidates.extend(matching().filter(|p| has_plus(p)));
        }
        let mut best = *candidates.first()?;
        for other in &candidates[1..] {
            let (order, why) = self.compare(best, other);
            self.hit(why);
            if order.is_lt() {
                best = other;
            }
        }
        Some(best)
    }

    fn select(&self, path: &str, listing: bool) -> Option<&str> {
        let without =
            path.strip_suffix('/').filter(|_| listing && self.fault != Some(Fault::ListIgnoresBarePath));
        if let Some(rule) = self.exact(path) {
            self.hit("exact path");
            return Some(rule);
        }
        if self.fault == Some(Fault::ListTakesGlobsBeforeBareExact)
            && let Some(rule) = self.best(path)
        {
            return Some(rule);
        }
        if let Some(rule) = without.and_then(|p| self.exact(p)) {
            self.hit("exact path without the slash of a listing");
            return Some(rule);
        }
        if self.fault == Some(Fault::ListTakesBareGlobsFirst)
            && let Some(rule) = without.and_then(|p| self.best(p))
        {
            return Some(rule);
        }
        if let Some(rule) = self.best(path) {
            self.hit("non-exact match of the path as given");
            return Some(rule);
        }
        let rule = without.and_then(|p| self.best(p))?;
        self.hit("non-exact match without the slash of a listing");
        Some(rule)
    }

    /// Whether `a` says more about where it applies than `b`, or as much where nothing can say more.
    pub fn more_specific(a: &str, b: &str) -> bool {
        match (is_exact(a), is_exact(b)) {
            // An exact path with the slash of a listing comes before the same without.
            (true, true) => a.len() >= b.len(),
            (true, false) => true,
            (false, true) => false,
            (false, false) => {
                let key = |p: &str| {
                    (first_wildcard(p), !is_prefix(p), std::cmp::Reverse(plus_segments(p)), bare(p).len())
                };
                key(a) > key(b)
            }
        }
    }

    /// "An explicit deny also covers paths that differ only in ASCII case, unless a more specific allow matches."
    fn case_deny(&self, path: &str, listing: bool, allow: &str) -> Option<&str> {
        if self.fault == Some(Fault::CaseDenyNever) {
            return None;
        }
        let mut forms = vec![path];
        forms.extend(path.strip_suffix('/').filter(|_| listing));
        for (deny, capabilities) in &self.merged {
            if !capabilities.contains("deny") {
                continue;
            }
            let folded = deny.to_ascii_lowercase();
            let variant = forms
                .iter()
                .any(|f| self.matches(&folded, &f.to_ascii_lowercase()) && !self.matches(deny, f));
            if !variant {
                continue;
            }
            if Self::more_specific(allow, deny) && self.fault != Some(Fault::CaseDenyAlways) {
                self.hit("deny in another case, but a more specific allow");
                continue;
            }
            self.hit("deny in another case");
            return Some(deny);
        }
        None
    }

    /// Decides. `needs` is the capability's name.
    pub fn decide(&self, operation: &str, needs: &'static str, path: &str) -> Verdict {
        let listing = matches!(operation, "list" | "scan");
        let path = if listing && !path.ends_with('/') { format!("{path}/") } else { path.to_owned() };
        if self.fault == Some(Fault::RenewIsFree) && operation == "renew" {
            return Verdict { allowed: true, rule: None, refused: false };
        }
        if self.fault == Some(Fault::UnionOfAllMatches) {
            let mut all = self.merged.iter().filter(|(p, _)| self.matches(p, &path));
            let allowed = all.any(|(_, c)| c.contains(needs));
            return Verdict { allowed, rule: None, refused: false };
        }
        let Some(rule) = self.select(&path, listing) else {
            return Verdict { allowed: false, rule: None, refused: false };
        };
        let capabilities = &self.merged[rule];
        if capabilities.contains("deny") {
            return Verdict { allowed: false, rule: Some(rule.to_owned()), refused: true };
        }
        if let Some(deny) = self.case_deny(&path, listing, rule) {
            return Verdict { allowed: false, rule: Some(deny.to_owned()), refused: true };
        }
        Verdict { allowed: capabilities.contains(needs), rule: Some(rule.to_owned()), refused: false }
    }
}
