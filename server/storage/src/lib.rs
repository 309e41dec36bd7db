//! Implementations of the storage port: in memory, embedded on one disk, and a wrapper that breaks things.
//!
//! Nothing here sees a plaintext or a key: rows arrive encrypted and leave as they came.

pub mod embedded;
pub mod faulty;
#[cfg(test)]
mod fuzz;
pub mod memory;
mod overlay;
