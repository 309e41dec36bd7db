//! Who has read which version of a credential whose last version is still good, and who says that he has the next one.
//!
//! A reader that will acknowledge says so and is written down by name. Any other reader is written down as somebody: he
//! keeps the version to the end of its time. Never holds a password or a token.

use coffer_barrier::RecordKind;
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::static_role::{self, StaticRole};
use crate::engine::Reader;
use crate::{EngineError, ReadView, WriteView};

/// More readers than this of one version wait for its end.
const READERS_MAX: usize = 10_000;
/// Of how many readers that are still to acknowledge it is watched that none does so unseen.
const WATCHED_MAX: usize = 16;
const BATCH: usize = 500;
/// Of how many versions that a pod has read one transaction takes care.
const POD_BATCH: usize = 50;

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    reader: Reader,
    /// He has the next version, or is no more.
    acknowledged: bool,
}

/// What a pod has read, so that its end is found by its name.
fn of_pod(pod: &str) -> String {
    format!("readers-of-pod/{pod}")
}

fn read_by(name: &str, version: u64, id: &str) -> String {
    format!("{version}/{id}/{name}")
}

fn dir(name: &str, version: u64) -> String {
    format!("readers/{name}/{version}")
}

/// A reader's own row, or everybody's who does not say who he is.
fn place(name: &str, version: u64, id: Option<&str>) -> String {
    format!("{}/{}", dir(name, version), id.unwrap_or("undeclared"))
}

/// Whether that reader of that version is written down already.
pub(super) async fn is_noted(
    view: &ReadView<'_>,
    name: &str,
    version: u64,
    reader: Option<&Reader>,
) -> Result<bool, EngineError> {
    if static_role::load(view, name).await?.is_none_or(|role| role.usernames.len() < 2) {
        // The last version is no good any more: there is nothing to wait for.
        return Ok(true);
    }
    view.has(RecordKind::Entry, &place(name, version, reader.map(|reader| reader.id.as_str()))).await
}

/// Writes a reader down, if the version still is the one that is handed out. False if it is not.
pub(super) async fn note(
    view: &mut WriteView<'_>,
    name: &str,
    version: u64,
    reader: Option<&Reader>,
) -> Result<bool, EngineError> {
    let role = static_role::load(&view.reading(), name).await?;
    if role.is_none_or(|role| role.rotation.version != version) {
        return Ok(false);
    }
    // Nobody reads a version of which it is already being decided who has it.
    static_role::guard(view, name)?;
    let path = place(name, version, reader.map(|reader| reader.id.as_str()));
    let row = reader.map(|reader| Row { reader: reader.clone(), acknowledged: false });
    view.link(&path).await?;
    view.put_record(RecordKind::Entry, &path, &row).await?;
    if let Some(Reader { id, pod: Some(pod), .. }) = reader {
        view.put_due(&of_pod(pod), Timestamp::ZERO, &read_by(name, version, id)).await?;
    }
    Ok(true)
}

/// The pod is no more: nothing waits for it, whether or not it acknowledged. Some of it in one transaction; true once
/// nothing is left.
pub(super) async fn pod_gone(
    view: &mut WriteView<'_>,
    pod: &str,
    now: Timestamp,
) -> Result<bool, EngineError> {
    let family = of_pod(pod);
    let read = view.reading().due(&family, Timestamp::MAX, POD_BATCH).await?;
    for read in &read {
        view.delete_due(&family, Timestamp::ZERO, read).await?;
        let parts: Vec<&str> = read.splitn(3, '/').collect();
        let [version, id, name] = parts.as_slice() else {
            return Err(EngineError::Corrupt("what a pod has read"));
        };
        let version = version.parse().map_err(|_| EngineError::Corrupt("what a pod has read"))?;
        let own = place(name, version, Some(id));
        let row: Option<Row> =
            view.reading().record(RecordKind::Entry, &own, "reader of a credential").await?;
        let Some(mut row) = row else { continue };
        row.acknowledged = true;
        view.put_record(RecordKind::Entry, &own, &row).await?;
        // Also where the rotation has not begun: whoever begins it sees this row.
        static_role::guard(view, name)?;
        if let Some(mut role) = static_role::load(&view.reading(), name).await?
            && role.rotation.retiring.as_ref().is_some_and(|last| last.version == version)
        {
            release_if_all(view, name, &mut role, version, now).await?;
        }
    }
    Ok(read.is_empty())
}

/// A version has just begun to retire: its time is over at once if everybody who ever read it is known and gone.
pub(super) async fn release_if_gone(
    view: &mut WriteView<'_>,
    name: &str,
    now: Timestamp,
) -> Result<(), EngineError> {
    let Some(mut role) = static_role::load(&view.reading(), name).await? else { return Ok(()) };
    let Some(last) = role.rotation.retiring.as_ref().map(|last| last.version) else { return Ok(()) };
    if view.reading().list(&dir(name, last), None, 1).await?.is_empty() {
        // Nobody was seen, which is no proof that there is nobody.
        return Ok(());
    }
    release_if_all(view, name, &mut role, last, now).await
}

