//! From a policy's text to its rules.
//!
//! Unknown keys are refused, and so are constraints that this server does not enforce: a policy is never
//! accepted and then taken more widely than it is written.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::hcl::{self, Block, Body, Entry, HclError, Position};
use crate::time::Timestamp;

use super::name::MAX_NAME_BYTES;
use super::params::{ParamRules, ValueLists};
use super::pattern::{PathPattern, PatternError};
use super::{Capabilities, Capability, MAX_POLICY_BYTES, MAX_POLICY_RULES, PolicyName};

/// Why a policy was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A name that no policy can have.
    #[error("invalid policy name")]
    Name,
    /// A name longer than [`MAX_NAME_BYTES`].
    #[error("policy name is longer than {MAX_NAME_BYTES} bytes")]
    LongName,
    /// The root policy is not written.
    #[error("the root policy cannot be written")]
    Root,
    /// Larger than [`MAX_POLICY_BYTES`].
    #[error("policy is larger than {MAX_POLICY_BYTES} bytes")]
    TooLarge,
    /// More blocks than [`MAX_POLICY_RULES`].
    #[error("policy has more than {MAX_POLICY_RULES} paths")]
    TooManyRules,
    /// Not readable, or not a policy.
    #[error("failed to parse policy: {0}")]
    Hcl(#[from] HclError),
    /// A path that cannot be matched.
    #[error("failed to parse policy: line {line}: path {path:?}: {why}")]
    Pattern {
        /// Where it stands.
        line: u32,
        /// The path.
        path: String,
        /// What is wrong with it.
        why: PatternError,
    },
}

/// A rule that was not taken over as written because a placeholder in its path had no usable value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedRule {
    /// The path as written.
    pub path: String,
    /// Where it stands.
    pub line: u32,
    /// The placeholder's key and what is wrong with it. Never the value.
    pub why: String,
    /// There was a value, but it could have reached for other paths.
    pub hostile: bool,
    /// A refusing rule is widened to any value instead of being dropped.
    pub widened: bool,
}

/// One `path` block.
#[derive(Debug, Clone)]
pub struct Rule {
    pub(super) pattern: PathPattern,
    pub(super) capabilities: Capabilities,
    pub(super) params: ParamRules,
    pub(super) min_wrapping_ttl: Option<Duration>,
    pub(super) max_wrapping_ttl: Option<Duration>,
    pub(super) event_types: Vec<String>,
    pub(super) pagination_limit: Option<u64>,
    pub(super) ends: Option<Timestamp>,
}

impl Rule {
    /// The paths it is about.
    pub fn pattern(&self) -> &PathPattern {
        &self.pattern
    }

    /// What it grants or refuses.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// From when on it is as if it were not there (`expiration`).
    pub fn ends(&self) -> Option<Timestamp> {
        self.ends
    }
}

/// A policy, read and checked.
#[derive(Debug, Clone)]
pub struct Policy {
    name: PolicyName,
    rules: Vec<Rule>,
    dropped: Vec<DroppedRule>,
    templated: bool,
}

impl Policy {
    /// The root policy.
    pub fn root() -> Self {
        Self { name: PolicyName::root(), rules: Vec::new(), dropped: Vec::new(), templated: false }
    }

    /// Reads a policy. Rules with placeholders are checked but have no effect: see [`Policy::is_templated`].
    pub fn parse(name: &PolicyName, source: &str) -> Result<Self, PolicyError> {
        Self::parse_templated(name, source, &BTreeMap::new())
    }

