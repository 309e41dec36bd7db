//! The built binary as people and programs meet it: commands against running servers.

#![allow(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod audit_query;
mod bad_clients;
mod bad_disks;
mod bad_requests;
mod bad_stores;
mod bao;
mod bed;
mod cli;
mod common;
mod config;
mod connection;
mod guides;
mod login;
#[path = "../peer/openbao.rs"]
mod openbao;
mod policy;
mod proxies;
mod ready;
mod server;
#[path = "../../engines/tests/support/servers/mod.rs"]
#[allow(dead_code, reason = "shared with the tests of the database engine")]
mod servers;
mod verbs;
