//! Further audit devices: files with lines in Vault's form, for whoever reads those.
//!
//! They are beside the built-in log, which alone decides whether a request may happen; a device that fails or
//! blocks holds up nobody unless its options say `required`. Which devices there are is kept in the barrier, with a salt
//! each, so nothing is written to them while the vault is sealed.

mod line;
pub(super) mod options;
mod salt;
mod sink;
mod tell;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use coffer_barrier::{Barrier, MountId, Read as _, RowKey};
use coffer_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use line::Facts;
use options::{FileOptions, Places};
pub(crate) use salt::Salt;
use sink::Sink;
pub(crate) use tell::{Told, after, before};

use super::disk::SystemDisk;
use super::meters::AuditMeters;
use crate::codec::{self, transact};
use crate::error::{Fail, VaultError, bad};
use crate::rows;
use crate::swap::Swap;

/// The most devices.
const DEVICES_MAX: usize = 32;
/// Names that mean something else below `sys/audit/`, or the built-in log.
const RESERVED: &[&str] = &["builtin", "chain", "query", "tail"];

/// A device that the configuration declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeclaredDevice {
    /// Without a slash at the end.
    pub name: String,
    /// For people.
    pub description: String,
    /// `file_path` and others, as in Vault.
    pub options: BTreeMap<String, String>,
}

/// A device as stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Without a slash at the end.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) local: bool,
    /// Comes from the configuration, and goes with it.
    pub(crate) declared: bool,
    pub(crate) created: Timestamp,
    salt: Salt,
}

impl Entry {
    fn key(&self) -> RowKey {
        rows::audit_device(&self.name)
    }
}

/// A device that is there.
struct Device {
    entry: Entry,
    options: FileOptions,
    sink: Sink,
}

/// All devices of an unsealed vault.
pub(crate) struct Devices {
    barrier: Arc<Barrier>,
    places: Places,
    meters: AuditMeters,
    table: Swap<Vec<Arc<Device>>>,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

impl Devices {
    /// Opens what is stored, after making it what the configuration declares.
    pub(crate) async fn load(
        barrier: Arc<Barrier>,
        declared: &[DeclaredDevice],
        allowed: Vec<PathBuf>,
        own: PathBuf,
        meters: AuditMeters,
        now: Timestamp,
    ) -> Result<Self, Fail> {
        let places = Places { allowed, own };
        let stored = stored(&barrier).await?;
        let mut kept = Vec::new();
        for entry in stored {
            let wanted = declared.iter().find(|device| device.name == entry.name);
            match (entry.declared, wanted) {
                (true, None) => remove(&barrier, &entry).await?,
                (_, Some(wanted)) => {
                    // The salt stays, so that what was covered before can still be found.
                    let entry = Entry {
                        description: wanted.description.clone(),
                        options: wanted.options.clone(),
                        declared: true,
                        ..entry
                    };
                    store(&barrier, &entry).await?;
                    kept.push(entry);
                }
                (false, None) => kept.push(entry),
            }
        }
        for device in declared {
            if kept.iter().any(|entry| entry.name == device.name) {
                continue;
            }
            let entry = fresh(device.clone(), false, true, now);
            store(&barrier, &entry).await?;
            kept.push(entry);
        }
        let devices =
            Self { barrier, places, meters, table: Swap::new(Vec::new()), changing: Default::default() };
        let mut table = Vec::new();
        for entry in kept {
            let name = entry.name.clone();
            match devices.open(entry) {
                Ok(device) => table.push(Arc::new(device)),
                // The built-in log is there; a vault that stays shut would be worse.
                Err(error) => tracing::error!(name, %error, "audit device cannot be used"),
            }
        }
        devices.table.store(table);
        Ok(devices)
    }

    fn open(&self, entry: Entry) -> Result<Device, Fail> {
        let options = FileOptions::parse(&entry.options)?;
        // Looked at whenever the file is opened: a volume that is not there now may be there later, and one that is gone
        // makes a device fail, not vanish.
        let (places, declared) = (self.places.clone(), entry.declared);
        let check = move |path: &Path| {
            let fits = if declared { places.check_declared(path).map(drop) } else { places.check(path) };
            fits.map_err(|fail| io::Error::other(fail.to_string()))
        };
        let disk = Box::new(SystemDisk);
        let sink = Sink::start(&options.file_path, disk, Box::new(check), self.meters.clone())
            .map_err(|_| Fail::Internal("no thread for an audit device"))?;
        Ok(Device { entry, options, sink })
    }

    /// The devices, as they are listed.
    pub(crate) fn list(&self) -> Vec<Entry> {
        self.table.load().iter().map(|device| device.entry.clone()).collect()
    }

