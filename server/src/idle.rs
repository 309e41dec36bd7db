//! Whether a connection is of any use: it is while a request is in flight, or a reply is on its way.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use hyper::body::{Bytes, Frame, SizeHint};

#[derive(Default)]
struct Counts {
    in_flight: AtomicU64,
    /// How many requests there ever were.
    begun: AtomicU64,
}

/// What a connection is doing.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Counts>);

/// One request in flight; ends when dropped.
pub(crate) struct InFlight(Arc<Counts>);

impl Idle {
    /// A request has come.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(&self.0))
    }

    /// Returns when nothing has been asked for at least `time`, and at most twice that.
    pub(crate) async fn for_long(&self, time: Duration) {
        loop {
            let before = self.0.begun.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            let quiet = self.0.begun.load(Ordering::Relaxed) == before;
            if quiet && self.0.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl InFlight {
    /// The reply's body, which keeps the request in flight until it is sent or given up.
    pub(crate) const fn until_end_of(self, body: Body) -> Reply {
        Reply { body, _in_flight: self }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply's body.
pub(crate) struct Reply {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_only_when_nothing_is_in_flight_and_nothing_new_came() {
        let idle = Idle::default();
        let time = Duration::from_secs(10);
        let begun = tokio::time::Instant::now();
        idle.for_long(time).await;
        assert_eq!(begun.elapsed(), time);
        let body = idle.begin().until_end_of(Body::from("x"));
        let waiting = tokio::time::timeout(Duration::from_secs(100), idle.for_long(time)).await;
        assert!(waiting.is_err(), "a reply is on its way");
        assert_eq!(axum::body::to_bytes(Body::new(body), 10).await.unwrap(), "x");
        idle.for_long(time).await;
    }
}
