//! A stream of events for one subscriber: decided anew at each event, and at whatever is cut off from its token.
//!
//! What waits for a slow reader is bounded: one that has more to come reads the ring at his own pace, and is told to
//! resync when that has moved past him. He holds up nobody else.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Weak};

use coffer_core::audit::{AuditRecord, RecordType};
use coffer_core::policy::{Capability, Operation as Needs};
use coffer_core::token::Token;
use futures::stream::{self, Stream};
use serde_json::Value;

use super::board::{Found, Id};
use super::{Event, Pattern, Seat, Slot, Start};
use crate::error::Fail;
use crate::open::{Open, Surroundings};
use crate::permit;
use crate::pipeline::describe;
use crate::token::{Kind, LiveToken, Watch};

/// Events as JSON objects. Ends when the subscriber's token or permission does, or when the vault is sealed.
pub type EventStream = Pin<Box<dyn Stream<Item = Value> + Send>>;

/// How many events are taken from the ring at once.
const BATCH: usize = 256;

/// Who subscribed to what.
pub(crate) struct Subscription {
    pub(crate) request_id: String,
    pub(crate) client_ip: std::net::IpAddr,
    pub(crate) token: Token,
    /// The path whose `read` lets him subscribe.
    pub(crate) path: String,
    pub(crate) pattern: Pattern,
    pub(crate) start: Start,
}

enum Waiting {
    Event(Arc<Event>),
    Resync(u64),
}

struct Reader {
    /// Weak: an open stream must not keep a sealed vault's state.
    open: Weak<Open>,
    around: Arc<Surroundings>,
    subscription: Subscription,
    live: Arc<LiveToken>,
    watch: Watch,
    _seat: Seat,
    id: Id,
    slot: Arc<Slot>,
    /// Below which paths it stands on the board.
    beginnings: Vec<String>,
    /// What came before and with this event is dealt with.
    seq: u64,
    /// Not everything after `seq` is in the slot: it has to be read from the ring.
    behind: bool,
    waiting: VecDeque<Waiting>,
    delivered: u64,
}

/// The stream of a subscriber who was just permitted.
pub(crate) async fn subscribe(open: &Arc<Open>, subscription: Subscription) -> Result<EventStream, Fail> {
    let found = open.caller(&subscription.token, Some(subscription.client_ip), open.now()).await?;
    let live = found.ok_or(Fail::BadToken)?;
    let events = &open.around.events;
    let seat = events.seat(live.entry.hash)?;
    let slot = Arc::new(Slot::default());
    // What is cut off from here on is heard of; what was before, the first look finds.
    let watch = open.tokens.watch(&live, &slot.bell);
    slot.bell.changed();
    let mut waiting = VecDeque::new();
    let seq = match subscription.start {
        Start::After(seq) => seq,
        Start::Resync(seq) => {
            waiting.push_back(Waiting::Resync(seq));
            seq
        }
    };
    let reader = Reader {
        open: Arc::downgrade(open),
        around: Arc::clone(&open.around),
        subscription,
        live,
        watch,
        _seat: seat,
        id: events.new_id(),
        slot,
        beginnings: Vec::new(),
        seq,
        behind: true,
        waiting,
        delivered: 0,
    };
    Ok(Box::pin(stream::unfold(reader, |mut reader| async move {
        let value = reader.next().await?;
        Some((value, reader))
    })))
}

impl Reader {
    async fn next(&mut self) -> Option<Value> {
        loop {
            self.still_permitted().await?;
            if let Some(waiting) = self.waiting.pop_front() {
                if let Some(value) = self.deliver(&waiting)? {
                    self.delivered += 1;
                    return Some(value);
                }
            } else if !self.refill() {
                self.more().await;
            }
        }
    }

    /// Waits until there may be something to do. Of what ends a batch token not all rings: it is looked at now and then.
    async fn more(&self) {
        let heard = self.slot.bell.heard();
        if self.live.entry.kind != Kind::Batch {
            return heard.await;
        }
        let _idle = tokio::time::timeout(self.around.config.subscribers.idle, heard).await.is_err();
    }

