//! The audit file: append-only lines, each linked to the one before.
//!
//! A record counts as written once the kernel has it: it survives any death of this process. `flush` brings it to
//! the disk and is called ten times a second. A record that could not be written whole is cut off again, so
//! that the next one starts on a line of its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use coffer_core::audit::{AuditRecord, Chain, MAX_LINE_BYTES};
use serde::Deserialize;

/// The file's name in the audit directory.
const FILE_NAME: &str = "audit.log";

/// The audit log of this server.
pub(crate) struct AuditLog {
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: File,
    chain: Chain,
    /// Bytes of whole records.
    len: u64,
    /// Whether half a record may lie behind the whole ones. Nothing is appended until it has been cut off: a
    /// record glued to it would break the chain for good.
    torn: bool,
    /// Whether there is something the disk may not have yet.
    dirty: bool,
}

/// The chain's fields at the end of a line.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    hash: coffer_core::audit::ChainHash,
}

impl AuditLog {
    /// Opens or creates the log in `dir` and finds its head.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let path = dir.join(FILE_NAME);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            // A link planted in the directory must not send the log elsewhere.
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("the audit log is not a regular file"));
        }
        let (chain, len) = head_of(&mut file)?;
        Ok(Self { path, state: Mutex::new(State { file, chain, len, torn: false, dirty: false }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a record.
    pub(crate) fn write(&self, record: &AuditRecord) -> io::Result<()> {
        let state = &mut *self.state();
        if state.torn {
            state.file.set_len(state.len)?;
            state.torn = false;
        }
        let mut next = state.chain;
        let mut line = next.append(record).map_err(io::Error::other)?;
        line.push('\n');
        if let Err(error) = state.file.write_all(line.as_bytes()) {
            // What is cut off here was never acknowledged to anybody.
            state.torn = state.file.set_len(state.len).is_err();
            return Err(error);
        }
        state.chain = next;
        state.len += line.len() as u64;
        state.dirty = true;
        Ok(())
    }

    /// Brings what was written to the disk. Blocks.
    pub(crate) fn flush(&self) -> io::Result<()> {
        let file = {
            let mut state = self.state();
            if !std::mem::take(&mut state.dirty) {
                return Ok(());
            }
            state.file.try_clone()?
        };
        // Outside the lock: requests go on writing while the disk works.
        file.sync_data().inspect_err(|_| self.state().dirty = true)
    }

    /// The head, to be anchored where an editor of the file cannot reach.
    pub(crate) fn head(&self) -> Chain {
        self.state().chain
    }

    /// Where the file is and how many bytes of it are whole records.
    pub(super) fn extent(&self) -> (PathBuf, u64) {
        (self.path.clone(), self.state().len)
    }
}

/// The head of the chain in a file, and the length of its whole lines. A torn line at the end is cut off: it was
/// never acknowledged.
fn head_of(file: &mut File) -> io::Result<(Chain, u64)> {
    let len = file.seek(SeekFrom::End(0))?;
    let window = len.min(2 * MAX_LINE_BYTES as u64);
    file.seek(SeekFrom::Start(len - window))?;
    let mut tail = Vec::new();
    file.take(window).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|b| *b == b'\n') else {
        if window < len {
            return Err(io::Error::other("the audit log ends in a line longer than any record"));
        }
        file.set_len(0)?;
        return Ok((Chain::default(), 0));
    };
    let torn = (tail.len() - end - 1) as u64;
    if torn > 0 {
        tracing::warn!(bytes = torn, "audit log: an unfinished record at the end is removed");
        file.set_len(len - torn)?;
    }
    let start = tail[..end].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let link: Link = serde_json::from_slice(&tail[start..end])
        .map_err(|_| io::Error::other("the last record of the audit log cannot be read"))?;
    Ok((Chain { prev: link.hash, seq: link.seq + 1 }, len - torn))
}

#[cfg(test)]
mod tests {
    use coffer_core::audit::{RecordType, verify};
    use coffer_core::time::Timestamp;

    use super::*;

    fn record(n: u64) -> AuditRecord {
        AuditRecord::new(Timestamp::from_secs(n), RecordType::Read, format!("r{n}"), "read", "secret/data/a")
    }

    #[test]
    fn the_chain_goes_on_over_reopening_and_torn_tails() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path()).unwrap();
        (0..3).for_each(|n| log.write(&record(n)).unwrap());
        log.flush().unwrap();
        drop(log);
        let path = dir.path().join(FILE_NAME);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half\":").unwrap();
        let log = AuditLog::open(dir.path()).unwrap();
        log.write(&record(3)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let report = verify(text.lines(), Some(&log.head()));
        assert!(report.is_intact() && report.lines == 4, "{report:?}");
    }

    #[test]
    fn nothing_is_glued_to_half_a_record() {
        let dir = tempfile::tempdir().unwrap();
        let log = AuditLog::open(dir.path()).unwrap();
        log.write(&record(0)).unwrap();
        // What a failed write leaves when its undoing fails too.
        let path = dir.path().join(FILE_NAME);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"half\":").unwrap();
        log.state().torn = true;
        log.write(&record(1)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let report = verify(text.lines(), Some(&log.head()));
        assert!(report.is_intact() && report.lines == 2, "{report:?}");
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join(FILE_NAME)).unwrap();
        assert!(AuditLog::open(dir.path()).is_err());
    }
}
