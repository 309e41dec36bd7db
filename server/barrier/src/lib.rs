//! The only room that encrypts: envelope, keyring and seals over the storage port.
//!
//! Nothing above this room sees a ciphertext, nothing below it sees a plaintext. It never decides who may
//! read what, and never speaks HTTP.

pub mod barrier;
mod boot;
mod children;
mod directory;
mod envelope;
pub mod error;
#[cfg(test)]
mod fuzz;
mod init;
pub mod key;
mod keyring;
mod keys;
pub mod log;
pub mod read;
mod rekey;
mod rewrap;
mod rotate;
pub mod seal;
pub mod store;
mod stream;
pub mod writer;

pub use barrier::Barrier;
pub use boot::SealConfig;
pub use envelope::Key;
pub use error::BarrierError;
pub use key::{MountId, RecordKind, RowKey};
pub use log::{ChangeEntry, LogCursor, LogItem, Position, Tail};
pub use read::{Read, Reader};
pub use rekey::{NewKeys, NewMaster, Rekeyed};
pub use rewrap::{RewrapStatus, RewrapStep};
pub use rotate::KeyStatus;
pub use writer::{CommitInfo, Writer};