    /// Reads a policy for one holder, putting `values` (by key, such as `auth.metadata.role` or
    /// `identity.entity.id`) in the place of `{{key}}` in its paths. See [`DroppedRule`].
    pub fn parse_templated(
        name: &PolicyName,
        source: &str,
        values: &BTreeMap<String, String>,
    ) -> Result<Self, PolicyError> {
        if name.is_root() {
            return Err(PolicyError::Root);
        }
        if source.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge);
        }
        let body = hcl::parse(source)?;
        refuse_unknown(&body, &["path", "name"])?;
        let blocks = body.labelled_blocks("path")?;
        if blocks.len() > MAX_POLICY_RULES {
            return Err(PolicyError::TooManyRules);
        }
        let mut policy =
            Self { name: name.clone(), rules: Vec::new(), dropped: Vec::new(), templated: false };
        for block in blocks {
            policy.add(&block, values)?;
        }
        Ok(policy)
    }

    fn add(&mut self, block: &Block<'_>, values: &BTreeMap<String, String>) -> Result<(), PolicyError> {
        let mut rule = read_rule(block)?;
        let pattern = |path: &str| {
            PathPattern::parse(path).map_err(|why| PolicyError::Pattern {
                line: block.at.line,
                path: block.label.to_owned(),
                why,
            })
        };
        if !block.label.contains("{{") {
            rule.pattern = pattern(block.label)?;
            self.rules.push(rule);
            return Ok(());
        }
        self.templated = true;
        // Checked with any value in place, so that a bad pattern is refused when it is written.
        let any_value = pattern(&super::merge::widen(block.label))?;
        match super::merge::substitute(block.label, values) {
            Ok(path) => rule.pattern = pattern(&path)?,
            Err(super::merge::NoValue { why, hostile }) => {
                let widened = rule.capabilities.is_deny();
                let path = block.label.to_owned();
                self.dropped.push(DroppedRule { path, line: block.at.line, why, hostile, widened });
                if !widened {
                    return Ok(());
                }
                rule.pattern = any_value;
            }
        }
        self.rules.push(rule);
        Ok(())
    }

    /// Without the rules that have ended at `now`, allowing and refusing ones alike.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        self.rules.retain(|rule| rule.ends.is_none_or(|end| now < end));
        self
    }

    /// When the first of its rules ends: until then it stays as it is.
    pub fn next_end(&self) -> Option<Timestamp> {
        self.rules.iter().filter_map(Rule::ends).min()
    }

    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Its rules, in source order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules whose placeholders had no usable value.
    pub fn dropped(&self) -> &[DroppedRule] {
        &self.dropped
    }

    /// Whether any path has a placeholder, so that the policy must be read anew for each holder.
    pub fn is_templated(&self) -> bool {
        self.templated
    }
}

fn refuse_unknown(body: &Body, known: &[&str]) -> Result<(), HclError> {
    match body.entries.iter().find(|e| !known.contains(&e.key.as_str())) {
        Some(entry) => Err(HclError::new(entry.at, format!("invalid key {:?}", entry.key))),
        None => Ok(()),
    }
}

const RULE_KEYS: [&str; 11] = [
    "policy",
    "capabilities",
    "allowed_parameters",
    "denied_parameters",
    "required_parameters",
    "min_wrapping_ttl",
    "max_wrapping_ttl",
    "subscribe_event_types",
    "pagination_limit",
    "expiration",
    "comment",
];

/// Known to Vault or OpenBao, but not enforced here. Accepting them would grant more than is written.
const UNSUPPORTED_KEYS: [&str; 4] =
    ["mfa_methods", "control_group", "response_keys_filter_path", "list_scan_response_keys_filter_path"];

