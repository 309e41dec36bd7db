//! What every route sees: the vault, the clock, the limits, and whether the server is closing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coffer_vault::{Clock, Vault};
use tokio::sync::watch;

/// How much and how long a request may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes_max: usize,
    /// For a body to arrive in full, so that slow senders do not hold a connection for ever.
    pub body_time: Duration,
    /// Between the blank lines that keep an event stream alive.
    pub stream_keep_alive: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            body_time: Duration::from_secs(30),
            stream_keep_alive: Duration::from_secs(15),
        }
    }
}

/// Where a request comes from; the listener puts it into the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Peer {
    pub(crate) fn ip(extensions: &http::Extensions) -> IpAddr {
        extensions.get::<Self>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip())
    }
}

/// The room's state behind every route. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    /// Decides and does everything.
    pub vault: Arc<Vault>,
    /// The time requests are stamped with.
    pub clock: Arc<dyn Clock>,
    /// Turns true when the server drains: streams end, so that their clients go elsewhere.
    pub closing: watch::Receiver<bool>,
    /// The limits.
    pub limits: Limits,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("limits", &self.limits).finish_non_exhaustive()
    }
}
