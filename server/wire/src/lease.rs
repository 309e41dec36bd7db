//! Leases by id. Never says who may touch which.

use crate::Ttl;
use serde::{Deserialize, Serialize};

/// Body of `PUT sys/leases/lookup|renew|revoke`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeaseRequest {
    /// The lease.
    pub lease_id: String,
    /// For a renewal: the life asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub increment: Option<Ttl>,
}

/// `data` of `PUT sys/leases/lookup`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct LeaseLookup {
    /// The lease.
    pub id: String,
    /// When it was issued, RFC 3339.
    pub issue_time: String,
    /// When it ends.
    pub expire_time: Option<String>,
    /// When it was last renewed.
    pub last_renewal: Option<String>,
    /// Whether it can be renewed.
    pub renewable: bool,
    /// Seconds left.
    pub ttl: u64,
}
