//! The pen: whoever holds it is the only one who writes to the log, so it needs no lock.
//!
//! A batch of records goes out in one `write(2)`, all or nothing: what a failing disk took of it is cut off
//! again, so that the next record starts on a line of its own and continues the chain.

use std::io;
use std::sync::Arc;

use coffer_core::audit::Chain;

use super::disk::LogFile;
use super::settings::Durability;

/// Why a record is not in the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotWritten {
    /// More than a line may hold, or than a queue may.
    #[error("{0}")]
    Limit(&'static str),
    /// The disk's answer.
    #[error("{0}")]
    Disk(String),
    /// No answer in time, or the log is closed.
    #[error("the audit log does not answer")]
    Silent,
}

impl From<io::Error> for NotWritten {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.to_string())
    }
}

/// The end of the log.
pub(super) struct Pen {
    pub(super) file: Arc<dyn LogFile>,
    /// After the last whole record.
    pub(super) chain: Chain,
    /// Bytes of whole records in the file.
    pub(super) len: u64,
    /// Whether part of a failed batch may lie behind the whole records. Nothing is appended until it has been cut
    /// off: a record glued to it would break the chain for good.
    torn: bool,
    durability: Durability,
    scratch: Vec<u8>,
}

impl Pen {
    pub(super) fn new(file: Arc<dyn LogFile>, chain: Chain, len: u64, durability: Durability) -> Self {
        Self { file, chain, len, torn: false, durability, scratch: Vec::new() }
    }

    /// Writes records, all or none. When this gives back `Ok`, they are as durable as was asked for.
    pub(super) fn write<'r>(&mut self, records: impl Iterator<Item = &'r str>) -> Result<(), NotWritten> {
        if self.torn {
            self.file.cut(self.len)?;
            self.torn = false;
        }
        let mut next = self.chain;
        self.scratch.clear();
        for record in records {
            next.append_line(record, &mut self.scratch)
                .map_err(|_| NotWritten::Limit("an audit record does not fit into a line"))?;
        }
        let written = append_all(&*self.file, &self.scratch).and_then(|()| match self.durability {
            Durability::Process => Ok(()),
            // After a failed sync nobody knows what the disk has: it is cut off and comes again as new bytes.
            Durability::Disk => self.file.sync(),
        });
        if let Err(error) = written {
            // Nothing of it was acknowledged to anybody.
            self.torn = self.file.cut(self.len).is_err();
            return Err(error.into());
        }
        self.chain = next;
        self.len += self.scratch.len() as u64;
        Ok(())
    }
}

fn append_all(file: &dyn LogFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
