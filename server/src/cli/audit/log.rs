//! The log's files and their lines. Says nothing of what the lines mean.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use coffer_core::audit::{MAX_LINE_BYTES, files};

/// The files of a log, in the chain's order: all those of a directory, or the one that is named.
pub(super) fn files(place: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_owned()]);
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(place).with_context(|| format!("audit log {}", place.display()))? {
        names.extend(entry?.file_name().into_string());
    }
    let found: Vec<_> = files::in_order(names).into_iter().map(|name| place.join(name)).collect();
    ensure!(!found.is_empty(), "audit log {}: no {} in it", place.display(), files::PRESENT);
    Ok(found)
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("audit log {}", path.display()))
}

/// Gives out all lines of a file.
pub(super) fn each_line(path: &Path, take: impl FnMut(&str)) -> anyhow::Result<()> {
    lines(BufReader::new(open(path)?), take).with_context(|| path.display().to_string())
}

/// The first line of a file, if it has one.
pub(super) fn first_line(path: &Path) -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    let limit = MAX_LINE_BYTES as u64 + 1;
    BufReader::new(open(path)?.take(limit))
        .read_until(b'\n', &mut line)
        .with_context(|| path.display().to_string())?;
    Ok(line.strip_suffix(b"\n").map(|line| String::from_utf8_lossy(line).into_owned()))
}

/// The last `limit` lines of a file that are wanted, oldest first. Reads all of it: there may be few of them.
pub(super) fn last_lines(
    path: &Path,
    limit: usize,
    wanted: impl Fn(&str) -> bool,
) -> anyhow::Result<Vec<String>> {
    let mut found = VecDeque::new();
    each_line(path, |line| {
        if wanted(line) {
            found.push_back(line.to_owned());
        }
        if found.len() > limit {
            found.pop_front();
        }
    })?;
    Ok(found.into())
}

/// One that is longer than the log's limit is cut, which makes it a changed one.
fn lines(mut log: impl BufRead, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = MAX_LINE_BYTES as u64 + 2;
        if (&mut log).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") && line.len() as u64 == limit {
            log.skip_until(b'\n')?;
        }
        take(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).as_ref());
    }
}
