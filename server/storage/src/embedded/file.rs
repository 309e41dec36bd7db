//! The data file of the embedded store: how it is made and opened. Never touches a row.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use coffer_barrier::store::StoreError;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase};

use super::ahead::Ahead;
use super::backend::{Health, Watched};
use super::{FORMAT, FORMAT_NOW, META, OpenBackend, ROWS, storage, unavailable};

/// Opens the data file over `open`; at `path`, if it is a file. After an unclean stop redb reads all of it first.
pub(crate) fn open_database(
    open: &OpenBackend,
    path: Option<&Arc<Path>>,
    health: &Arc<Health>,
    cache_bytes: usize,
) -> Result<Database, StoreError> {
    let inner = open().map_err(unavailable)?;
    let backend = Watched { inner, health: Arc::clone(health) };
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    let ahead = Arc::new(Ahead::default());
    let (reader, path) = (Arc::clone(&ahead), path.cloned());
    builder.set_repair_callback(move |session| {
        tracing::info!(progress = session.progress(), "checking the embedded store after an unclean stop");
        if let Some(path) = &path {
            reader.start(path);
        }
    });
    let opened = builder.create_with_backend(backend).map_err(storage);
    ahead.stop();
    let database = opened?;
    let format = prepare(&database).map_err(storage)?;
    if format == FORMAT_NOW {
        Ok(database)
    } else {
        Err(StoreError::Corrupt(format!("store format {format} is not known to this version")))
    }
}

/// Creates the tables of a new file; returns the file's format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let existing = database.begin_read()?.open_table(META);
    match existing {
        Ok(meta) => Ok(meta.get(FORMAT)?.map_or(0, |v| v.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => {
            let txn = database.begin_write()?;
            txn.open_table(ROWS)?;
            txn.open_table(META)?.insert(FORMAT, FORMAT_NOW)?;
            txn.commit()?;
            Ok(FORMAT_NOW)
        }
        Err(other) => Err(other.into()),
    }
}

/// Creates the data file under another name and renames it: a power cut meanwhile leaves no file that does not open.
pub(crate) fn create_whole(dir: &Path, data: &Path) -> Result<(), StoreError> {
    let half = data.with_extension("new");
    match std::fs::remove_file(&half) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(unavailable(e)),
        _ => {}
    }
    let file = private_file(&half).map_err(unavailable)?;
    let backend = FileBackend::new(file.try_clone().map_err(unavailable)?).map_err(storage)?;
    let database = Database::builder().create_with_backend(backend).map_err(storage)?;
    prepare(&database).map_err(storage)?;
    drop(database);
    file.sync_all().map_err(unavailable)?;
    std::fs::rename(&half, data).map_err(unavailable)?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(unavailable)
}

pub(crate) fn private_file(path: &Path) -> io::Result<File> {
    // The mode is given at creation: afterwards there would be a moment in which others can open it.
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    Ok(file)
}