fn read_rule(block: &Block<'_>) -> Result<Rule, HclError> {
    let body = block.body;
    if let Some(entry) = body.entries.iter().find(|e| UNSUPPORTED_KEYS.contains(&e.key.as_str())) {
        return Err(HclError::new(entry.at, format!("{:?} is not supported by this server", entry.key)));
    }
    refuse_unknown(body, &RULE_KEYS)?;
    let lists = |key| body.entry(key).map(read_value_lists).transpose();
    let ttl = |key| body.entry(key).map(Entry::as_duration).transpose();
    let strings = |key: &str| -> Result<Vec<String>, HclError> {
        let list = body.entry(key).map(Entry::as_strings).transpose()?;
        Ok(list.unwrap_or_default().into_iter().map(str::to_owned).collect())
    };
    let (min, max) = (ttl("min_wrapping_ttl")?, ttl("max_wrapping_ttl")?);
    if let (Some(min), Some(max)) = (min, max)
        && !max.is_zero()
        && max < min
    {
        return Err(HclError::new(block.at, "max_wrapping_ttl cannot be less than min_wrapping_ttl"));
    }
    let required = strings("required_parameters")?.iter().map(|r| r.to_lowercase()).collect();
    Ok(Rule {
        // Replaced by the caller, which knows about placeholders.
        pattern: PathPattern::nothing(),
        capabilities: read_capabilities(body, block.at)?,
        params: ParamRules {
            allowed: lists("allowed_parameters")?,
            denied: lists("denied_parameters")?,
            required,
        },
        min_wrapping_ttl: min.filter(|d| !d.is_zero()),
        max_wrapping_ttl: max.filter(|d| !d.is_zero()),
        event_types: strings("subscribe_event_types")?,
        pagination_limit: body.entry("pagination_limit").map(read_pagination).transpose()?.flatten(),
        ends: body.entry("expiration").map(read_end).transpose()?,
    })
}

/// Zero is no limit.
fn read_pagination(entry: &Entry) -> Result<Option<u64>, HclError> {
    let number = match &entry.value {
        hcl::Value::String(text) => text.parse().ok(),
        _ => entry.as_int().ok().and_then(|number| u64::try_from(number).ok()),
    };
    let number: u64 =
        number.ok_or_else(|| HclError::new(entry.at, "\"pagination_limit\" must be a number of names"))?;
    Ok((number > 0).then_some(number))
}

/// RFC 3339, or seconds since the Unix epoch.
fn read_end(entry: &Entry) -> Result<Timestamp, HclError> {
    let end = match &entry.value {
        hcl::Value::String(text) => {
            Timestamp::parse_rfc3339(text).ok().or_else(|| text.parse().ok().map(Timestamp::from_secs))
        }
        _ => entry.as_int().ok().and_then(|secs| u64::try_from(secs).ok()).map(Timestamp::from_secs),
    };
    end.ok_or_else(|| {
        HclError::new(entry.at, "\"expiration\" must be a time such as \"2030-01-01T00:00:00Z\"")
    })
}

fn read_capabilities(body: &Body, at: Position) -> Result<Capabilities, HclError> {
    use Capability::{Create, Delete, Deny, List, Read, Sudo, Update};
    let mut granted: Vec<Capability> = Vec::new();
    // The old spelling, from before capabilities.
    if let Some(entry) = body.entry("policy") {
        granted.extend(match entry.as_str()? {
            "deny" => &[Deny][..],
            "read" => &[Read, List],
            "write" => &[Create, Read, Update, Delete, List],
            "sudo" => &[Create, Read, Update, Delete, List, Sudo],
            other => return Err(HclError::new(entry.at, format!("invalid policy {other:?}"))),
        });
    }
    match body.entry("capabilities") {
        Some(entry) => {
            for word in entry.as_strings()? {
                let capability = Capability::parse(word)
                    .ok_or_else(|| HclError::new(entry.at, format!("invalid capability {word:?}")))?;
                granted.push(capability);
            }
        }
        None if granted.is_empty() && body.entry("policy").is_none() => {
            return Err(HclError::new(at, "path has no capabilities"));
        }
        None => {}
    }
    Ok(Capabilities::of(&granted))
}

fn read_value_lists(entry: &Entry) -> Result<ValueLists, HclError> {
    let mut lists = ValueLists::new();
    for item in &entry.as_object()?.entries {
        let hcl::Value::List(values) = &item.value else {
            return Err(HclError::new(item.at, format!("{:?} must be a list of values", item.key)));
        };
        let values = values.iter().map(hcl::Value::to_json).collect();
        if lists.insert(item.key.to_lowercase(), values).is_some() {
            return Err(HclError::new(item.at, format!("{:?} is given twice", item.key)));
        }
    }
    Ok(lists)
}
