//! Only one process at a time acts at a database (R10): a successor puts its mark there and ends the sessions of those
//! before it; whoever finds a later mark than his own acts no more. Never touches sessions of anybody else.
//!
//! The order is what counts. A session is named when it opens, reads the mark *then*, and is used *then*. So a session
//! that read an older mark was there before the successor's mark was, and is among those that the successor ends and waits
//! for. The mark is at the database and not in the store: a process that is cut off from its store, or that has a copy of
//! its own, would find there what it expects (`docs/adr/0015-fence-at-the-target.md`).

use std::sync::Arc;

use tokio::sync::Mutex;

use super::driver::{LOOK_EVERY, LOOKS_MAX, Session, fail};
use crate::EngineError;

/// A process's term of office, as databases know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Term {
    /// Tells this vault from others: twelve letters and digits at most.
    vault: String,
    /// Rises with every unseal; less than 2^31.
    pub(super) epoch: u64,
    /// Fresh for every term: tells two that begin with the same epoch, from two copies of a store.
    incarnation: String,
}

impl Term {
    pub(super) fn new(vault: &str, epoch: u64) -> Self {
        let vault: String = vault.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        Self { vault, epoch, incarnation: format!("{:08x}", rand::random::<u32>()) }
    }

    /// The name of its sessions. PostgreSQL cuts names at 63 bytes.
    pub(super) fn session_name(&self) -> String {
        format!("{}{}/{}", self.sessions_of_vault(), self.epoch, self.incarnation)
    }

    /// What the names of all sessions of this vault begin with.
    pub(super) fn sessions_of_vault(&self) -> String {
        format!("coffer/{}/", self.vault)
    }

    /// The mark as text. Not a session's name: where it is a login's setting, others may have it as theirs.
    pub(super) fn mark(&self) -> String {
        format!("coffer-fence/{}/{}/{}", self.vault, self.epoch, self.incarnation)
    }

    /// What a mark says to this term; anything else than a mark of this vault says nothing.
    pub(super) fn read(&self, mark: &str) -> Mark {
        let mut parts = mark.split('/');
        let found =
            (parts.next(), parts.next(), parts.next().and_then(|e| e.parse::<u64>().ok()), parts.next());
        match found {
            (Some("coffer-fence"), Some(vault), Some(epoch), Some(incarnation)) if vault == self.vault => {
                self.compare(epoch, incarnation == self.incarnation)
            }
            _ => Mark::Other,
        }
    }

    /// A vault as a number of 31 bits, for marks that are numbers.
    pub(super) fn vault_number(&self) -> u64 {
        // FNV-1a: it only has to tell a few vaults apart.
        let hash = self.vault.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        hash >> 33
    }

    /// As [`Term::read`], of an epoch of this vault.
    pub(super) fn compare(&self, epoch: u64, same: bool) -> Mark {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => Mark::Other,
            std::cmp::Ordering::Equal if same => Mark::Own,
            _ => Mark::Later,
        }
    }
}

/// What stands at a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// Nothing, an earlier term's, or another vault's.
    Other,
    /// This term's.
    Own,
    /// A later term's: this process is not to act any more.
    Later,
}

/// Whether this term has been taken up at a database. One for each connection's settings.
#[derive(Clone, Default)]
pub(super) struct Fence(Arc<Mutex<bool>>);

impl Fence {
    /// Lets a session that was just opened through, or refuses. The first one puts the mark and ends the sessions of
    /// earlier terms; the others wait for it.
    pub(super) async fn pass(&self, session: &mut dyn Session, target: &str) -> Result<(), EngineError> {
        {
            let mut up = self.0.lock().await;
            if !*up {
                take_over(session, target).await?;
                *up = true;
            }
        }
        match session.mark().await? {
            Mark::Own => Ok(()),
            Mark::Later => Err(superseded(target)),
            // A vault that shares the login has put its own, or somebody has removed it.
            Mark::Other => take_over(session, target).await,
        }
    }
}

async fn take_over(session: &mut dyn Session, target: &str) -> Result<(), EngineError> {
    let mut empty = 0;
    for _ in 0..LOOKS_MAX {
        match session.mark().await? {
            Mark::Later => return Err(superseded(target)),
            Mark::Own => {}
            Mark::Other => {
                session.put_mark().await?;
                empty = 0;
            }
        }
        // Also an earlier term's own mark may have arrived after this one's: once its sessions are gone no more can, so
        // the mark is read again after that.
        empty = if session.end_older().await? == 0 { empty + 1 } else { 0 };
        if empty == 2 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(fail(target, true, "sessions of an earlier server did not end in time"))
}

fn superseded(target: &str) -> EngineError {
    fail(target, true, "another server of this vault has taken over at this database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_knows_its_own_mark_and_those_before_and_after_it() {
        let term = Term::new("0123456789abcdef", 7);
        let name = term.session_name();
        assert!(name.starts_with("coffer/0123456789ab/7/") && name.len() < 63, "{name}");
        assert_eq!(term.read(&term.mark()), Mark::Own);
        assert_eq!(term.read("coffer-fence/0123456789ab/6/x"), Mark::Other);
        assert_eq!(term.read("coffer-fence/0123456789ab/8/x"), Mark::Later);
        assert_eq!(term.read("coffer-fence/0123456789ab/7/x"), Mark::Later, "a copy of the store");
        for foreign in ["", "x", "coffer-fence/ba9876543210/8/x", "coffer-fence/0123456789ab/x/x", &name] {
            assert_eq!(term.read(foreign), Mark::Other, "{foreign}");
        }
        assert!(!term.mark().starts_with(&term.sessions_of_vault()), "a mark names no session");
        assert!(term.vault_number() < 1 << 31);
    }
}
