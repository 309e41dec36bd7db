//! The server and the command line, as the binary `coffer` runs them and as the crash test does.
//!
//! This crate reads configuration, puts the rooms together, listens, and talks to people. Every decision
//! about secrets is made in the rooms.

mod assemble;
mod cli;
mod clock;
mod config;
mod descriptors;
mod dev;
mod idle;
mod listen;
mod logs;
mod places;
mod prompt;
mod serve;
mod tls;

/// glibc's allocator takes a lock per arena and spends a good part of a small request in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Does what the process's arguments say.
pub fn run() -> std::process::ExitCode {
    cli::run()
}
