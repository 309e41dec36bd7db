//! The `audit` stanzas: one without a name for the built-in log, any number with a name for further devices.
//!
//! Whether a device's file may be where it is said to be is the vault's to decide.

use std::collections::BTreeMap;
use std::path::PathBuf;

use coffer_core::hcl::{Block, Body, Entry, HclError, Value};
use coffer_vault::{AuditSettings, Covered, DeclaredDevice, Durability, OnFailure};

use super::read::{Read, Reader, missing, path, ttl, wrong};

/// What a stanza of the built-in log may say; anything else in an unnamed stanza is a name.
pub(super) const OWN: &[&str] = &[
    "buffer_bytes",
    "durability",
    "file_path",
    "hmac",
    "on_failure",
    "path",
    "quota_bytes",
    "reserve_bytes",
    "retain",
    "rotate_bytes",
];
/// What a stanza of a further device may say.
pub(super) const DEVICE: &[&str] = &[
    "description",
    "local",
    "options",
    "file_path",
    "hmac_accessor",
    "elide_list_responses",
    "log_raw",
    "mode",
    "format",
];
/// The buffer of `degraded` when nothing is said.
const BUFFER_BYTES: usize = 64 << 20;
/// Smaller files than this would be mostly names.
const ROTATE_BYTES_MIN: u64 = 1 << 20;

/// All that the stanzas say.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The built-in log's directory.
    pub(super) dir: Option<PathBuf>,
    pub(super) settings: AuditSettings,
    pub(super) devices: Vec<DeclaredDevice>,
}

impl Reader<'_> {
    /// Reads all `audit` stanzas of a file.
    pub(super) fn audits(&mut self, body: &Body, found: &mut Found) -> Read<()> {
        for named in body.named_blocks("audit", OWN)? {
            let block = named.block;
            if block.label != "file" {
                return Err(HclError::new(block.at, format!("audit {:?}: expected \"file\"", block.label)));
            }
            match named.name {
                Some(name) => {
                    let device = self.device(name, block)?;
                    if found.devices.iter().any(|other| other.name == device.name) {
                        return Err(HclError::new(block.at, format!("a second audit device {name:?}")));
                    }
                    found.devices.push(device);
                }
                None if found.dir.is_some() => {
                    let message = "expected one audit log without a name, found a second";
                    return Err(HclError::new(block.at, message));
                }
                None => found.dir = Some(self.built_in(block, &mut found.settings)?),
            }
        }
        Ok(())
    }

    /// The log is `audit.log` in a directory of its own, so a `file_path` must say just that.
    fn built_in(&mut self, block: Block<'_>, settings: &mut AuditSettings) -> Read<PathBuf> {
        let mut file = None;
        let mut degraded = false;
        let mut buffer = None;
        for entry in &block.body.entries {
            if !self.knows(entry, OWN) {
                continue;
            }
            match entry.key.as_str() {
                "file_path" | "path" => file = Some((path(entry)?, entry.at)),
                "durability" => {
                    settings.durability = match entry.as_str()? {
                        "process" => Durability::Process,
                        "disk" => Durability::Disk,
                        _ => return Err(wrong(entry, "\"process\" or \"disk\"")),
                    }
                }
                "on_failure" => {
                    degraded = match entry.as_str()? {
                        "strict" => false,
                        "degraded" => true,
                        _ => return Err(wrong(entry, "\"strict\" or \"degraded\"")),
                    }
                }
                "buffer_bytes" => buffer = Some((bytes(entry)?, entry.at)),
                "rotate_bytes" => match bytes(entry)? {
                    n if n >= ROTATE_BYTES_MIN => settings.rotate_bytes = n,
                    _ => return Err(wrong(entry, "at least 1048576")),
                },
                "quota_bytes" => settings.quota_bytes = Some(bytes(entry)?),
                "hmac" => settings.covered = covered(entry)?,
                "reserve_bytes" => settings.reserve_bytes = Some(bytes(entry)?),
                // The only one that is left.
                _ => settings.retain = Some(ttl(entry)?),
            }
        }
        match (degraded, buffer) {
            (true, buffer) => {
                let bytes = buffer.map_or(Some(BUFFER_BYTES), |(bytes, _)| usize::try_from(bytes).ok());
                settings.on_failure = OnFailure::Degraded { buffer_bytes: bytes.unwrap_or(BUFFER_BYTES) };
            }
            (false, Some((_, at))) => {
                return Err(HclError::new(at, "\"buffer_bytes\" is for on_failure = \"degraded\""));
            }
            (false, None) => {}
        }
        let (file, at) =
            file.ok_or_else(|| missing(block, "file_path", "the path of the log, .../audit.log"))?;
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        match (file.file_name(), dir) {
            (Some(name), Some(dir)) if name == "audit.log" => Ok(dir.to_owned()),
            _ => Err(HclError::new(
                at,
                "\"file_path\" must end in /audit.log: the log has a directory of its own",
            )),
        }
    }

    /// As in OpenBao: `description` and `options`; Vault's spelling, with the options at the top, is taken too.
    fn device(&mut self, name: &str, block: Block<'_>) -> Read<DeclaredDevice> {
        let name = name.trim_end_matches('/');
        coffer_vault::check_device_name(name).map_err(|error| HclError::new(block.at, error.to_string()))?;
        let mut device = DeclaredDevice { name: name.to_owned(), ..DeclaredDevice::default() };
        for entry in &block.body.entries {
            if !self.knows(entry, DEVICE) {
                continue;
            }
            match entry.key.as_str() {
                "description" => device.description = entry.as_str()?.to_owned(),
                "local" => {
                    entry.as_bool()?;
                }
                "options" => options(entry.as_object()?, &mut device.options)?,
                // Options without the word.
                _ => {
                    device.options.insert(entry.key.clone(), text(entry)?);
                }
            }
        }
        if !device.options.contains_key("file_path") && !device.options.contains_key("path") {
            return Err(missing(block, "file_path", "the path of the device's file, in \"options\""));
        }
        coffer_vault::check_device_options(&device.options)
            .map_err(|error| HclError::new(block.at, format!("audit device {name:?}: {error}")))?;
        Ok(device)
    }
}

fn options(body: &Body, into: &mut BTreeMap<String, String>) -> Read<()> {
    for entry in &body.entries {
        into.insert(entry.key.clone(), text(entry)?);
    }
    Ok(())
}

/// Options are texts; numbers and truth values are meant as such.
fn text(entry: &Entry) -> Read<String> {
    match &entry.value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string()),
        Value::Integer(value) => Ok(value.to_string()),
        _ => Err(wrong(entry, "a string")),
    }
}

/// Which identifiers are to be covered.
fn covered(entry: &Entry) -> Read<Covered> {
    let mut covered = Covered::default();
    for word in entry.as_strings()? {
        let field = match word {
            "accessors" => &mut covered.accessors,
            "addresses" => &mut covered.addresses,
            "names" => &mut covered.names,
            "paths" => &mut covered.paths,
            _ => return Err(wrong(entry, "a list of \"accessors\", \"addresses\", \"names\" and \"paths\"")),
        };
        *field = true;
    }
    Ok(covered)
}

fn bytes(entry: &Entry) -> Read<u64> {
    match u64::try_from(entry.as_int()?) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(wrong(entry, "a number of bytes greater than zero")),
    }
}
