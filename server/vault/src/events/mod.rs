//! What happened, for those who may know: a ring of recent events, streams over it, and reads that wait for it.
//!
//! An event says that something changed at a path, never what it changed to.

mod board;
mod pattern;
mod ring;
mod seats;
mod stream;
pub(crate) mod wait;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coffer_core::time::Timestamp;
use coffer_core::token::TokenHash;
use serde_json::{Value, json};

pub(crate) use board::Bell;
use board::{Board, Id, Slot};
pub(crate) use pattern::{Pattern, RESYNC, glob};
use ring::Ring;
pub(crate) use seats::Seat;
use seats::Seats;
pub use stream::EventStream;
pub(crate) use stream::{Subscription, subscribe};

use crate::deps::SubscriberLimits;
use crate::error::{Fail, bad};
use crate::request::Request;

/// Something to be published.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Such as `kv-v2/data-write`.
    pub(crate) event_type: &'static str,
    /// The full path under `/v1/`.
    pub(crate) path: String,
    pub(crate) operation: &'static str,
    pub(crate) mount_path: String,
}

impl Draft {
    /// Something may have changed at a path, and nobody knows: told to whoever would have been told of a change there.
    pub(crate) fn doubt(path: &str) -> Self {
        Self { event_type: RESYNC, path: path.to_owned(), operation: "resync", mount_path: String::new() }
    }

    /// Where what an event of a key-value mount is about can be read, if there is something to be read afterwards.
    fn data_path(&self) -> Option<String> {
        match self.event_type {
            "kv-v1/write"
            | "kv-v2/config-write"
            | "kv-v2/data-patch"
            | "kv-v2/data-write"
            | "kv-v2/metadata-patch"
            | "kv-v2/metadata-write" => Some(self.path.clone()),
            "kv-v2/undelete" => {
                let below = self.path.strip_prefix(&self.mount_path)?.strip_prefix("undelete/")?;
                Some(format!("{}data/{below}", self.mount_path))
            }
            _ => None,
        }
    }

    /// What it is about, whichever of a thing's paths was used.
    fn subject(&self) -> String {
        let layered = self.event_type.starts_with("kv-v2/") || self.event_type.starts_with("database/");
        match self.path.strip_prefix(&self.mount_path).filter(|_| layered) {
            Some(rest) => subject(&self.mount_path, rest, true),
            None => self.path.clone(),
        }
    }
}

/// A thing of a mount, whichever of its paths (`data/x`, `undelete/x`) is meant. `layered`: the first segment says what
/// is done with it.
fn subject(mount_path: &str, rest: &str, layered: bool) -> String {
    let thing = if layered { rest.split_once('/').map_or(rest, |(_, thing)| thing) } else { rest };
    format!("{mount_path}{thing}")
}

/// A published event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) draft: Draft,
    id: uuid::Uuid,
}

#[derive(Default)]
struct State {
    ring: Ring,
    board: Board,
    /// No read waits any more.
    ending: bool,
}

/// All of it. Positions are `<incarnation>.<seq>`, opaque to clients; the incarnation is this process's own.
pub(crate) struct Events {
    node: String,
    incarnation: String,
    state: Mutex<State>,
    next_id: AtomicU64,
    seats: Seats,
}

/// What was found in the ring.
struct Caught {
    /// None: some of them are gone.
    events: Option<Vec<Arc<Event>>>,
    upto: u64,
    /// Nothing is left in the ring.
    present: bool,
}

/// Where a reader of the ring stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Goes on after this event.
    After(u64),
    /// What he asks for is gone, or of another process: he must look at everything anew.
    Resync(u64),
}

