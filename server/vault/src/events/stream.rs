//! A stream of events for one subscriber: decided anew at each event and at each revocation.
//!
//! Nothing is buffered for a slow reader: he reads the ring at his own pace, and is told to resync when it has
//! moved past him.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use coffer_core::policy::Operation as Needs;
use coffer_core::token::Token;
use futures::stream::{self, Stream};
use serde_json::Value;
use tokio::sync::watch;

use super::{Event, Start};
use crate::open::Open;
use crate::permit;
use crate::token::LiveToken;

/// Events as JSON objects. Ends when the subscriber's token or permission does, or when the vault is sealed.
pub type EventStream = Pin<Box<dyn Stream<Item = Value> + Send>>;

/// How many events are taken from the ring at once.
const BATCH: usize = 256;

/// Who subscribed to what.
pub(crate) struct Subscription {
    pub(crate) token: Token,
    /// The path whose `read` lets him subscribe.
    pub(crate) path: String,
    /// Types of events: exact, or ending in `*`.
    pub(crate) pattern: String,
    pub(crate) start: Start,
}

struct Reader {
    /// Weak: an open stream must not keep a sealed vault's state.
    open: Weak<Open>,
    subscription: Subscription,
    seq: u64,
    waiting: VecDeque<Value>,
    news: watch::Receiver<u64>,
    changes: watch::Receiver<u64>,
}

/// The stream of a subscriber who was just permitted.
pub(crate) fn subscribe(open: &Arc<Open>, subscription: Subscription) -> EventStream {
    let events = &open.around.events;
    let mut waiting = VecDeque::new();
    let seq = match subscription.start {
        Start::After(seq) => seq,
        Start::Resync(seq) => {
            waiting.push_back(events.render_resync(seq, open.now()));
            seq
        }
    };
    let mut news = events.watch();
    // What was published since the start was chosen counts as news.
    news.mark_changed();
    let changes = open.tokens.changes();
    let reader = Reader { open: Arc::downgrade(open), subscription, seq, waiting, news, changes };
    Box::pin(stream::unfold(reader, |mut reader| async move {
        let value = reader.next().await?;
        Some((value, reader))
    }))
}

impl Reader {
    async fn next(&mut self) -> Option<Value> {
        loop {
            let token = self.still_permitted().await?;
            if let Some(value) = self.waiting.pop_front() {
                return Some(value);
            }
            if self.take_batch(&token)? {
                continue;
            }
            tokio::select! {
                news = self.news.changed() => news.ok()?,
                // The sender is gone when the vault is sealed.
                change = self.changes.changed() => change.ok()?,
            }
        }
    }

    /// The token, if it is alive and may still subscribe.
    async fn still_permitted(&mut self) -> Option<Arc<LiveToken>> {
        self.changes.borrow_and_update();
        let open = self.open.upgrade()?;
        if open.barrier.sealed() {
            return None;
        }
        let found = open.caller(&self.subscription.token, open.now()).await;
        let token = found.ok().flatten()?;
        permit::may(&token, Needs::Read, &self.subscription.path).then_some(token)
    }

    /// Takes events from the ring; false if there are none. `None`: the vault is gone.
    fn take_batch(&mut self, token: &LiveToken) -> Option<bool> {
        let open = self.open.upgrade()?;
        let events = &open.around.events;
        self.news.borrow_and_update();
        let Some(batch) = events.after(self.seq, BATCH) else {
            self.seq = events.last();
            self.waiting.push_back(events.render_resync(self.seq, open.now()));
            return Some(true);
        };
        let Some(last) = batch.last() else { return Some(false) };
        self.seq = last.seq;
        let wanted = batch.iter().filter(|e| self.wants(e) && may_see(token, e));
        let rendered: Vec<Value> = wanted.map(|e| events.render(e)).collect();
        self.waiting.extend(rendered);
        Some(true)
    }

    fn wants(&self, event: &Event) -> bool {
        let pattern = self.subscription.pattern.as_str();
        match pattern.strip_suffix('*') {
            Some(prefix) => event.draft.event_type.starts_with(prefix),
            None => event.draft.event_type == pattern,
        }
    }
}

fn may_see(token: &LiveToken, event: &Event) -> bool {
    permit::may_receive(token, &event.draft.path, event.draft.event_type)
}
