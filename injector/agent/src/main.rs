//! `coffer-agent run` keeps a pod's secrets; `coffer-agent ready` is the startup probe. Never prints a secret.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some("run"), None) => coffer_agent::run::run(),
        (Some("ready"), None) => coffer_agent::run::ready(),
        _ => coffer_agent::run::usage(),
    }
}
