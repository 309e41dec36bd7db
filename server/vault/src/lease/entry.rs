//! What is stored of a lease, and the arithmetic of its life. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coffer_barrier::{MountId, RowKey};
use coffer_core::lease::{LeaseError, LeaseEvent, LeaseState, Limits};
use coffer_core::secret::SecretBytes;
use coffer_core::time::Timestamp;
use coffer_core::token::{Accessor, TokenHash};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::TargetKey;
use crate::outage::Outage;
use crate::rows;

/// How long a credential may take from intent to delivery. After that its lease is cleaned.
pub(crate) const ISSUE_DEADLINE: Duration = Duration::from_secs(60);

/// A lease as stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct LeaseEntry {
    pub(crate) id: String,
    /// The mount whose engine made the credential, and its path at that time.
    pub(crate) mount: MountId,
    pub(crate) mount_path: String,
    /// The path that was read.
    pub(crate) path: String,
    /// Who holds it.
    pub(crate) token: TokenHash,
    pub(crate) accessor: Accessor,
    pub(crate) display_name: String,
    /// The pod behind the token, for audit records.
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) issued: Timestamp,
    pub(crate) renewed: Option<Timestamp>,
    pub(crate) ttl: Duration,
    pub(crate) max_ttl: Duration,
    /// When the holder's token ends at the latest.
    pub(crate) token_expiry: Option<Timestamp>,
    pub(crate) renewable: bool,
    /// Which queue revocations wait in.
    pub(crate) target: String,
    /// The credential's name at the target, where the reconciler finds it.
    #[serde(default)]
    pub(crate) account: Option<String>,
    /// What the engine needs; may hold the credential.
    pub(crate) payload: Payload,
    pub(crate) state: LeaseState,
    /// It waits in the queue of its target; else it is in the order of all leases.
    #[serde(default)]
    pub(crate) queued: bool,
    /// Not to be looked at before then. Older versions wrote that at each attempt; it is never set any more.
    pub(crate) busy_until: Option<Timestamp>,
    /// Taken away before it was delivered, and to be cleaned once more at this time: a creation on its way to the
    /// target may have arrived after the first cleaning.
    pub(crate) clean_again: Option<Timestamp>,
}

impl fmt::Debug for LeaseEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseEntry").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

impl LeaseEntry {
    /// When the sweeper has to look at it.
    pub(crate) fn due(&self) -> Timestamp {
        let due = self.state.due().or(self.clean_again).unwrap_or(Timestamp::ZERO);
        self.busy_until.map_or(due, |busy| due.max(busy))
    }

    /// Where it is taken back.
    pub(crate) fn target(&self) -> TargetKey {
        TargetKey { mount: self.mount, name: self.target.clone() }
    }

    /// The row that it is found by when something is to be done about it.
    pub(crate) fn due_row(&self) -> RowKey {
        if self.queued {
            rows::lease_queued(&self.target(), self.due(), &self.id)
        } else {
            rows::lease_due(self.due(), &self.id)
        }
    }

    /// When it ends unless renewed, if it was delivered and nobody has begun to take it away.
    pub(crate) const fn expires(&self) -> Option<Timestamp> {
        match &self.state {
            LeaseState::Active { expires } => Some(*expires),
            _ => None,
        }
    }

    /// The latest end a renewal can give.
    pub(crate) fn max_expires(&self) -> Timestamp {
        let own = self.issued.plus(self.max_ttl);
        self.token_expiry.map_or(own, |token| own.min(token))
    }

    /// What its expiry depends on.
    pub(crate) const fn limits(&self) -> Limits {
        Limits { ttl: self.ttl, max_ttl: self.max_ttl, token_expiry: self.token_expiry }
    }

    /// Nothing expires while no server is unsealed: what was valid when the outage began gets time to renew.
    pub(crate) fn with_grace(&mut self, outage: Option<&Outage>) {
        if let (Some(outage), LeaseState::Active { expires }) = (outage, &self.state) {
            let told = self.renewed.unwrap_or(self.issued);
            let expires = outage.extend(told, *expires, self.ttl, Some(self.max_expires()));
            self.state = LeaseState::Active { expires };
        }
    }

    /// Moves the state on; the entry is unchanged when the step is refused.
    pub(crate) fn step(&mut self, event: LeaseEvent, now: Timestamp) -> Result<(), LeaseError> {
        self.state = self.state.clone().step(event, now)?;
        Ok(())
    }

    /// Why it could not be taken back so far.
    pub(crate) fn why(&self) -> Option<&str> {
        match &self.state {
            LeaseState::Stuck { why, .. } => Some(why),
            _ => None,
        }
    }

    /// Seconds left.
    pub(crate) fn ttl_left(&self, now: Timestamp) -> u64 {
        self.expires().map_or(0, |end| end.saturating_sub(now).as_secs())
    }
}

/// Secret bytes that live inside a record, base64 there.
pub(crate) struct Payload(pub(crate) SecretBytes);

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The record this goes into is encrypted by the barrier and wiped after that.
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(self.0.expose())))
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes()).map_err(serde::de::Error::custom)?;
        Ok(Self(SecretBytes::new(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 0.1.0 wrote while it was taking a lease back.
    const OLD: &str = r#"{"id":"database/creds/orders/x","mount":"000102030405060708090a0b0c0d0e0f",
        "mount_path":"database/","path":"database/creds/orders",
        "token":"0000000000000000000000000000000000000000000000000000000000000000","accessor":"abcdefghijklmnopqrstuvwx","display_name":"d",
        "metadata":{},"issued":1000,"renewed":null,"ttl":{"secs":60,"nanos":0},"max_ttl":{"secs":600,"nanos":0},
        "token_expiry":null,"renewable":true,"target":"config/sim","payload":"",
        "state":{"state":"revoking","attempt":2,"next_try":5000},"busy_until":31000,"clean_again":null}"#;

    #[test]
    fn a_lease_that_an_older_version_was_taking_back_is_found_where_that_put_it() {
        let mut lease: LeaseEntry = serde_json::from_str(OLD).unwrap();
        assert!(lease.due_row() == rows::lease_due(Timestamp::from_millis(31_000), &lease.id));
        (lease.queued, lease.busy_until) = (true, None);
        let queued = rows::lease_queued(&lease.target(), Timestamp::from_millis(5000), &lease.id);
        assert!(lease.due_row() == queued);
    }
}
