//! Names of policies.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::PolicyError;

/// The longest name.
pub(super) const MAX_NAME_BYTES: usize = 512;

/// A policy's name: lower-cased, of visible ASCII, slashes allowed between segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PolicyName(Arc<str>);

impl PolicyName {
    /// Reads and lower-cases a name.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        if text.len() > MAX_NAME_BYTES {
            return Err(PolicyError::LongName);
        }
        let good = |c: u8| c.is_ascii_alphanumeric() || b"-_./:@=~ ".contains(&c);
        let segments_fine = text.split('/').all(|s| !matches!(s, "" | "." | ".."));
        let trimmed = text.trim() == text;
        if text.is_empty() || !text.bytes().all(good) || !segments_fine || !trimmed {
            return Err(PolicyError::Name);
        }
        Ok(Self(text.to_ascii_lowercase().into()))
    }

    /// The name `root`, of the policy that is not written down and allows everything.
    pub fn root() -> Self {
        Self("root".into())
    }

    /// The name `default`.
    pub fn default_policy() -> Self {
        Self("default".into())
    }

    /// The name `response-wrapping`, of the policy that the tokens of wrapped replies have, and no others.
    pub fn response_wrapping() -> Self {
        Self("response-wrapping".into())
    }

    /// Whether this names the policy of the tokens of wrapped replies.
    pub fn is_response_wrapping(&self) -> bool {
        &*self.0 == "response-wrapping"
    }

    /// Whether this names the root policy.
    pub fn is_root(&self) -> bool {
        &*self.0 == "root"
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for PolicyName {
    type Error = PolicyError;
    fn try_from(text: String) -> Result<Self, PolicyError> {
        Self::parse(&text)
    }
}

impl From<PolicyName> for String {
    fn from(name: PolicyName) -> Self {
        name.as_str().to_owned()
    }
}

impl std::str::FromStr for PolicyName {
    type Err = PolicyError;
    fn from_str(text: &str) -> Result<Self, PolicyError> {
        Self::parse(text)
    }
}

impl AsRef<str> for PolicyName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
