//! Who is to be told of what: streams by the beginnings of the paths they may see, waiting reads by their subject.
//!
//! A publication touches those it concerns and nobody else. Whether somebody *may* be told is decided by whoever reads
//! his slot, never here.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Event, Pattern};

/// How many events wait for one stream. One that has more to come reads the ring instead.
const QUEUE_MAX: usize = 256;
/// More beginnings of paths than these are not worth telling apart.
const BEGINNINGS_MAX: usize = 64;

/// Wakes whoever waits, and says whether it is about himself.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    /// Something changed about the token behind it: what it may do has to be found out anew.
    changed: AtomicBool,
    wake: Notify,
}

impl Bell {
    /// Says that the token behind it may have changed.
    pub(crate) fn changed(&self) {
        self.changed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether [`Self::changed`] was called since the last look.
    pub(crate) fn take_changed(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// Until it rings; at once if it has since it was last heard.
    pub(crate) async fn heard(&self) {
        self.wake.notified().await;
    }

    fn ring(&self) {
        self.wake.notify_one();
    }
}

/// What waits for one stream.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) bell: Arc<Bell>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Arc<Event>>,
    /// Some did not fit: they have to be read from the ring.
    overflown: bool,
    last: u64,
}

/// What a stream finds in its slot.
pub(super) enum Found {
    Events(VecDeque<Arc<Event>>),
    Nothing,
    /// There is more in the ring than came here.
    Overflown,
}

impl Slot {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, event: &Arc<Event>) {
        let mut queue = self.queue();
        // Found below several beginnings.
        if queue.last == event.seq {
            return;
        }
        queue.last = event.seq;
        if queue.overflown || queue.events.len() >= QUEUE_MAX {
            queue.overflown = true;
        } else {
            queue.events.push_back(Arc::clone(event));
        }
        drop(queue);
        self.bell.ring();
    }

    pub(super) fn take(&self) -> Found {
        let mut queue = self.queue();
        if !queue.events.is_empty() {
            Found::Events(std::mem::take(&mut queue.events))
        } else if queue.overflown {
            Found::Overflown
        } else {
            Found::Nothing
        }
    }

    /// From here on everything comes here again: what is in the ring was read.
    pub(super) fn begin(&self) {
        let mut queue = self.queue();
        queue.events.clear();
        queue.overflown = false;
    }
}

/// Names a stream or a waiting read.
pub(super) type Id = u64;

struct Listener {
    slot: Arc<Slot>,
    pattern: Pattern,
}

#[derive(Default)]
struct Node {
    below: HashMap<String, Node>,
    here: HashMap<Id, Arc<Listener>>,
}

/// The board.
#[derive(Default)]
pub(super) struct Board {
    root: Node,
    /// Where each stream stands.
    places: HashMap<Id, Vec<String>>,
    waiting: HashMap<String, HashMap<Id, Arc<Bell>>>,
}

impl Board {
    /// Puts a stream below the beginnings of all that it may see, and nowhere else.
    pub(super) fn place(&mut self, id: Id, slot: &Arc<Slot>, pattern: &Pattern, beginnings: &[String]) {
        self.remove(id);
        let listener = Arc::new(Listener { slot: Arc::clone(slot), pattern: pattern.clone() });
        let everywhere = [String::new()];
        let beginnings = if beginnings.len() > BEGINNINGS_MAX { &everywhere } else { beginnings };
        for beginning in beginnings {
            let mut node = &mut self.root;
            for segment in whole_segments(beginning) {
                node = node.below.entry(segment.to_owned()).or_default();
            }
            node.here.insert(id, Arc::clone(&listener));
        }
        self.places.insert(id, beginnings.to_vec());
    }

    /// Takes a stream off.
    pub(super) fn remove(&mut self, id: Id) {
        for beginning in self.places.remove(&id).unwrap_or_default() {
            let segments: Vec<&str> = whole_segments(&beginning).collect();
            prune(&mut self.root, &segments, id);
        }
    }

    /// Rings when something is published about a subject.
    pub(super) fn wait(&mut self, id: Id, subject: &str, bell: &Arc<Bell>) {
        self.waiting.entry(subject.to_owned()).or_default().insert(id, Arc::clone(bell));
    }

    /// The end of [`Self::wait`].
    pub(super) fn wait_no_more(&mut self, id: Id, subject: &str) {
        if let Some(bells) = self.waiting.get_mut(subject) {
            bells.remove(&id);
            if bells.is_empty() {
                self.waiting.remove(subject);
            }
        }
    }

    /// Rings for every read that waits.
    pub(super) fn ring_all(&self) {
        self.waiting.values().flat_map(HashMap::values).for_each(|bell| bell.ring());
    }