/// The reader says that he has `version`. If that was the last one of those who had the one before, its time is over.
pub(super) async fn acknowledge(
    view: &mut WriteView<'_>,
    name: &str,
    version: u64,
    id: &str,
    now: Timestamp,
) -> Result<(), EngineError> {
    let role = static_role::load(&view.reading(), name).await?;
    let mut role = role.ok_or_else(|| EngineError::bad(format!("unknown role: {name}")))?;
    if version != role.rotation.version {
        return Err(EngineError::bad(format!("the version that is handed out is {}", role.rotation.version)));
    }
    let Some(last) = role.rotation.retiring.as_ref().map(|retiring| retiring.version) else { return Ok(()) };
    let own = place(name, last, Some(id));
    let row: Option<Row> = view.reading().record(RecordKind::Entry, &own, "reader of a credential").await?;
    let Some(mut row) = row else { return Ok(()) };
    row.acknowledged = true;
    view.put_record(RecordKind::Entry, &own, &row).await?;
    release_if_all(view, name, &mut role, last, now).await
}

/// Ends the time of `last` if nobody is left who needs it.
async fn release_if_all(
    view: &mut WriteView<'_>,
    name: &str,
    role: &mut StaticRole,
    last: u64,
    now: Timestamp,
) -> Result<(), EngineError> {
    let Some((waiting, undeclared)) = pending_of(&view.reading(), name, last).await? else { return Ok(()) };
    if undeclared || waiting.len() > WATCHED_MAX {
        return Ok(());
    }
    for reader in &waiting {
        // If he acknowledges at the same time, one of the two sees the other.
        view.guard(RecordKind::Entry, &place(name, last, Some(&reader.id)))?;
    }
    if waiting.is_empty() {
        let was = static_role::stands_at(role);
        role.rotation.released(last, now);
        static_role::store(view, name, Some(was), role).await?;
    }
    Ok(())
}

/// Who has `version` and has not acknowledged the next one, and whether somebody has it who never said who he is. None
/// if there are too many to tell.
async fn pending_of(
    view: &ReadView<'_>,
    name: &str,
    version: u64,
) -> Result<Option<(Vec<Reader>, bool)>, EngineError> {
    let ids = view.list(&dir(name, version), None, READERS_MAX + 1).await?;
    if ids.len() > READERS_MAX {
        return Ok(None);
    }
    let (mut pending, mut undeclared) = (Vec::new(), false);
    for id in ids {
        let path = place(name, version, Some(&id));
        let row: Option<Option<Row>> =
            view.record(RecordKind::Entry, &path, "reader of a credential").await?;
        match row.flatten() {
            None => undeclared = true,
            Some(row) if !row.acknowledged => pending.push(row.reader),
            Some(_) => {}
        }
    }
    Ok(Some((pending, undeclared)))
}

/// What is known of a rotation, and for whom it waits.
pub(super) async fn status(view: &ReadView<'_>, name: &str) -> Result<Option<Value>, EngineError> {
    let Some(role) = static_role::load(view, name).await? else { return Ok(None) };
    let mut shown = role.phase();
    let last = role.rotation.retiring.as_ref();
    let waiting = match last {
        None => Some((Vec::new(), false)),
        Some(last) => pending_of(view, name, last.version).await?,
    };
    let (pending, undeclared) =
        waiting.map_or((None, true), |(pending, undeclared)| (Some(pending), undeclared));
    let pending: Option<Vec<Value>> = pending.map(|readers| {
        readers
            .into_iter()
            .map(|reader| json!({ "accessor": reader.accessor, "metadata": reader.metadata }))
            .collect()
    });
    if let Some(shown) = shown.as_object_mut() {
        shown.insert("previous_version".to_owned(), json!(last.map(|last| last.version)));
        shown.insert("pending".to_owned(), json!(pending));
        shown.insert("undeclared_readers".to_owned(), json!(undeclared));
        shown.insert("next_rotation".to_owned(), json!(role.due_at().to_rfc3339()));
    }
    Ok(Some(shown))
}

/// Forgets some readers of a version. False once none is left.
pub(super) async fn forget_some(
    view: &mut WriteView<'_>,
    name: &str,
    version: u64,
) -> Result<bool, EngineError> {
    let ids = view.reading().list(&dir(name, version), None, BATCH).await?;
    for id in &ids {
        let path = place(name, version, Some(id));
        let row: Option<Option<Row>> =
            view.reading().record(RecordKind::Entry, &path, "reader of a credential").await?;
        if let Some(Row { reader: Reader { id, pod: Some(pod), .. }, .. }) = row.flatten() {
            view.delete_due(&of_pod(&pod), Timestamp::ZERO, &read_by(name, version, &id)).await?;
        }
        view.delete(RecordKind::Entry, &path).await?;
        view.unlink(&path).await?;
    }
    Ok(!ids.is_empty())
}
