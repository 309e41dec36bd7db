//! What every route sees: the vault, the clock, the limits, and whether the server is closing.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use coffer_vault::{Clock, Vault};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

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

/// Room in memory for the bodies that are being read, of all requests together: nobody is authenticated yet.
#[derive(Clone, Debug)]
pub struct Bodies(Arc<Semaphore>);

impl Bodies {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Room for `bytes` more; none while others have it.
    pub(crate) fn take(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        self.0.try_acquire_many(u32::try_from(bytes).ok()?).ok()
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self::new(256 << 20)
    }
}

/// What a connection holds for as long as it is open, such as its place among all. The listener puts it into the
/// extensions of a request that may become a websocket, which outlives the HTTP connection that it was.
#[derive(Clone)]
pub struct Held(pub Arc<dyn Any + Send + Sync>);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Held").finish()
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
    /// Where bodies are read to.
    pub bodies: Bodies,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("limits", &self.limits).finish_non_exhaustive()
    }
}
