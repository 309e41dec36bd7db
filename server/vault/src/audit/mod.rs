//! The audit pipeline: one log per server, chained by hash, and the rule that nothing goes out unrecorded.
//!
//! [`Audited`] is made here only. Records have no field for a secret, and nothing here reads bodies.

pub(crate) mod anchor;
mod cover;
pub(crate) mod device;
mod disk;
mod file;
mod flood;
#[cfg(test)]
mod fuzz;
mod log;
mod meters;
mod pen;
mod room;
mod settings;
mod tail;

pub use cover::Covered;
pub(crate) use cover::salt_of;
pub use device::{DeclaredDevice, check_device_name, check_device_options};
pub(crate) use log::AuditLog;
pub(crate) use meters::AuditMeters;
pub(crate) use pen::NotWritten;
pub use settings::{AuditSettings, Durability, OnFailure};
pub(crate) use tail::Filter;

use std::net::IpAddr;

use coffer_core::audit::AuditRecord;
use coffer_core::time::Timestamp;

use crate::error::Fail;
use crate::request::Reply;

/// A reply whose audit record is written. Only the audit pipeline makes one, and only this goes out.
#[derive(Debug)]
pub struct Audited<T>(T);

impl<T> Audited<T> {
    /// What may now be sent.
    pub fn into_inner(self) -> T {
        self.0
    }

    /// The same with something said on it that is no content.
    pub(crate) fn map(self, mark: impl FnOnce(T) -> T) -> Self {
        Self(mark(self.0))
    }

    /// A look at it.
    pub const fn get(&self) -> &T {
        &self.0
    }
}

/// How a request ended.
pub(crate) struct Concluded {
    /// What goes out.
    pub(crate) reply: Audited<Reply>,
    /// Whether the record was written. If not, the reply is a refusal, and what was issued is to be taken back.
    pub(crate) recorded: bool,
}

impl AuditLog {
    /// Writes the last record of a request and releases its reply; if it cannot be written, the reply is dropped
    /// and a refusal takes its place.
    pub(crate) async fn conclude(&self, record: &AuditRecord, reply: Reply) -> Concluded {
        concluded(self.write(record).await, reply)
    }

    /// For a request whose reply a device that must be told of it could not be told: it is dropped like one that could
    /// not be recorded.
    pub(crate) async fn conclude_untold(&self, record: AuditRecord) -> Concluded {
        let reply = Fail::Audit.reply();
        let error = Some("a required audit device could not be written".to_owned());
        let record = AuditRecord { status: Some(reply.status), error, ..record };
        let concluded = concluded(self.complete(&record).await, reply);
        Concluded { recorded: false, ..concluded }
    }

    /// Releases the refusal of a request that is counted instead of recorded.
    pub(crate) fn conclude_counted(&self, reply: Reply) -> Concluded {
        self.meters().suppressed.inc();
        Concluded { reply: Audited(reply), recorded: true }
    }

    /// Releases the refusal of somebody who showed no valid token: recorded, or counted if there are many.
    pub(crate) async fn conclude_refusal(
        &self,
        client: IpAddr,
        record: &AuditRecord,
        reply: Reply,
    ) -> Concluded {
        if self.admits(client, record.time) {
            self.conclude(record, reply).await
        } else {
            self.conclude_counted(reply)
        }
    }

    /// Whether the refusal of somebody who showed no valid token is to be recorded by itself. If not, it is counted.
    pub(crate) fn admits(&self, client: IpAddr, now: Timestamp) -> bool {
        self.flood.admits(client, now)
    }

    /// Records what was counted since the last time.
    pub(crate) async fn tell_counted(&self, now: Timestamp) -> Result<(), NotWritten> {
        let Some(record) = self.flood.summary(now) else { return Ok(()) };
        self.complete(&record).await.inspect_err(|_| self.flood.put_back(&record, now))
    }

    /// As [`AuditLog::conclude`], for a request whose intent is written.
    pub(crate) async fn conclude_announced(&self, record: &AuditRecord, reply: Reply) -> Concluded {
        concluded(self.complete(record).await, reply)
    }
}

fn concluded(result: Result<(), NotWritten>, reply: Reply) -> Concluded {
    match result {
        Ok(()) => Concluded { reply: Audited(reply), recorded: true },
        Err(_) => Concluded { reply: Audited(Fail::Audit.reply()), recorded: false },
    }
}
