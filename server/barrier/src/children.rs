//! Directories: one encrypted child row per (directory, child).
//!
//! The first descendant inserts the rows on its way, the last one removes them, and LIST is one range. Names are
//! inside the ciphertext only. The invariant: a child row is there exactly while its directory's row is. Whoever adds or
//! removes a child also writes a marker row of the directory anew: that is how a sorted copy in memory
//! ([`crate::directory`]) is known to be still right.
//!
//! Two transactions can break it: one removes what it sees as an empty directory while another adds a child. The
//! adder guards the directory's row and writes one of [`MARKERS`] marker rows of the directory; the remover guards
//! all of them. Whoever commits second conflicts. Several markers, so that adders rarely meet each other. Two removers
//! that each take the other's child for a reason to keep the directory guard that child.

use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::directory::{DIRECTORY_BYTES_MAX, Directory, Smallest, State};
use crate::error::BarrierError;
use crate::key::{MountId, RecordKind, RowKey, range_after, split_last};
use crate::read::View;
use crate::store::{KeyRange, Row, SCAN_PAGE_MAX};
use crate::writer::Writer;

/// Marker rows per directory.
const MARKERS: u8 = 32;

/// Up to so many children a directory is read as it is; a larger one is kept sorted in memory.
const SMALL: usize = 256;

/// Up to `limit` names directly under `dir`, sorted, from behind `after`.
///
/// Storage calls: one for a small directory, and for a larger one that did not change since it was last listed; else
/// three, and one more for every [`SCAN_PAGE_MAX`] children.
pub(crate) async fn list(
    view: View<'_>,
    mount: MountId,
    dir: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, BarrierError> {
    view.keys.check()?;
    let dir = dir.strip_suffix('/').unwrap_or(dir);
    let prefix = view.keys.layout.kind_prefix(mount, RecordKind::Child, dir)?;
    let mut state = None;
    if let Some(known) = view.keys.directories.get(&prefix) {
        let now = state_of(view, mount, dir).await?;
        if known.is(&now) {
            return Ok(known.page(after, limit));
        }
        state = Some(now);
    }
    let mut smallest = Smallest::new(after, limit);
    let first = view.snapshot.scan(&KeyRange::prefix(&prefix), SMALL + 1).await?;
    if first.len() <= SMALL {
        for row in &first {
            smallest.offer(name_in(view, row).await?);
        }
        return Ok(smallest.into_sorted());
    }
    let state = match state {
        Some(state) => state,
        None => state_of(view, mount, dir).await?,
    };
    match all_names(view, &prefix, first, &mut smallest).await? {
        None => Ok(smallest.into_sorted()),
        Some(names) => {
            let directory = Arc::new(Directory::new(state, names));
            view.keys.directories.put(prefix, Arc::clone(&directory));
            // Sealed in the meantime: what was just put there must not stay.
            view.keys.check().inspect_err(|_| view.keys.directories.clear())?;
            Ok(directory.page(after, limit))
        }
    }
}

/// All names, or, if they are too many to be kept, only those that belong to the page.
async fn all_names(
    view: View<'_>,
    prefix: &[u8],
    first: Vec<Row>,
    smallest: &mut Smallest<'_>,
) -> Result<Option<Vec<String>>, BarrierError> {
    let mut names: Option<Vec<String>> = Some(Vec::new());
    let mut bytes = 0;
    let mut page = first;
    let mut more = true;
    loop {
        for row in &page {
            let name = name_in(view, row).await?;
            bytes += name.len();
            match &mut names {
                Some(kept) if bytes <= DIRECTORY_BYTES_MAX => kept.push(name),
                _ => {
                    names.take().into_iter().flatten().for_each(|kept| smallest.offer(kept));
                    smallest.offer(name);
                }
            }
        }
        let Some((last, _)) = page.last().filter(|_| more) else { return Ok(names) };
        page = view.snapshot.scan(&range_after(prefix, last), SCAN_PAGE_MAX).await?;
        more = page.len() == SCAN_PAGE_MAX;
    }
}

async fn name_in(view: View<'_>, (at, stored): &Row) -> Result<String, BarrierError> {
    let plain = view.open(at, stored).await?;
    let tampered = BarrierError::Tampered { what: "child row" };
    Ok(plain.into_string().map_err(|_| tampered)?.expose().to_owned())
}

/// Changes with every change of the directory's children, see [`touch`]. Ciphertexts are compared, so nothing is opened.
async fn state_of(view: View<'_>, mount: MountId, dir: &str) -> Result<State, BarrierError> {
    let prefix = view.keys.layout.kind_prefix(mount, RecordKind::Marker, dir)?;
    let mut hash = Sha256::new();
    for (at, stored) in view.snapshot.scan(&KeyRange::prefix(&prefix), usize::from(MARKERS)).await? {
        for part in [&at, &stored] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().into())
}

/// Makes `path` and the directories above it listable.
pub(crate) async fn link(w: &mut Writer, mount: MountId, path: &str) -> Result<(), BarrierError> {
    let (mut dir, leaf) = split_last(path);
    let mut name = leaf.to_owned();
    loop {
        let row = child(w, mount, dir, &name);
        if w.has(&row).await? {
            // Its ancestors are there as long as it is.
            w.guard(&row)?;
            return Ok(());
        }
        w.put_system(&row, name.as_bytes()).await?;
        touch(w, mount, dir).await?;
        if dir.is_empty() {
            return Ok(());
        }
        let (above, own) = split_last(dir);
        name = format!("{own}/");
        dir = above;
    }
}

/// Removes `path` from its directory, and each directory that this leaves empty from the one above.
pub(crate) async fn unlink(w: &mut Writer, mount: MountId, path: &str) -> Result<(), BarrierError> {
    let (mut dir, leaf) = split_last(path);
    let mut name = leaf.to_owned();
    loop {
        let row = child(w, mount, dir, &name);
        if !w.has(&row).await? {
            w.guard(&row)?;
            return Ok(());
        }
        w.delete(&row).await?;
        if dir.is_empty() {
            return touch(w, mount, dir).await;
        }
        if let Some(other) = any_child(w, mount, dir).await? {
            // Somebody who removes the other one at the same time would see ours and not be the last either.
            w.guard(&other)?;
            return touch(w, mount, dir).await;
        }
        for number in 0..MARKERS {
            let row = marker(mount, dir, number);
            w.guard(&row)?;
            if w.has(&row).await? {
                w.delete(&row).await?;
            }
        }
        let (above, own) = split_last(dir);
        name = format!("{own}/");
        dir = above;
    }
}

/// Writes a marker anew: its ciphertext is never the same twice.
async fn touch(w: &mut Writer, mount: MountId, dir: &str) -> Result<(), BarrierError> {
    w.put_system(&marker(mount, dir, rand::random::<u8>() % MARKERS), &[1]).await
}

async fn any_child(w: &Writer, mount: MountId, dir: &str) -> Result<Option<RowKey>, BarrierError> {
    let prefix = w.layout().kind_prefix(mount, RecordKind::Child, dir)?;
    let first = w.scan(&KeyRange::prefix(&prefix), 1).await?.into_iter().next();
    Ok(first.map(|(at, _)| RowKey::stored(mount, RecordKind::Child, at)))
}

fn child(w: &Writer, mount: MountId, dir: &str, name: &str) -> RowKey {
    let suffix = w.layout().child_suffix(mount, dir, name).to_vec();
    RowKey::with_suffix(mount, RecordKind::Child, dir, suffix)
}

fn marker(mount: MountId, dir: &str, number: u8) -> RowKey {
    RowKey::with_suffix(mount, RecordKind::Marker, dir, vec![number])
}