    /// The last decision: about this event, by what the token may do now. The outer `None`: the vault is gone.
    fn deliver(&self, waiting: &Waiting) -> Option<Option<Value>> {
        let events = &self.around.events;
        let open = self.open.upgrade()?;
        Some(match waiting {
            Waiting::Resync(seq) => Some(events.render_resync(*seq, open.now())),
            Waiting::Event(event) => {
                let draft = &event.draft;
                let may = permit::may_receive(&self.live, &draft.path, draft.event_type);
                may.then(|| events.render(event))
            }
        })
    }

    /// Ends the stream if its token is dead or may not subscribe any more. Looks only if anything changed, unless the
    /// token is a batch token: what that hangs from is in the store only.
    async fn still_permitted(&mut self) -> Option<()> {
        let open = self.open.upgrade()?;
        loop {
            let changed = self.slot.bell.take_changed();
            if open.barrier.sealed() {
                return None;
            }
            let now = open.now();
            let stored = self.live.entry.kind == Kind::Service;
            if !changed && stored && self.live.in_time(now) && open.validity.holds(now) {
                return Some(());
            }
            let found = open.caller(&self.subscription.token, None, now).await;
            let live = found.ok().flatten()?;
            if !permit::may(&live, Needs::Read, &self.subscription.path) {
                return None;
            }
            let entity = |live: &LiveToken| live.entity.as_ref().map(|entity| entity.id.clone());
            let same = entity(&self.live) == entity(&live);
            self.live = live;
            if same {
                break;
            }
            // Another one stands behind it now. What was cut off from that one before it was watched, the next look finds.
            self.watch = open.tokens.watch(&self.live, &self.slot.bell);
            self.slot.bell.changed();
        }
        let beginnings = self.live.acl.beginnings(Capability::Subscribe);
        if self.beginnings != beginnings {
            // Whatever was published since he might see more is in the ring.
            let Subscription { pattern, .. } = &self.subscription;
            self.around.events.place(self.id, &self.slot, pattern, &beginnings);
            self.beginnings = beginnings;
            self.behind = true;
        }
        Some(())
    }

    /// Takes what there is; false if there is nothing.
    fn refill(&mut self) -> bool {
        let events = &self.around.events;
        if !self.behind {
            match self.slot.take() {
                Found::Nothing => return false,
                Found::Overflown => self.behind = true,
                Found::Events(found) => {
                    self.seq = found.back().map_or(self.seq, |event| event.seq);
                    self.waiting.extend(found.into_iter().map(Waiting::Event));
                    return true;
                }
            }
        }
        let caught = events.catch_up(self.seq, BATCH, &self.slot);
        self.seq = caught.upto;
        self.behind = !caught.present;
        let wanted = |event: &Arc<Event>| self.subscription.pattern.wants(event.draft.event_type);
        match caught.events {
            None => self.waiting.push_back(Waiting::Resync(caught.upto)),
            Some(batch) => self.waiting.extend(batch.into_iter().filter(wanted).map(Waiting::Event)),
        }
        true
    }
}

impl Drop for Reader {
    /// The end of a stream is recorded like its beginning.
    fn drop(&mut self) {
        self.around.events.displace(self.id);
        let Subscription { request_id, client_ip, path, .. } = &self.subscription;
        let now = self.around.clock.now();
        let mut record =
            AuditRecord::new(now, RecordType::Read, request_id.as_str(), "unsubscribe", path.as_str());
        record.client_ip = Some(client_ip.to_string());
        record.status = Some(200);
        describe(&mut record, &self.live.entry);
        record.metadata.insert("events".into(), self.delivered.to_string());
        let around = Arc::clone(&self.around);
        // Outside of a runtime the process is at its end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if around.audit.write(&record).await.is_err() {
                    tracing::error!("the end of an event stream could not be recorded");
                }
            });
        }
    }
}
