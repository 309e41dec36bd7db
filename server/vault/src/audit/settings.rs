//! What an administrator may set about the audit log.

use std::time::Duration;

use super::Covered;

/// What "written" means before a request may have its effect or its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The kernel has the record: it survives any death of this process, and is on the disk within
    /// [`AuditSettings::flush`].
    #[default]
    Process,
    /// The disk has the record: it survives a power cut. Records that arrive together share one sync.
    Disk,
}

/// What happens to requests while the log's file cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// They fail, without an effect.
    #[default]
    Strict,
    /// Their records wait in memory, up to so many bytes, and are written in order once that is possible again. What
    /// waits is lost if the process dies. When the memory is full, requests fail.
    Degraded {
        /// The most bytes of records that wait.
        buffer_bytes: usize,
    },
}

/// Everything about the built-in audit log but its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// What "written" means.
    pub durability: Durability,
    /// What happens when the file cannot be written.
    pub on_failure: OnFailure,
    /// How long a record may be in the kernel only.
    pub flush: Duration,
    /// A file that has reached so many bytes is set aside, and a new one begun.
    pub rotate_bytes: u64,
    /// The most bytes of all files together; none for as much as the volume has.
    pub quota_bytes: Option<u64>,
    /// Bytes of the volume that requests leave free, for the completions of what is under way. None for a twentieth of
    /// the volume, at most 64 MiB.
    pub reserve_bytes: Option<u64>,
    /// After how long a file set aside is deleted; none for never.
    pub retain: Option<Duration>,
    /// Which identifiers stand in the log as HMACs.
    pub covered: Covered,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            on_failure: OnFailure::default(),
            flush: Duration::from_millis(100),
            rotate_bytes: 256 << 20,
            quota_bytes: None,
            reserve_bytes: None,
            retain: None,
            covered: Covered::default(),
        }
    }
}