impl Events {
    pub(crate) fn new(node: &str, limits: SubscriberLimits, subscribers: prometheus::IntGauge) -> Self {
        Self {
            node: node.to_owned(),
            incarnation: hex::encode(rand::random::<[u8; 8]>()),
            state: Mutex::default(),
            next_id: AtomicU64::new(1),
            seats: Seats::new(limits, subscribers),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_id(&self) -> Id {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A place among those who listen, or why there is none.
    pub(crate) fn seat(&self, token: TokenHash) -> Result<Seat, Fail> {
        self.seats.take(token)
    }

    /// Publishes what was committed and recorded, or nobody knows of.
    pub(crate) fn publish(&self, drafts: Vec<Draft>, now: Timestamp) {
        if drafts.is_empty() {
            return;
        }
        let state = &mut *self.state();
        for draft in drafts {
            let seq = state.ring.last() + 1;
            let event = Arc::new(Event { seq, at: now, draft, id: uuid::Uuid::new_v4() });
            // Within one lock: whoever reads the ring and then waits misses nothing.
            state.board.tell(&event);
            state.ring.push(event, now);
        }
    }

    /// Puts a stream where it is told of what it may see.
    fn place(&self, id: Id, slot: &Arc<Slot>, pattern: &Pattern, beginnings: &[String]) {
        self.state().board.place(id, slot, pattern, beginnings);
    }

    /// The end of a stream.
    fn displace(&self, id: Id) {
        self.state().board.remove(id);
    }

    /// Up to `limit` events after `seq`. If these are the last, everything later comes to the slot.
    fn catch_up(&self, seq: u64, limit: usize, slot: &Slot) -> Caught {
        let state = self.state();
        let last = state.ring.last();
        let found = state.ring.after(seq, limit).map(|found| found.cloned().collect::<Vec<_>>());
        let upto = found.as_ref().map_or(last, |found| found.last().map_or(seq, |event| event.seq));
        if upto == last {
            slot.begin();
        }
        Caught { events: found, upto, present: upto == last }
    }

    /// Lets all reads that wait go on: the server is about to end.
    pub(crate) fn end_waits(&self) {
        let mut state = self.state();
        state.ending = true;
        state.board.ring_all();
    }

    /// Where a reader with this position starts; without one, at the present.
    pub(crate) fn start(&self, after: Option<&str>) -> Start {
        let state = self.state();
        let last = state.ring.last();
        let Some(after) = after else { return Start::After(last) };
        match self.seq_of(after) {
            Some(seq) if state.ring.reaches(seq) => Start::After(seq),
            _ => Start::Resync(last),
        }
    }

    /// The number in a position of this process.
    fn seq_of(&self, position: &str) -> Option<u64> {
        let (incarnation, seq) = position.rsplit_once('.')?;
        (incarnation == self.incarnation).then(|| seq.parse().ok()).flatten()
    }

    fn position(&self, seq: u64) -> String {
        format!("{}.{seq}", self.incarnation)
    }

    /// The present position: what happens after this call has a later one.
    pub(crate) fn now_at(&self) -> String {
        self.position(self.state().ring.last())
    }

    /// An event as clients see it.
    pub(crate) fn render(&self, event: &Event) -> Value {
        let draft = &event.draft;
        let mut whole = self.envelope(event.id, event.at, event.seq, draft);
        if let Some(Value::Object(metadata)) = whole.pointer_mut("/data/event/metadata")
            && draft.event_type != RESYNC
        {
            // Texts, also the truth value: so Vault has them.
            metadata.insert("modified".into(), "true".into());
            if let Some(path) = draft.data_path() {
                metadata.insert("data_path".into(), path.into());
            }
        }
        whole
    }

    /// The event that says: what you had may be outdated, read everything again.
    fn render_resync(&self, seq: u64, now: Timestamp) -> Value {
        self.envelope(uuid::Uuid::new_v4(), now, seq, &Draft::doubt(""))
    }

    fn envelope(&self, id: uuid::Uuid, at: Timestamp, seq: u64, draft: &Draft) -> Value {
        let id = id.to_string();
        let metadata = json!({
            "path": draft.path,
            "operation": draft.operation,
            "position": self.position(seq),
            "vault_index": self.position(seq),
        });
        json!({
            "id": id,
            "source": format!("coffer://{}", self.node),
            "specversion": "1.0",
            "type": draft.event_type,
            "datacontenttype": "application/json",
            "time": at.to_rfc3339(),
            "data": {
                "event": { "id": id, "metadata": metadata },
                "event_type": draft.event_type,
                "plugin_info": { "mount_path": draft.mount_path },
            },
        })
    }
}

/// Checks what a subscriber asks for. What he asks for and this server cannot do is refused, not passed over.
pub(crate) fn check(pattern: &str, request: &Request) -> Result<Pattern, Fail> {
    let query = |name: &str| request.query.get(name).map(String::as_str).filter(|value| !value.is_empty());
    if query("json").is_some_and(|json| json != "true") {
        return Err(bad("events are sent as JSON only: json must be true"));
    }
    if query("filter").is_some() {
        return Err(bad("filter expressions are not supported"));
    }
    Pattern::parse(pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events() -> Events {
        Events::new("n", SubscriberLimits::default(), prometheus::IntGauge::new("n", "n").unwrap())
    }

    fn of(event_type: &'static str, path: &str) -> Draft {
        Draft { event_type, path: path.into(), operation: "", mount_path: "kv/".into() }
    }

    fn all(events: &Events) -> Vec<Arc<Event>> {
        events.state().ring.after(0, 10).unwrap().cloned().collect()
    }

    #[test]
    fn events_of_secrets_say_where_to_read_them() {
        let events = events();
        events.publish(
            vec![
                of("kv-v2/data-write", "kv/data/a"),
                of("kv-v2/undelete", "kv/undelete/a/undelete/b"),
                of("kv-v2/destroy", "kv/destroy/a"),
            ],
            Timestamp::from_secs(10),
        );
        let said: Vec<Value> = all(&events).iter().map(|event| events.render(event)).collect();
        let metadata = |at: usize| said[at].pointer("/data/event/metadata").unwrap().clone();
        assert_eq!(
            (&metadata(0)["data_path"], &metadata(0)["modified"]),
            (&json!("kv/data/a"), &json!("true"))
        );
        assert_eq!(metadata(1)["data_path"], "kv/data/a/undelete/b");
        assert!(metadata(2).get("data_path").is_none());
    }

    #[test]
    fn a_thing_is_one_subject_by_whatever_path_it_is_changed() {
        let of_path = |event_type, path: &str| of(event_type, path).subject();
        assert_eq!(of_path("kv-v2/data-write", "kv/data/a/b"), "kv/a/b");
        assert_eq!(of_path("kv-v2/undelete", "kv/undelete/a/b"), "kv/a/b");
        assert_eq!(of_path("kv-v1/write", "kv/data/a"), "kv/data/a");
        assert_eq!(subject("kv/", "data/a/b", true), "kv/a/b");
    }

    #[test]
    fn a_reader_resumes_or_is_told_to_resync() {
        let events = events();
        assert_eq!(events.start(None), Start::After(0));
        events.publish(vec![of("kv-v1/write", "kv/a"), of("kv-v1/write", "kv/b")], Timestamp::from_secs(10));
        let position = events.render(&all(&events)[0])["data"]["event"]["metadata"]["position"].clone();
        let position = position.as_str().unwrap();
        assert_eq!(events.start(Some(position)), Start::After(1));
        assert_eq!(events.start(Some(&events.now_at())), Start::After(2));
        for foreign in ["other.1", "", "nonsense", &events.position(3)] {
            assert_eq!(events.start(Some(foreign)), Start::Resync(2), "{foreign}");
        }
    }
}
