//! Directories: one encrypted child row per (directory, child).
//!
//! The first descendant inserts the rows on its way, the last one removes them, and LIST is one range. Names are
//! inside the ciphertext only. The invariant: a child row is there exactly while its directory's row is.
//!
//! Two transactions can break it: one removes what it sees as an empty directory while another adds a child. The
//! adder guards the directory's row and writes one of [`MARKERS`] marker rows of the directory; the remover guards
//! all of them. Whoever commits second conflicts. Several markers, so that adders rarely meet each other. Two removers
//! that each take the other's child for a reason to keep the directory guard that child.

use crate::error::BarrierError;
use crate::key::{MountId, RecordKind, RowKey, split_last};
use crate::read::View;
use crate::store::KeyRange;
use crate::writer::Writer;

/// Marker rows per directory.
const MARKERS: u8 = 32;

/// The names directly under `dir`, sorted.
pub(crate) async fn list(
    view: View<'_>,
    mount: MountId,
    dir: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, BarrierError> {
    let dir = dir.strip_suffix('/').unwrap_or(dir);
    let prefix = view.keys.layout.kind_prefix(mount, RecordKind::Child, dir)?;
    let mut names = Vec::new();
    for (at, stored) in view.all(&prefix).await? {
        let plain = view.open(&at, &stored).await?;
        let tampered = BarrierError::Tampered { what: "child row" };
        names.push(plain.into_string().map_err(|_| tampered)?.expose().to_owned());
    }
    names.sort_unstable();
    let behind = |name: &String| after.is_none_or(|after| name.as_str() > after);
    Ok(names.into_iter().filter(behind).take(limit).collect())
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
        w.put_system(&marker(mount, dir, rand::random::<u8>() % MARKERS), &[1]).await?;
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
            return Ok(());
        }
        if let Some(other) = any_child(w, mount, dir).await? {
            // Somebody who removes the other one at the same time would see ours and not be the last either.
            w.guard(&other)?;
            return Ok(());
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
