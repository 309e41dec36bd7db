//! The log's files: finding the end of the log, and setting a full file aside.
//!
//! `audit.log` is written to. Files set aside are named by the number of their first record, so their names are
//! in the chain's order. Nothing here is ever overwritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use coffer_core::audit::{Chain, ChainHash, MAX_LINE_BYTES, files};
use serde::Deserialize;

/// An opened log.
pub(super) struct Opened {
    pub(super) file: File,
    /// After its last record.
    pub(super) chain: Chain,
    /// Bytes of whole records in the present file.
    pub(super) len: u64,
    /// The number of the first record in the present file; the next one's if it is empty.
    pub(super) first: u64,
    /// Bytes of the files set aside.
    pub(super) aside: u64,
}

/// Opens or creates the log in `dir` and finds its head.
pub(super) fn open(dir: &Path) -> io::Result<Opened> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut file = options().create(true).open(dir.join(files::PRESENT))?;
    regular(&file)?;
    let older = aside(dir)?;
    let mut aside = 0;
    for path in &older {
        aside += fs::symlink_metadata(path)?.len();
    }
    let (found, len) = head_of(&mut file)?;
    let (chain, first) = match (found, older.last()) {
        (Some(chain), _) => (chain, first_link(&file)?.seq),
        // A crash while a file was set aside, or just after.
        (None, Some(last)) => {
            let mut last = options().open(last)?;
            regular(&last)?;
            let chain = head_of(&mut last)?.0.unwrap_or_default();
            (chain, chain.seq)
        }
        (None, None) => (Chain::default(), 0),
    };
    Ok(Opened { file, chain, len, first, aside })
}

/// The files set aside, oldest first.
pub(super) fn aside(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = all(dir)?;
    paths.retain(|path| path.file_name().is_none_or(|name| name != files::PRESENT));
    Ok(paths)
}

/// All files of the log, in the chain's order.
pub(super) fn all(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    Ok(files::in_order(names).into_iter().map(|name| dir.join(name)).collect())
}

/// Sets the present file aside and begins a new one. The records in the old one must be on the disk already.
pub(super) fn rotate(dir: &Path, first: u64) -> io::Result<File> {
    let present = dir.join(files::PRESENT);
    let target = dir.join(files::aside_name(first));
    // Renaming would replace what is there.
    if target.try_exists()? {
        return Err(io::Error::other("a file set aside before has the same name"));
    }
    fs::rename(&present, &target)?;
    let file = options().create_new(true).open(&present).or_else(|error| {
        fs::rename(&target, &present)?;
        Err(error)
    })?;
    // The rename is done, so the new file is the one to go on with. That the directory is not on the disk yet is said; a
    // crash now is what `open` finds its way after.
    if let Err(error) = File::open(dir).and_then(|dir| dir.sync_all()) {
        tracing::error!(%error, "audit log: the names of its files are not on the disk yet");
    }
    Ok(file)
}

/// The point of the chain at which a file begins.
pub(super) fn start_of(path: &Path) -> io::Result<Chain> {
    let first = first_link(&options().open(path)?)?;
    Ok(Chain { prev: first.prev, seq: first.seq })
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .append(true)
        .mode(0o600)
        // A link planted in the directory must not send the log elsewhere.
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits());
    options
}

fn regular(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        Ok(())
    } else {
        Err(io::Error::other("the audit log is not a regular file"))
    }
}

/// The chain's fields at the end of a line.
#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: ChainHash,
    hash: ChainHash,
}

fn first_link(file: &File) -> io::Result<Link> {
    let mut file = file;
    file.seek(SeekFrom::Start(0))?;
    let mut line = Vec::new();
    BufReader::new(file.take(MAX_LINE_BYTES as u64)).read_until(b'\n', &mut line)?;
    serde_json::from_slice(&line)
        .map_err(|_| io::Error::other("the first record of an audit file cannot be read"))
}

/// The head of the chain in a file, none if it is empty, and the length of its whole lines. A torn line at the end is
/// cut off: it was never acknowledged.
fn head_of(file: &mut File) -> io::Result<(Option<Chain>, u64)> {
    let len = file.seek(SeekFrom::End(0))?;
    let window = len.min(2 * MAX_LINE_BYTES as u64);
    file.seek(SeekFrom::Start(len - window))?;
    let mut tail = Vec::new();
    Read::by_ref(file).take(window).read_to_end(&mut tail)?;
    let Some(end) = tail.iter().rposition(|b| *b == b'\n') else {
        if window < len {
            return Err(io::Error::other("the audit log ends in a line longer than any record"));
        }
        file.set_len(0)?;
        return Ok((None, 0));
    };
    let torn = (tail.len() - end - 1) as u64;
    if torn > 0 {
        tracing::warn!(bytes = torn, "audit log: an unfinished record at the end is removed");
        file.set_len(len - torn)?;
    }
    let start = tail[..end].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let link: Link = serde_json::from_slice(&tail[start..end])
        .map_err(|_| io::Error::other("the last record of the audit log cannot be read"))?;
    let seq = link.seq.checked_add(1);
    let seq =
        seq.ok_or_else(|| io::Error::other("the last record of the audit log has no possible number"))?;
    Ok((Some(Chain { prev: link.hash, seq }), len - torn))
}
