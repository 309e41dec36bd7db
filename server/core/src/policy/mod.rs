//! What a token may do: policies, the patterns in them, and the decision for one request.
//!
//! Decides from policies alone. It never looks at mounts, stored data or the clock; whether a write is a
//! `create` or an `update` is told by the caller.

mod acl;
mod capability;
mod explain;
mod merge;
mod name;
mod params;
mod parse;
mod pattern;
mod trie;

pub use acl::{Acl, Decision, Reason, requires_sudo};
pub use capability::{Capabilities, Capability, Operation};
pub use explain::{Explanation, RuleOrigin};
pub use name::PolicyName;
pub use params::{ParamFault, Params};
pub use parse::{DroppedRule, Policy, PolicyError, Rule};
pub use pattern::{PathPattern, PatternError, contains};

/// The largest policy accepted, in bytes.
pub const MAX_POLICY_BYTES: usize = 1024 * 1024;
/// The most `path` blocks a policy may have.
pub const MAX_POLICY_RULES: usize = 10_000;

/// The text of the `default` policy that every token carries unless it is created without.
pub const DEFAULT_POLICY: &str = include_str!("default.hcl");

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_explain;
#[cfg(test)]
mod tests_text;
