//! The only room that encrypts: envelope, keyring and seals over the storage port.
//!
//! Nothing above this room sees a ciphertext, nothing below it sees a plaintext. It never decides who may
//! read what, and never speaks HTTP.

pub mod store;
