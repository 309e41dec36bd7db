//! How much the log may still grow: by its quota, and by what the volume has.
//!
//! Requests stop before the last byte, so that what is under way can still be completed; the alarm is raised
//! before requests stop.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use super::disk::{Disk, Space};
use super::meters::{Alarm, AuditMeters};
use super::pen::{Draft, NotWritten};
use super::settings::AuditSettings;

/// How often the volume is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The reserve when nothing is said: at most this, and at most a twentieth of the volume.
const RESERVE_MAX: u64 = 64 << 20;
/// What a line has beyond its record.
const LINE: u64 = 192;

/// What is known of the room.
pub(super) struct Room {
    quota: u64,
    reserve: Option<u64>,
    /// Bytes of the files set aside.
    aside: u64,
    /// What the volume had when it was looked at, and how long the present file was then.
    seen: Option<(Space, u64)>,
    looked: Option<Instant>,
}

/// What one batch may use.
pub(super) struct Left {
    /// For requests.
    requests: u64,
    /// For the completions of what is under way.
    completions: u64,
}

impl Room {
    pub(super) fn new(settings: &AuditSettings, aside: u64) -> Self {
        Self {
            quota: settings.quota_bytes.unwrap_or(u64::MAX),
            reserve: settings.reserve_bytes,
            aside,
            seen: None,
            looked: None,
        }
    }

    /// Looks at the volume from time to time, and raises or ends the alarm.
    pub(super) fn look(&mut self, disk: &dyn Disk, dir: &Path, len: u64, now: Instant, meters: &AuditMeters) {
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return;
        }
        self.looked = Some(now);
        let space: io::Result<Space> = disk.space(dir);
        // A volume that does not tell is one that has room until it fails to take something.
        self.seen = space.ok().map(|space| (space, len));
        let used = self.aside + len;
        meters.bytes.set(i64::try_from(used).unwrap_or(i64::MAX));
        let quota_near = self.quota != u64::MAX && used >= self.quota / 10 * 8;
        let volume_near =
            self.seen.is_some_and(|(space, _)| space.free < self.reserve(space).saturating_mul(4));
        if meters.set(Alarm::Space, quota_near || volume_near) {
            if quota_near || volume_near {
                let free = self.seen.map(|(space, _)| space.free);
                tracing::error!(used, free, "audit log: the room for it is nearly used up");
            } else {
                tracing::info!("audit log: there is room again");
            }
        }
    }

    fn reserve(&self, space: Space) -> u64 {
        self.reserve.unwrap_or_else(|| RESERVE_MAX.min(space.total / 20))
    }

    /// What may still be written while the present file has `len` bytes.
    pub(super) fn left(&self, len: u64) -> Left {
        let used = self.aside + len;
        // A sixteenth of the quota is for completions.
        let by_quota = (self.quota / 16 * 15).saturating_sub(used);
        let by_volume = self.seen.map_or(u64::MAX, |(space, then)| {
            space.free.saturating_sub(self.reserve(space)).saturating_sub(len.saturating_sub(then))
        });
        Left { requests: by_quota.min(by_volume), completions: self.quota.saturating_sub(used) }
    }

    pub(super) fn set_aside(&mut self, len: u64) {
        self.aside += len;
        self.looked = None;
    }

    pub(super) fn deleted(&mut self, bytes: u64) {
        if bytes > 0 {
            self.aside = self.aside.saturating_sub(bytes);
            self.looked = None;
        }
    }
}

impl Left {
    /// Whether there is room for a record; it is used up then.
    pub(super) fn admit(&mut self, draft: &Draft) -> Result<(), NotWritten> {
        let bytes = draft.record.len() as u64 + LINE;
        let room = if draft.completes { self.completions } else { self.requests };
        if bytes > room {
            return Err(NotWritten::Limit("the audit log has no room left"));
        }
        self.requests = self.requests.saturating_sub(bytes);
        self.completions = self.completions.saturating_sub(bytes);
        Ok(())
    }
}
