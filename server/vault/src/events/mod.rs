//! What happened, for those who may know: a ring of recent events, and streams over it.
//!
//! An event says that something changed at a path, never what it changed to.

mod stream;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_core::time::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

pub use stream::EventStream;
pub(crate) use stream::{Subscription, subscribe};

use crate::error::{Fail, bad};

/// How many events are kept at most, and for how long.
const KEPT_MAX: usize = 100_000;
const KEPT_FOR: Duration = Duration::from_secs(3600);

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
}

/// A published event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) draft: Draft,
    id: String,
}

/// The ring. Positions are `<incarnation>.<seq>`, opaque to clients; the incarnation is this process's own.
pub(crate) struct Events {
    node: String,
    incarnation: String,
    ring: Mutex<VecDeque<Arc<Event>>>,
    /// The number of the last event published; zero for none.
    last: watch::Sender<u64>,
}

/// Checks a pattern of event types: a type, or the beginning of one and `*`.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), Fail> {
    let body = pattern.strip_suffix('*').unwrap_or(pattern);
    let good = |c: u8| c.is_ascii_alphanumeric() || b"-_/".contains(&c);
    if pattern.len() > 256 || !body.bytes().all(good) {
        return Err(bad("invalid event type pattern"));
    }
    Ok(())
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
    pub(crate) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            incarnation: hex::encode(rand::random::<[u8; 8]>()),
            ring: Mutex::default(),
            last: watch::Sender::new(0),
        }
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, VecDeque<Arc<Event>>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes what was committed and recorded.
    pub(crate) fn publish(&self, drafts: Vec<Draft>, now: Timestamp) {
        if drafts.is_empty() {
            return;
        }
        let mut ring = self.ring();
        let mut seq = *self.last.borrow();
        for draft in drafts {
            seq += 1;
            let id = uuid::Uuid::new_v4().to_string();
            ring.push_back(Arc::new(Event { seq, at: now, draft, id }));
        }
        while ring.len() > KEPT_MAX || ring.front().is_some_and(|e| e.at.plus(KEPT_FOR) < now) {
            ring.pop_front();
        }
        // Within the lock, so that numbers are told in their order.
        self.last.send_replace(seq);
    }

    /// The number of the last event.
    pub(crate) fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// To be told of new events.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// Where a reader with this position starts; without one, at the present.
    pub(crate) fn start(&self, after: Option<&str>) -> Start {
        let last = self.last();
        let Some(after) = after else { return Start::After(last) };
        let seq = after
            .rsplit_once('.')
            .filter(|(incarnation, _)| *incarnation == self.incarnation)
            .and_then(|(_, seq)| seq.parse::<u64>().ok());
        let oldest = self.ring().front().map_or(last + 1, |e| e.seq);
        match seq {
            Some(seq) if seq <= last && seq + 1 >= oldest => Start::After(seq),
            _ => Start::Resync(last),
        }
    }

    /// Up to `limit` events after `seq`. `None` if some of them are gone already.
    pub(crate) fn after(&self, seq: u64, limit: usize) -> Option<Vec<Arc<Event>>> {
        let ring = self.ring();
        let oldest = ring.front().map_or(self.last() + 1, |e| e.seq);
        if seq + 1 < oldest {
            return None;
        }
        let skip = usize::try_from(seq + 1 - oldest).unwrap_or(usize::MAX);
        Some(ring.iter().skip(skip).take(limit).cloned().collect())
    }

    /// An event as clients see it.
    pub(crate) fn render(&self, event: &Event) -> Value {
        let draft = &event.draft;
        let mut whole = self.envelope(
            &event.id,
            draft.event_type,
            event.at,
            event.seq,
            &draft.path,
            draft.operation,
            &draft.mount_path,
        );
        if let Some(Value::Object(metadata)) = whole.pointer_mut("/data/event/metadata") {
            // Texts, also the truth value: so Vault has them.
            metadata.insert("modified".into(), "true".into());
            if let Some(path) = draft.data_path() {
                metadata.insert("data_path".into(), path.into());
            }
        }
        whole
    }

    /// The event that says: what you had may be outdated, read everything again.
    pub(crate) fn render_resync(&self, seq: u64, now: Timestamp) -> Value {
        let id = uuid::Uuid::new_v4().to_string();
        self.envelope(&id, "coffer/resync", now, seq, "", "resync", "")
    }

    #[expect(clippy::too_many_arguments, reason = "one place that knows the form of an event")]
    fn envelope(
        &self,
        id: &str,
        event_type: &str,
        at: Timestamp,
        seq: u64,
        path: &str,
        operation: &str,
        mount_path: &str,
    ) -> Value {
        let metadata = json!({
            "path": path,
            "operation": operation,
            "position": format!("{}.{seq}", self.incarnation),
        });
        json!({
            "id": id,
            "source": format!("coffer://{}", self.node),
            "specversion": "1.0",
            "type": event_type,
            "datacontenttype": "application/json",
            "time": at.to_rfc3339(),
            "data": {
                "event": { "id": id, "metadata": metadata },
                "event_type": event_type,
                "plugin_info": { "mount_path": mount_path },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(path: &str) -> Draft {
        Draft {
            event_type: "delivery/write",
            path: path.into(),
            operation: "write",
            mount_path: "delivery/".into(),
        }
    }

    #[test]
    fn events_of_secrets_say_where_to_read_them() {
        let events = Events::new("n");
        let of = |event_type, path: &str| {
            let (operation, mount_path) = ("", "kv/".to_owned());
            Draft { event_type, path: path.into(), operation, mount_path }
        };
        events.publish(
            vec![
                of("kv-v2/data-write", "kv/data/a"),
                of("kv-v2/undelete", "kv/undelete/a/undelete/b"),
                of("kv-v2/destroy", "kv/destroy/a"),
            ],
            Timestamp::from_secs(10),
        );
        let said: Vec<Value> =
            events.after(0, 10).unwrap().iter().map(|event| events.render(event)).collect();
        let metadata = |at: usize| said[at].pointer("/data/event/metadata").unwrap().clone();
        assert_eq!(
            (&metadata(0)["data_path"], &metadata(0)["modified"]),
            (&json!("kv/data/a"), &json!("true"))
        );
        assert_eq!(metadata(1)["data_path"], "kv/data/a/undelete/b");
        assert!(metadata(2).get("data_path").is_none());
    }

    #[test]
    fn a_reader_resumes_or_is_told_to_resync() {
        let events = Events::new("n");
        let now = Timestamp::from_secs(10);
        assert_eq!(events.start(None), Start::After(0));
        events.publish(vec![draft("a"), draft("b")], now);
        let first = events.after(0, 10).unwrap();
        let position = events.render(&first[0])["data"]["event"]["metadata"]["position"].clone();
        let position = position.as_str().unwrap();
        assert_eq!(events.start(Some(position)), Start::After(1));
        assert_eq!(events.after(1, 10).unwrap().len(), 1);
        assert_eq!(events.start(Some("other.1")), Start::Resync(2));
        assert_eq!(events.start(Some("")), Start::Resync(2));
        // An hour later the old ones are dropped with the next that comes.
        events.publish(vec![draft("c")], Timestamp::from_secs(10 + 3700));
        assert!(events.after(1, 10).is_none());
        assert_eq!(events.start(Some(position)), Start::Resync(3));
    }
}
