//! Whether a connection is of any use: it is while this server is at work for it, and while its client takes what it
//! is sent. One whose client takes nothing is of none, whatever it answers to pings.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use hyper::body::{Bytes, Frame, SizeHint};

/// The largest piece that a reply is handed over in: that the next one is asked for is how a slow client shows that it
/// takes what it gets.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Default)]
struct Counts {
    /// Requests that wait for this server.
    in_flight: AtomicU64,
    /// How often anything happened: a request, a piece of a reply, the end of one.
    events: AtomicU64,
}

/// What a connection is doing.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Counts>);

/// One request; in flight while it waits for this server.
pub(crate) struct InFlight {
    counts: Arc<Counts>,
    /// The client has something to take first.
    handed_over: bool,
}

impl Idle {
    /// A request has come.
    pub(crate) fn begin(&self) -> InFlight {
        self.0.in_flight.fetch_add(1, Ordering::Relaxed);
        self.0.events.fetch_add(1, Ordering::Relaxed);
        InFlight { counts: Arc::clone(&self.0), handed_over: false }
    }

    /// Returns when nothing has happened for at least `time`, and at most twice that.
    pub(crate) async fn for_long(&self, time: Duration) {
        loop {
            let before = self.0.events.load(Ordering::Relaxed);
            tokio::time::sleep(time).await;
            let quiet = self.0.events.load(Ordering::Relaxed) == before;
            if quiet && self.0.in_flight.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

impl InFlight {
    /// The reply's body.
    pub(crate) const fn until_end_of(self, body: Body) -> Reply {
        Reply { body, rest: Bytes::new(), in_flight: self }
    }

    /// Says whose turn it is: the client's, or this server's.
    fn hand_over(&mut self, over: bool) {
        if over {
            self.counts.events.fetch_add(1, Ordering::Relaxed);
        }
        if over != self.handed_over {
            self.handed_over = over;
            let count = &self.counts.in_flight;
            if over {
                count.fetch_sub(1, Ordering::Relaxed)
            } else {
                count.fetch_add(1, Ordering::Relaxed)
            };
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.hand_over(true);
    }
}

/// A reply's body.
pub(crate) struct Reply {
    body: Body,
    /// Of a piece that was larger than is handed over at once.
    rest: Bytes,
    in_flight: InFlight,
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if this.rest.is_empty() {
            let next = Pin::new(&mut this.body).poll_frame(cx);
            this.in_flight.hand_over(next.is_ready());
            match next {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return other,
            }
        } else {
            this.in_flight.hand_over(true);
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, hint) = (self.rest.len() as u64, self.body.size_hint());
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower().saturating_add(rest));
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper.saturating_add(rest));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const TIME: Duration = Duration::from_secs(10);

    /// How long it takes until the connection is idle; none: longer than a hundred seconds.
    async fn idle_after(idle: &Idle) -> Option<Duration> {
        let begun = tokio::time::Instant::now();
        tokio::time::timeout(10 * TIME, idle.for_long(TIME)).await.ok().map(|()| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_has_come_for_long() {
        let idle = Idle::default();
        assert_eq!(idle_after(&idle).await, Some(TIME));
        let request = idle.begin();
        assert_eq!(idle_after(&idle).await, None, "the server is at work");
        let body = request.until_end_of(Body::from("x"));
        assert_eq!(idle_after(&idle).await, None, "the reply is not taken up yet");
        assert_eq!(body.collect().await.unwrap().to_bytes(), "x");
        assert_eq!(idle_after(&idle).await, Some(TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_counts_from_the_end_of_a_request() {
        let idle = Idle::default();
        let request = idle.begin();
        let waiting = tokio::spawn({
            let idle = idle.clone();
            async move { idle_after(&idle).await }
        });
        tokio::time::sleep(2 * TIME - Duration::from_millis(1)).await;
        drop(request);
        assert_eq!(waiting.await.unwrap(), Some(3 * TIME));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_idle_and_one_that_takes_slowly_is_not() {
        let idle = Idle::default();
        let mut body = idle.begin().until_end_of(Body::from(vec![b'x'; 3 * PIECE_BYTES + 1]));
        for size in [PIECE_BYTES, PIECE_BYTES, PIECE_BYTES, 1] {
            assert!(!body.is_end_stream());
            let waiting = tokio::spawn({
                let idle = idle.clone();
                async move { idle_after(&idle).await }
            });
            tokio::time::sleep(TIME / 2).await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), size);
            assert_eq!(waiting.await.unwrap(), Some(2 * TIME));
        }
        assert!(body.is_end_stream());
        // A stream that has nothing to say waits for this server.
        let pending = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let mut body = idle.begin().until_end_of(pending);
        assert!(futures::poll!(body.frame()).is_pending());
        assert_eq!(idle_after(&idle).await, None);
    }
}
