//! Long poll: a read that is answered when what it reads has changed, or when it has waited long enough.
//!
//! `?index=` is the `X-Vault-Index` of an earlier answer, `?wait=` how long at most. It is the same read as without
//! them, permitted before and again after the wait.

use std::sync::Arc;
use std::time::Duration;

use coffer_core::time::parse_duration;
use coffer_engines::kv::PLAIN_KIND;

use super::board::{Bell, Id};
use super::{Events, subject};
use crate::dispatch::Target;
use crate::error::{Fail, bad};
use crate::permit::Permitted;
use crate::pipeline::Ctx;
use crate::request::{Operation, Request};

/// The longest wait: clients give up after a minute.
const WAIT_MAX: Duration = Duration::from_secs(55);

/// Whether a request is one that may wait.
pub(crate) fn asked(request: &Request) -> bool {
    request.operation == Operation::Read && request.query.contains_key("wait")
}

/// Waits until what is read has changed since the given index, the time is over, or the token may have ended. Gives
/// back the index of the answer: what changes from here on is later.
pub(crate) async fn wait(ctx: &Ctx, permitted: &Permitted, target: &Target) -> Result<String, Fail> {
    let subject = subject_of(target).ok_or_else(|| bad("there is nothing to wait for at this path"))?;
    let query = &ctx.request.query;
    let longest =
        parse_duration(query.get("wait").map_or("", String::as_str)).map_err(|e| bad(e.to_string()))?;
    if longest > WAIT_MAX {
        return Err(bad(format!("wait is longer than {} seconds", WAIT_MAX.as_secs())));
    }
    let open = &ctx.open;
    let events = &open.around.events;
    if let Some(index) = query.get("index").filter(|index| !index.is_empty())
        && !longest.is_zero()
    {
        let token = permitted.token()?;
        let _seat = events.seat(token.entry.hash)?;
        let bell = Arc::new(Bell::default());
        let _watch = open.tokens.watch(token, &bell);
        if let Some(waiting) = events.wait_for(&subject, index, &bell)
            && !open.barrier.sealed()
        {
            // Whatever woke it, the read goes on from here and is decided about once more.
            let _over = tokio::time::timeout(longest, waiting.heard()).await.is_err();
        }
        if open.barrier.sealed() {
            return Err(Fail::Sealed);
        }
    }
    Ok(events.now_at())
}

/// What a read is about, if changes of it are published.
fn subject_of(target: &Target) -> Option<String> {
    match target {
        Target::Delivery(mount, rest) => Some(subject(&mount.full_path(), rest, false)),
        Target::Engine(mount, rest) => {
            let first = rest.split('/').next().unwrap_or_default();
            match mount.engine_kind() {
                "database" => (first == "static-creds").then_some(())?,
                "kv" => matches!(first, "data" | "metadata").then_some(())?,
                PLAIN_KIND => return Some(subject(&mount.full_path(), rest, false)),
                _ => return None,
            }
            Some(subject(&mount.full_path(), rest, true))
        }
        _ => None,
    }
}

/// A read that waits. Leaves the board when dropped.
struct Waiting<'a> {
    events: &'a Events,
    id: Id,
    subject: &'a str,
    bell: &'a Bell,
}

impl Waiting<'_> {
    async fn heard(&self) {
        self.bell.heard().await;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.events.state().board.wait_no_more(self.id, self.subject);
    }
}

impl Events {
    /// Waits for a subject, unless it was touched since the index already, or nobody can tell.
    fn wait_for<'a>(&'a self, subject: &'a str, index: &str, bell: &'a Arc<Bell>) -> Option<Waiting<'a>> {
        let since = self.seq_of(index)?;
        let id = self.new_id();
        let mut state = self.state();
        if state.ending || state.ring.touched_since(subject, since) {
            return None;
        }
        state.board.wait(id, subject, bell);
        drop(state);
        Some(Waiting { events: self, id, subject, bell })
    }
}
