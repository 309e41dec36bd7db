//! `coffer`: the server and the command line in one binary.
//!
//! This crate reads configuration, puts the rooms together, listens, and talks to people. Every decision
//! about secrets is made in the rooms.

mod assemble;
mod cli;
mod clock;
mod config;
mod dev;
mod listen;
mod logs;
mod prompt;
mod serve;
mod tls;

fn main() -> std::process::ExitCode {
    cli::run()
}
