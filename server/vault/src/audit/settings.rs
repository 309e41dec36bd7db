//! What an administrator may set about the audit log.

use std::time::Duration;

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

/// Everything about the built-in audit log but its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// What "written" means.
    pub durability: Durability,
    /// How long a record may be in the kernel only.
    pub flush: Duration,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { durability: Durability::default(), flush: Duration::from_millis(100) }
    }
}
