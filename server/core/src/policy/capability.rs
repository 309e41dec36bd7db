//! Capabilities, sets of them, and the operations that need them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing a policy can grant; or `Deny`, which takes all away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Capability {
    /// Write where nothing was.
    Create,
    /// Remove.
    Delete,
    /// Refuse everything on the pattern.
    Deny,
    /// See the names below a path.
    List,
    /// Change parts.
    Patch,
    /// Read.
    Read,
    /// See the names below a path, recursively.
    Scan,
    /// Receive events about a path.
    Subscribe,
    /// Use paths that are for administrators.
    Sudo,
    /// Write where something was; also renew and revoke.
    Update,
}

impl Capability {
    /// Every capability, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::Create,
        Self::Delete,
        Self::Deny,
        Self::List,
        Self::Patch,
        Self::Read,
        Self::Scan,
        Self::Subscribe,
        Self::Sudo,
        Self::Update,
    ];

    /// Its name, as policies spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Deny => "deny",
            Self::List => "list",
            Self::Patch => "patch",
            Self::Read => "read",
            Self::Scan => "scan",
            Self::Subscribe => "subscribe",
            Self::Sudo => "sudo",
            Self::Update => "update",
        }
    }

    /// The capability of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.as_str() == text)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of capabilities. Once `Deny` is in it, nothing else is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capabilities(u16);

impl Capabilities {
    /// Nothing at all.
    pub const NONE: Self = Self(0);
    /// An explicit refusal.
    pub const DENY: Self = Self(Capability::Deny.bit());
    /// Everything there is to grant.
    pub const ALL: Self = Self(0x3ff & !Capability::Deny.bit());

    /// The set of these. An empty list is a refusal, as `deny` is.
    pub fn of(list: &[Capability]) -> Self {
        let bits = list.iter().fold(0, |bits, c| bits | c.bit());
        if bits == 0 { Self::DENY } else { Self(bits).settled() }
    }

    const fn settled(self) -> Self {
        if self.0 & Capability::Deny.bit() != 0 { Self::DENY } else { self }
    }

    /// What two rules on one pattern give together: everything either grants, unless one refuses.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0).settled()
    }

    /// What both grant. A refusal by either is a refusal.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        if self.is_deny() || other.is_deny() { Self::DENY } else { Self(self.0 & other.0) }
    }

    /// Whether the capability is in the set.
    pub const fn has(self, capability: Capability) -> bool {
        self.0 & capability.bit() != 0
    }

    /// Whether this is an explicit refusal.
    pub const fn is_deny(self) -> bool {
        self.0 & Capability::Deny.bit() != 0
    }

    /// Whether at least one thing is granted.
    pub const fn grants_any(self) -> bool {
        self.0 & !Capability::Deny.bit() != 0
    }

    /// The capabilities, in the order of their names.
    pub fn iter(self) -> impl Iterator<Item = Capability> {
        Capability::ALL.into_iter().filter(move |c| self.has(*c))
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Capability::as_str)).finish()
    }
}

/// What a request wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// GET.
    Read,
    /// LIST, or GET with `list=true`.
    List,
    /// SCAN, or GET with `scan=true`.
    Scan,
    /// POST or PUT where nothing was.
    Create,
    /// POST or PUT where something was.
    Update,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// Renewal of a lease.
    Renew,
    /// Revocation of a lease.
    Revoke,
    /// Receipt of events about a path.
    Subscribe,
    /// Help texts, which are free for all.
    Help,
}

impl Operation {
    /// The capability it takes; `None` if it is free.
    pub const fn needs(self) -> Option<Capability> {
        match self {
            Self::Read => Some(Capability::Read),
            Self::List => Some(Capability::List),
            Self::Scan => Some(Capability::Scan),
            Self::Create => Some(Capability::Create),
            Self::Update | Self::Renew | Self::Revoke => Some(Capability::Update),
            Self::Patch => Some(Capability::Patch),
            Self::Delete => Some(Capability::Delete),
            Self::Subscribe => Some(Capability::Subscribe),
            Self::Help => None,
        }
    }

    /// Whether the path may also match without its trailing slash.
    pub const fn is_listing(self) -> bool {
        matches!(self, Self::List | Self::Scan)
    }

    /// Whether parameter constraints apply.
    pub const fn has_parameters(self) -> bool {
        matches!(self, Self::Read | Self::Update | Self::Create | Self::Patch)
    }

    /// Its name in the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Scan => "scan",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Renew => "renew",
            Self::Revoke => "revoke",
            Self::Subscribe => "subscribe",
            Self::Help => "help",
        }
    }
}
