//! Opening the log: finding its end, and what a crash may have left there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coffer_core::audit::{Chain, ChainHash, MAX_LINE_BYTES};
use serde::Deserialize;

/// The name of the file that is written to.
pub(super) const FILE_NAME: &str = "audit.log";

/// An opened log.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// After its last record.
    pub(super) chain: Chain,
    /// Bytes of whole records.
    pub(super) len: u64,
}

/// Opens or creates the log in `dir` and finds its head.
pub(super) fn open(dir: &Path) -> io::Result<Opened> {
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
    Ok(Opened { path, file, chain, len })
}

/// The chain's fields at the end of a line.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    hash: ChainHash,
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
