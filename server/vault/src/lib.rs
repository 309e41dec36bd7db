//! The story of one request: door, authentication, permission, audit, effect, lease, audit, reply.
//!
//! Also the home of what surrounds it: mounts, policies, tokens, leases, events. This room never speaks HTTP to
//! clients, SQL, or to storage directly: it works through the barrier and the engines.

mod audit;
mod auth;
mod background;
mod cache;
mod ceremony;
mod cidr;
mod codec;
mod delivery;
mod deps;
mod dispatch;
mod door;
mod engine;
mod error;
mod events;
#[cfg(test)]
mod fuzz;
mod identity;
mod lease;
mod metrics;
mod mounts;
mod open;
mod outage;
mod outbound;
mod outcome;
mod params;
mod permit;
mod pipeline;
mod policy;
mod quota;
mod reconcile;
mod refusal;
mod request;
mod revoke;
mod rotation;
mod rotations;
mod rows;
mod status;
mod swap;
mod sweep;
mod sys;
mod term;
mod token;
mod vault;
mod versions;
mod webhooks;

pub use audit::{
    AuditSettings, Audited, Covered, DeclaredDevice, Durability, OnFailure, check_device_name,
    check_device_options,
};
pub use auth::HttpKeys;
pub use cache::CacheSettings;
pub use deps::{
    ApiCall, ApiReply, ApiServer, Clock, Credential, Deps, FetchKeys, KeysQuery, RequestRate,
    SubscriberLimits, VaultConfig,
};
pub use error::VaultError;
pub use events::EventStream;
pub use outbound::Outbound;
pub use quota::{Admission, RateInfo, TooMany};
pub use request::{
    EncodedJson, HealthParams, Operation, Refusal, Reply, ReplyBody, Request, StatusRequest, scrub,
};
pub use vault::{DevInit, Vault, standard_engines};
pub use webhooks::HttpWebhooks;