    /// Adds a device.
    pub(crate) async fn enable(
        &self,
        wanted: DeclaredDevice,
        local: bool,
        now: Timestamp,
    ) -> Result<(), Fail> {
        check_name(&wanted.name)?;
        let _one = self.changing.lock().await;
        let table = self.table.load();
        if table.iter().any(|device| device.entry.name == wanted.name) {
            return Err(bad("path already in use"));
        }
        if table.len() >= DEVICES_MAX {
            return Err(bad(format!("there are {DEVICES_MAX} audit devices already, which is the limit")));
        }
        let entry = fresh(wanted, local, false, now);
        let options = FileOptions::parse(&entry.options)?;
        self.places.check(&options.file_path)?;
        let same_file = |device: &Arc<Device>| device.options.file_path == options.file_path;
        if table.iter().any(same_file) {
            return Err(bad("another audit device has this file_path"));
        }
        // Tried now, so that whoever asks learns of it.
        let path = options.file_path.clone();
        tokio::task::spawn_blocking(move || options::open(&path))
            .await
            .map_err(|_| Fail::Internal("audit device"))?
            .map_err(|error| {
                bad(format!("sanity check failed; unable to open file_path for writing: {error}"))
            })?;
        let device = self.open(entry.clone())?;
        store(&self.barrier, &entry).await?;
        let mut devices: Vec<_> = table.iter().cloned().collect();
        devices.push(Arc::new(device));
        self.table.store(devices);
        Ok(())
    }

    /// Removes a device; its file stays. One that is not there is no error.
    pub(crate) async fn disable(&self, name: &str) -> Result<(), Fail> {
        let _one = self.changing.lock().await;
        let table = self.table.load();
        let stored = stored(&self.barrier).await?;
        let Some(entry) = stored.iter().find(|entry| entry.name == name) else { return Ok(()) };
        if entry.declared {
            return Err(bad("cannot disable configuration-managed audit device"));
        }
        remove(&self.barrier, entry).await?;
        self.table.store(table.iter().filter(|device| device.entry.name != name).cloned().collect());
        Ok(())
    }

    /// What stands for a text in a device's lines.
    pub(crate) fn identify(&self, name: &str, text: &str) -> Result<String, Fail> {
        let table = self.table.load();
        let device = table.iter().find(|device| device.entry.name == name);
        let device = device.ok_or_else(|| bad(format!("unknown audit backend \"{name}/\"")))?;
        Ok(device.entry.salt.identify(text))
    }

    /// Opens all files by their names again.
    pub(crate) fn reopen(&self) {
        self.table.load().iter().for_each(|device| device.sink.reopen());
    }

    /// Whether there is any, so that nobody collects facts for nothing.
    pub(crate) fn any(&self) -> bool {
        !self.table.load().is_empty()
    }

    /// Tells all devices. Fails only where a device that requests must wait for could not take it.
    pub(crate) async fn tell(&self, facts: Facts<'_>) -> Result<(), Fail> {
        let table = self.table.load();
        let mut waited = Vec::new();
        for device in table.iter() {
            let Some(line) = facts.line(&device.entry.salt, device.options.style) else {
                return Err(Fail::Internal("an audit line"));
            };
            if device.options.required {
                waited.push(device.sink.deliver(line));
            } else {
                device.sink.leave(line);
            }
        }
        let answers = futures::future::join_all(waited).await;
        if answers.into_iter().all(|written| written) { Ok(()) } else { Err(Fail::Audit) }
    }
}

fn fresh(device: DeclaredDevice, local: bool, declared: bool, created: Timestamp) -> Entry {
    let DeclaredDevice { name, description, options } = device;
    Entry { name, description, options, local, declared, created, salt: Salt::random() }
}

/// Whether a device may be called so; for whoever reads a configuration.
pub fn check_device_name(name: &str) -> Result<(), VaultError> {
    Ok(check_name(name)?)
}

/// Whether a device may have these options; for whoever reads a configuration. Whether its file may be where it is said to
/// be is decided when it is opened.
pub fn check_device_options(options: &BTreeMap<String, String>) -> Result<(), VaultError> {
    FileOptions::parse(options)?;
    Ok(())
}

/// Whether a device may be called so.
fn check_name(name: &str) -> Result<(), Fail> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 128 || !name.chars().all(good) {
        return Err(bad("the path of an audit device is letters, digits, dots, dashes and underscores"));
    }
    if RESERVED.contains(&name) {
        return Err(bad(format!("the path {name:?} is taken by the server itself")));
    }
    Ok(())
}

async fn stored(barrier: &Barrier) -> Result<Vec<Entry>, Fail> {
    let reader = barrier.reader().await?;
    let rows = reader.range_ordered(MountId::SYSTEM, rows::AUDIT_DEVICES, u64::MAX, DEVICES_MAX * 2).await?;
    let mut entries =
        rows.iter().map(|(_, _, bytes)| codec::decode(bytes)).collect::<Result<Vec<Entry>, Fail>>()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

async fn store(barrier: &Barrier, entry: &Entry) -> Result<(), Fail> {
    transact!(barrier, |w| codec::put(w, &entry.key(), entry).await?)
}

async fn remove(barrier: &Barrier, entry: &Entry) -> Result<(), Fail> {
    let key = entry.key();
    transact!(barrier, |w| w.delete(&key).await?)
}
