//! The `/v1` API as types: what goes over the wire, and nothing else.
//!
//! Server, operator, agent and CLI agree on these. The room never holds logic: no defaults that
//! decide something, no parsing of durations, no IO. Secret values travel in [`Disclose`], the one
//! type of the project that both holds a secret and serializes.

#![forbid(unsafe_code)]

mod auth;
mod database;
mod delivery;
mod envelope;
mod event;
mod kv;
mod lease;
mod secret;
mod sys;

pub use auth::{
    KubernetesConfig, KubernetesLogin, PodToken, PodsReply, RenewSelf, RevokePod, RoleSpec, TokenLookup,
};
pub use database::{DatabaseConfig, DatabaseRole};
pub use delivery::{
    ChangeAction, DeliveryDocument, DeliveryFile, DeliveryReply, DeliverySource, DeliveryWrite, HttpCall,
};
pub use envelope::{Auth, Envelope, Errors, Keys, WrapInfo};
pub use event::{Event, EventBody, EventData, EventMetadata, PluginInfo};
pub use kv::{KvOptions, KvRead, KvVersion, KvWrite};
pub use lease::{LeaseLookup, LeaseRequest};
pub use secret::{Disclose, Scrub};
pub use sys::{
    AuthSpec, CaReply, Health, InitRequest, InitResponse, Leader, MountInfo, MountSpec, PolicyBody,
    PolicyReply, SealStatus, TuneSpec, UnsealRequest,
};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Labels a caller puts on an object so that he knows it again; never secret.
pub type Metadata = BTreeMap<String, String>;

/// A time to live as clients write it: whole seconds, or text such as `1h30m`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Ttl {
    /// Whole seconds; the form the server answers in.
    Seconds(u64),
    /// A duration such as `90s`, `15m` or `1h30m`.
    Text(String),
}

impl From<u64> for Ttl {
    fn from(seconds: u64) -> Self {
        Self::Seconds(seconds)
    }
}

impl From<&str> for Ttl {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
