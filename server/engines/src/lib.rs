//! The secrets engines: key-value and database (PostgreSQL, MySQL, MariaDB).
//!
//! An engine sees one mount's rows through a [`ReadView`] or [`WriteView`] and nothing else. It never knows
//! tokens, policies, leases or other mounts, and never decides who may ask.

mod codec;
pub mod database;
mod engine;
mod error;
mod input;
pub mod kv;
mod passwords;
mod timing;
mod turns;
mod view;
pub mod webhook;

pub use database::DatabaseEngine;
pub use engine::{
    Due, Effect, Encoded, Engine, EngineReply, EngineRequest, Issue, Op, Reader, Sees, Touches,
};
pub use error::EngineError;
pub use kv::{KvEngine, PlainKvEngine};
pub use view::{PASSWORD_POLICY_DIR, ReadView, WriteView, password_policy_row};