    /// Tells those whom an event concerns.
    pub(super) fn tell(&self, event: &Arc<Event>) {
        let mut node = &self.root;
        let mut segments = event.draft.path.split('/');
        loop {
            for listener in node.here.values() {
                if listener.pattern.wants(event.draft.event_type) {
                    listener.slot.push(event);
                }
            }
            let Some(below) = segments.next().and_then(|segment| node.below.get(segment)) else { break };
            node = below;
        }
        if let Some(bells) = self.waiting.get(&event.draft.subject()) {
            bells.values().for_each(|bell| bell.ring());
        }
    }
}

/// The segments of a beginning that are there in full.
fn whole_segments(beginning: &str) -> impl Iterator<Item = &str> {
    beginning.rsplit_once('/').map_or("", |(whole, _)| whole).split('/').filter(|segment| !segment.is_empty())
}

fn prune(node: &mut Node, segments: &[&str], id: Id) {
    match segments.split_first() {
        None => {
            node.here.remove(&id);
        }
        Some((first, rest)) => {
            let Some(below) = node.below.get_mut(*first) else { return };
            prune(below, rest, id);
            if below.here.is_empty() && below.below.is_empty() {
                node.below.remove(*first);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use coffer_core::time::Timestamp;
    use futures::FutureExt as _;

    use super::*;
    use crate::events::Draft;

    fn event(seq: u64, path: &str) -> Arc<Event> {
        let draft = Draft {
            event_type: "kv-v1/write",
            path: path.into(),
            operation: "write",
            mount_path: "kv/".into(),
        };
        Arc::new(Event { seq, at: Timestamp::ZERO, draft, id: uuid::Uuid::nil() })
    }

    fn placed(board: &mut Board, id: Id, pattern: &str, beginnings: &[&str]) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        let beginnings: Vec<String> = beginnings.iter().map(|&b| b.to_owned()).collect();
        board.place(id, &slot, &Pattern::parse(pattern).unwrap(), &beginnings);
        slot
    }

    fn told(slot: &Slot) -> usize {
        let heard = slot.bell.heard().now_or_never().is_some();
        match slot.take() {
            Found::Events(events) => {
                assert!(heard);
                events.len()
            }
            Found::Nothing => {
                assert!(!heard, "woken for nothing");
                0
            }
            Found::Overflown => panic!("overflown"),
        }
    }

    #[test]
    fn those_whom_an_event_does_not_concern_are_left_asleep() {
        let mut board = Board::default();
        let everything = placed(&mut board, 1, "*", &[""]);
        let twice = placed(&mut board, 2, "kv*", &["kv/a/", "kv/", "kv/a/b"]);
        let partly = placed(&mut board, 3, "*", &["kv/a/bc"]);
        let mut others: Vec<_> =
            (10..1010).map(|id| placed(&mut board, id, "*", &[&format!("kv/{id}/"), "other/"])).collect();
        others.push(placed(&mut board, 4, "database*", &["kv/"]));
        others.push(placed(&mut board, 5, "*", &[]));
        board.tell(&event(1, "kv/a/b"));
        // A beginning that ends within a segment is looked at more closely by the stream itself.
        for slot in [&everything, &twice, &partly] {
            assert_eq!(told(slot), 1);
        }
        assert!(others.iter().all(|slot| told(slot) == 0));
        board.remove(2);
        board.tell(&event(2, "kv/a/b"));
        assert_eq!((told(&everything), told(&twice)), (1, 0));
        for id in (1..=5).chain(10..1010) {
            board.remove(id);
        }
        assert!(board.root.below.is_empty() && board.root.here.is_empty() && board.places.is_empty());
    }

    #[test]
    fn what_waits_for_a_stream_is_bounded() {
        let mut board = Board::default();
        let slot = placed(&mut board, 1, "*", &["kv/"]);
        for seq in 1..=1000 {
            board.tell(&event(seq, "kv/a"));
        }
        let Found::Events(events) = slot.take() else { panic!("nothing") };
        assert_eq!((events.len(), events.back().unwrap().seq), (QUEUE_MAX, QUEUE_MAX as u64));
        assert!(matches!(slot.take(), Found::Overflown));
        slot.begin();
        board.tell(&event(1001, "kv/a"));
        assert_eq!(told(&slot), 1);
    }

    #[test]
    fn a_waiting_read_is_woken_by_its_subject_only() {
        let mut board = Board::default();
        let (one, other) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        board.wait(1, "kv/a", &one);
        board.wait(2, "kv/b", &other);
        board.tell(&event(1, "kv/a"));
        assert!(one.heard().now_or_never().is_some() && other.heard().now_or_never().is_none());
        board.wait_no_more(1, "kv/a");
        board.wait_no_more(2, "kv/b");
        assert!(board.waiting.is_empty());
    }
}
